"""Weights rounded for the results of their layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from tinytee.quantize.engine import open_session
from tinytee.quantize.prepare import prepare
from tinytee.quantize.quantize import quantize
from tinytee.quantize.rounding import LARGEST, _windows, round_to_output, round_weights
from unit.importer.support import model, node, random


def _harm(error: NDArray, covariance: NDArray) -> NDArray:
    return np.einsum("goi,gij,goj->go", error, covariance, error)


def _layer(groups: int, inputs: int, seed: int, samples: int = 200) -> tuple[NDArray, NDArray]:
    """Weights of steps' size, and the covariance of inputs that move together."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(groups, samples, max(1, inputs // 4)))
    seen = causes @ rng.normal(size=(groups, causes.shape[2], inputs)) + 0.05 * rng.normal(
        size=(groups, samples, inputs)
    )
    return rng.normal(size=(groups, 7, inputs)) * 40, np.stack([np.cov(one, rowvar=False) for one in seen])


@pytest.mark.parametrize(("groups", "inputs"), [(1, 9), (1, 150), (12, 9), (3, 70)])
def test_results_are_nearer_than_by_nearest_weights(groups: int, inputs: int) -> None:
    weights, covariance = _layer(groups, inputs, groups + inputs)
    found, nearest = round_to_output(weights, covariance), np.clip(np.rint(weights), -LARGEST, LARGEST)
    np.testing.assert_array_equal(found, np.clip(np.rint(found), -LARGEST, LARGEST))
    ours, theirs = _harm(weights - found, covariance), _harm(weights - nearest, covariance)
    assert ours.sum() < theirs.sum() / 3
    assert np.mean(ours <= theirs) > 0.95


def test_the_worked_example() -> None:
    found = round_to_output(np.full((1, 1, 2), 0.4), np.ones((1, 2, 2)))
    assert sorted(found.ravel()) == [0, 1]


def test_inputs_that_are_independent_or_silent_leave_the_nearest() -> None:
    weights = _layer(2, 8, 0)[0]
    nearest = np.clip(np.rint(weights), -LARGEST, LARGEST)
    spread = np.broadcast_to(np.diag(np.arange(1.0, 9.0)), (2, 8, 8))
    np.testing.assert_array_equal(round_to_output(weights, spread), nearest)
    np.testing.assert_array_equal(round_to_output(weights, np.zeros((2, 8, 8))), nearest)


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((6, 4, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ((4, 1, 3, 2), {"group": 4, "dilations": [2, 3]}),
        ((6, 2, 1, 1), {"group": 2}),
    ],
)
def test_windows_are_what_a_convolution_multiplies(kernel: tuple[int, ...], attributes: dict[str, Any]) -> None:
    image, weights = random((1, 4, 11, 9), 1), random(kernel, 2)
    conv = node("Conv", "x w", kernel_shape=list(kernel[2:]), **attributes)
    made = model([conv], {"x": image.shape}, {"w": weights})
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.asarray(session.run(None, {"x": image})[0]).reshape(kernel[0], -1)
    windows = _windows(conv, kernel, image, np.random.default_rng(0))
    found = weights.reshape(len(windows), -1, windows.shape[2]) @ windows.transpose(0, 2, 1)
    np.testing.assert_allclose(found.reshape(kernel[0], -1), expected, atol=1e-5)


def _network(transposed: int) -> onnx.ModelProto:
    shapes = {"w": (24, 3, 3, 3), "b": (24,), "g": (32, 24 * 16) if transposed else (24 * 16, 32), "c": (32,)}
    constants = {name: random(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    nodes = [
        node("Conv", "x w b", "h", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "h", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f g c", transB=transposed),
    ]
    return onnx.shape_inference.infer_shapes(model(nodes, {"x": (1, 3, 8, 8)}, constants))


def _pictures(count: int, seed: int) -> list[dict[str, NDArray]]:
    """Smooth: pixels that move together."""
    rng = np.random.default_rng(seed)
    return [{"x": np.kron(rng.normal(size=(1, 3, 2, 2)), np.ones((4, 4))).astype(np.float32)} for _ in range(count)]


def _integers(made: onnx.ModelProto) -> dict[str, NDArray]:
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in made.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    }


@pytest.mark.parametrize("transposed", [0, 1])
def test_weights_alone_change_and_harm_less_than_nearest_ones(transposed: int) -> None:
    samples, unseen = _pictures(60, 0), _pictures(40, 1)
    floating = prepare(_network(transposed))
    rounded = quantize(_network(transposed), samples).model
    nearest = quantize(_network(transposed), samples, rounding="nearest").model
    again = round_weights(nearest, floating, samples)
    for name, integers in _integers(again).items():
        np.testing.assert_array_equal(integers, _integers(rounded)[name])
        assert (integers != _integers(nearest)[name]).any()
    before, after = ({t.name: numpy_helper.to_array(t) for t in made.graph.initializer} for made in (nearest, again))
    for name in before.keys() - _integers(nearest).keys():
        np.testing.assert_array_equal(after[name], before[name])
    assert _noise(floating, rounded, unseen) < _noise(floating, nearest, unseen)


def test_one_sample_is_enough() -> None:
    assert _integers(quantize(_network(1), _pictures(1, 0)).model)


def _noise(floating: onnx.ModelProto, made: onnx.ModelProto, samples: list[dict[str, NDArray]]) -> float:
    sessions = [open_session(proto) for proto in (floating, made)]
    found = [np.stack([np.asarray(session.run(None, feed)[0]) for feed in samples]) for session in sessions]
    error = found[0] - found[1]
    return float(np.square(error - error.mean(axis=0)).sum())
