"""The kernels of other processors, cross-compiled and run by an emulator, give the reference's answers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee import zoo
from tinytee.bundle import TensorSpec
from tinytee.importer import load
from tinytee.ir.graph import Graph, Shape
from tinytee.ir.quantized import QConv
from tinytee.ir.reference import evaluate
from tinytee.passes import optimize
from tinytee.passes.code_weights import code_weights
from tinytee.plan import profile
from tinytee.plan.api import Planner, least_budget, lower
from tinytee.plan.entropy import Entropy
from tinytee.plan.quantized import products_in_16_bits
from tinytee.runtime.tensors import from_core, to_core
from unit.plan import test_strassen as strassen
from unit.plan.graphs import SLOW_IS_FINE, graphs
from unit.plan.quantized_graphs import fully_connected, quantized_graphs
from unit.plan.test_coded_weights import dense

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "aarch64"
PROFILE = profile.load("raspberry-pi-3")
EMULATED = {"neon": "cortex-a53", "neondot": "max"}


@pytest.fixture(scope="module")
def runner() -> Path:
    """run_program for AArch64; 'make test' installs compiler and emulator."""
    cmake = Path(sys.executable).parent / "cmake"
    target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
    target += ["-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DTINYTEE_RUNNER=ON"]
    subprocess.run([cmake, "-S", ROOT, "-B", BUILD, *target], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([cmake, "--build", BUILD, "-j2"], check=True, stdout=subprocess.DEVNULL)
    return BUILD / "run_program"


def run_emulated(
    runner: Path, isa: str, graph: Graph, budget: int, inputs: dict, folder: Path, entropy: Entropy = "auto"
) -> dict:
    """The outputs of a graph planned for a budget, as the emulated processor computes them."""
    planner = Planner(graph, PROFILE, None, budget, entropy)
    lowered = lower(graph, planner.plan(budget))
    chunks = [lowered.chunk(k) for k in range(len(lowered.chunk_bytes))]
    ins = [TensorSpec.of(port, shape) for port, shape in lowered.inputs]
    outs = [TensorSpec.of(port, shape) for port, shape in lowered.outputs]
    fed = [to_core(spec, inputs[spec.name], 0).tobytes() for spec in ins]
    counts = [len(lowered.program), len(chunks), len(fed), len(outs)]
    sizes = [*map(len, chunks), *map(len, fed), *(4 * spec.elems for spec in outs)]
    path = folder / f"program-{os.getpid()}"
    path.write_bytes(np.array(counts + sizes, "<u4").tobytes() + b"".join([lowered.program, *chunks, *fed]))
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", EMULATED.get(isa, "cortex-a53"), runner, isa, path], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    ends = np.cumsum([spec.elems for spec in outs])
    parts = np.split(np.frombuffer(done.stdout, "<f4"), ends[:-1])
    return {spec.name: from_core(spec, part.reshape(1, -1)) for spec, part in zip(outs, parts, strict=True)}


def check(runner: Path, graph: Graph, budget: int, seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    inputs = {port.name: rng.standard_normal(port.shape).astype(np.float32) for port in graph.inputs}
    found = run_emulated(runner, "neon", graph, budget, inputs, folder)
    for name, want in evaluate(graph, inputs).items():
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=2e-5 * scale)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(graphs(), st.floats(0, 1), st.integers(0, 1 << 30))
def test_neon_gives_the_reference_s_answer(
    runner: Path, tmp_path_factory: pytest.TempPathFactory, graph: Graph, share: float, seed: int
) -> None:
    low = max(8192, least_budget(graph, PROFILE))
    check(runner, graph, int(low * ((4 * low + (1 << 20)) / low) ** share), seed, tmp_path_factory.getbasetemp())


@settings(max_examples=80, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(quantized_graphs(), st.floats(0, 1), st.sampled_from(list(EMULATED)), st.integers(0, 1 << 30))
def test_integer_networks_give_the_reference_s_bits(
    runner: Path, tmp_path_factory: pytest.TempPathFactory, graph: Graph, share: float, isa: str, seed: int
) -> None:
    low = max(8192, least_budget(graph, PROFILE))
    budget = int(low * ((4 * low + (1 << 20)) / low) ** share)
    rng = np.random.default_rng(seed)
    inputs = {port.name: rng.standard_normal(port.shape).astype(np.float32) for port in graph.inputs}
    found = run_emulated(runner, isa, graph, budget, inputs, tmp_path_factory.getbasetemp())
    for name, want in evaluate(graph, inputs).items():
        np.testing.assert_array_equal(found[name], want)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (6, 29), (15, 14)])
def test_strassen_under_neon(
    runner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    strassen.everywhere(monkeypatch, 16)
    check(runner, strassen.network(height, width, 34, 48, residual=True), 1 << 20, height, tmp_path)


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_coded_weights_under_neon(runner: Path, tmp_path: Path, kind) -> None:
    graph, _ = code_weights(optimize(load(zoo.NETWORKS["mobilenet_v1_025_128"].build())), kind)
    check(runner, graph, least_budget(graph, PROFILE) * 2, 2, tmp_path)


@pytest.mark.parametrize("isa", ["portable", *EMULATED])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_entropy_coded_weights_to_the_bit(runner: Path, tmp_path: Path, kind: str, isa: str) -> None:
    """One input at a time is one: each output is one weight, as the codes say."""
    weight = np.random.default_rng(5).standard_normal((70, 1500)).astype(np.float32)
    weight[np.abs(weight) < 1] = 0
    graph = dense(weight, kind, 32)
    for probed in (0, 31, 1023, 1499):
        inputs = {"x": np.zeros((1, 1500), np.float32)}
        inputs["x"][0, probed] = 1
        found = run_emulated(runner, isa, graph, 256 << 10, inputs, tmp_path, "always")
        np.testing.assert_array_equal(found["y"][0], graph.ops[0].coding.decoded()[:, probed])  # type: ignore[attr-defined]


@pytest.mark.parametrize("isa", EMULATED)
@pytest.mark.parametrize("weight", [-128, -127, 127])
def test_the_largest_integer_sums_are_exact(runner: Path, tmp_path: Path, weight: int, isa: str) -> None:
    graph = fully_connected(1027, 40, weight)
    for value in (-100.0, 100.0):
        inputs = {"x": np.full((1, 1, 1027), value, np.float32)}
        found = run_emulated(runner, isa, graph, 1 << 20, inputs, tmp_path)
        np.testing.assert_array_equal(found["y"], evaluate(graph, inputs)["y"])


@pytest.mark.parametrize("channels", [8, 9, 16, 27, 40])
@pytest.mark.parametrize("sign", [-1, 1])
def test_lanes_at_their_bound_are_exact(runner: Path, tmp_path: Path, sign: int, channels: int) -> None:
    """Four magnitudes of 255 in every lane, all of one sign, and inputs at either end."""
    graph = fully_connected(1031, channels, sign)
    conv = graph.ops[1]
    assert isinstance(conv, QConv)
    weight = np.broadcast_to(np.array([64, 127, 63, 127, 64, 0, 64, 1], np.int8), (channels, 129, 8)) * sign
    weight = np.ascontiguousarray(weight.reshape(channels, 1, 1, -1)[..., :1031], np.int8)
    full = replace(graph, ops=(graph.ops[0], replace(conv, weight=weight), *graph.ops[2:]))
    assert products_in_16_bits(full.ops[1]) == 4  # type: ignore[arg-type]
    for value in (-100.0, 100.0):
        for budget in (max(8192, least_budget(full, PROFILE)), 1 << 20):
            inputs = {"x": np.full((1, 1, 1031), value, np.float32)}
            found = run_emulated(runner, "neon", full, budget, inputs, tmp_path)
            np.testing.assert_array_equal(found["y"], evaluate(full, inputs)["y"])


@pytest.mark.parametrize("depth", [8, 27, 512])
@pytest.mark.parametrize("most", [63, 127])
def test_full_integer_tiles(runner: Path, tmp_path: Path, most: int, depth: int) -> None:
    """Four pixels by 16 channels, two or four products in 16 bits, and what is left of a y-plane."""
    graph, rng = fully_connected(depth, 48, 1), np.random.default_rng(depth)
    weight = rng.integers(-most, most + 1, (48, 1, 1, depth)).astype(np.int8)
    ops = (graph.ops[0], replace(graph.ops[1], weight=weight), graph.ops[2])  # type: ignore[call-arg]
    shapes = {name: Shape(2, 11, shape.channels) for name, shape in graph.shapes.items()}
    ports = [replace(p, shape=(2, 11, p.shape[2])) for p in (*graph.inputs, *graph.outputs)]
    wide = replace(graph, ops=ops, shapes=shapes, inputs=(ports[0],), outputs=(ports[1],))
    assert products_in_16_bits(wide.ops[1]) == (4 if most == 63 else 2)  # type: ignore[arg-type]
    inputs = {"x": rng.standard_normal((2, 11, depth)).astype(np.float32)}
    found = run_emulated(runner, "neon", wide, 1 << 20, inputs, tmp_path)
    np.testing.assert_array_equal(found["y"], evaluate(wide, inputs)["y"])


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_025_128", "squeezenet"])
def test_networks_under_neon(runner: Path, tmp_path: Path, name: str) -> None:
    """Register tiles of every width, depthwise windows, Winograd's method, on a map of real size."""
    graph = optimize(load(zoo.NETWORKS[name].build()))
    check(runner, graph, 1 << 20, 1, tmp_path)
