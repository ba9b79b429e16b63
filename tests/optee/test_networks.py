"""Networks inside OP-TEE, in the default heap: the answers are those of the process backend."""

from __future__ import annotations

import numpy as np
import pytest

import tinytee
from tinytee.plan import profile
from tinytee.runtime.optee_machine import Machine
from tinytee.zoo.quantized import quantized_network
from zoo.recurrent import voice_detector

from .conftest import KEY, Compile, feed_of

CASES = (
    ("lenet5", "300KiB", None),
    ("lenet5", "300KiB", "aes-256-gcm"),
    ("mobilenet_v1_025_128", "300KiB", None),
    ("mobilenet_v1_025_128", "300KiB", "aes-256-gcm"),
    ("mobilenet_v1_025_128", "1900KiB", None),
    ("tiny_darknet", "1900KiB", None),
    ("squeezenet", "1MiB", None),
    ("mobilenet_v2", "1900KiB", None),
    ("efficientnet_lite0", "1900KiB", None),
)

TOLERANCE = 1e-5
"""Of the output's range: another instruction set adds in another order."""


@pytest.mark.filterwarnings("ignore:OP-TEE in development mode")
@pytest.mark.parametrize(("name", "budget", "suite"), CASES)
def test_answers_as_in_a_process(
    machine: Machine, compile_network: Compile, name: str, budget: str, suite: str | None
) -> None:
    bundle = compile_network(name, budget, suite)
    with tinytee.Session(bundle, key=KEY) as here, tinytee.Session(bundle, key=KEY, backend="optee-qemu") as there:
        for seed in (0, 1):
            feed = feed_of(name, seed)
            expected, found = here.run(feed), there.run(feed)
            for output, values in expected.items():
                assert np.abs(values - found[output]).max() <= TOLERANCE * np.ptp(values)
        assert there.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes
        assert there.stats.runs == 2
        assert there.stats.spills == here.stats.spills
        assert there.stats.chunk_bytes == here.stats.chunk_bytes


@pytest.mark.filterwarnings("ignore:OP-TEE in development mode")
@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_025_128"])
def test_integer_networks_give_the_same_bits(machine: Machine, name: str) -> None:
    bundle = tinytee.compile(quantized_network(name), "300KiB", KEY, profile=profile.load("raspberry-pi-3"))
    feed = feed_of(name)
    with tinytee.Session(bundle, key=KEY) as here, tinytee.Session(bundle, key=KEY, backend="optee-qemu") as there:
        expected, found = here.run(feed), there.run(feed)
        for output, values in expected.items():
            assert np.array_equal(values, found[output])
        assert there.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes


def test_says_that_it_is_in_development_mode(machine: Machine, compile_network: Compile) -> None:
    bundle = compile_network("lenet5", "300KiB")
    with (
        pytest.warns(RuntimeWarning, match="development mode"),
        tinytee.Session(bundle, key=KEY, backend="optee-qemu") as session,
    ):
        session.run(feed_of("lenet5"))
    assert "DEVELOPMENT MODE" in machine.logs()["secure"]


@pytest.mark.filterwarnings("ignore:OP-TEE in development mode")
@pytest.mark.parametrize("budget", ["32KiB", "300KiB"])
def test_a_recurrence_whose_state_goes_back_in(machine: Machine, budget: str) -> None:
    """Weights opened once a step, and once a run."""
    bundle = tinytee.compile(voice_detector(6), budget, KEY, profile=profile.load("raspberry-pi-3"))
    rng, states = np.random.default_rng(0), {"h": np.zeros((1, 1, 64), "f4"), "c": np.zeros((1, 1, 64), "f4")}
    with tinytee.Session(bundle, key=KEY) as here, tinytee.Session(bundle, key=KEY, backend="optee-qemu") as there:
        for _ in range(2):
            feed = {"x": rng.standard_normal((6, 1, 40)).astype(np.float32), **states}
            expected, found = here.run(feed), there.run(feed)
            for output, values in expected.items():
                assert np.abs(values - found[output]).max() <= TOLERANCE * max(np.ptp(values), 1)
            states = {"h": found["h1"], "c": found["c1"]}
        assert there.stats.chunk_bytes == here.stats.chunk_bytes
