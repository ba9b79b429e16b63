"""Weights that are opened as they are used: pieces of panels, sealed alone, each opened by the thread that needs it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee.api import compile_graph
from tinytee.bundle.abi import constants, ffi
from tinytee.errors import EngineError
from tinytee.ir.graph import Activation, Conv, Graph, Op, Port, Shape
from tinytee.ir.reference import evaluate
from tinytee.passes.code_weights import code_weights
from tinytee.plan import profile, weights
from tinytee.plan.api import Plan, Planner, least_budget, lower, make_plan
from tinytee.plan.partition import opened_bytes
from tinytee.plan.weights import PIECE_BYTES, TOGETHER, Method
from tinytee.runtime.session import Session
from unit.plan import test_winograd as winograd
from unit.plan.graphs import SLOW_IS_FINE, graphs
from unit.plan.oracle import Oracle
from unit.plan.test_plans import ISAS

KEY = bytes(range(32))
TWO = profile.load().with_threads(2)


def small_maps(channels: int = 160, side: int = 5, kernel: int = 3, groups: int = 1) -> Graph:
    """Two convolutions, the second added to the first, of more weights than pixels."""
    rng, pad = np.random.default_rng([channels, side, kernel, groups]), kernel // 2
    shape = Shape(side, side, channels)
    shapes = {"x": shape} | dict.fromkeys("ab", shape)

    def conv(name: str, *inputs: str) -> Conv:
        depth = channels // groups
        weight = rng.standard_normal((channels, kernel, kernel, depth)) / np.sqrt(kernel * kernel * depth)
        return Conv(
            name=name, inputs=inputs, output=name, weight=weight.astype(np.float32),
            bias=rng.standard_normal(channels).astype(np.float32), pads=(pad, pad, pad, pad), groups=groups,
            activation=Activation("relu"),
        )  # fmt: skip

    ops: tuple[Op, ...] = (conv("a", "x"), conv("b", "a", "a"))
    ports = [Port(n, t, (side, side, channels), "float32", (0, 1, 2), False) for n, t in (("x", "x"), ("y", "b"))]
    return Graph((ports[0],), (ports[1],), shapes, ops)


def opened_as_used(plan: Plan) -> list[str]:
    return [
        plan.network.nodes[node].op.output  # type: ignore[union-attr]
        for choice in plan.choices
        for node in choice.weights.streamed
        if opened_bytes(plan.network, node, choice.weights.staging_bytes)
    ]


@pytest.mark.parametrize("depth", [1, 7, 64, 513, 1024, 4608, 25088, 8191])
@pytest.mark.parametrize("panel", [8, 16, 32])
def test_pieces_are_alike(depth: int, panel: int) -> None:
    op = dataclasses.replace(small_maps().ops[0], weight=np.zeros((32, 1, 1, depth), np.float32))
    assert isinstance(op, Conv)
    rows = weights.piece_rows(op, panel, "direct")
    assert depth % rows == 0
    most = PIECE_BYTES // (4 * panel)
    assert rows == depth or most / 4 < rows <= most


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("channels", "kernel", "groups"), [(160, 3, 1), (320, 1, 1), (320, 3, 2), (100, 5, 1)])
@pytest.mark.parametrize("threads", [2, 3])
def test_results_are_those_of_any_number_of_threads(
    channels: int, kernel: int, groups: int, threads: int, isa: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Panels that threads do not share evenly are opened by each that needs some of their y-planes."""
    graph = small_maps(channels, 5, kernel, groups)
    sample = {"x": np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)}
    monkeypatch.setattr("tinytee.plan.api.METHOD_BYTES", (0,))
    device = profile.load().with_threads(threads)
    budget = Planner(graph, device, None, 8 << 20).least_budget() + 2 * threads * PIECE_BYTES
    bundle = compile_graph(graph, budget, KEY, threads=threads)
    assert opened_as_used(bundle.plan)
    found = []
    for count in range(1, threads + 1):
        with Session(bundle, key=KEY, isa=isa, threads=count) as session:
            found += [session.run(sample)["y"] for _ in range(2)]
            assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes
    want = evaluate(graph, sample)["y"]
    np.testing.assert_allclose(found[0], want, rtol=0, atol=2e-5 * float(np.abs(want).max()))
    assert all(np.array_equal(one, found[0]) for one in found)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("method", TOGETHER)
