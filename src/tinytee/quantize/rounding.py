"""Rounds weights so that a layer's results are near, rather than each weight: GPTQ, with a descent behind it.

A weight that is rounded leaves an error, and the weights of its channel that are not rounded yet can make up for it,
as far as their inputs move together. With the covariance H of a layer's inputs, what rounding w to q does to results is
(w - q) H (w - q)' on average (their mean goes into the bias, ``refine.correct_biases``). GPTQ takes the inputs in the
order of their variances, rounds, and spreads each error over the rest by the Cholesky factor of the inverse of H:
Frantar et al., arXiv 2210.17323, algorithm 1. Then single weights move by steps that lower the sum, until none does.

Two inputs that are always the same, weights (0.4, 0.4): nearest are (0, 0), an error of 0.8 times the input; after the
first became 0, the other is 0.8 and becomes 1: an error of 0.2.

Scales are taken from the model as they are: whoever wants to change them does so before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tinytee.quantize.engine import Feed, open_session, run
from tinytee.quantize.nodes import attribute
from tinytee.quantize.refine import weighted_inputs

LARGEST = 127
_POSITIONS = 256
"""So many windows of a picture stand for all of them."""
_DAMPING = 0.01
_BLOCK = 64
_SWEEPS = 3
_MOST_DESCENDED = 1536
"""Channels of more weights stay as GPTQ has rounded them: a descent's time grows with the square of their number."""
_MOST_INPUTS = 6144
"""A channel of more weights is rounded to nearest: its covariance would take too much memory."""
_ELEMENTS_AT_ONCE = 1 << 26


@dataclass
class _Layer:
    """A convolution or Gemm, its weights as [groups, outputs, inputs]."""

    node: onnx.NodeProto
    source: str
    shape: tuple[int, ...]
    stored_as: str
    weights: NDArray[np.float64]
    scales: NDArray[np.float64]
    count: int = 0
    total: NDArray = field(default_factory=lambda: np.zeros(0))
    moment: NDArray = field(default_factory=lambda: np.zeros(0))

    @property
    def elements(self) -> int:
        groups, _, inputs = self.weights.shape
        return groups * inputs * inputs

    def see(self, array: NDArray, rng: np.random.Generator) -> None:
        """Adds one sample of the input to the moments."""
        windows = _windows(self.node, self.shape, array, rng).astype(np.float64)  # [groups, windows, inputs]
        if not self.count:
            self.total, self.moment = np.zeros(1), np.zeros(1)
        self.count += windows.shape[1]
        self.total = self.total + windows.sum(axis=1)
        self.moment = self.moment + windows.transpose(0, 2, 1) @ windows

    def covariance(self) -> NDArray[np.float64]:
        """[groups, inputs, inputs]; a trace of the mean squares keeps it positive where the inputs never vary."""
        mean, diagonal = self.total / self.count, np.arange(self.weights.shape[2])
        found = self.moment / self.count - mean[:, :, None] * mean[:, None, :]
        found[:, diagonal, diagonal] += 1e-6 * np.square(mean).mean(axis=1)[:, None]
        return found


