"""Convolutions by Winograd's method: y-planes alone, in groups and all together; blocks of panels; threads."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tinytee.api import compile_graph
from tinytee.ir.graph import Activation, Conv, Graph, Op, Pool, Port, Shape, Unary
from tinytee.ir.reference import evaluate
from tinytee.plan import api, profile, segments
from tinytee.plan.cost import WinogradReading, winograd_reading, winograd_seconds
from tinytee.plan.network import Way, choose_ways
from tinytee.plan.weights import ALONG_X, IN_PAIRS, Method, can_be_winograd
from tinytee.runtime.session import Session
from unit.plan.test_plans import ISAS

KEY = bytes(range(32))


def network(
    height: int,
    width: int,
    depth: int,
    channels: int,
    *,
    kernel_y: int = 3,
    pads: tuple[int, int] | None = None,
    residual: bool = False,
) -> Graph:
    """One convolution of stride 1 and, where it has a residual, a second one to which the first is added.

    pads: above and below; None: as many as keep the height.
    """
    rng = np.random.default_rng([height, width, depth, channels])
    top, bottom = pads or ((kernel_y - 1) // 2, kernel_y // 2)
    out = Shape(height + top + bottom - kernel_y + 1, width, channels)

    def conv(name: str, inputs: tuple[str, ...], activation: Activation) -> Conv:
        weight = rng.standard_normal((channels, kernel_y, 3, depth)) / np.sqrt(3 * kernel_y * depth)
        bias = rng.standard_normal(channels).astype(np.float32)
        return Conv(
            name=name, inputs=inputs, output=name, weight=weight.astype(np.float32), bias=bias,
            pads=(top, 1, bottom, 1), activation=activation,
        )  # fmt: skip

    ops: list[Op] = [Unary(name="a", inputs=("x",), output="a", activation=Activation("relu"))]
    shapes = {"x": Shape(height, width, depth), "a": Shape(height, width, depth), "b": out}
    ops.append(conv("b", ("a",), Activation("tanh")))
    if residual:
        ops.append(conv("c", ("a", "b"), Activation("hard_swish")))
        shapes["c"] = out
    given = Port("x", "x", (height, width, depth), "float32", (0, 1, 2), False)
    taken = Port("y", ops[-1].output, (out.height, width, channels), "float32", (0, 1, 2), False)
    return Graph((given,), (taken,), shapes, tuple(ops))


def everywhere(monkeypatch: pytest.MonkeyPatch, method: Method, panel: int = 16) -> None:
    """Convolutions run by this method, wherever they can."""

    def ways(graph: Graph, *_: object) -> dict[str, Way]:
        convs = [op for op in graph.ops if isinstance(op, Conv)]
        return {op.output: Way(method, panel) for op in convs if can_be_winograd(op, method)}

    monkeypatch.setattr(api, "choose_ways", ways)
    monkeypatch.setattr(api, "METHOD_BYTES", (1,))


def answers(
    monkeypatch: pytest.MonkeyPatch,
    graph: Graph,
    budget_bytes: int,
    isa: str | None,
    methods: tuple[Method, ...] = ALONG_X,
    threads: tuple[int, ...] = (1,),
) -> list[NDArray[np.float32]]:
    """By these methods, on so many threads, twice each: near the reference's."""
    sample = {"x": np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)}
    want = evaluate(graph, sample)["y"]
    found = []
    for method in methods:
        everywhere(monkeypatch, method)
        bundle = compile_graph(graph, budget_bytes, KEY, threads=max(threads))
        assert any(node.method == method for node in bundle.plan.network.nodes)
        for count in threads:
            with Session(bundle, key=KEY, isa=isa, threads=count) as session:
                found += [session.run(sample)["y"] for _ in range(2)]
                assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes
    np.testing.assert_allclose(found[0], want, rtol=0, atol=2e-5 * float(np.abs(want).max()))
    return found


def assert_all_equal(found: list[NDArray[np.float32]]) -> None:
    assert all(np.array_equal(answer, found[0]) for answer in found)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel_y", [1, 2, 3, 7, 16])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (7, 7), (14, 14), (23, 20), (5, 70)])
def test_sums_have_one_order_however_many_y_planes_are_computed_together(
    monkeypatch: pytest.MonkeyPatch, isa: str | None, kernel_y: int, height: int, width: int
) -> None:
    graph = network(height, width, 19, 40, kernel_y=kernel_y, residual=True)
    assert_all_equal(answers(monkeypatch, graph, 8 << 20, isa))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 9), (3, 4), (7, 7), (14, 14), (23, 20), (5, 70), (16, 57)])
@pytest.mark.parametrize("pads", [(0, 0), (1, 1), (2, 0), (0, 2), (2, 2)])
def test_pairs_of_y_planes_are_computed_likewise_together_or_not(
    monkeypatch: pytest.MonkeyPatch, isa: str | None, height: int, width: int, pads: tuple[int, int]
) -> None:
    """To the bit where a map is computed in one step: where pairs begin is not the same else."""
    if height + sum(pads) < 3:
        return
    monkeypatch.setattr(segments, "step_counts", lambda height: [1])
    graph = network(height, width, 19, 40, pads=pads, residual=sum(pads) == 2)
    assert_all_equal(answers(monkeypatch, graph, 8 << 20, isa, IN_PAIRS))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("side", [7, 10])
@pytest.mark.parametrize("methods", [ALONG_X, IN_PAIRS])
@pytest.mark.parametrize("budget", [680 << 10, 1 << 20])
def test_blocks_of_panels_share_the_transformed_input(
    monkeypatch: pytest.MonkeyPatch, isa: str | None, side: int, methods: tuple[Method, ...], budget: int
) -> None:
    """Weights of 2 MiB each are fed in blocks."""
    graph = network(side, side, 96, 320, residual=True)
    assert_all_equal(answers(monkeypatch, graph, budget, isa, methods))