def test_winograd_s_method_transforms_what_is_opened_as_it_is_used(
    method: Method, isa: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = winograd.network(8, 7, 80, 144, residual=True)
    found = winograd.answers(monkeypatch, graph, 600 << 10, isa, (method,), (1, 2))
    assert all(np.array_equal(one, found[0]) for one in found)
    assert opened_as_used(make_plan(graph, 600 << 10, TWO))


@pytest.mark.parametrize("method", ["direct", *TOGETHER])
def test_large_layers_come_in_several_blocks(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_maps(160)
    sample = {"x": np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)}
    monkeypatch.setattr("tinytee.plan.partition.OPENED_BLOCK_BYTES", 400 << 10)
    if method == "direct":
        monkeypatch.setattr("tinytee.plan.api.METHOD_BYTES", (0,))
    else:
        winograd.everywhere(monkeypatch, method)
    bundle = compile_graph(graph, 600 << 10, KEY, threads=2)
    plan = bundle.plan
    assert opened_as_used(plan)
    chunks = [size for size in lower(graph, plan).chunk_bytes if size > 64 * 1024]
    assert len(chunks) > 2 * len(opened_as_used(plan))
    assert max(chunks) <= 400 << 10
    found = []
    for count in (1, 2):
        with Session(bundle, key=KEY, threads=count) as session:
            found += [session.run(sample)["y"] for _ in range(2)]
    want = evaluate(graph, sample)["y"]
    np.testing.assert_allclose(found[0], want, rtol=0, atol=2e-5 * float(np.abs(want).max()))
    assert all(np.array_equal(one, found[0]) for one in found)


def test_only_threads_whose_weights_are_large_open_them() -> None:
    """Not one thread; not threads whose maps are more than twice as large; not codes, which are decoded."""
    graph, device = small_maps(), profile.load()
    assert all(node.piece_rows == 0 for node in make_plan(graph, 1 << 20, device).network.nodes)
    assert all(node.piece_rows for node in make_plan(graph, 1 << 20, TWO).network.nodes if node.depth)
    large = small_maps(32, 40)
    assert all(node.piece_rows == 0 for node in make_plan(large, 1 << 20, TWO).network.nodes)
    coded, _ = code_weights(graph, "int8")
    assert all(n.piece_rows == 0 for n in make_plan(coded, 1 << 20, TWO).network.nodes if weights.coding_of(n.op))


def test_a_piece_for_each_thread_is_all_the_place_that_it_takes() -> None:
    """A block opened first takes its place whole: what is saved, other layers may have."""
    graph = small_maps(400, 5)
    plan = make_plan(graph, 3 << 20, TWO)
    assert opened_as_used(plan) == ["a", "b"]
    places = [choice.weights.staging_bytes for choice in plan.choices if choice.weights.streamed]
    sizes = [info.stream_bytes for info in plan.network.nodes if info.piece_rows]
    assert max(places) < min(sizes) // 8
    streams = [size for size in lower(graph, plan).piece_bytes if size != PIECE_BYTES]
    assert {2 * size for size in streams} == set(places)


def test_blocks_are_opened_first_where_there_is_no_place_for_pieces() -> None:
    graph = small_maps(512, 5)
    least = least_budget(graph, TWO)
    assert least < 2 * PIECE_BYTES + 64 * 1024
    plan = make_plan(graph, least, TWO)
    assert not opened_as_used(plan)
    assert any(choice.weights.streamed for choice in plan.choices)


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(graphs(), st.floats(0, 1))
def test_a_program_for_threads_reads_only_what_it_has_written(graph: Graph, share: float) -> None:
    low = least_budget(graph, TWO)
    budget = int(low * ((4 * low + (1 << 20)) / low) ** share)
    plan = make_plan(graph, budget, TWO)
    lowered = lower(graph, plan)
    assert Oracle(lowered).run() <= plan.peak_secure_memory_bytes == lowered.arena_bytes <= budget


@settings(max_examples=30, deadline=None, suppress_health_check=SLOW_IS_FINE)
@given(st.sampled_from([64, 96, 160, 256]), st.sampled_from([3, 5, 9]), st.sampled_from([1, 3]))
def test_more_memory_is_never_slower_for_threads(channels: int, side: int, kernel: int) -> None:
    graph = small_maps(channels, side, kernel)
    low = least_budget(graph, TWO)
    planner = Planner(graph, TWO, None, 4 << 20)
    times = [planner.plan(int(low * ((4 << 20) / low) ** (i / 12))).predicted_seconds for i in range(13)]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(times)), times