def round_weights(
    quantized: onnx.ModelProto,
    floating: onnx.ModelProto,
    samples: Sequence[Feed],
    told: Callable[[float], None] | None = None,
) -> onnx.ModelProto:
    """The quantized model (QDQ), weights of convolutions and Gemms rounded for the samples.

    Args:
        quantized: its weights lie as int8 behind DequantizeLinear, with zero points of 0; the scales stay.
        floating: the model that it was made of, nodes of the same names.
        samples: inputs that calibrate.
        told: hears the fraction that is done.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(quantized)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    layers = list(_layers(changed, floating))
    fed = {value.name for value in floating.graph.input}
    done, whole = 0, sum(layer.elements for layer in layers)
    while layers:
        size, part = 0, list[_Layer]()
        while layers and (not part or size + layers[0].elements <= _ELEMENTS_AT_ONCE):
            part.append(layers.pop(0))
            size += part[-1].elements
        inner = sorted({layer.source for layer in part} - fed)
        session = open_session(floating, inner)
        rng = np.random.default_rng(0)
        for position, sample in enumerate(samples):
            found = dict(sample) | (dict(zip(inner, run(session, inner, sample), strict=True)) if inner else {})
            for layer in part:
                layer.see(found[layer.source], rng)
            if told is not None:
                told((done + size * position / len(samples) / 2) / whole)
        for layer in part:
            rounded = round_to_output(layer.weights / layer.scales, layer.covariance())
            integers = rounded.reshape(layer.shape[0], -1)
            integers = _matrix_back(layer.node, integers, layer.shape).astype(np.int8)
            stored[layer.stored_as].CopyFrom(numpy_helper.from_array(integers, layer.stored_as))
            done += layer.elements
            layer.moment = np.zeros(0)
            if told is not None:
                told(done / whole)
    return changed


def round_to_output(weights: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integers of -127 to 127 near real numbers, so that products with inputs of that covariance are near.

    Args:
        weights: [groups, outputs, inputs], in units of their scales.
        covariance: [groups, inputs, inputs] of the inputs.
    """
    inputs = weights.shape[2]
    diagonal = np.arange(inputs)
    variance = covariance[:, diagonal, diagonal].mean(axis=1)
    damped = covariance.copy()
    damped[:, diagonal, diagonal] += np.maximum(_DAMPING * variance, 1e-8 * max(variance.max(), 1e-22))[:, None]
    order = np.argsort(-damped[:, diagonal, diagonal], axis=1, kind="stable")
    sorted_weights = np.take_along_axis(weights, order[:, None, :], axis=2)
    ordered = np.take_along_axis(np.take_along_axis(damped, order[:, :, None], axis=1), order[:, None, :], axis=2)
    spread = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)
    found = _compensate(sorted_weights, spread)
    if inputs <= _MOST_DESCENDED:
        found = _descend(sorted_weights, found, ordered)
    nearest = np.clip(np.rint(sorted_weights), -LARGEST, LARGEST)
    better = _harm(sorted_weights - found, ordered) <= _harm(sorted_weights - nearest, ordered)
    chosen = np.where(better[:, :, None], found, nearest)
    return np.take_along_axis(chosen, np.argsort(order, axis=1)[:, None, :], axis=2)


def _harm(error: NDArray, covariance: NDArray) -> NDArray:
    """Mean square that wrong weights add to each output: [groups, outputs]."""
    return np.einsum("goi,goi->go", error @ covariance, error)


def _compensate(weights: NDArray, spread: NDArray) -> NDArray:
    """GPTQ: rounds input by input; ``spread`` is the upper Cholesky factor of the covariance's inverse."""
    left, inputs = weights.copy(), weights.shape[2]
    found = np.empty_like(left)
    for begin in range(0, inputs, _BLOCK):
        end = min(inputs, begin + _BLOCK)
        errors = np.empty((*left.shape[:2], end - begin))
        for at in range(begin, end):
            found[:, :, at] = np.clip(np.rint(left[:, :, at]), -LARGEST, LARGEST)
            error = (left[:, :, at] - found[:, :, at]) / spread[:, at, at, None]
            left[:, :, at + 1 : end] -= error[:, :, None] * spread[:, None, at, at + 1 : end]
            errors[:, :, at - begin] = error
        left[:, :, end:] -= errors @ spread[:, begin:end, end:]
    return found


def _descend(weights: NDArray, found: NDArray, covariance: NDArray) -> NDArray:
    """Moves one input's weights at a time to the integer that is best while the others stay."""
    slope = (weights - found) @ covariance
    for _ in range(_SWEEPS):
        moved = False
        for at in range(weights.shape[2]):
            wanted = found[:, :, at] + slope[:, :, at] / covariance[:, at, at, None]
            step = np.clip(np.rint(wanted), -LARGEST, LARGEST) - found[:, :, at]
            if step.any():
                found[:, :, at] += step
                slope -= step[:, :, None] * covariance[:, None, at]
                moved = True
        if not moved:
            break
    return found


