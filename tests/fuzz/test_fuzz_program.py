"""Authenticated but malformed programs, under the sanitizers: refused, or run without a step out of bounds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee import zoo
from tinytee.importer import load
from tinytee.ir.graph import Graph
from tinytee.passes import optimize
from tinytee.passes.code_weights import code_weights
from tinytee.plan.api import least_budget, lower, make_plan
from tinytee.plan.entropy import Entropy
from tinytee.plan.lowered import Lowered
from tinytee.plan.weights import BY_WINOGRAD, TOGETHER, Method
from unit.importer.detector import detector
from unit.plan import test_pieces as pieces
from unit.plan import test_winograd as winograd
from unit.plan.graphs import SLOW_IS_FINE, graphs
from unit.plan.quantized_graphs import quantized_graphs
from unit.plan.test_pieces import TWO

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "sanitize"


def _cmake() -> str:
    """The environment's own, which a test run need not have on its path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("cmake", path=path)
    assert found, "cmake is not installed: pip install cmake"
    return found


@pytest.fixture(scope="module")
def fuzzer() -> Path:
    configure = [_cmake(), "-S", ROOT, "-B", BUILD, "-DTINYTEE_SANITIZE=ON"]
    subprocess.run([*configure, "-DTINYTEE_FUZZ=ON", "-DTINYTEE_EXAMPLES=OFF"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        ["cmake", "--build", BUILD, "--target", "fuzz_program", "-j2"], check=True, stdout=subprocess.DEVNULL
    )
    assert shutil.which(BUILD / "fuzz_program")
    return BUILD / "fuzz_program"


def fuzz(
    fuzzer: Path, graph: Graph, budget_bytes: int, folder: Path, iterations: int, seed: int, entropy: Entropy = "never"
) -> str:
    plan = make_plan(graph, budget_bytes, entropy=entropy)
    assert entropy == "never" or plan.entropy_coded
    lowered = lower(graph, plan)
    return fuzz_lowered(fuzzer, lowered, folder, iterations, seed, with_chunks=entropy != "never")


def fuzz_lowered(fuzzer: Path, lowered: Lowered, folder: Path, iterations: int, seed: int, *, with_chunks: bool) -> str:
    program, weights = folder / "program", folder / "weights"
    program.write_bytes(lowered.program)
    command = [fuzzer, program, str(iterations), str(seed)]
    if with_chunks or lowered.part_bytes:
        sizes = np.array([len(lowered.chunk_bytes), *lowered.chunk_bytes], "<u4")
        chunks = [lowered.chunk(number) for number in range(len(lowered.chunk_bytes))]
        weights.write_bytes(sizes.tobytes() + b"".join(chunks))
        command.append(weights)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_025_128"])
@pytest.mark.parametrize("weights", [None, "int4"])
def test_mutated_programs_of_networks(fuzzer: Path, tmp_path: Path, name: str, weights) -> None:
    graph = optimize(load(zoo.NETWORKS[name].build()))
    if weights:
        graph, _ = code_weights(graph, weights)
    said = fuzz(fuzzer, graph, 2 * least_budget(graph), tmp_path, iterations=400, seed=1)
    assert int(said.split()[0]) > 100, said


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_mutated_streams_of_networks(fuzzer: Path, tmp_path: Path, weights: str) -> None:
    """Programs whose weights are entropy-coded, and their weights."""
    graph, _ = code_weights(optimize(load(zoo.NETWORKS["mobilenet_v1_025_128"].build())), weights)
    for seed, budget in enumerate((2 * least_budget(graph), 8 << 20)):
        said = fuzz(fuzzer, graph, budget, tmp_path, iterations=120, seed=seed, entropy="always")
        assert int(said.split()[0]) > 50, said


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_025_128"])
def test_mutated_parts_of_programs(fuzzer: Path, tmp_path: Path, name: str) -> None:
    """Programs whose segments are fed one by one, at their least memory."""
    graph = optimize(load(zoo.NETWORKS[name].build()))
    lowered = lower(graph, make_plan(graph, least_budget(graph)))
    assert lowered.part_bytes
    said = fuzz_lowered(fuzzer, lowered, tmp_path, iterations=1000, seed=1, with_chunks=True)
    assert int(said.split()[0]) > 300, said


@pytest.mark.parametrize("method", BY_WINOGRAD)
def test_mutated_programs_by_winograd_s_method(
    fuzzer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    winograd.everywhere(monkeypatch, method)
    graph = winograd.network(5, 9, 6, 24, residual=True)
    assert any(node.method == method for node in make_plan(graph, 256 << 10).network.nodes)
    said = fuzz(fuzzer, graph, 256 << 10, tmp_path, iterations=3000, seed=1)
    assert int(said.split()[0]) > 750, said


@pytest.mark.parametrize("method", ["direct", *TOGETHER])
def test_mutated_programs_of_pieces(
    fuzzer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    """Weights that threads open as they use them."""
    winograd.everywhere(monkeypatch, method)
    graph = winograd.network(5, 5, 48, 96, residual=True)
    plan = make_plan(graph, 256 << 10, TWO)
    assert pieces.opened_as_used(plan)
    said = fuzz_lowered(fuzzer, lower(graph, plan), tmp_path, iterations=3000, seed=1, with_chunks=False)
    assert int(said.split()[0]) > 750, said


def test_mutated_programs_of_lists_of_places(fuzzer: Path, tmp_path: Path) -> None:
    """Maps of several scales whose pixels become y-planes of one list."""
    graph = optimize(load(detector()))
    said = fuzz(fuzzer, graph, 2 * least_budget(graph), tmp_path, iterations=3000, seed=1)
    assert int(said.split()[0]) > 750, said


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=SLOW_IS_FINE,
)
@given(graphs(), st.integers(0, 1 << 30))
def test_mutated_programs_of_random_networks(fuzzer: Path, tmp_path: Path, graph: Graph, seed: int) -> None:
    fuzz(fuzzer, graph, max(8192, least_budget(graph)), tmp_path, iterations=1500, seed=seed)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=SLOW_IS_FINE,
)
@given(quantized_graphs(), st.integers(0, 1 << 30))
def test_mutated_programs_of_random_integer_networks(fuzzer: Path, tmp_path: Path, graph: Graph, seed: int) -> None:
    fuzz(fuzzer, graph, max(8192, least_budget(graph)), tmp_path, iterations=1500, seed=seed)
