"""Networks in enclaves: bit for bit as in a process."""

from __future__ import annotations

import pytest

from trusted.networks import *  # noqa: F403
from trusted.networks import check_in_both
from trusted.support import Compile, feed_of

SUITES = ("aes-256-gcm", "chacha20-poly1305")

CASES = (
    *(("lenet5", "300KiB", suite, False) for suite in SUITES),
    *(("mobilenet_v1_025_128", "140KiB", suite, True) for suite in SUITES),
    ("mobilenet_v1_025_128", "1900KiB", "aes-256-gcm", False),
    ("squeezenet", "1MiB", "aes-256-gcm", False),
)


@pytest.mark.parametrize(("name", "budget", "suite", "has_spills"), CASES)
def test_answers_as_in_a_process(
    backend_name: str, compile_network: Compile, name: str, budget: str, suite: str, has_spills: bool
) -> None:
    feeds = [feed_of(name, seed) for seed in (0, 1)]
    counted = check_in_both(compile_network(name, budget, suite), backend_name, feeds, tolerance=0)
    assert (counted.spills > 0) == has_spills
    assert (counted.arena_kind, counted.suite) == ("enclave", suite)
