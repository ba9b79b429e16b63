"""The checker accepts what is sound and names what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinytee.ir import graph as g
from tinytee.ir.check import check
from tinytee.ir.graph import Graph, Op, Port, Shape


def _port(name: str, shape: Shape) -> Port:
    return Port(name, name, (shape.height, shape.width, shape.channels), "float32", (0, 1, 2), batched=False)


def _graph(op: Op, out: Shape, source: Shape | None = None) -> Graph:
    source = source or Shape(4, 5, 6)
    return Graph((_port("x", source),), (_port("y", out),), {"x": source, "y": out}, (op,))


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _indices(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


IO = {"name": "n", "inputs": ("x",), "output": "y"}
CONV = g.Conv(**IO, weight=_zeros(2, 3, 3, 6), bias=_zeros(2), pads=(1, 1, 1, 1))

SUM = g.Conv(name="n", inputs=("now", "before"), output="after", weight=_zeros(6, 1, 1, 6), bias=_zeros(6))
PLANE = Shape(1, 5, 6)
SCAN = g.Scan(
    **IO, operands=("now",), states=(("before", "after"),), body=(SUM,), result="after",
    body_shapes={"now": PLANE, "before": PLANE, "after": PLANE},
)  # fmt: skip

SOUND = [
    (SCAN, Shape(4, 5, 6)),
    (CONV, Shape(4, 5, 2)),
    (g.Conv(**IO, weight=_zeros(4, 1, 1, 3), bias=_zeros(4), groups=2, strides=(2, 2)), Shape(2, 3, 4)),
    (g.DepthwiseConv(**IO, weight=_zeros(2, 2, 6), bias=_zeros(6), dilations=(2, 1)), Shape(2, 4, 6)),
    (g.Pool(**IO, kind="max", kernel=(2, 2), strides=(2, 2)), Shape(2, 2, 6)),
    (g.Pool(**IO, kind="max", kernel=(2, 2), strides=(2, 2)), Shape(2, 3, 6)),
    (g.Reduce(**IO, kind="mean"), Shape(1, 1, 6)),
    (g.Unary(**IO), Shape(4, 5, 6)),
    (g.Binary(**IO, kind="add", constant=_zeros(1, 1, 6)), Shape(4, 5, 6)),
    (g.Concat(name="n", inputs=("x", "x"), output="y", axis="c"), Shape(4, 5, 12)),
    (g.Concat(name="n", inputs=("x", "x"), output="y", axis="y"), Shape(8, 5, 6)),
    (g.Concat(name="n", inputs=("x", "x"), output="y", axis="y"), Shape(40, 1, 6)),
    (g.Concat(**IO, axis="y"), Shape(8, 3, 5)),
    (g.Gather(**IO, rows=_indices(-1, 3, 0)), Shape(3, 5, 6)),
    (g.DepthToSpace(**{**IO}, block=1, mode="DCR"), Shape(4, 5, 6)),
    (g.Permute(**IO, dims=(6, 20), strides=(1, 6)), Shape(1, 6, 20)),
    (g.Lrn(**IO, size=3, alpha=1, beta=1, bias=1), Shape(4, 5, 6)),
    (g.Softmax(**IO), Shape(4, 5, 6)),
    (g.LayerNorm(**IO, scale=_zeros(6), bias=_zeros(6), epsilon=1e-5), Shape(4, 5, 6)),
    (g.ArgMax(**IO), Shape(4, 5, 1)),
]

UNSOUND = [
    (CONV, Shape(4, 5, 3), "yields 4x5x2"),
    (
        g.Product(name="n", inputs=("x", "x"), output="y", groups=1, transposed=True),
        Shape(4, 5, 4),
        "more than a column",
    ),
    (replace(CONV, bias=_zeros(3)), Shape(4, 5, 2), "bias"),
    (replace(CONV, groups=2), Shape(4, 5, 2), "meets"),
    (replace(CONV, pads=(-1, 0, 0, 0)), Shape(4, 5, 2), "negative"),
    (replace(CONV, inputs=("x", "x")), Shape(4, 5, 2), "residual"),
    (replace(CONV, weight=np.zeros((2, 3, 3, 6))), Shape(4, 5, 2), "float64"),
    (g.Pool(**IO, kind="max", kernel=(2, 2), strides=(2, 2)), Shape(4, 5, 6), "neither"),
    (g.Pool(**IO, kind="max", kernel=(1, 1), strides=(3, 3)), Shape(3, 3, 6), "beyond"),
    (g.Binary(**IO, kind="add", constant=_zeros(1, 1, 5)), Shape(4, 5, 6), "broadcast"),
    (g.Concat(**IO, axis="y"), Shape(6, 5, 4), "not divided"),
    (g.Concat(**IO, axis="y"), Shape(2, 10, 6), "not divided"),
    (g.Concat(**IO, axis="y"), Shape(10, 2, 6), "not divided"),
    (g.Concat(**IO, axis="y"), Shape(19, 1, 6), "yields 20x1x6"),
    (g.Concat(name="n", inputs=("x", "x"), output="y", axis="c"), Shape(4, 5, 6), "yields 4x5x12"),
    (g.Gather(**IO, rows=_indices(4)), Shape(1, 5, 6), "beyond"),
    (g.Permute(**IO, dims=(6, 20), strides=(1, 7)), Shape(1, 6, 20), "reaches"),
    (g.Permute(**IO, dims=(6, 10), strides=(1, 6)), Shape(1, 6, 20), "fill"),
    (g.SpaceToDepth(**IO, block=2), Shape(2, 2, 24), "divide"),
    (replace(SCAN, operands=("other",)), Shape(4, 5, 6), "'other' is None, of 4x5x6"),
    (replace(SCAN, operands=("now", "before")), Shape(4, 5, 6), "it has 1 inputs"),
    (replace(SCAN, states=(("now", "after"),)), Shape(4, 5, 6), "stands for two tensors"),
    (replace(SCAN, states=(("before", "now"),)), Shape(4, 5, 6), "is not what 'now' was"),
    (replace(SCAN, states=()), Shape(4, 5, 6), "made of what comes later"),
    (replace(SCAN, body=(SUM, SUM)), Shape(4, 5, 6), "written twice"),
    (replace(SCAN, body=(replace(SUM, strides=(2, 1)),)), Shape(4, 5, 6), "depends on other y-planes"),
    (replace(SCAN, body=(replace(SUM, bias=_zeros(5)),)), Shape(4, 5, 6), "bias"),
    (replace(SCAN, body_shapes={**SCAN.body_shapes, "more": PLANE}), Shape(4, 5, 6), "does not have"),
    (replace(SCAN, result="now"), Shape(4, 5, 6), "does not write 'now'"),
    (SCAN, Shape(3, 5, 6), "goes through 3 y-planes"),
    (replace(SCAN, activation=g.Activation("relu")), Shape(4, 5, 6), "activation"),
    (replace(CONV, inputs=("z",)), Shape(4, 5, 2), "before it is written"),
    (replace(CONV, output="x"), Shape(4, 5, 2), "second time"),
]


@pytest.mark.parametrize(("op", "out"), SOUND, ids=lambda value: type(value).__name__)
def test_sound_operators(op: Op, out: Shape) -> None:
    check(_graph(op, out))


@pytest.mark.parametrize(("op", "out", "message"), UNSOUND, ids=lambda value: str(value)[:20])
def test_unsound_operators(op: Op, out: Shape, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(_graph(op, out))


def test_ports() -> None:
    graph = _graph(g.Unary(**IO), Shape(4, 5, 6))
    port = graph.outputs[0]
    for changed, message in (
        (replace(port, shape=(4, 5, 7)), "does not fill"),
        (replace(port, perm=(0, 0, 1)), "order"),
        (replace(port, dtype="float16"), "not carried"),
        (replace(port, tensor="x"), "no operator"),
    ):
        with pytest.raises(ValueError, match=message):
            check(replace(graph, outputs=(changed,)))
    with pytest.raises(ValueError, match="twice"):
        check(replace(graph, outputs=(port, port)))
    check(replace(graph, inputs=(replace(graph.inputs[0], shape=(0, 4, 5, 6), perm=(0, 1, 2, 3), batched=True),)))
