"""Device profiles: that what ``measure`` finds is what a machine is like, and what each instruction set starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tinytee.ir.graph import Conv, Graph
from tinytee.plan import profile
from tinytee.plan.api import make_plan
from tinytee.plan.measure import measure


@pytest.mark.parametrize(
    "name", ["x86-64-avx512", "x86-64-avx512-zen4", "x86-64-avx2", "sgx-avx512", "sgx-avx2", "raspberry-pi-3"]
)
def test_measuring_a_machine_that_is_as_predicted_finds_its_profile(name: str) -> None:
    machine = replace(profile.load(name), strassen_channels=0)

    def run(graph: Graph, suite: str, budget_bytes: int) -> tuple[float, float, int]:
        plan = make_plan(graph, budget_bytes, machine, suite=suite)
        streamed = sum(op.weight.nbytes for op in graph.ops if isinstance(op, Conv))
        return plan.predicted_seconds, streamed / machine.aead_bytes_per_second[suite], streamed

    found = measure(run, list(machine.aead_bytes_per_second), replace(machine, fma_seconds=1.0, dot_seconds=1.0))

    assert found.fma_seconds == pytest.approx(machine.fma_seconds, rel=0.1)
    assert found.dot_seconds == pytest.approx(machine.dot_seconds, rel=0.1)
    assert (found.lanes, found.tile_pixels, found.panels) == (machine.lanes, machine.tile_pixels, machine.panels)
    assert found.aead_bytes_per_second == pytest.approx(machine.aead_bytes_per_second)


def test_every_instruction_set_has_a_shipped_profile() -> None:
    lanes = {isa: profile.for_isa(isa).lanes for isa in ("avx512vnni", "avx512", "avx2", "neon", "neondot")}
    assert lanes == {"avx512vnni": 16, "avx512": 16, "avx2": 8, "neon": 4, "neondot": 4}


def test_processors_of_a_vendor_may_have_a_profile_of_their_own() -> None:
    assert profile.for_isa("avx512vnni", "AuthenticAMD").strassen_channels
    assert not profile.for_isa("avx512vnni", "GenuineIntel").strassen_channels
    assert profile.for_isa("avx2", "AuthenticAMD") == profile.for_isa("avx2")
