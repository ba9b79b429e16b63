"""In what the compiler made of the core, no branch and no address depends on a weight, on an input or on anything that
is computed from them. Of x86-64's kernels memcheck follows every bit, of AArch64's the traces of some secrets are
compared; those of AVX-512, which neither tool knows, are searched for instructions that could do it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from emulated.machine import MACHINES, OWN, ROOT, Machine, budget_of, lowered_for, program
from machine_code.memcheck import check
from machine_code.traces import differences
from tinytee import zoo
from tinytee.importer import load
from tinytee.ir.graph import Graph
from tinytee.passes import optimize
from tinytee.passes.code_weights import code_weights
from tinytee.plan.api import least_budget
from tinytee.plan.weights import BY_WINOGRAD, Method
from unit.plan import test_choices as choices
from unit.plan import test_functions as functions
from unit.plan import test_strassen as strassen
from unit.plan import test_winograd as winograd
from unit.plan.graphs import SLOW_IS_FINE, graphs
from unit.plan.quantized_graphs import quantized_graphs
from unit.plan.test_coded_weights import dense
from unit.plan.test_quantized_plans import inputs_of

ARM = MACHINES["neon"]
WITH_FLOATS = (*OWN, ARM, replace(ARM, isa="portable"))
WITH_INTEGERS = (*WITH_FLOATS, MACHINES["neondot"])
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


def name(machine: Machine) -> str:
    return f"{machine.planned_for}-{machine.isa}"


floats = pytest.mark.parametrize("machine", WITH_FLOATS, ids=name)
integers = pytest.mark.parametrize("machine", WITH_INTEGERS, ids=name)


def holds(machine: Machine, contents: Sequence[bytes], folder: Path) -> None:
    """contents: a program, or several that differ in their secrets."""
    if machine.prefix:
        assert not differences(machine, contents, folder)
        return
    found = check(machine, contents[0], folder)
    assert not found.complaints
    assert found.secret_bytes


def holds_for(machine: Machine, graph: Graph, budget: int, folder: Path) -> None:
    holds(machine, [program(lowered_for(machine, graph, budget), inputs_of(graph, 1))[0]], folder)


@floats
@settings(max_examples=12, deadline=None, phases=WITHOUT_SHRINKING, suppress_health_check=SLOW_IS_FINE)
@given(graphs(), st.floats(0, 1))
def test_networks(tmp_path_factory: pytest.TempPathFactory, machine: Machine, graph: Graph, share: float) -> None:
    holds_for(machine, graph, budget_of(machine, graph, share), tmp_path_factory.getbasetemp())


@integers
@settings(max_examples=12, deadline=None, phases=WITHOUT_SHRINKING, suppress_health_check=SLOW_IS_FINE)
@given(quantized_graphs(), st.floats(0, 1))
def test_integer_networks(
    tmp_path_factory: pytest.TempPathFactory, machine: Machine, graph: Graph, share: float
) -> None:
    holds_for(machine, graph, budget_of(machine, graph, share), tmp_path_factory.getbasetemp())


@floats
def test_functions(tmp_path: Path, machine: Machine) -> None:
    holds_for(machine, functions.network(37, *functions.FUNCTIONS), 1 << 20, tmp_path)


@floats
def test_comparisons_and_selections(tmp_path: Path, machine: Machine) -> None:
    holds_for(machine, choices.network(), 1 << 20, tmp_path)


@floats
@pytest.mark.parametrize("method", BY_WINOGRAD)
def test_winograd_s_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, machine: Machine) -> None:
    winograd.everywhere(monkeypatch, method, 16)
    holds_for(machine, winograd.network(9, 14, 35, 40, residual=True), 1 << 20, tmp_path)


@floats
def test_strassen_s_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    strassen.everywhere(monkeypatch, 16)
    holds_for(machine, strassen.network(7, 9, 34, 48, residual=True), 1 << 20, tmp_path)


@floats
@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_coded_weights(tmp_path: Path, kind, machine: Machine) -> None:
    graph, _ = code_weights(optimize(load(zoo.NETWORKS["mobilenet_v1_025_128"].build())), kind)
    holds_for(machine, graph, least_budget(graph, machine.profile) * 2, tmp_path)


@floats
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_entropy_coded_weights(tmp_path: Path, kind: str, machine: Machine) -> None:
    """Weights in another order that, coded, take as many words at the same rate: all that a program says of them."""
    alike: dict[bytes, list[bytes]] = {}
    for seed in range(200):
        weight = np.random.default_rng(5).standard_normal(8 * 256).astype(np.float32)
        weight[np.abs(weight) < 1] = 0
        graph = dense(np.random.default_rng(seed).permuted(weight).reshape(8, 256), kind, 32)
        lowered = lowered_for(machine, graph, 64 << 10, "always")
        found = alike.setdefault(lowered.program + bytes(str(lowered.chunk_bytes), "ascii"), [])
        found.append(program(lowered, {"x": np.ones((1, 256), np.float32)})[0])
        if len(found) == 2:
            holds(machine, found, tmp_path)
            return
    pytest.fail("no two orders of weights take as many words")


def test_a_branch_and_an_address_are_found(tmp_path: Path) -> None:
    """By either tool, where run_program does just that."""
    graph = functions.network(37, functions.FUNCTIONS[0])
    for leak, said in (("branch", "Conditional jump"), ("address", "Use of uninitialised value")):
        content, _ = program(lowered_for(OWN[0], graph, 1 << 20), inputs_of(graph, 1))
        (complaint,) = check(OWN[0], content, tmp_path, leak).complaints
        assert complaint.startswith(said)
        content, _ = program(lowered_for(ARM, graph, 1 << 20), inputs_of(graph, 1))
        found = differences(ARM, [content], tmp_path, leak)
        assert found
        assert all(line.startswith("run:") for line in found)


TO_FLAGS = re.compile(r"v?u?comis[sd]|v?ptest|vtestp[sd]|k(?:or)?test[bwdq]|v?p?movmsk\w+|vp?(?:gather|scatter)\w+")
"""x86's instructions that turn elements of vectors into flags, into bits of a register, or into addresses."""


def instructions(isa: str) -> Counter[tuple[str, str]]:
    """How many of these each function has in the library's objects of an instruction set."""
    found: Counter[tuple[str, str]] = Counter()
    for built in (ROOT / "build" / "CMakeFiles" / f"tinytee_kernels_{isa}.dir").rglob("*.c.o"):
        command = ["objdump", "--disassemble", "--no-show-raw-insn", str(built)]
        told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        function = ""
        for line in told.splitlines():
            if line.endswith(">:"):
                function = line.split("<")[1][:-2]
            elif (fields := line.split("\t"))[1:] and TO_FLAGS.fullmatch(mnemonic := fields[1].split()[0]):
                found[function, mnemonic] += 1
    return found


def test_avx512_turns_no_more_into_flags_than_avx2_does() -> None:
    """What AVX2's kernels compare so are constants of operators, or memcheck would have complained."""
    compared = instructions("avx2")
    assert ("lrn", "vucomiss") in compared
    assert instructions("avx512") == compared
    assert not instructions("avx512vnni")
