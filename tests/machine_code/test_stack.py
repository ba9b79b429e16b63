"""Besides the arena the core uses 16 KiB of stack at most (tinytee.h); in the other tests of this folder, and in those
of tests/emulated on AArch64, too."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulated.machine import OWN, STACK_BYTES, budget_of, lowered_for, program, runner, stack_bytes
from tinytee import zoo
from tinytee.importer import load
from tinytee.ir.graph import Graph
from tinytee.passes import optimize
from tinytee.runtime import library
from tinytee.zoo.quantized import quantized_network
from unit.plan.graphs import SLOW_IS_FINE, graphs
from unit.plan.quantized_graphs import quantized_graphs
from unit.plan.test_quantized_plans import inputs_of

ISAS = sorted({"portable", "avx2", library.best_isa()})


def check(graph: Graph, budget: int, folder: Path) -> None:
    path = folder / "program"
    path.write_bytes(program(lowered_for(OWN[1], graph, budget), inputs_of(graph, 1))[0])
    for isa in ISAS:
        done = subprocess.run([runner(OWN[1]), isa, path], capture_output=True, check=True)
        assert 0 < stack_bytes(done.stderr.decode()) <= STACK_BYTES, isa


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(graphs() | quantized_graphs(), st.floats(0, 1))
def test_random_networks(tmp_path_factory: pytest.TempPathFactory, graph: Graph, share: float) -> None:
    check(graph, budget_of(OWN[1], graph, share), tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("budget", [512 << 10, 4 << 20])
@pytest.mark.parametrize("name", ["squeezenet", "mobilenet_v3_small", "inception_v1", "densenet121"])
def test_networks(tmp_path: Path, name: str, budget: int) -> None:
    check(optimize(load(zoo.NETWORKS[name].build())), budget, tmp_path)


def test_integer_networks(tmp_path: Path) -> None:
    check(optimize(load(quantized_network("mobilenet_v1_025_128"))), 64 << 10, tmp_path)
