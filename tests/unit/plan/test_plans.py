"""Properties of plans: any network, any budget."""

from __future__ import annotations

import itertools
import platform
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytee import BudgetError, zoo
from tinytee.api import compile_graph, load_graph
from tinytee.ir.graph import Concat, Conv, DepthwiseConv, Graph, Pool, Port, Resize, Scan, Shape, Softmax, Unary
from tinytee.ir.reference import evaluate
from tinytee.plan import api, profile
from tinytee.plan.api import Planner, least_budget, lower, make_plan
from tinytee.plan.network import Way
from tinytee.plan.scans import loops_of
from tinytee.plan.weights import BY_WINOGRAD, Method, can_be_strassen, can_be_winograd
from tinytee.runtime.session import Session
from unit.plan.graphs import SLOW_IS_FINE, graphs
from unit.plan.oracle import Oracle

PROFILE = profile.load()
KEY = bytes(range(32))
ISAS = ("portable", "avx2", None) if platform.machine() == "x86_64" else ("portable", None)
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=SLOW_IS_FINE,
)


def budgets_of(graph: Graph) -> tuple[int, int]:
    """The floor, and a budget at which everything fits."""
    floor = least_budget(graph, PROFILE)
    return floor, 4 * floor + (1 << 20)


@quick
@given(graphs(), st.floats(0, 1))
def test_a_program_reads_only_what_it_has_written(graph: Graph, share: float) -> None:
    low, high = budgets_of(graph)
    budget = int(low * (high / low) ** share)
    plan = make_plan(graph, budget, PROFILE)
    lowered = lower(graph, plan)
    highest = Oracle(lowered).run()
    assert highest <= plan.peak_secure_memory_bytes == lowered.arena_bytes <= budget


def _in_many_parts() -> Graph:
    """Near its least memory the program comes in parts, and the partition for less memory has fewer of them."""
    rng, sizes = np.random.default_rng(0), {"x": (3, 1, 7), "a": (2, 1, 7), "b": (3, 2, 7), "c": (3, 5, 7)}
    sizes |= {"d": (4, 10, 7), "e": (4, 10, 4), "f": (1, 1, 7), "g": (3, 5, 16)}
    plane = Shape(1, 10, 4)

    def io(name: str, *inputs: str) -> dict[str, Any]:
        return {"name": name, "inputs": inputs, "output": name}

    def dense(name: str, outputs: int, *inputs: str) -> Conv:
        weight, bias = rng.standard_normal((outputs, 1, 1, 7)), rng.standard_normal(outputs)
        return Conv(**io(name, *inputs), weight=weight.astype(np.float32), bias=bias.astype(np.float32))

    def resize(name: str, source: str, rows: list[int], columns: list[int]) -> Resize:
        first, second = (
            [[at, min(at + 1, sizes[source][axis] - 1)] for at in found] for axis, found in enumerate((rows, columns))
        )
        tables = [np.array(first, np.int32), np.array(second, np.int32)]
        halves = [np.full(table.shape, 0.5, np.float32) for table in tables]
        return Resize(
            **io(name, source), row_index=tables[0], row_weights=halves[0], col_index=tables[1], col_weights=halves[1]
        )

    body = (dense("after", 4, "now", "before"), Softmax(**io("unread", "after")), Unary(**io("too", "unread")))
    body_shapes = {"now": Shape(1, 10, 7)} | dict.fromkeys(("before", "after", "unread", "too"), plane)
    scan = {"operands": ("now",), "states": (("before", "after"),), "result": "after"}
    ops = (
        Pool(**io("a", "x"), kind="max", kernel=(1, 1), strides=(2, 1)),
        Concat(**io("b", "x", "x"), axis="x"),
        Concat(**io("c", "b", "b", "x"), axis="x"),
        resize("d", "c", [0, 0, 1, 2], [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]),
        Scan(**io("e", "d"), body=body, body_shapes=body_shapes, **scan),
        resize("f", "c", [1], [2]),
        dense("g", 16, "c"),
    )

    def port(name: str) -> Port:
        return Port(name, name, sizes[name], "float32", (0, 1, 2), batched=False)

    shapes = {name: Shape(*size) for name, size in sizes.items()}
    return Graph((port("x"),), tuple(map(port, "aefg")), shapes, ops)


@quick
@given(graphs())
@example(_in_many_parts())
def test_more_memory_is_never_slower(graph: Graph) -> None:
    low, high = budgets_of(graph)
    planner = Planner(graph, PROFILE, None, high)
    times = [planner.plan(int(low * (high / low) ** (i / 12))).predicted_seconds for i in range(13)]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(times)), times


