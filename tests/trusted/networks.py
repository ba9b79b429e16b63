"""Networks in the trusted application: the answers are those of the process backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinytee
from tinytee.zoo.quantized import quantized_network
from trusted.support import KEY, Compile, check_close, feed_of
from unit.runtime.test_float_mode import check_zeros, numbers, scaled_model
from zoo.recurrent import voice_detector

pytestmark = pytest.mark.filterwarnings("ignore:.* in development mode")


def check_in_both(
    bundle: tinytee.Bundle, backend_name: str, feeds: list[dict[str, Any]], tolerance: float
) -> tinytee.SessionStats:
    """Runs a bundle here and there, and compares answers and what can be counted. Returns what was counted there."""
    with tinytee.Session(bundle, key=KEY) as here, tinytee.Session(bundle, key=KEY, backend=backend_name) as there:
        for feed in feeds:
            expected, found = here.run(feed), there.run(feed)
            assert expected.keys() == found.keys()
            for output, values in expected.items():
                check_close(found[output], values, tolerance)
        assert there.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes
        assert there.stats.runs == len(feeds)
        for count in ("chunk_bytes", "spills", "spill_bytes", "fetches"):
            assert getattr(there.stats, count) == getattr(here.stats, count), count
        return there.stats


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_025_128"])
def test_integer_networks_give_the_same_bits(backend_name: str, compile_model: Compile, name: str) -> None:
    bundle = compile_model(quantized_network(name), "300KiB")
    check_in_both(bundle, backend_name, [feed_of(name)], tolerance=0)


@pytest.mark.parametrize("budget", ["32KiB", "300KiB"])
def test_a_recurrence_whose_state_goes_back_in(
    backend_name: str, compile_model: Compile, tolerance: float, budget: str
) -> None:
    """Weights opened once a step, and once a run."""
    bundle = compile_model(voice_detector(6), budget)
    rng, states = np.random.default_rng(0), {"h": np.zeros((1, 1, 64), "f4"), "c": np.zeros((1, 1, 64), "f4")}
    with tinytee.Session(bundle, key=KEY) as here, tinytee.Session(bundle, key=KEY, backend=backend_name) as there:
        for _ in range(2):
            feed = {"x": rng.standard_normal((6, 1, 40)).astype(np.float32), **states}
            expected, found = here.run(feed), there.run(feed)
            for output, values in expected.items():
                assert np.abs(values - found[output]).max() <= tolerance * max(np.ptp(values), 1)
            states = {"h": found["h1"], "c": found["c1"]}
        assert there.stats.chunk_bytes == here.stats.chunk_bytes


def test_subnormal_numbers_are_zeros(backend_name: str, compile_model: Compile) -> None:
    with tinytee.Session(compile_model(scaled_model(), "300KiB"), key=KEY, backend=backend_name) as session:
        check_zeros(session.run({"x": numbers()}))
