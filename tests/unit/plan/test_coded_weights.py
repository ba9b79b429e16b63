"""Weights in fewer bits: what codes stand for, and that every plan computes with just that."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee import Session, UnsupportedModelError
from tinytee.api import compile_graph
from tinytee.ir.coding import encode
from tinytee.ir.graph import Conv, Graph, Port, Shape
from tinytee.passes import code_weights as coding_pass
from tinytee.passes.code_weights import code_weights
from tinytee.plan import weights
from tinytee.plan.api import Planner, lower, make_plan
from unit.plan.graphs import graphs
from unit.plan.oracle import Oracle
from unit.plan.test_plans import ISAS, KEY, PROFILE, budgets_of, check_answers, quick

KINDS = ("fp16", "int8", "int4")
GROUPS = (2, 6, 32, 256)


@pytest.fixture(autouse=True)
def code_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding_pass, "LEAST_WEIGHTS", 1)


@pytest.fixture
def only_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans with codes alone, where codes do not pay, too."""
    drop = weights.without_codes
    monkeypatch.setattr(weights, "without_codes", lambda graph, outputs=None: drop(graph, outputs or ()))


def dense(weight: np.ndarray, kind: str, group: int) -> Graph:
    """One fully connected layer with coded weights [outputs, inputs]."""
    outputs, inputs = weight.shape
    shapes = {"x": Shape(1, 1, inputs), "y": Shape(1, 1, outputs)}
    op = Conv(
        name="dense",
        inputs=("x",),
        output="y",
        weight=weight.reshape(outputs, 1, 1, inputs),
        bias=np.zeros(outputs, "f4"),
    )
    x = Port("x", "x", (0, inputs), "float32", (0, 1), True)
    graph = Graph((x,), (Port("y", "y", (0, outputs), "float32", (0, 1), True),), shapes, (op,))
    return code_weights(graph, kind, group)[0]  # type: ignore[arg-type]


@pytest.mark.usefixtures("only_coded")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("isa", ISAS)
def test_the_core_decodes_to_the_bit(kind: str, group: int, isa: str | None) -> None:
    """One input at a time is one: each output is one weight, as the codes say."""
    rng = np.random.default_rng(group)
    weight = (rng.standard_normal((21, 39)) * 10.0 ** rng.integers(-8, 3, (21, 39))).astype(np.float32)
    graph = dense(weight, kind, group)
    bundle = compile_graph(graph, 64 << 10, KEY)
    assert any(node.op.coding for node in bundle.plan.network.nodes if isinstance(node.op, Conv))
    with Session(bundle, key=KEY, isa=isa) as session:
        found = session.run({"x": np.eye(39, dtype=np.float32)})["y"]
    np.testing.assert_array_equal(found, graph.ops[0].coding.decoded().T)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("only_coded")
@settings(parent=quick, max_examples=100)
@given(
    graphs(),
    st.sampled_from(KINDS),
    st.sampled_from(GROUPS),
    st.floats(0, 1),
    st.sampled_from(ISAS),
    st.integers(0, 99),
)
def test_any_budget_gives_the_reference_s_answer(
    graph: Graph, kind, group: int, share: float, isa: str | None, seed: int
) -> None:
    coded, _ = code_weights(graph, kind, group)
    low, high = budgets_of(coded)
    budget = int(low * (high / low) ** share)
    check_answers(coded, budget, isa, seed)
    lowered = lower(coded, make_plan(coded, budget, PROFILE))
    assert Oracle(lowered).run() <= lowered.arena_bytes <= budget


@settings(parent=quick, max_examples=20)
@given(graphs(), st.sampled_from(KINDS))
def test_codes_never_make_a_plan_slower_or_larger(graph: Graph, kind) -> None:
    coded, _ = code_weights(graph, kind)
    low, high = budgets_of(graph)
    before, after = Planner(graph, PROFILE, None, high), Planner(coded, PROFILE, None, high)
    assert after.least_budget() <= before.least_budget() + 64 * 1024
    times = [after.plan(int(low * (high / low) ** (i / 4)) + 65536).predicted_seconds for i in range(5)]
    plain = [before.plan(int(low * (high / low) ** (i / 4)) + 65536).predicted_seconds for i in range(5)]
    assert all(a <= b + 1e-12 for a, b in zip(times, plain, strict=True))
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_codes_are_within_half_a_step(kind) -> None:
    weight = np.random.default_rng(0).standard_normal((9, 70)).astype(np.float32)
    coding = encode(weight, kind, 16)
    largest = 127 if kind == "int8" else 7
    steps = np.repeat(coding.scales, 16, axis=1)[:, :70]
    inside = np.abs(weight) <= largest * steps
    assert np.abs(coding.codes).max() <= largest
    assert (np.abs(coding.decoded() - weight) <= 0.5001 * steps)[inside].all()
    assert inside.mean() > 0.9


def test_zero_weights_stay_zero() -> None:
    for kind in KINDS:
        assert not encode(np.zeros((3, 10), np.float32), kind, 4).decoded().any()


@pytest.mark.parametrize("group", [3, 0, 1, -2, 258])
def test_odd_groups_are_refused(group: int) -> None:
    with pytest.raises(ValueError, match="even number of rows from 2 to 256"):
        dense(np.ones((4, 8), np.float32), "int4", group)


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "int8"), (np.inf, "int4"), (1e6, "fp16")])
def test_weights_that_have_no_code_are_refused(value: float, kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match="dense: a weight is"):
        dense(np.full((4, 8), value, np.float32), kind, 4)
