"""A line buffer that is written over by what reads it: in every step, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from tinytee.api import compile_graph
from tinytee.ir.graph import Activation, Conv, Graph, Lrn, Op, Port, Shape, Unary
from tinytee.ir.reference import evaluate
from tinytee.plan.api import least_budget
from tinytee.plan.network import LRN_IN_PLACE_SIZE
from tinytee.runtime.session import Session
from unit.plan.test_plans import ISAS

KEY = bytes(range(32))
HEIGHT, WIDTH, CHANNELS = 24, 9, 21


def network(size: int) -> Graph:
    """A convolution, a response normalization, a function, and a convolution that reads three y-planes of it."""
    rng = np.random.default_rng(size)

    def conv(name: str, source: str) -> Conv:
        weight = (rng.standard_normal((CHANNELS, 3, 1, CHANNELS)) / CHANNELS).astype(np.float32)
        bias = rng.standard_normal(CHANNELS).astype(np.float32)
        return Conv(name=name, inputs=(source,), output=name, weight=weight, bias=bias, pads=(1, 0, 1, 0))

    ops: tuple[Op, ...] = (
        conv("a", "x"),
        Lrn(name="b", inputs=("a",), output="b", size=size, alpha=0.5, beta=0.75, bias=1.0),
        Unary(name="c", inputs=("b",), output="c", activation=Activation("tanh")),
        conv("d", "c"),
    )
    shape = Shape(HEIGHT, WIDTH, CHANNELS)
    given, taken = (Port(n, n, (HEIGHT, WIDTH, CHANNELS), "float32", (0, 1, 2), False) for n in "xd")
    return Graph((given,), (taken,), dict.fromkeys("xabcd", shape), ops)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1, 2, 5, 8, 9, 10, 30])
def test_normalized_in_place(isa: str, size: int) -> None:
    graph = network(size)
    inputs = {"x": np.random.default_rng(0).standard_normal((HEIGHT, WIDTH, CHANNELS)).astype(np.float32)}
    want = evaluate(graph, inputs)["d"]
    bundle = compile_graph(graph, least_budget(graph), KEY)
    shared = [buffer.name for buffer in bundle.plan.buffers if "a" in buffer.name.split(", ")]
    assert shared == (["a, b, c"] if size <= LRN_IN_PLACE_SIZE else ["a"])
    for budget in (least_budget(graph), 1 << 20):
        with Session(compile_graph(graph, budget, KEY), key=KEY, isa=isa) as session:
            np.testing.assert_allclose(session.run(inputs)["d"], want, rtol=0, atol=1e-5 * float(np.abs(want).max()))
