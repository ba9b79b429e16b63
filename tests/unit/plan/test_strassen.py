"""Convolutions by Strassen's method: every way in which pixels are halved, and blocks of panels that share sums."""

from __future__ import annotations

import numpy as np
import pytest

from tinytee.api import compile_graph
from tinytee.ir.graph import Activation, Conv, Graph, Op, Port, Shape, Unary
from tinytee.ir.reference import evaluate
from tinytee.plan import api, profile
from tinytee.plan.network import Way, build, choose_ways
from tinytee.runtime.session import Session
from unit.plan.test_plans import ISAS

KEY = bytes(range(32))
PANELS = (16, 32, 64)


def network(height: int, width: int, depth: int, channels: int, *, stride: int = 1, residual: bool = False) -> Graph:
    """One convolution by Strassen's method and, where it has a residual, one whose sum it may be added to in place."""
    rng = np.random.default_rng([height, width, depth, channels])
    out = Shape(-(-height // stride), -(-width // stride), channels)

    def conv(name: str, inputs: tuple[str, ...], activation: Activation) -> Conv:
        weight = (rng.standard_normal((channels, 1, 1, depth)) / np.sqrt(depth)).astype(np.float32)
        bias = rng.standard_normal(channels).astype(np.float32)
        return Conv(
            name=name, inputs=inputs, output=name, weight=weight, bias=bias, strides=(stride, stride),
            activation=activation,
        )  # fmt: skip

    ops: list[Op] = [Unary(name="a", inputs=("x",), output="a", activation=Activation("relu"))]
    shapes = {"x": Shape(height, width, depth), "a": Shape(height, width, depth), "b": out}
    ops.append(conv("b", ("a",), Activation("hard_swish")))
    if residual:
        ops.append(conv("c", ("a", "b"), Activation("clip", -1.0, 1.5)))
        shapes["c"] = out
    last = ops[-1].output
    given = Port("x", "x", (height, width, depth), "float32", (0, 1, 2), False)
    taken = Port("y", last, (out.height, out.width, channels), "float32", (0, 1, 2), False)
    return Graph((given,), (taken,), shapes, tuple(ops))


def check(graph: Graph, budget_bytes: int, isa: str | None, threads: tuple[int, ...] = (1,)) -> None:
    bundle = compile_graph(graph, budget_bytes, KEY, threads=max(threads))
    assert any(node.method == "strassen" for node in bundle.plan.network.nodes)
    sample = {"x": np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)}
    want = evaluate(graph, sample)["y"]
    answers = []
    for count in threads:
        with Session(bundle, key=KEY, isa=isa, threads=count) as session:
            answers += [session.run(sample)["y"] for _ in range(2)]
            assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    np.testing.assert_allclose(answers[0], want, rtol=0, atol=1e-5 * float(np.abs(want).max()))


def everywhere(monkeypatch: pytest.MonkeyPatch, panel: int) -> None:
    """Has every convolution computed by Strassen's method, in panels of that many channels."""

    def ways(graph: Graph, *_: object) -> dict[str, Way]:
        return {op.output: Way("strassen", panel) for op in graph.ops if isinstance(op, Conv)}

    monkeypatch.setattr(api, "choose_ways", ways)
    monkeypatch.setattr(api, "METHOD_BYTES", (1,))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("height", [1, 2, 5, 8])
@pytest.mark.parametrize("width", [1, 7, 13, 14, 29, 60])
def test_pixels_are_halved_whatever_the_map(
    monkeypatch: pytest.MonkeyPatch, isa: str | None, height: int, width: int
) -> None:
    everywhere(monkeypatch, PANELS[(height + width) % 3])
    check(network(height, width, 30, 64, residual=True), 1 << 20, isa)
    check(network(height, width, 34, 128, stride=2), 1 << 20, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("budget", [140 << 10, 200 << 10, 1 << 20])
def test_blocks_of_panels_share_the_sums(monkeypatch: pytest.MonkeyPatch, isa: str | None, budget: int) -> None:
    """In little memory weights are fed in blocks: of a map whose sums are made once, and of one whose are not."""
    everywhere(monkeypatch, 32)
    check(network(6, 9, 96, 320, residual=True), budget, isa)
    check(network(24, 20, 16, 192), budget, isa)


@pytest.mark.parametrize("isa", ["portable", None])
def test_threads_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, isa: str | None) -> None:
    everywhere(monkeypatch, 64)
    check(network(15, 15, 128, 256, residual=True), 2 << 20, isa, (1, 2, 5))
    check(network(15, 15, 128, 64), 2 << 20, isa, (1, 2, 5))
    check(network(7, 7, 512, 128, residual=True), 2 << 20, isa, (1, 2, 5))


def test_it_is_chosen_where_the_profile_says_that_it_pays() -> None:
    graph, device = network(14, 14, 512, 512), profile.load("x86-64-avx512-zen4")
    assert choose_ways(graph, device, device.suite, 1 << 20) == {"b": Way("strassen", 64)}
    assert choose_ways(graph, device, device.suite, 64 << 10) == {}
    assert choose_ways(graph, profile.load("raspberry-pi-3"), "chacha20-poly1305", 1 << 20) == {}
    few = network(14, 14, 32, 512)
    assert choose_ways(few, device, device.suite, 1 << 20) == {}
    direct, chosen = (build(graph, device, device.suite, ways) for ways in ({}, {"b": Way("strassen", 64)}))
    assert chosen.nodes[2].seconds < direct.nodes[2].seconds