@pytest.mark.parametrize("isa", ["portable", None])
@pytest.mark.parametrize("channels", [16, 48, 160])
@pytest.mark.parametrize("methods", [ALONG_X, IN_PAIRS])
def test_threads_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, isa: str | None, channels: int, methods: tuple[Method, ...]
) -> None:
    """They share panels or, of few, y-planes."""
    graph = network(14, 14, 64, channels, residual=True)
    assert_all_equal(answers(monkeypatch, graph, 2 << 20, isa, methods, (1, 2, 3, 5)))


@pytest.mark.parametrize("isa", ["portable", None])
@pytest.mark.parametrize(("height", "width"), [(4, 57), (10, 57), (13, 20), (28, 28)])
@pytest.mark.parametrize("method", ["winograd", "winograd_pairs"])
def test_threads_share_y_planes_and_tiles_and_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, isa: str | None, height: int, width: int, method: Method
) -> None:
    """Whole pairs, and the tiles of what is left where that does not divide evenly. In one step: see above."""
    monkeypatch.setattr(segments, "step_counts", lambda height: [1])
    graph = network(height, width, 24, 48, residual=True)
    assert_all_equal(answers(monkeypatch, graph, 4 << 20, isa, (method,), (1, 2, 3)))


def test_input_that_few_panels_share_is_transformed_again_for_the_others() -> None:
    reading = WinogradReading(seconds=1.0, panels=3)
    assert [reading.passes(8, block) for block in (1, 2, 3, 4, 8)] == [8, 4, 3, 4, 3]
    assert WinogradReading(seconds=1.0, panels=0).passes(8, 1) == 1


def test_blocks_of_one_panel_transform_the_input_for_each() -> None:
    """As streamed panels do, for which there is place for one at a time; those that stay do not."""
    graph, device = network(28, 28, 256, 256), profile.load()
    op, out = graph.ops[-1], graph.shapes["b"]
    assert isinstance(op, Conv)
    reading = winograd_reading(op, out, device, 32, "winograd_pairs")
    whole = winograd_seconds(op, out, device, 32, "winograd_pairs")
    fed = winograd_seconds(op, out, device, 32, "winograd_pairs", 1)
    assert reading.passes(8, 8) < 8
    assert fed - whole == pytest.approx((8 - reading.passes(8, 8)) * reading.seconds)


def test_a_plan_mixes_what_its_variants_do_fastest() -> None:
    rng = np.random.default_rng(0)
    ops: list[Op] = []
    shapes = {"x": Shape(56, 56, 64)}
    source = "x"
    for side, depth, channels in ((56, 64, 64), (28, 64, 128), (14, 128, 512)):
        if side < 56:
            ops.append(
                Pool(name=f"p{side}", inputs=(source,), output=f"p{side}", kernel=(2, 2), strides=(2, 2), kind="max")
            )
            shapes[f"p{side}"], source = Shape(side, side, depth), f"p{side}"
        weight = rng.standard_normal((channels, 3, 3, depth)).astype(np.float32)
        bias = np.zeros(channels, np.float32)
        ops.append(
            Conv(name=f"c{side}", inputs=(source,), output=f"c{side}", weight=weight, bias=bias, pads=(1, 1, 1, 1))
        )
        shapes[f"c{side}"], source = Shape(side, side, channels), f"c{side}"
    given = Port("x", "x", (56, 56, 64), "float32", (0, 1, 2), False)
    taken = Port("y", source, (14, 14, 512), "float32", (0, 1, 2), False)
    graph, budget = Graph((given,), (taken,), shapes, tuple(ops)), 5 << 18
    planner = api.Planner(graph, profile.load(), None, budget)
    plan = planner.plan(budget)
    alone = [best.seconds for least, v in planner._variants if least <= budget and (best := v.best(budget))]
    assert plan.predicted_seconds < min(alone)
    methods = {node.op.name: node.method for node in plan.network.nodes if node.op and node.depth}
    assert methods not in [
        {node.op.name: node.method for node in v.network.nodes if node.op and node.depth} for _, v in planner._variants
    ]


def test_y_planes_are_computed_together_where_there_is_place() -> None:
    def ways(graph: Graph, most_bytes: int) -> dict[str, Way]:
        return choose_ways(graph, device, device.suite, most_bytes)

    graph, device = network(14, 14, 256, 256), profile.load()
    assert ways(graph, 2 << 20) == {"b": Way("winograd_pairs_together", 32)}
    assert ways(graph, 700 << 10) == {"b": Way("winograd", 16)}  # whose input is transformed anew for each block
    assert ways(network(7, 7, 512, 512), 2 << 20) == {"b": Way("winograd_together", 32)}
    assert ways(network(14, 14, 256, 256, kernel_y=5), 2 << 20) == {"b": Way("winograd_together", 32)}
    assert ways(network(14, 14, 64, 256, kernel_y=1), 96 << 10) == {"b": Way("winograd", 32)}
    assert ways(network(14, 14, 256, 256, kernel_y=17), 64 << 20) == {}


def test_weights_that_are_transformed_as_they_are_used_are_not_stored_transformed() -> None:
    graph = network(14, 14, 256, 256)
    bundle = compile_graph(graph, 4 << 20, KEY)
    assert [node.method for node in bundle.plan.network.nodes if node.depth] == ["winograd_pairs_together"]
    op = graph.ops[-1]
    assert isinstance(op, Conv)
    assert op.weight.nbytes < sum(bundle.plan._lowered.chunk_bytes) < 1.1 * op.weight.nbytes
