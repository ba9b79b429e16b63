"""The reference against direct formulas, written another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinytee.ir import graph as g
from tinytee.ir.graph import Activation, Graph, Port, Shape
from tinytee.ir.reference import activate, evaluate, evaluate_op

RNG = np.random.default_rng(0)


def _array(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("x", [-6.0, -3.0, -1.0, -0.1, 0.0, 0.5, 2.9, 3.1, 5.0, 40.0])
def test_functions_with_a_standard_definition(x: float) -> None:
    at = np.array([x])
    assert activate(Activation("erf"), at)[0] == pytest.approx(math.erf(x), abs=1e-12)
    assert activate(Activation("gelu"), at)[0] == pytest.approx(x / 2 * (1 + math.erf(x / math.sqrt(2))), abs=1e-12)
    assert activate(Activation("softplus"), at)[0] == pytest.approx(math.log(1 + math.exp(x)), abs=1e-12)
    assert activate(Activation("swish", 1.5), at)[0] == pytest.approx(x / (1 + math.exp(-1.5 * x)), abs=1e-12)


def test_erf_of_the_ends() -> None:
    found = activate(Activation("erf"), np.array([-np.inf, np.inf, np.nan]))
    assert found[:2].tolist() == [-1, 1] and np.isnan(found[2])


def test_convolution_by_definition() -> None:
    x, weight, bias = _array(5, 6, 4), _array(6, 3, 2, 2), _array(6)
    op = g.Conv(name="", inputs=("x",), output="y", weight=weight, bias=bias, strides=(2, 1), dilations=(1, 2),
                pads=(1, 0, 2, 1), groups=2)  # fmt: skip
    found = evaluate_op(op, [x], Shape(3, 5, 6))
    for y, column, c in np.ndindex(3, 5, 6):
        total = float(bias[c])
        for j, i, k in np.ndindex(3, 2, 2):
            row, col = y * 2 + j - 1, column + 2 * i
            if 0 <= row < 5 and 0 <= col < 6:
                total += float(x[row, col, (c // 3) * 2 + k]) * float(weight[c, j, i, k])
        assert found[y, column, c] == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(("counted", "expected"), [(False, [1.0, 2.5, 4.0]), (True, [1 / 2, 2.5, 4 / 2])])
def test_average_pool_divisors(counted: bool, expected: list) -> None:
    x = np.array([1.0, 2, 3, 4], np.float32).reshape(1, 4, 1)
    op = g.Pool(name="", inputs=("x",), output="y", kind="average", kernel=(1, 2), strides=(1, 2),
                pads=(0, 1, 0, 1), count_include_pad=counted)  # fmt: skip
    np.testing.assert_allclose(evaluate_op(op, [x], Shape(1, 3, 1)).reshape(-1), expected)


def test_average_pool_does_not_count_what_ceil_mode_adds() -> None:
    x = np.ones((1, 3, 1), np.float32)
    op = g.Pool(
        name="", inputs=("x",), output="y", kind="average", kernel=(1, 2), strides=(1, 2), count_include_pad=True
    )
    np.testing.assert_allclose(evaluate_op(op, [x], Shape(1, 2, 1)).reshape(-1), [1, 1])


def test_gather_fills() -> None:
    x = _array(2, 2, 2)
    op = g.Gather(name="", inputs=("x",), output="y", rows=np.array([1, -1], np.int32), fill=7.0)
    found = evaluate_op(op, [x], Shape(2, 2, 2))
    np.testing.assert_array_equal(found, np.stack([x[1], np.full((2, 2), 7, np.float32)]))


def test_permute_is_a_strided_view() -> None:
    x = _array(2, 3, 4)
    op = g.Permute(name="", inputs=("x",), output="y", dims=(4, 2, 3), strides=(1, 12, 4))
    np.testing.assert_array_equal(evaluate_op(op, [x], Shape(4, 2, 3)), x.transpose(2, 0, 1))


def test_depth_to_space_inverts_space_to_depth() -> None:
    x = _array(4, 6, 3)
    deep = evaluate_op(g.SpaceToDepth(name="", inputs=("x",), output="y", block=2), [x], Shape(2, 3, 12))
    back = evaluate_op(g.DepthToSpace(name="", inputs=("x",), output="y", block=2, mode="DCR"), [deep], Shape(4, 6, 3))
    np.testing.assert_array_equal(back, x)


def test_batched_ports_run_sample_by_sample() -> None:
    source = Port("image", "x", (0, 3, 4, 5), "float32", (0, 2, 3, 1), batched=True)
    result = Port("label", "y", (0, 4, 5, 1), "int64", (0, 1, 2, 3), batched=True)
    op = g.ArgMax(name="", inputs=("x",), output="y")
    graph = Graph((source,), (result,), {"x": Shape(4, 5, 3), "y": Shape(4, 5, 1)}, (op,))
    x = _array(6, 3, 4, 5)
    found = evaluate(graph, {"image": x})["label"]
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found[..., 0], x.argmax(axis=1))
    with pytest.raises(ValueError, match="shape"):
        evaluate(graph, {"image": x[:, :2]})
    with pytest.raises(ValueError, match="given"):
        evaluate(graph, {"other": x})


@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_maps(transposed: bool) -> None:
    x, matrices = _array(3, 2, 8), _array(2, 4, 5)  # two groups of four channels, to five each
    stored = (
        matrices.transpose(2, 0, 1).reshape(5, 1, 8) if transposed else matrices.transpose(1, 0, 2).reshape(4, 1, 10)
    )
    op = g.Product(name="", inputs=("x", "m"), output="y", groups=2, transposed=transposed)
    found = evaluate_op(op, [x, stored], Shape(3, 2, 10))
    for group in range(2):
        expected = x[:, :, 4 * group : 4 * group + 4] @ matrices[group]
        np.testing.assert_allclose(found[:, :, 5 * group : 5 * group + 5], expected, atol=1e-6)


def test_a_scan_s_state_is_what_it_computed_of_the_y_plane_before() -> None:
    x, matrix = _array(5, 2, 3), _array(4, 3)
    step = g.Conv(
        name="", inputs=("x", "before"), output="after", weight=matrix[:, None, None], bias=np.zeros(4, np.float32),
        activation=Activation("tanh"),
    )  # fmt: skip
    shapes = {"x": Shape(1, 2, 3), "before": Shape(1, 2, 4), "after": Shape(1, 2, 4)}
    scan = g.Scan(
        name="", inputs=("x",), output="y", operands=("x",), states=(("before", "after"),), body=(step,),
        body_shapes=shapes, result="after",
    )  # fmt: skip
    found, state = evaluate_op(scan, [x], Shape(5, 2, 4)), np.zeros((2, 4))
    for y in range(5):
        state = np.tanh(x[y] @ matrix.T + state)
        np.testing.assert_allclose(found[y], state, atol=1e-6)
