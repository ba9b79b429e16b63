"""Networks inside OP-TEE, in the default heap."""

from __future__ import annotations

import pytest

import tinytee
from tinytee.runtime.optee_machine import Machine
from trusted.networks import *  # noqa: F403
from trusted.networks import check_in_both
from trusted.support import KEY, Compile, feed_of

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


@pytest.mark.parametrize(("name", "budget", "suite"), CASES)
def test_answers_as_in_a_process(
    backend_name: str, compile_network: Compile, tolerance: float, name: str, budget: str, suite: str | None
) -> None:
    feeds = [feed_of(name, seed) for seed in (0, 1)]
    check_in_both(compile_network(name, budget, suite), backend_name, feeds, tolerance)


def test_says_that_it_is_in_development_mode(machine: Machine, compile_network: Compile) -> None:
    bundle = compile_network("lenet5", "300KiB")
    with (
        pytest.warns(RuntimeWarning, match="development mode"),
        tinytee.Session(bundle, key=KEY, backend="optee-qemu") as session,
    ):
        session.run(feed_of("lenet5"))
    assert "DEVELOPMENT MODE" in machine.logs()["secure"]
