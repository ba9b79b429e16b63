"""The kernels of other processors give the reference's answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulated.machine import MACHINES, budget_of, run
from tinytee import zoo
from tinytee.importer import load
from tinytee.ir.graph import Activation, Graph, Shape
from tinytee.ir.quantized import QConv
from tinytee.ir.reference import evaluate
from tinytee.passes import optimize
from tinytee.passes.code_weights import code_weights
from tinytee.plan.api import least_budget
from tinytee.plan.quantized import products_in_16_bits
from tinytee.plan.weights import BY_WINOGRAD, Method
from unit.plan import test_choices as choices
from unit.plan import test_functions as functions
from unit.plan import test_strassen as strassen
from unit.plan import test_winograd as winograd
from unit.plan.graphs import SLOW_IS_FINE, graphs
from unit.plan.quantized_graphs import fully_connected, quantized_graphs
from unit.plan.test_coded_weights import dense
from unit.plan.test_quantized_plans import inputs_of

ON_FLOATS = ("neon", "avx512")
"""Of each processor one: they have the same kernels for float32."""


def check(isa: str, graph: Graph, budget: int, seed: int, folder: Path) -> None:
    inputs = inputs_of(graph, seed)
    found = run(MACHINES[isa], graph, budget, inputs, folder)
    for name, want in evaluate(graph, inputs).items():
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("isa", ON_FLOATS)
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(graphs(), st.floats(0, 1), st.integers(0, 1 << 30))
def test_networks_give_the_reference_s_answer(
    tmp_path_factory: pytest.TempPathFactory, isa: str, graph: Graph, share: float, seed: int
) -> None:
    check(isa, graph, budget_of(MACHINES[isa], graph, share), seed, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("isa", MACHINES)
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(quantized_graphs(), st.floats(0, 1), st.integers(0, 1 << 30))
def test_integer_networks_give_the_reference_s_bits(
    tmp_path_factory: pytest.TempPathFactory, isa: str, graph: Graph, share: float, seed: int
) -> None:
    inputs = inputs_of(graph, seed)
    found = run(MACHINES[isa], graph, budget_of(MACHINES[isa], graph, share), inputs, tmp_path_factory.getbasetemp())
    for name, want in evaluate(graph, inputs).items():
        np.testing.assert_array_equal(found[name], want)


@pytest.mark.parametrize("isa", ON_FLOATS)
@pytest.mark.parametrize("function", functions.FUNCTIONS, ids=lambda function: f"{function.kind}-{function.alpha}")
def test_functions_of_every_argument(tmp_path: Path, function: Activation, isa: str) -> None:
    x = functions.arguments()
    graph = functions.network(len(x), function)
    found = run(MACHINES[isa], graph, 1 << 20, {"x": x.reshape(1, -1, 1)}, tmp_path)
    functions.agrees(function, x, found["y"].reshape(-1))


@pytest.mark.parametrize(("isa", "kernels"), [("neon", "neon"), ("neon", "portable"), ("avx512", "avx512")])
def test_comparisons_and_selections(tmp_path: Path, isa: str, kernels: str) -> None:
    choices.agrees(run(MACHINES[isa], choices.network(), 1 << 20, choices.feeds(), tmp_path, isa=kernels))


@pytest.mark.parametrize("isa", ON_FLOATS)
@pytest.mark.parametrize("panel", [8, 16, 32])
@pytest.mark.parametrize("method", BY_WINOGRAD)
def test_winograd_s_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, panel: int, isa: str
) -> None:
    winograd.everywhere(monkeypatch, method, panel)
    check(isa, winograd.network(9, 14, 35, 72, residual=True), 1 << 20, panel, tmp_path)


@pytest.mark.parametrize("isa", ON_FLOATS)
@pytest.mark.parametrize(("height", "width"), [(7, 7), (6, 29), (15, 14), (15, 15)])
def test_strassen_s_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int, isa: str) -> None:
    strassen.everywhere(monkeypatch, 16)
    check(isa, strassen.network(height, width, 34, 48, residual=True), 1 << 20, height, tmp_path)


@pytest.mark.parametrize("isa", ON_FLOATS)
@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_coded_weights(tmp_path: Path, kind, isa: str) -> None:
    graph, _ = code_weights(optimize(load(zoo.NETWORKS["mobilenet_v1_025_128"].build())), kind)
    check(isa, graph, least_budget(graph, MACHINES[isa].profile) * 2, 2, tmp_path)


@pytest.mark.parametrize(("isa", "kernels"), [*((isa, isa) for isa in MACHINES), ("neon", "portable")])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_entropy_coded_weights_to_the_bit(tmp_path: Path, kind: str, isa: str, kernels: str) -> None:
    """One input at a time is one: each output is one weight, as the codes say."""
    weight = np.random.default_rng(5).standard_normal((70, 1500)).astype(np.float32)
    weight[np.abs(weight) < 1] = 0
    graph = dense(weight, kind, 32)
    for probed in (0, 31, 1023, 1499):
        inputs = {"x": np.zeros((1, 1500), np.float32)}
        inputs["x"][0, probed] = 1
        found = run(MACHINES[isa], graph, 256 << 10, inputs, tmp_path, "always", kernels)
        np.testing.assert_array_equal(found["y"][0], graph.ops[0].coding.decoded()[:, probed])  # type: ignore[attr-defined]


@pytest.mark.parametrize("isa", MACHINES)
@pytest.mark.parametrize("weight", [-128, -127, 127])
def test_the_largest_integer_sums_are_exact(tmp_path: Path, weight: int, isa: str) -> None:
    graph = fully_connected(1027, 40, weight)
    for value in (-100.0, 100.0):
        inputs = {"x": np.full((1, 1, 1027), value, np.float32)}
        found = run(MACHINES[isa], graph, 1 << 20, inputs, tmp_path)
        np.testing.assert_array_equal(found["y"], evaluate(graph, inputs)["y"])


@pytest.mark.parametrize("isa", MACHINES)
@pytest.mark.parametrize("channels", [8, 9, 16, 27, 40])
@pytest.mark.parametrize("sign", [-1, 1])
def test_lanes_at_their_bound_are_exact(tmp_path: Path, sign: int, channels: int, isa: str) -> None:
    """Four magnitudes of 255 in every lane, all of one sign, and inputs at either end."""
    graph = fully_connected(1031, channels, sign)
    conv = graph.ops[1]
    assert isinstance(conv, QConv)
    weight = np.broadcast_to(np.array([64, 127, 63, 127, 64, 0, 64, 1], np.int8), (channels, 129, 8)) * sign
    weight = np.ascontiguousarray(weight.reshape(channels, 1, 1, -1)[..., :1031], np.int8)
    full = replace(graph, ops=(graph.ops[0], replace(conv, weight=weight), *graph.ops[2:]))
    assert products_in_16_bits(full.ops[1]) == 4  # type: ignore[arg-type]
    for value in (-100.0, 100.0):
        for budget in (budget_of(MACHINES[isa], full, 0), 1 << 20):
            inputs = {"x": np.full((1, 1, 1031), value, np.float32)}
            found = run(MACHINES[isa], full, budget, inputs, tmp_path)
            np.testing.assert_array_equal(found["y"], evaluate(full, inputs)["y"])


@pytest.mark.parametrize("isa", MACHINES)
@pytest.mark.parametrize("depth", [8, 27, 512])
@pytest.mark.parametrize("most", [63, 127])
def test_full_integer_tiles(tmp_path: Path, most: int, depth: int, isa: str) -> None:
    """Four pixels by 16 channels, two or four products in 16 bits, and what is left of a y-plane."""
    graph, rng = fully_connected(depth, 48, 1), np.random.default_rng(depth)
    weight = rng.integers(-most, most + 1, (48, 1, 1, depth)).astype(np.int8)
    ops = (graph.ops[0], replace(graph.ops[1], weight=weight), graph.ops[2])  # type: ignore[call-arg]
    shapes = {name: Shape(2, 11, shape.channels) for name, shape in graph.shapes.items()}
    ports = [replace(p, shape=(2, 11, p.shape[2])) for p in (*graph.inputs, *graph.outputs)]
    wide = replace(graph, ops=ops, shapes=shapes, inputs=(ports[0],), outputs=(ports[1],))
    assert products_in_16_bits(wide.ops[1]) == (4 if most == 63 else 2)  # type: ignore[arg-type]
    inputs = {"x": rng.standard_normal((2, 11, depth)).astype(np.float32)}
    found = run(MACHINES[isa], wide, 1 << 20, inputs, tmp_path)
    np.testing.assert_array_equal(found["y"], evaluate(wide, inputs)["y"])


@pytest.mark.parametrize("isa", ON_FLOATS)
@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1_025_128", "squeezenet"])
def test_networks_of_real_size(tmp_path: Path, name: str, isa: str) -> None:
    """Register tiles of every width, depthwise windows, Winograd's method, on a map of real size."""
    graph = optimize(load(zoo.NETWORKS[name].build()))
    check(isa, graph, 1 << 20, 1, tmp_path)
