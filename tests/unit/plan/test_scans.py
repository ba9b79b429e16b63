"""Recurrences: loops in line buffers. Random ones are among ``graphs``; here is what they are promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee.bundle.abi import constants
from tinytee.ir.graph import Conv, Gather, Graph, Op, Port, Scan, Shape, Unary
from tinytee.passes.code_weights import code_weights
from tinytee.plan import profile
from tinytee.plan.api import Planner, least_budget, lower, make_plan
from tinytee.plan.network import build
from tinytee.plan.scans import expand_scans, find_loops
from tinytee.plan.segments import Growth
from unit.plan.graphs import graphs
from unit.plan.oracle import Oracle, unroll
from unit.plan.test_plans import ISAS, PROFILE, check_answers, quick

RNG = np.random.default_rng(5)


def values(*shape: int) -> np.ndarray:
    return RNG.uniform(-0.2, 0.2, shape).astype(np.float32)


def dense(name: str, inputs: tuple[str, ...], outputs: int, features: int) -> Conv:
    return Conv(name=name, inputs=inputs, output=name, weight=values(outputs, 1, 1, features), bias=values(outputs))


def recurrence(steps: int, channels: int = 16, after: tuple[Op, ...] = (), last: str = "h") -> Graph:
    """after = x + matrix before, over so many steps."""
    shape, plane = Shape(steps, 1, channels), Shape(1, 1, channels)
    scan = Scan(
        name="h", inputs=("x",), output="h", operands=("now",), states=(("before", "after"),), result="after",
        body=(dense("after", ("before", "now"), channels, channels),),
        body_shapes=dict.fromkeys(("now", "before", "after"), plane),
    )  # fmt: skip
    shapes = {"x": shape, "h": shape} | {op.output: Shape(1, 1, channels) for op in after}
    x = Port("x", "x", (steps, 1, channels), "float32", (0, 1, 2), batched=False)
    out = shapes[last]
    y = Port("y", last, (out.height, out.width, out.channels), "float32", (0, 1, 2), batched=False)
    return Graph((x,), (y,), shapes, (scan, *after))


def last_step(steps: int) -> Gather:
    return Gather(name="last", inputs=("h",), output="last", rows=np.array([steps - 1], np.int32))


def test_what_lies_between_is_a_loop_and_loops_that_overlap_are_one() -> None:
    assert find_loops([(5, 2), (1, 3), (6, 9), (7, 8), (3, 4), (10, 10)]) == [(1, 4), (6, 9)]


def test_a_state_is_a_delay() -> None:
    graph = expand_scans(recurrence(6))
    assert [(type(op).__name__, op.inputs, op.output) for op in graph.ops] == [
        ("Delay", ("h",), "h:before"),
        ("Conv", ("h:before", "x"), "h"),
    ]
    assert expand_scans(graph).ops == graph.ops


def test_a_loop_is_in_one_segment_and_keeps_two_y_planes() -> None:
    network = build(expand_scans(recurrence(6)), PROFILE, "aes-256-gcm")
    assert set(network.loop_of.values()) == {(1, 2)}  # after the input that it reads
    assert [cut for cut in range(5) if network.is_within_loop(cut)] == [2]
    growth = Growth(network, last=3, steps=6)
    for _ in range(4):
        growth.add()
    slots = {info.name: growth.slots[number] for number, info in enumerate(network.tensors)}
    assert slots == {"x": 6, "h": 6, "h:before": 1}  # what crosses the boundary does so in blocks
    assert growth.frontiers[1] is growth.frontiers[2]


def test_a_loop_goes_y_plane_by_y_plane_whatever_a_step_is() -> None:
    graph = recurrence(40)
    lowered = lower(graph, make_plan(graph, 1 << 20, PROFILE))
    oracle = Oracle(lowered)
    runs = [(i.index, i.arg) for i in unroll(oracle.program.instrs) if i.code == constants.TT_INSTR_RUN]
    assert runs == [(op, step) for step in range(1, 41) for op in (0, 1)]
    assert len(oracle.program.instrs) < 20  # most of them a loop of the program, too
    oracle.run()


def test_more_steps_take_no_more_memory_but_for_a_table() -> None:
    floors = [least_budget(recurrence(steps, 32, (last_step(steps),), "last"), PROFILE) for steps in (512, 2048)]
    assert floors[1] - floors[0] <= 4 * (2048 - 512) + 512


def test_weights_that_do_not_stay_are_opened_once_a_step() -> None:
    steps, channels = 30, 128
    graph = recurrence(steps, channels, (last_step(steps),), "last")
    floor = least_budget(graph, PROFILE)
    assert floor < channels * channels * 4
    planner = Planner(graph, PROFILE, None, 1 << 20)
    tight, roomy = planner.plan(floor), planner.plan(1 << 20)
    opened = steps * channels * channels * 4 / PROFILE.aead_bytes_per_second[PROFILE.suite]
    assert tight.predicted_seconds - roomy.predicted_seconds > opened
    Oracle(lower(graph, tight)).run()
    check_answers(graph, floor, None, 1)


def test_what_is_not_read_of_a_loop_is_not_computed() -> None:
    """The third step's hidden state alone."""
    graph = recurrence(20, after=(replace(last_step(20), rows=np.array([2], np.int32)),), last="last")
    oracle = Oracle(lower(graph, make_plan(graph, 1 << 16, PROFILE)))
    runs = [i.arg for i in unroll(oracle.program.instrs) if i.code == constants.TT_INSTR_RUN and i.index == 1]
    assert max(runs) == 3
    check_answers(graph, 1 << 16, None, 2)


def test_layer_by_layer_a_loop_is_a_layer() -> None:
    graph = recurrence(9, after=(last_step(9), Unary(name="u", inputs=("last",), output="u")), last="u")
    plan = make_plan(graph, 1 << 20, PROFILE, schedule="layerwise")
    assert [(s.first, s.last, s.steps) for s in plan.segments] == [
        (0, 0, 1),
        (1, 2, 1),
        (3, 3, 1),
        (4, 4, 1),
        (5, 5, 1),
    ]
    Oracle(lower(graph, plan)).run()
    unpinned = make_plan(graph, 1 << 20, PROFILE, schedule="layerwise", pin=False)
    Oracle(lower(graph, unpinned)).run()


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_recurrent_weights_are_coded(kind: str) -> None:
    graph, done = code_weights(recurrence(12, 64), kind)
    assert [found.count for found in done] == [64 * 64]
    coded = graph.ops[0]
    assert isinstance(coded, Scan) and isinstance(coded.body[0], Conv) and coded.body[0].coding
    for budget in (least_budget(graph, PROFILE), 1 << 20):
        check_answers(graph, budget, None, 3)


@settings(parent=quick, max_examples=60)
@given(
    graphs().filter(lambda graph: any(isinstance(op, Scan) for op in graph.ops)),
    st.floats(0, 1), st.sampled_from(ISAS), st.integers(0, 1 << 30),
)  # fmt: skip
def test_any_budget_gives_the_reference_s_answer(graph: Graph, share: float, isa: str | None, seed: int) -> None:
    low = least_budget(graph, PROFILE)
    high = 4 * low + (1 << 20)
    check_answers(graph, int(low * (high / low) ** share), isa, seed)


def test_two_threads() -> None:
    graph, device = recurrence(12, 96), replace(profile.load(), threads=2)
    Oracle(lower(graph, make_plan(graph, 1 << 20, device))).run()
