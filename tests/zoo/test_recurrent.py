"""Recurrent networks against ONNX Runtime, from their least memory on."""

from __future__ import annotations

import secrets

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import tinytee
from tinytee.api import load_graph
from tinytee.plan.api import least_budget
from tinytee.zoo import KIB
from tinytee.zoo.rival import error_of_range
from zoo.recurrent import activity_recognizer, keyword_spotter, voice_detector

RNG = np.random.default_rng(9)


def run(proto: onnx.ModelProto, budget: int, feeds: list[dict[str, NDArray]]) -> list[dict[str, NDArray]]:
    key = secrets.token_bytes(32)
    bundle = tinytee.compile(proto, budget, key)
    with tinytee.Session(bundle, key=key) as session:
        found = [session.run(feed) for feed in feeds]
        assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes <= budget
    return found


@pytest.mark.parametrize(
    ("make", "most_bytes"),
    [(keyword_spotter, 32 * KIB), (activity_recognizer, 80 * KIB), (lambda: voice_detector(100), 48 * KIB)],
    ids=["keywords", "activities", "voice"],
)
def test_from_the_least_memory_on(make, most_bytes: int) -> None:
    proto = make()
    reference = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = [
        {port.name: RNG.standard_normal(port.shape).astype(np.float32) for port in reference.get_inputs()}
        for _ in range(2)
    ]
    least = least_budget(load_graph(proto))
    assert least <= most_bytes
    for budget in (least, 2 * least, 512 * KIB, 2048 * KIB):
        for feed, found in zip(feeds, run(proto, budget, feeds), strict=True):
            expected = dict(zip(found, reference.run(list(found), feed), strict=True))
            for name, array in found.items():
                assert error_of_range(array, np.asarray(expected[name])) < 1e-4


def test_a_stream_in_pieces_is_the_stream() -> None:
    x, state = RNG.standard_normal((24, 1, 40)).astype(np.float32), np.zeros((1, 1, 64), np.float32)
    whole = run(voice_detector(24), 256 * KIB, [{"x": x, "h": state, "c": state}])[0]
    key = secrets.token_bytes(32)
    with tinytee.Session(tinytee.compile(voice_detector(8), 256 * KIB, key), key=key) as session:
        feed, pieces = {"h": state, "c": state}, []
        for piece in np.split(x, 3):
            found = session.run({"x": piece, **feed})
            pieces.append(found["y"])
            feed = {"h": found["h1"], "c": found["c1"]}
    np.testing.assert_allclose(np.concatenate(pieces), whole["y"], atol=1e-6)
    np.testing.assert_allclose(feed["c"], whole["c1"], atol=1e-6)
