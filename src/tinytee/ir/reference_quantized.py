"""What operators on uint8 tensors compute, in exact integers and single float32 operations: see ``ir.quantized``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tinytee.ir import quantized as q
from tinytee.ir.graph import Lrn, Op, Quant, Shape

Taps = Callable[..., list[NDArray]]
"""(x, fill, pads) to what each tap of every window reads, in the order y, x: [height, width, channels] each."""


def evaluate(op: Op, inputs: list[NDArray], shape: Shape, quants: Mapping[str, Quant], taps: Taps) -> NDArray:
    """One operator of ``ir.quantized``.

    Args:
        op: the operator.
        inputs: [height, width, channels] each, uint8 or float32.
        shape: the output's.
        quants: of the tensors that the operator reads and writes.
        taps: the elements under the windows of a convolution or pooling.

    Returns:
        uint8 or float32, of ``shape``.
    """
    sources = [quants.get(name) for name in op.inputs]
    return _FUNCTIONS[type(op)](op, inputs, shape, sources, quants.get(op.output), taps)


def _centred(x: NDArray, quant: Quant) -> NDArray[np.int64]:
    return x.astype(np.int64) - quant.zero_point


def _scaled(op: q.QConv | q.QDepthwiseConv, total: NDArray[np.int64], target: Quant | None) -> NDArray:
    """The accumulators, rounded to float32 and scaled."""
    scaled = total.astype(np.float32) * op.multiplier
    if target is not None:
        return q.requantize(scaled, target, op.low, op.high)
    if op.activation.kind == "relu":
        return np.maximum(scaled, np.float32(0))
    if op.activation.kind == "clip":
        return np.clip(scaled, np.float32(op.activation.alpha), np.float32(op.activation.beta))
    return scaled


def _conv(op: q.QConv, inputs: list[NDArray], shape: Shape, sources, target, taps: Taps) -> NDArray:
    kernel = op.weight.reshape(shape.channels, -1, op.weight.shape[3]).astype(np.float64)
    read = taps(_centred(inputs[0], sources[0]), 0, op.pads)
    per_in, per_out = inputs[0].shape[2] // op.groups, shape.channels // op.groups
    total = np.zeros((shape.height, shape.width, shape.channels), np.float64)
    for position, tap in enumerate(read):
        for group in range(op.groups):
            ins = slice(group * per_in, (group + 1) * per_in)
            outs = slice(group * per_out, (group + 1) * per_out)
            total[:, :, outs] += tap[:, :, ins].astype(np.float64) @ kernel[outs, position].T
    return _scaled(op, total.astype(np.int64) + op.bias, target)


def _depthwise(op: q.QDepthwiseConv, inputs: list[NDArray], shape: Shape, sources, target, taps: Taps) -> NDArray:
    kernel = op.weight.reshape(-1, shape.channels).astype(np.int64)
    read = taps(_centred(inputs[0], sources[0]), 0, op.pads)
    total = sum((tap * filters for tap, filters in zip(read, kernel, strict=True)), np.zeros((), np.int64))
    return _scaled(op, total + op.bias, target)


def _binary(op: q.QBinary, inputs: list[NDArray], shape: Shape, sources, target: Quant, taps: Taps) -> NDArray:
    operands = list(zip(inputs, sources, strict=True))
    if op.constant is not None:
        operands.insert(0 if op.constant_first else 1, (op.constant, op.constant_quant))
    (a, of_a), (b, of_b) = operands
    if op.kind == "mul":
        product = (_centred(a, of_a) * _centred(b, of_b)).astype(np.float32)
        result = product * q.product_ratio(of_a, of_b, target) + np.float32(target.zero_point)
    elif op.kind == "add":
        left, right, offset = q.addition(of_a, of_b, target)
        result = q.fma(a, left, q.fma(b, right, offset))
    else:
        one, two = q.dequantize(a, of_a), q.dequantize(b, of_b)
        result = (one + two if op.kind == "sum" else one - two) / np.float32(target.scale)
        return q.requantize(result, target, op.low, op.high)
    return q.to_bytes(result, op.low, op.high)


def _pool(op: q.QPool, inputs: list[NDArray], shape: Shape, sources, target: Quant, taps: Taps) -> NDArray:
    if op.kind == "max":
        return np.max(taps(inputs[0].astype(np.int64), -1, op.pads), axis=0).astype(np.uint8)
    total = np.zeros((shape.height, shape.width, shape.channels), np.float32)
    for tap in taps(q.dequantize(inputs[0], sources[0]), 0, op.pads):
        total = total + tap
    counted, pads = np.ones((*inputs[0].shape[:2], 1), np.int64), op.pads
    if op.count_include_pad:
        top, left, bottom, right = op.pads
        counted = np.pad(counted, ((top, bottom), (left, right), (0, 0)), constant_values=1)
        pads = (0, 0, 0, 0)
    count = np.sum(taps(counted, 0, pads), axis=0).astype(np.float32)
    with np.errstate(all="ignore"):
        return q.to_bytes(total / count / np.float32(target.scale) + np.float32(target.zero_point))


def _reduce(op: q.QReduce, inputs: list[NDArray], shape: Shape, sources, target: Quant, taps: Taps) -> NDArray:
    total = _centred(inputs[0], sources[0]).sum(axis=(0, 1), keepdims=True)
    factor = q.mean_factor(sources[0], target, inputs[0].shape[0] * inputs[0].shape[1])
    return q.requantize(total.astype(np.float32) * factor, target)


def _lrn(op: q.QLrn, inputs: list[NDArray], shape: Shape, sources, target: Quant, taps: Taps) -> NDArray:
    return q.quantize(local_response(op, q.dequantize(inputs[0], sources[0]).astype(np.float64)), target)


def local_response(op: Lrn | q.QLrn, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Local response normalization over neighbouring channels, as ONNX defines it."""
    before = (op.size - 1) // 2
    squares = np.pad(x * x, ((0, 0), (0, 0), (before, op.size - 1 - before)))
    total = sum(squares[:, :, i : i + x.shape[2]] for i in range(op.size))
    return x / (op.bias + op.alpha / op.size * total) ** op.beta


_FUNCTIONS: dict[type[Op], Callable[..., NDArray]] = {
    q.Quantize: lambda op, inputs, shape, sources, target, taps: q.quantize(inputs[0], target),
    q.Dequantize: lambda op, inputs, shape, sources, target, taps: q.dequantize(inputs[0], sources[0]),
    q.QConv: _conv,
    q.QDepthwiseConv: _depthwise,
    q.QBinary: _binary,
    q.QLut: lambda op, inputs, shape, sources, target, taps: op.table[inputs[0]],
    q.QPool: _pool,
    q.QReduce: _reduce,
    q.QLrn: _lrn,
}
