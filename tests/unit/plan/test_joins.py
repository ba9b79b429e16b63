"""Convolutions that write among the channels of the concatenation that reads them: where, what they compute, and what
the validator refuses of such maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tamper.driver import CoreError, core_on
from tamper.programs import passthrough_bundle
from tinytee.api import compile_graph
from tinytee.bundle.abi import constants as c
from tinytee.ir.graph import Activation, ActivationKind, Concat, Conv, Graph, Op, Pool, Port, Shape, Unary
from tinytee.ir.reference import evaluate
from tinytee.plan.api import least_budget, lower, make_plan
from tinytee.runtime.session import Session
from unit.plan.oracle import Oracle
from unit.plan.test_plans import ISAS

KEY = bytes(range(32))
HEIGHT, WIDTH, CHANNELS = 20, 13, 16


def network(activation: ActivationKind = "relu") -> Graph:
    """Two convolutions and a pooling, side by side, that a convolution reads which wants padding; one of the two is by
    Winograd's method where that pays."""
    rng = np.random.default_rng(7)
    shapes = {"x": Shape(HEIGHT, WIDTH, CHANNELS)}
    ops: list[Op] = []

    def add(op: Op, channels: int) -> None:
        ops.append(op)
        shapes[op.output] = Shape(HEIGHT, WIDTH, channels)

    def conv(name: str, source: str, kernel: int, channels: int) -> None:
        depth, pad = shapes[source].channels, kernel // 2
        weight = (rng.standard_normal((channels, kernel, kernel, depth)) / kernel / depth**0.5).astype(np.float32)
        bias = rng.standard_normal(channels).astype(np.float32)
        act, pads = Activation(activation), (pad, pad, pad, pad)
        add(
            Conv(name=name, inputs=(source,), output=name, weight=weight, bias=bias, pads=pads, activation=act),
            channels,
        )

    conv("a", "x", 1, 21)
    add(Pool(name="b", inputs=("x",), output="b", kind="max", kernel=(3, 3), pads=(1, 1, 1, 1)), CHANNELS)
    conv("c", "x", 3, 32)
    add(Concat(name="d", inputs=("a", "b", "c"), output="d", axis="c"), 21 + CHANNELS + 32)
    conv("e", "d", 3, 24)
    given, taken = (
        Port(name, name, (s.height, s.width, s.channels), "float32", (0, 1, 2), False)
        for name, s in (("x", shapes["x"]), ("e", shapes["e"]))
    )
    return Graph((given,), (taken,), shapes, tuple(ops))


def joined(graph: Graph, budget: int, threads: int = 1) -> set[str]:
    """The tensors that lie within others, by name."""
    plan = compile_graph(graph, budget, KEY, threads=threads).plan
    assert plan is not None
    return {plan.network.tensors[i.tensor].name for i in plan.layout.instances if i.is_joined}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "hard_swish"])
@pytest.mark.parametrize("threads", [1, 2])
def test_joined_as_they_are_computed(isa: str, activation: ActivationKind, threads: int) -> None:
    graph = network(activation)
    inputs = {"x": np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, CHANNELS)).astype(np.float32)}
    want = evaluate(graph, inputs)["e"]
    assert joined(graph, 1 << 20, threads) == {"a", "c"}
    for budget in (least_budget(graph), 96 * 1024, 1 << 20):
        bundle = compile_graph(graph, budget, KEY, threads=threads)
        with Session(bundle, key=KEY, isa=isa, threads=threads) as session:
            for _ in range(2):
                found = session.run(inputs)["e"]
                np.testing.assert_allclose(found, want, rtol=0, atol=2e-5 * float(np.abs(want).max()))


def test_at_every_budget_no_byte_is_lost() -> None:
    """The oracle knows which bytes of a slot are whose."""
    graph, found = network(), set()
    for budget in range(least_budget(graph), 256 * 1024, 4096):
        plan = make_plan(graph, budget)
        Oracle(lower(graph, plan)).run()
        found.add(frozenset(plan.network.tensors[i.tensor].name for i in plan.layout.instances if i.is_joined))
    assert frozenset({"a", "c"}) in found


def test_what_others_read_is_copied() -> None:
    """A convolution that an output reads, too, and one that is there twice."""
    graph = network()
    more = _tanh("a", "f")
    twice = Concat(name="d", inputs=("a", "b", "c", "c"), output="d", axis="c")
    last = graph.ops[-1]
    assert isinstance(last, Conv)
    wider = replace(last, weight=np.concatenate([last.weight, last.weight[..., -32:]], axis=3))
    shapes = {**graph.shapes, "d": Shape(HEIGHT, WIDTH, 101), "f": graph.shapes["a"]}
    port = Port("f", "f", (HEIGHT, WIDTH, 21), "float32", (0, 1, 2), False)
    graph = replace(graph, ops=(*graph.ops[:-2], more, twice, wider), shapes=shapes, outputs=(*graph.outputs, port))
    inputs = {"x": np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, CHANNELS)).astype(np.float32)}
    assert joined(graph, 1 << 20) == set()
    want = evaluate(graph, inputs)
    with Session(compile_graph(graph, 1 << 20, KEY), key=KEY) as session:
        for name, values in session.run(inputs).items():
            np.testing.assert_allclose(values, want[name], rtol=0, atol=1e-5 * float(np.abs(want[name]).max()))


def opened(change: str) -> int:
    """The status with which a program opens in which a function reads a map that lies among the channels of another
    ("read"), or writes one; or in which such a map's pixels lie closer than they are long, or cross y-planes."""
    graph = network()
    alone, *functions = (replace(graph.ops[2], name="f", output="f"), *(_tanh(*names) for names in ("fg", "gh")))
    shapes = {**graph.shapes, **dict.fromkeys("fgh", graph.shapes["c"])}
    port = Port("h", "h", (HEIGHT, WIDTH, 32), "float32", (0, 1, 2), False)
    graph = replace(graph, ops=(*graph.ops, alone, *functions), shapes=shapes, outputs=(*graph.outputs, port))
    lowered = lower(graph, make_plan(graph, 1 << 20))
    program = bytearray(lowered.program)
    part = Oracle(replace(lowered, program=program)).program  # type: ignore[arg-type]
    first, second = (op for op in part.ops if op.kind == c.TT_OP_UNARY)
    whole = next(part.tensors[op.output] for op in part.ops if op.kind == c.TT_OP_CONCAT)
    within = next(n for n, t in enumerate(part.tensors) if t.channels == 32 and t.row_bytes == whole.row_bytes)
    dense = part.operands[first.first_operand]
    if change == "read":
        first.first_operand = part.operands.index(within)
    elif change == "written":
        first.output, second.first_operand = within, part.operands.index(dense)
    elif change == "close":
        part.tensors[within].row_bytes = 31 * 4 * (whole.row_bytes // 4 // whole.channels)
    elif change == "uneven":
        part.tensors[within].row_bytes += 4
    with core_on(passthrough_bundle(KEY, lowered=replace(lowered, program=bytes(program))), KEY) as core:
        try:
            core.open()
        except CoreError as error:
            assert core.is_wiped()
            return error.status
    return c.TT_OK


def _tanh(source: str, name: str) -> Unary:
    return Unary(name=name, inputs=(source,), output=name, activation=Activation("tanh"))


@pytest.mark.parametrize("change", ["read", "written", "close", "uneven"])
def test_a_map_among_others_is_refused(change: str) -> None:
    assert opened(change) == c.TT_ERROR_PROGRAM


def test_the_same_program_as_it_is() -> None:
    assert opened("nothing") == c.TT_OK