def _layers(quantized: onnx.ModelProto, floating: onnx.ModelProto) -> Iterator[_Layer]:
    """Those whose weights one node alone reads, and whose windows are understood."""
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    origin = {tensor.name: tensor for tensor in floating.graph.initializer}
    nodes = {node.name: node for node in floating.graph.node}
    readers: dict[str, int] = {}
    for node in quantized.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    dequantizers = {node.output[0]: node for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    inputs = weighted_inputs(floating)
    for node in quantized.graph.node:
        of_weight = dequantizers.get(node.input[1]) if node.name in inputs else None
        if of_weight is None or of_weight.input[0] not in stored or readers[of_weight.output[0]] != 1:
            continue
        integers, *rest = (numpy_helper.to_array(stored[name]) for name in of_weight.input if name in stored)
        if integers.dtype != np.int8 or readers[of_weight.input[0]] != 1 or (len(rest) > 1 and rest[1].any()):
            continue
        twin = nodes[node.name]
        exact = numpy_helper.to_array(origin[twin.input[1]]).astype(np.float64)
        axis = _output_axis(twin)
        if not _is_known(twin, exact) or (rest[0].size > 1 and attribute(of_weight, "axis", 1) != axis):
            continue
        groups = attribute(twin, "group", 1)
        matrix = (exact.T if axis else exact).reshape(exact.shape[axis], -1)
        if matrix.shape[1] > _MOST_INPUTS:
            continue
        weights = matrix.reshape(groups, -1, matrix.shape[1])
        scales = np.broadcast_to(rest[0].astype(np.float64).reshape(-1), len(matrix)).reshape(groups, -1, 1)
        shape = exact.T.shape if axis else exact.shape
        yield _Layer(twin, inputs[node.name], shape, of_weight.input[0], weights, scales)


def _output_axis(node: onnx.NodeProto) -> int:
    return int(node.op_type == "Gemm" and not attribute(node, "transB", 0))


def _is_known(node: onnx.NodeProto, weights: NDArray) -> bool:
    if node.op_type == "Gemm":
        return weights.ndim == 2 and not attribute(node, "transA", 0)
    return weights.ndim == 4 and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"


def _matrix_back(node: onnx.NodeProto, matrix: NDArray, shape: tuple[int, ...]) -> NDArray:
    whole = matrix.reshape(shape)
    return np.ascontiguousarray(whole.T) if _output_axis(node) else whole


def _windows(node: onnx.NodeProto, shape: tuple[int, ...], array: NDArray, rng: np.random.Generator) -> NDArray:
    """What a layer multiplies its weights by, at some of its output's positions: [groups, positions, inputs]."""
    if node.op_type == "Gemm":
        return array.reshape(1, -1, shape[1])
    size: Mapping[str, Sequence[int]] = {
        "pads": attribute(node, "pads", [0] * 4),
        "strides": attribute(node, "strides", [1, 1]),
        "dilations": attribute(node, "dilations", [1, 1]),
    }
    top, left, bottom, right = size["pads"]
    (kernel_y, kernel_x), (step_y, step_x), (apart_y, apart_x) = shape[2:], size["strides"], size["dilations"]
    padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows = (padded.shape[2] - (kernel_y - 1) * apart_y - 1) // step_y + 1
    columns = (padded.shape[3] - (kernel_x - 1) * apart_x - 1) // step_x + 1
    chosen = np.arange(rows * columns)
    if len(chosen) > _POSITIONS:
        chosen = rng.choice(len(chosen), _POSITIONS, replace=False)
    at_y = (chosen // columns * step_y)[:, None] + np.arange(kernel_y) * apart_y  # [positions, kernel_y]
    at_x = (chosen % columns * step_x)[:, None] + np.arange(kernel_x) * apart_x
    found = padded[:, :, at_y[:, :, None], at_x[:, None, :]]  # [n, c, positions, kernel_y, kernel_x]
    groups = attribute(node, "group", 1)
    samples, channels, positions = found.shape[:3]
    parted = found.reshape(samples, groups, channels // groups, positions, -1).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(parted).reshape(groups, samples * positions, -1)