# ---- what the validator refuses


def refused_with(method: Method, monkeypatch: pytest.MonkeyPatch, **fields: int) -> bool:
    """Whether a program is refused in which the records of streamed convolutions have these fields."""
    graph = small_maps(128, 7)
    if method != "direct":
        winograd.everywhere(monkeypatch, method)
    bundle = compile_graph(graph, 700 << 10, KEY, threads=2)
    unsealed = bundle._unsealed
    assert unsealed is not None
    changed = change_ops(unsealed.lowered.program, fields)
    lowered = dataclasses.replace(unsealed.lowered, program=changed)
    spoiled = type(bundle)(unsealed=dataclasses.replace(unsealed, lowered=lowered))
    sample = {"x": np.zeros(graph.inputs[0].shape, np.float32)}
    try:
        with Session(spoiled, key=KEY, threads=2) as session:
            session.run(sample)
    except EngineError as error:
        return "refuses the bundle's program" in str(error)
    return False


def change_ops(program: bytes, fields: dict[str, Any]) -> bytes:
    """In every convolution's record that has pieces."""
    data = bytearray(program)
    view = ffi.from_buffer(data)
    head = ffi.cast("tt_program *", view)
    at = ffi.sizeof("tt_program") + ffi.sizeof("tt_spill") * head.spill_count
    part = ffi.cast("tt_part *", view + at)
    at += ffi.sizeof("tt_part") + ffi.sizeof("tt_tensor") * part.tensor_count
    ops = ffi.cast("tt_op *", view + at)
    found = [ops[i] for i in range(part.op_count) if ops[i].kind == constants.TT_OP_CONV and ops[i].stream_rows]
    assert found
    for op, (name, value) in itertools.product(found, fields.items()):
        setattr(op, name, value(op) if callable(value) else value)
    return bytes(data)


BAD_PIECES: dict[str, tuple[Method, dict[str, Any]]] = {
    "that do not divide a panel": ("direct", {"stream_rows": lambda op: op.stream_rows - 1}),
    "larger than a panel": ("direct", {"stream_rows": 0xFFFF}),
    "with no place": ("direct", {"weights": lambda op: op.weights + (1 << 21)}),
    "of parts of panels": ("direct", {"k_per_block": lambda op: op.k_per_block // 2, "panels_per_block": 1}),
    "by Strassen's method": ("direct", {"flags": constants.TT_FLAG_STRASSEN}),
    "of transformed weights": ("winograd_pairs_together", {"flags": lambda op: op.flags & ~constants.TT_FLAG_TOGETHER}),
    "of a row, in pairs": ("winograd_pairs_together", {"stream_rows": lambda op: op.stream_rows // 3}),
    "of half a row": ("winograd_together", {"stream_rows": lambda op: op.stream_rows // 2}),
}


@pytest.mark.parametrize("what", BAD_PIECES)
def test_pieces_are_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, fields = BAD_PIECES[what]
    assert not refused_with(method, monkeypatch)
    assert refused_with(method, monkeypatch, **fields)


def test_chunks_stay_small_where_they_cross_in_a_window() -> None:
    windowed = dataclasses.replace(TWO, window_bytes=1 << 20)
    plan = make_plan(small_maps(512, 5), 1 << 20, windowed)
    assert not opened_as_used(plan)
    assert max(lower(small_maps(512, 5), plan).chunk_bytes) <= 2 << 20
