"""Recurrent networks of the kinds that devices run, against ONNX Runtime from their least memory on."""

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
from unit.importer.support import model, node

RNG = np.random.default_rng(9)


def matrix(*shape: int) -> NDArray[np.float32]:
    """The same for the same shape."""
    return (np.random.default_rng(shape).standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def recurrent_weights(name: str, gates: int, hidden: int, features: int, directions: int = 1) -> dict[str, NDArray]:
    rows = gates * hidden
    return {
        f"{name}.w": matrix(directions, rows, features), f"{name}.r": matrix(directions, rows, hidden),
        f"{name}.b": matrix(directions, 2 * rows),
    }  # fmt: skip


def keyword_spotter() -> onnx.ModelProto:
    """A second of speech in ten coefficients to twelve scores: a convolution, two GRUs, their last state (in the manner
    of the CRNN of Zhang et al., "Hello Edge", arXiv 1711.07128)."""
    constants = {
        "conv.w": matrix(48, 1, 10, 4), "conv.b": matrix(48), "shape": np.array([1, 20, -1]), "last": np.array(-1),
        "fc.w": matrix(12, 60), **recurrent_weights("g0", 3, 60, 48 * 4), **recurrent_weights("g1", 3, 60, 60),
    }  # fmt: skip
    nodes = [
        node("Conv", "x conv.w conv.b", "conv", strides=[2, 2]),
        node("Relu", "conv", "relu"),
        node("Transpose", "relu", "by_time", perm=[0, 2, 1, 3]),
        node("Reshape", "by_time shape", "frames"),
        node("Transpose", "frames", "f", perm=[1, 0, 2]),
        node("GRU", "f g0.w g0.r g0.b", "h0 l0", hidden_size=60, linear_before_reset=1),
        node("Squeeze", "h0 one", "s0"),
        node("GRU", "s0 g1.w g1.r g1.b", "h1 l1", hidden_size=60, linear_before_reset=1),
        node("Squeeze", "l1 zero", "state"),
        node("Gemm", "state fc.w", "scores", transB=1),
        node("Softmax", "scores", "y", axis=1),
    ]
    constants |= {"one": np.array([1]), "zero": np.array([0])}
    return model(nodes, {"x": (1, 1, 49, 10)}, constants)


def activity_recognizer() -> onnx.ModelProto:
    """128 readings of nine sensors to six activities, by two LSTMs in both directions and a mean."""
    constants = {
        "order": np.array([0, 0, -1]), "fc.w": matrix(6, 64), "axes": np.array([0]),
        **recurrent_weights("l0", 4, 32, 9, 2), **recurrent_weights("l1", 4, 32, 64, 2),
    }  # fmt: skip
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2])]
    source = "t"
    for name in ("l0", "l1"):
        nodes += [
            node(
                "LSTM", f"{source} {name}.w {name}.r {name}.b", f"{name}.y", hidden_size=32, direction="bidirectional"
            ),
            node("Transpose", f"{name}.y", f"{name}.t", perm=[0, 2, 1, 3]),
            node("Reshape", f"{name}.t order", f"{name}.s"),
        ]
        source = f"{name}.s"
    nodes += [node("ReduceMean", f"{source} axes", "mean", keepdims=0), node("Gemm", "mean fc.w", "y", transB=1)]
    return model(nodes, {"x": (1, 128, 9)}, constants)


def voice_detector(steps: int) -> onnx.ModelProto:
    """An LSTM whose state comes in and goes out, so that a stream can be fed piece by piece."""
    constants = {"fc.w": matrix(64, 1), **recurrent_weights("l", 4, 64, 40)}
    nodes = [
        node("LSTM", "x l.w l.r l.b - h c", "hidden h1 c1", hidden_size=64),
        node("MatMul", "hidden fc.w", "logit"),
        node("Sigmoid", "logit", "y"),
    ]
    return model(nodes, {"x": (steps, 1, 40), "h": (1, 1, 64), "c": (1, 1, 64)}, constants, ["y", "h1", "c1"])


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
                assert error_of_range(array, expected[name]) < 1e-4


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
