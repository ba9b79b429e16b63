"""Operators on uint8: what is sound, and their arithmetic written another way."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tinytee.ir import graph as g
from tinytee.ir import quantized as q
from tinytee.ir.check import check
from tinytee.ir.graph import Activation, Graph, Port, Quant, Shape
from tinytee.ir.reference import evaluate, evaluate_op

RNG = np.random.default_rng(3)
IN, OUT = Quant(0.5, 3), Quant(0.25, 128)
QUANTS = {"a": IN, "b": OUT}
SHAPE = Shape(4, 5, 6)


def _bytes(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def _graph(op: g.Op, out: Shape = SHAPE, quants: dict[str, Quant] | None = None) -> Graph:
    """x -> Quantize -> a -> op -> b -> Dequantize -> y"""
    first = q.Quantize(name="q", inputs=("x",), output="a")
    last = q.Dequantize(name="d", inputs=("b",), output="y")
    ports = [
        Port(name, name, (s.height, s.width, s.channels), "float32", (0, 1, 2), False)
        for name, s in (("x", SHAPE), ("y", out))
    ]
    shapes = {"x": SHAPE, "a": SHAPE, "b": out, "y": out}
    return Graph((ports[0],), (ports[1],), shapes, (first, op, last), QUANTS if quants is None else quants)


IO = {"name": "n", "inputs": ("a",), "output": "b"}
CONV = q.QConv(
    **IO,
    weight=np.ones((2, 3, 3, 6), np.int8),
    bias=np.zeros(2, np.int32),
    multiplier=np.full(2, 0.01, np.float32),
    pads=(1, 1, 1, 1),
)
SAME = {"a": IN, "b": IN}

SOUND = [
    (CONV, Shape(4, 5, 2), QUANTS),
    (q.QDepthwiseConv(**IO, weight=np.ones((1, 1, 6), np.int8), bias=np.zeros(6, np.int32),
                      multiplier=np.ones(6, np.float32)), SHAPE, QUANTS),
    (q.QBinary(name="n", inputs=("a", "a"), output="b", kind="add"), SHAPE, QUANTS),
    (q.QBinary(**IO, kind="mul", constant=_bytes(1, 1, 6), constant_quant=IN), SHAPE, QUANTS),
    (q.QLut(**IO, table=_bytes(256)), SHAPE, QUANTS),
    (q.QPool(**IO, kind="max", kernel=(2, 2), strides=(2, 2)), Shape(2, 2, 6), SAME),
    (q.QPool(**IO, kind="average", kernel=(2, 2), strides=(2, 2)), Shape(2, 2, 6), QUANTS),
    (q.QReduce(**IO), Shape(1, 1, 6), QUANTS),
    (q.QLrn(**IO, size=3, alpha=1, beta=1, bias=1), SHAPE, QUANTS),
    (g.Concat(name="n", inputs=("a", "a"), output="b", axis="c"), Shape(4, 5, 12), SAME),
]  # fmt: skip

UNSOUND = [
    (replace(CONV, weight=CONV.weight.astype(np.float32)), Shape(4, 5, 2), QUANTS, "weight is float32, not int8"),
    (replace(CONV, multiplier=np.ones(3, np.float32)), Shape(4, 5, 2), QUANTS, "multiplier"),
    (replace(CONV, multiplier=np.full(2, np.nan, np.float32)), Shape(4, 5, 2), QUANTS, "finite"),
    (replace(CONV, bias=np.full(2, 2**31 - 1, np.int32)), Shape(4, 5, 2), QUANTS, "overflow"),
    (replace(CONV, low=5, high=4), Shape(4, 5, 2), QUANTS, "bounds"),
    (replace(CONV, inputs=("x",)), Shape(4, 5, 2), QUANTS, "reads and writes uint8"),
    (replace(CONV, activation=Activation("relu")), Shape(4, 5, 2), QUANTS, "activation relu"),
    (replace(CONV, inputs=("a", "a")), Shape(4, 5, 2), QUANTS, "has 2 inputs"),
    (q.QBinary(**IO, kind="mul", constant=_bytes(1, 1, 6)), SHAPE, QUANTS, "has a quant"),
    (q.QPool(**IO, kind="max", kernel=(2, 2), strides=(2, 2)), Shape(2, 2, 6), QUANTS, "largest"),
    (q.QLut(**IO, table=_bytes(255)), SHAPE, QUANTS, "table"),
    (g.Concat(name="n", inputs=("a",), output="b", axis="c"), SHAPE, QUANTS, "moves elements"),
    (g.Unary(**IO), SHAPE, SAME, "works on float32"),
    (g.Gather(**IO, activation=Activation("relu")), SHAPE, SAME, "activation on uint8"),
    (q.QLut(**IO, table=_bytes(256)), SHAPE, {**QUANTS, "a": Quant(0.0, 3)}, "scale 0.0"),
    (q.QLut(**IO, table=_bytes(256)), SHAPE, {**QUANTS, "a": Quant(0.1, 3)}, "not a positive float32"),
    (q.QLut(**IO, table=_bytes(256)), SHAPE, {**QUANTS, "b": Quant(0.5, 256)}, "zero point 256"),
    (q.QLut(**IO, table=_bytes(256)), SHAPE, {**QUANTS, "z": IN}, "'z', which no operator"),
    (q.QLut(**IO, table=_bytes(256)), SHAPE, {**QUANTS, "y": IN}, "reads uint8 and writes float32"),
    (q.QLut(**IO, table=_bytes(256)), SHAPE, {**QUANTS, "x": IN}, "reads float32 and writes uint8"),
]


@pytest.mark.parametrize(("op", "out", "quants"), SOUND, ids=lambda value: type(value).__name__)
def test_sound_operators(op: g.Op, out: Shape, quants: dict[str, Quant]) -> None:
    graph = _graph(op, out, quants)
    check(graph)
    assert [graph.elem_bytes(name) for name in ("x", "a", "b", "y")] == [4, 1, 1, 4]
    assert set(graph.with_ops(graph.ops[:1]).quants) == {"a"}


@pytest.mark.parametrize(("op", "out", "quants", "message"), UNSOUND, ids=lambda value: str(value)[:20])
def test_unsound_operators(op: g.Op, out: Shape, quants: dict[str, Quant], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(_graph(op, out, quants))


def _rounded(value: Fraction) -> int:
    """To the nearest integer, ties to even, of an exact number."""
    return round(value)


def test_convolution_by_definition() -> None:
    x, weight = _bytes(5, 6, 4), RNG.integers(-128, 128, (6, 3, 2, 2)).astype(np.int8)
    bias = RNG.integers(-1000, 1000, 6).astype(np.int32)
    multiplier = np.full(6, 2.0**-8, np.float32)
    op = q.QConv(**IO, weight=weight, bias=bias, multiplier=multiplier, strides=(2, 1), dilations=(1, 2),
                 pads=(1, 0, 2, 1), groups=2, low=10, high=250)  # fmt: skip
    found = evaluate_op(op, [x], Shape(3, 5, 6), quants=QUANTS)
    exact = evaluate_op(op, [x], Shape(3, 5, 6), quants={"a": IN})
    assert (found.dtype, exact.dtype) == (np.uint8, np.float32)
    for y, column, c in np.ndindex(3, 5, 6):
        total = int(bias[c])
        for j, i, k in np.ndindex(3, 2, 2):
            row, col = y * 2 + j - 1, column + 2 * i
            if 0 <= row < 5 and 0 <= col < 6:
                total += (int(x[row, col, (c // 3) * 2 + k]) - 3) * int(weight[c, j, i, k])
        assert found[y, column, c] == min(max(_rounded(Fraction(total, 256)) + 128, 10), 250)
        assert exact[y, column, c] == total / 256


def test_depthwise_is_a_convolution_in_groups() -> None:
    x, weight = _bytes(5, 6, 4), RNG.integers(-128, 128, (3, 3, 4)).astype(np.int8)
    common = {"bias": np.arange(4, dtype=np.int32), "multiplier": np.full(4, 0.003, np.float32), "pads": (1, 1, 1, 1)}
    one = q.QDepthwiseConv(**IO, weight=weight, **common)
    other = q.QConv(**IO, weight=np.ascontiguousarray(weight.transpose(2, 0, 1)[..., None]), groups=4, **common)
    found, expected = (evaluate_op(op, [x], Shape(5, 6, 4), quants=QUANTS) for op in (one, other))
    np.testing.assert_array_equal(found, expected)


def test_ties_go_to_even_and_results_saturate() -> None:
    one = Quant(1.0, 10)
    values = np.array([-11, -10, -0.5, 0.5, 1.5, 2.5, 245, 246, np.nan, np.inf, -np.inf], np.float32)
    assert q.quantize(values, one).tolist() == [0, 0, 10, 10, 12, 12, 255, 255, 0, 255, 0]
    assert q.requantize(values, one, 11, 200).tolist() == [11, 11, 11, 11, 12, 12, 200, 200, 11, 200, 11]


@pytest.mark.parametrize("kind", ["add", "sum", "sub", "mul"])
def test_binary_with_quants_that_are_powers_of_two(kind: str) -> None:
    a, b = _bytes(4, 5, 6), _bytes(1, 1, 6)
    quants = {"a": Quant(0.5, 7), "b": Quant(0.25, 100), "c": Quant(2.0, 90)}
    op = q.QBinary(name="n", inputs=("a", "b"), output="c", kind=kind)  # type: ignore[arg-type]
    found = evaluate_op(op, [a, b], SHAPE, quants=quants)
    left, right = (a.astype(int) - 7) * 0.5, (b.astype(int) - 100) * 0.25
    value = {"add": left + right, "sum": left + right, "sub": left - right, "mul": left * right}[kind]
    np.testing.assert_array_equal(found, np.clip(np.rint(value / 2) + 90, 0, 255))
    swapped = replace(op, inputs=("b",), constant=a, constant_quant=quants["a"], constant_first=True)
    np.testing.assert_array_equal(evaluate_op(swapped, [b], SHAPE, quants=quants), found)


@pytest.mark.parametrize("counted", [False, True])
def test_pooling(counted: bool) -> None:
    x = np.array([10, 20, 31, 40], np.uint8).reshape(1, 4, 1)
    window = {"kernel": (1, 2), "strides": (1, 2), "pads": (0, 1, 0, 1)}
    quants = {"a": Quant(1.0, 4), "b": Quant(0.5, 0)}
    op = q.QPool(**IO, kind="average", count_include_pad=counted, **window)
    expected = [6.0, 102.0 - 59, 36.0] if counted else [12.0, 43.0, 72.0]
    assert evaluate_op(op, [x], Shape(1, 3, 1), quants=quants).reshape(-1).tolist() == pytest.approx(expected)
    largest = q.QPool(**IO, kind="max", **window)
    assert evaluate_op(largest, [x], Shape(1, 3, 1), quants=SAME).reshape(-1).tolist() == [10, 31, 40]
    mean = evaluate_op(q.QReduce(**IO), [x], Shape(1, 1, 1), quants=quants)
    assert mean.reshape(-1).tolist() == [round((101 / 4 - 4) * 2)]


def test_moving_pads_with_the_zero_point() -> None:
    x = _bytes(4, 5, 6)
    op = g.Gather(**IO, rows=np.array([-1, 2], np.int32))
    found = evaluate_op(op, [x], Shape(2, 5, 6), quants=SAME)
    assert found.dtype == np.uint8 and (found[0] == 3).all() and (found[1] == x[2]).all()
    filled = replace(op, fill=1.25)
    assert q.quantized_fill(filled, IN) == 3 + 2 and q.quantized_fill(replace(op, fill=-np.inf), IN) == 0


def test_a_graph_of_both_types() -> None:
    x = RNG.uniform(-40, 40, (4, 5, 6)).astype(np.float32)
    table = np.arange(255, -1, -1).astype(np.uint8)
    found = evaluate(_graph(q.QLut(**IO, table=table)), {"x": x})["y"]
    steps = np.clip(np.rint(x / 0.5) + 3, 0, 255)
    np.testing.assert_array_equal(found, (255 - steps - 128) * 0.25)