@pytest.mark.parametrize("name", ["tiny_darknet", "squeezenet"])
def test_variants_that_are_not_planned_would_not_have_been_faster(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = load_graph(zoo.NETWORKS[name].build())
    budgets = [1 << 20, 1 << 22]
    found = [make_plan(graph, budget, PROFILE) for budget in budgets]
    planned: list[int] = []
    best = api._Variant.best
    monkeypatch.setattr(api._Variant, "least_seconds", lambda self, budget_bytes: 0.0)
    monkeypatch.setattr(api._Variant, "best", lambda self, *given: planned.append(1) or best(self, *given))
    for budget, plan in zip(budgets, found, strict=True):
        planned.clear()
        every = make_plan(graph, budget, PROFILE)
        assert len(planned) > 1
        assert (every.predicted_seconds, every.segments) == (plan.predicted_seconds, plan.segments)


def _resized_list() -> Graph:
    """The least memory for its maps takes a program that is 200 bytes longer than that for the next least."""
    rows = np.array([[1, 2], [6, 7], [10, 11], [14, 15], [19, 20]], np.int32)
    halves = np.full((5, 2), 0.5, np.float32)
    column = {"col_index": np.array([[2]], np.int32), "col_weights": np.ones((1, 1), np.float32)}
    weights = {"weight": np.ones((2, 1, 5), np.float32), "bias": np.zeros(5, np.float32)}
    apart = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    shapes = {"x": Shape(12, 2, 5), "a": Shape(11, 2, 5), "b": Shape(22, 5, 1), "y": Shape(5, 1, 1)}
    return Graph(
        inputs=(Port("x", "x", (12, 2, 5), "float32", (0, 1, 2), batched=False),),
        outputs=(Port("y", "y", (5, 1, 1), "float32", (0, 1, 2), batched=False),),
        shapes=shapes,
        ops=(
            DepthwiseConv(name="a", inputs=("x",), output="a", **weights, **apart),
            Concat(name="b", inputs=("a",), output="b", axis="y"),
            Resize(name="y", inputs=("b",), output="y", row_index=rows, row_weights=halves, **column),
        ),
    )


@quick
@given(graphs())
@example(_resized_list())
def test_below_the_floor_the_error_names_the_floor(graph: Graph) -> None:
    floor = least_budget(graph, PROFILE)
    with pytest.raises(BudgetError) as caught:
        make_plan(graph, floor - 1, PROFILE)
    assert caught.value.available_bytes == floor - 1
    assert caught.value.needed_bytes == floor
    assert make_plan(graph, floor, PROFILE).peak_secure_memory_bytes <= floor


def check_answers(graph: Graph, budget_bytes: int, isa: str | None, seed: int) -> None:
    """Two runs in a budget give the reference's answer, in as much memory as the compiler said."""
    bundle = compile_graph(graph, max(8192, budget_bytes), KEY)  # the smallest graphs need more to open than to run
    rng = np.random.default_rng(seed)
    inputs = {port.name: rng.standard_normal(port.shape).astype(np.float32) for port in graph.inputs}
    expected = evaluate(graph, inputs)
    with Session(bundle, key=KEY, isa=isa) as session:
        for _ in range(2):
            outputs = session.run(inputs)
            for name, want in expected.items():
                scale = max(1.0, float(np.abs(want).max()))
                np.testing.assert_allclose(outputs[name], want, rtol=1e-4, atol=2e-5 * scale)
        assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes


@settings(parent=quick, max_examples=120)
@given(graphs(), st.floats(0, 1), st.sampled_from(ISAS), st.integers(0, 1 << 30))
def test_any_budget_gives_the_reference_s_answer(graph: Graph, share: float, isa: str | None, seed: int) -> None:
    low, high = budgets_of(graph)
    check_answers(graph, int(low * (high / low) ** share), isa, seed)


@settings(parent=quick, max_examples=120)
@given(graphs(), st.floats(0, 1), st.sampled_from(ISAS), st.integers(0, 1 << 30))
def test_every_method_gives_the_reference_s_answer(
    monkeypatch: pytest.MonkeyPatch, graph: Graph, share: float, isa: str | None, seed: int
) -> None:
    """Winograd's and Strassen's wherever they are possible, whether they are faster or not."""
    method = BY_WINOGRAD[seed % len(BY_WINOGRAD)]
    monkeypatch.setattr(api, "choose_ways", lambda graph, *_: wherever_possible(graph, method))
    monkeypatch.setattr(api, "METHOD_BYTES", (1,))
    low, high = budgets_of(graph)
    check_answers(graph, int(low * (high / low) ** share), isa, seed)


def wherever_possible(graph: Graph, method: Method) -> dict[str, Way]:
    looped = loops_of(graph.ops)
    convs = [op for position, op in enumerate(graph.ops) if isinstance(op, Conv) and position not in looped]
    strassen = {op.output: Way("strassen", p) for p in (16, 32, 64) for op in convs if can_be_strassen(op, p)}
    return strassen | {op.output: Way(method, 16) for op in convs if can_be_winograd(op, method)}
