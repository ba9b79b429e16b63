"""What a graph means: a plain numpy interpreter, the independent definition that every engine is held to.

Sums accumulate in float64; every float32 tensor is rounded once, when its operator has computed it. Operators on
uint8 tensors are exact: ``reference_quantized``. It is written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.ir import graph as g
from tinytee.ir import quantized, reference_quantized
from tinytee.ir.graph import Activation, Graph, Op, Port, Quant

F64 = NDArray[np.float64]


def evaluate(graph: Graph, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Runs ``graph`` on the model's own inputs.

    Args:
        graph: a graph that ``check`` accepts.
        inputs: arrays of the model's logical shapes by input name; the sample axis of batched ports may have any
            extent, the same for all.

    Returns:
        arrays by output name, in the ports' shapes and dtypes; sample axes as long as the inputs'.

    Raises:
        ValueError: an input is missing, unknown, or of the wrong shape.
    """
    names = {port.name for port in graph.inputs}
    if set(inputs) != names:
        raise ValueError(f"inputs {sorted(inputs)} given, the model takes {sorted(names)}")
    samples = _sample_count(graph, inputs)
    runs: list[dict[str, NDArray]] = []
    for sample in range(samples):
        tensors = {port.tensor: _read_port(graph, port, np.asarray(inputs[port.name]), sample) for port in graph.inputs}
        for op in graph.ops:
            operands = [tensors[name] for name in op.inputs]
            tensors[op.output] = evaluate_op(op, operands, graph.shapes[op.output], quants=graph.quants)
        runs.append({port.name: _write_port(graph, port, tensors[port.tensor]) for port in graph.outputs})
    return {
        port.name: np.concatenate([run[port.name] for run in runs]) if port.batched else runs[0][port.name]
        for port in graph.outputs
    }


def evaluate_op(
    op: Op,
    inputs: list[NDArray],
    shape: g.Shape,
    dtype: type = np.float32,
    quants: Mapping[str, Quant] | None = None,
) -> NDArray:
    """One operator on tensors of [height, width, channels].

    Args:
        op: the operator.
        inputs: float32, or uint8 where ``quants`` has the tensor.
        shape: the output's.
        dtype: what a float result is rounded to.
        quants: of the uint8 tensors that the operator reads and writes.
    """
    found = quants or {}
    if isinstance(op, quantized.QUANTIZED):
        return reference_quantized.evaluate(op, inputs, shape, found, _taps_of(op, shape))
    target = found.get(op.output)
    if isinstance(op, g.Gather) and target is not None:
        op = replace(op, fill=quantized.quantized_fill(op, target))
    with np.errstate(all="ignore"):
        wide = [tensor.astype(np.float64) for tensor in inputs]
        result = activate(op.activation, _FUNCTIONS[type(op)](op, wide, shape))
        kept = dtype if target is None else np.uint8
        return np.ascontiguousarray(result, dtype=kept).reshape(shape.height, shape.width, shape.channels)


def _taps_of(op: Op, shape: g.Shape) -> reference_quantized.Taps:
    """What each tap of every window of ``op`` reads."""

    def taps(x: NDArray, fill: int, pads: tuple[int, int, int, int]) -> list[NDArray]:
        kernel = _kernel(op)
        padded = _padded(x, pads, kernel, op, shape, fill)
        return [_tap(padded, op, shape, j, i) for j in range(kernel[0]) for i in range(kernel[1])]

    return taps


def _kernel(op) -> tuple[int, int]:
    if isinstance(op, quantized.QPool):
        return op.kernel
    return op.weight.shape[1:3] if isinstance(op, quantized.QConv) else op.weight.shape[:2]


def _sample_count(graph: Graph, inputs: Mapping[str, NDArray]) -> int:
    counts = {np.shape(inputs[port.name])[0] for port in graph.inputs if port.batched}
    if len(counts) > 1:
        raise ValueError(f"inputs hold different numbers of samples: {sorted(counts)}")
    return counts.pop() if counts else 1


def _read_port(graph: Graph, port: Port, array: NDArray, sample: int) -> NDArray:
    expected = port.shape[1:] if port.batched else port.shape
    found = array.shape[1:] if port.batched else array.shape
    if found != expected or array.ndim != len(port.shape):
        raise ValueError(f"input '{port.name}' has the shape {array.shape}, the model takes {port.shape}")
    one = array[sample : sample + 1] if port.batched else array
    shape = graph.shapes[port.tensor]
    tensor = one.transpose(port.perm).reshape(shape.height, shape.width, shape.channels).astype(np.float32)
    quant = graph.quants.get(port.tensor)
    return tensor if quant is None else quantized.quantize(tensor, quant)


def _write_port(graph: Graph, port: Port, tensor: NDArray) -> NDArray:
    quant = graph.quants.get(port.tensor)
    if quant is not None:
        tensor = quantized.dequantize(tensor, quant)
    logical = (1, *port.shape[1:]) if port.batched else port.shape
    stored = tensor.reshape([logical[axis] for axis in port.perm])
    return stored.transpose(np.argsort(port.perm)).astype(port.dtype)


def activate(activation: Activation, x: F64) -> F64:
    """The elementwise function on an array of any shape."""
    alpha, beta = activation.alpha, activation.beta
    with np.errstate(all="ignore"):
        return _ACTIVATIONS[activation.kind](x, alpha, beta)


def _sigmoid(x: F64) -> F64:
    return 1 / (1 + np.exp(-x))


def _softplus(x: F64) -> F64:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _erf(x: F64) -> F64:
    """Error function: Abramowitz and Stegun 7.1.5 (series) below 3, 7.1.14 (continued fraction) above."""
    small = np.clip(x, -3, 3)
    term = small * 2 / np.sqrt(np.pi)
    series = term.copy()
    for n in range(1, 80):
        term = -term * small * small / n
        series += term / (2 * n + 1)
    large = np.maximum(np.abs(x), 3)
    fraction = large.copy()
    for n in range(60, 0, -1):
        fraction = large + (n / 2) / fraction
    tail = np.exp(-large * large) / (fraction * np.sqrt(np.pi))
    return np.where(np.isnan(x), x, np.where(np.abs(x) < 3, series, np.sign(x) * (1 - tail)))


def _gelu_tanh(x: F64) -> F64:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_ACTIVATIONS: dict[str, Callable[[F64, float, float], F64]] = {
    "identity": lambda x, a, b: x,
    "relu": lambda x, a, b: np.maximum(x, 0),
    "clip": lambda x, a, b: np.minimum(np.maximum(x, a), b),
    "leaky_relu": lambda x, a, b: np.where(x < 0, a * x, x),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "hard_swish": lambda x, a, b: x * np.clip(x / 6 + 0.5, 0, 1),
    "swish": lambda x, a, b: x * _sigmoid(a * x),
    "tanh": lambda x, a, b: np.tanh(x),
    "elu": lambda x, a, b: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x),
    "selu": lambda x, a, b: b * np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x),
    "softplus": lambda x, a, b: _softplus(x),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "gelu": lambda x, a, b: 0.5 * x * (1 + _erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x, a, b: _gelu_tanh(x),
    "erf": lambda x, a, b: _erf(x),
    "mish": lambda x, a, b: x * np.tanh(_softplus(x)),
    "exp": lambda x, a, b: np.exp(x),
    "log": lambda x, a, b: np.log(x),
    "sqrt": lambda x, a, b: np.sqrt(x),
    "abs": lambda x, a, b: np.abs(x),
    "neg": lambda x, a, b: -x,
    "reciprocal": lambda x, a, b: 1 / x,
    "pow": lambda x, a, b: np.power(x, a),
    "trunc": lambda x, a, b: np.trunc(x),
    "celu": lambda x, a, b: np.maximum(x, 0) + np.minimum(0, a * np.expm1(x / a)),
    "thresholded_relu": lambda x, a, b: np.where(x > a, x, 0),
    "floor": lambda x, a, b: np.floor(x),
    "ceil": lambda x, a, b: np.ceil(x),
    "round": lambda x, a, b: np.rint(x),
    "sign": lambda x, a, b: np.sign(x),
    "not_zero": lambda x, a, b: (x != 0).astype(np.float64),
}


def _padded(x: F64, pads: tuple[int, int, int, int], kernel: tuple[int, int], op, shape: g.Shape, fill: float) -> F64:
    """``x`` with its padding, and as much more of it below and to the right as the last window reaches."""
    reach = [
        (out - 1) * op.strides[axis] + (kernel[axis] - 1) * op.dilations[axis] + 1
        for axis, out in enumerate((shape.height, shape.width))
    ]
    below = max(reach[0] - pads[0] - x.shape[0], 0)
    right = max(reach[1] - pads[1] - x.shape[1], 0)
    return np.pad(x, ((pads[0], below), (pads[1], right), (0, 0)), constant_values=fill)


def _tap(x: F64, op, shape: g.Shape, j: int, i: int) -> F64:
    """The elements that tap (j, i) of every window reads: [height, width, channels]."""
    top, left = j * op.dilations[0], i * op.dilations[1]
    rows = slice(top, top + (shape.height - 1) * op.strides[0] + 1, op.strides[0])
    cols = slice(left, left + (shape.width - 1) * op.strides[1] + 1, op.strides[1])
    return x[rows, cols]


def _conv(op: g.Conv, inputs: list[F64], shape: g.Shape) -> F64:
    out_channels, kernel_y, kernel_x, _ = op.weight.shape
    x = _padded(inputs[0], op.pads, (kernel_y, kernel_x), op, shape, 0.0)
    per_group_in, per_group_out = x.shape[2] // op.groups, out_channels // op.groups
    result = np.zeros((shape.height, shape.width, out_channels)) + op.bias
    for j in range(kernel_y):
        for i in range(kernel_x):
            tap = _tap(x, op, shape, j, i)
            for group in range(op.groups):
                ins = slice(group * per_group_in, (group + 1) * per_group_in)
                outs = slice(group * per_group_out, (group + 1) * per_group_out)
                result[:, :, outs] += tap[:, :, ins] @ op.weight[outs, j, i, :].T.astype(np.float64)
    return result + inputs[1] if len(inputs) == 2 else result


def _depthwise(op: g.DepthwiseConv, inputs: list[F64], shape: g.Shape) -> F64:
    kernel_y, kernel_x, _ = op.weight.shape
    x = _padded(inputs[0], op.pads, (kernel_y, kernel_x), op, shape, 0.0)
    result = np.zeros((shape.height, shape.width, shape.channels)) + op.bias
    for j in range(kernel_y):
        for i in range(kernel_x):
            result += _tap(x, op, shape, j, i) * op.weight[j, i]
    return result


def _pool(op: g.Pool, inputs: list[F64], shape: g.Shape) -> F64:
    taps = [(j, i) for j in range(op.kernel[0]) for i in range(op.kernel[1])]
    if op.kind == "max":
        x = _padded(inputs[0], op.pads, op.kernel, op, shape, -np.inf)
        result = _tap(x, op, shape, *taps[0])
        for j, i in taps[1:]:
            result = np.maximum(result, _tap(x, op, shape, j, i))
        return result
    x = _padded(inputs[0], op.pads, op.kernel, op, shape, 0.0)
    counted = np.ones((*inputs[0].shape[:2], 1))
    if op.count_include_pad:
        counted = np.pad(counted, ((op.pads[0], op.pads[2]), (op.pads[1], op.pads[3]), (0, 0)), constant_values=1.0)
        missing = [(0, max(have - got, 0)) for have, got in zip(x.shape, counted.shape, strict=False)]
        counted = np.pad(counted, (*missing[:2], (0, 0)))
    else:
        counted = _padded(counted, op.pads, op.kernel, op, shape, 0.0)
    total = np.zeros((shape.height, shape.width, shape.channels))
    divisor = np.zeros((shape.height, shape.width, 1))
    for j, i in taps:
        total += _tap(x, op, shape, j, i)
        divisor += _tap(counted, op, shape, j, i)
    return total / divisor


def _reduce(op: g.Reduce, inputs: list[F64], shape: g.Shape) -> F64:
    function = {"mean": np.mean, "max": np.max, "min": np.min, "sum": np.sum}[op.kind]
    return function(inputs[0], axis=(0, 1), keepdims=True)


def _binary(op: g.Binary, inputs: list[F64], shape: g.Shape) -> F64:
    operands = list(inputs)
    if op.constant is not None:
        operands.insert(0 if op.constant_first else 1, op.constant.astype(np.float64))
    a, b = operands
    functions: dict[str, Callable[[], NDArray[Any]]] = {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "div": lambda: a / b,
        "min": lambda: np.minimum(a, b),
        "max": lambda: np.maximum(a, b),
        "prelu": lambda: np.where(a < 0, a * b, a),
        "pow": lambda: np.power(a, b),
        "less": lambda: a < b,
        "less_or_equal": lambda: a <= b,
        "equal": lambda: a == b,
        "keep": lambda: np.where(b != 0, a, 0),
        "drop": lambda: np.where(b == 0, a, 0),
    }
    return np.asarray(functions[op.kind](), np.float64)


def _gather(op: g.Gather, inputs: list[F64], shape: g.Shape) -> F64:
    result = inputs[0]
    for axis, index in enumerate((op.rows, op.cols, op.chans)):
        if index is not None:
            result = np.take(result, np.maximum(index, 0), axis=axis)
            missing = (index < 0).reshape([-1 if i == axis else 1 for i in range(3)])
            result = np.where(missing, op.fill, result)
    return result


def _resize(op: g.Resize, inputs: list[F64], shape: g.Shape) -> F64:
    rows = np.einsum("yt,ytxc->yxc", op.row_weights.astype(np.float64), inputs[0][op.row_index])
    return np.einsum("xt,yxtc->yxc", op.col_weights.astype(np.float64), rows[:, op.col_index])


def _concat(op: g.Concat, inputs: list[F64], shape: g.Shape) -> F64:
    if op.axis == "y":
        return np.concatenate([x.reshape(-1, shape.width, shape.channels) for x in inputs])
    return np.concatenate(inputs, axis="yxc".index(op.axis))


def _depth_to_space(op: g.DepthToSpace, inputs: list[F64], shape: g.Shape) -> F64:
    height, width, _ = inputs[0].shape
    if op.mode == "DCR":
        blocks = inputs[0].reshape(height, width, op.block, op.block, shape.channels)
        return blocks.transpose(0, 2, 1, 3, 4).reshape(shape.height, shape.width, shape.channels)
    blocks = inputs[0].reshape(height, width, shape.channels, op.block, op.block)
    return blocks.transpose(0, 3, 1, 4, 2).reshape(shape.height, shape.width, shape.channels)


def _space_to_depth(op: g.SpaceToDepth, inputs: list[F64], shape: g.Shape) -> F64:
    blocks = inputs[0].reshape(shape.height, op.block, shape.width, op.block, inputs[0].shape[2])
    return blocks.transpose(0, 2, 1, 3, 4).reshape(shape.height, shape.width, shape.channels)


def _permute(op: g.Permute, inputs: list[F64], shape: g.Shape) -> F64:
    index = sum(
        np.arange(extent).reshape([-1 if axis == position else 1 for axis in range(len(op.dims))]) * stride
        for position, (extent, stride) in enumerate(zip(op.dims, op.strides, strict=True))
    )
    return inputs[0].reshape(-1)[index].reshape(shape.height, shape.width, shape.channels)


def _lrn(op: g.Lrn, inputs: list[F64], shape: g.Shape) -> F64:
    return reference_quantized.local_response(op, inputs[0])


def _softmax(op: g.Softmax, inputs: list[F64], shape: g.Shape) -> F64:
    shifted = inputs[0] - inputs[0].max(axis=2, keepdims=True)
    total = np.exp(shifted).sum(axis=2, keepdims=True)
    return shifted - np.log(total) if op.log else np.exp(shifted) / total


def _layer_norm(op: g.LayerNorm, inputs: list[F64], shape: g.Shape) -> F64:
    centred = inputs[0] - inputs[0].mean(axis=2, keepdims=True)
    variance = (centred * centred).mean(axis=2, keepdims=True)
    return centred / np.sqrt(variance + op.epsilon) * op.scale + op.bias


def _arg_max(op: g.ArgMax, inputs: list[F64], shape: g.Shape) -> F64:
    x = inputs[0]
    index = x.shape[2] - 1 - x[:, :, ::-1].argmax(axis=2) if op.select_last else x.argmax(axis=2)
    return index[:, :, None].astype(np.float64)


def _product(op: g.Product, inputs: list[F64], shape: g.Shape) -> F64:
    x, matrix = (tensor.reshape(*tensor.shape[:2], op.groups, -1) for tensor in inputs)
    matrix = matrix[:, 0].transpose(1, 2, 0) if op.transposed else matrix[:, 0].transpose(1, 0, 2)
    return np.einsum("yxgk,gkm->yxgm", x, matrix).reshape(shape.height, shape.width, shape.channels)


def _scan(op: g.Scan, inputs: list[F64], shape: g.Shape) -> F64:
    tensors: dict[str, NDArray] = {}
    planes = []
    for y in range(shape.height):
        for before, after in op.states:
            extent = op.body_shapes[before]
            tensors[before] = tensors[after] if y else np.zeros((1, extent.width, extent.channels), np.float32)
        tensors |= {name: x[y : y + 1].astype(np.float32) for name, x in zip(op.operands, inputs, strict=True)}
        for inner in op.body:
            tensors[inner.output] = evaluate_op(inner, [tensors[n] for n in inner.inputs], op.body_shapes[inner.output])
        planes.append(tensors[op.result])
    return np.concatenate(planes).astype(np.float64)


_FUNCTIONS: dict[type[Op], Callable[..., F64]] = {
    g.Conv: _conv,
    g.DepthwiseConv: _depthwise,
    g.Pool: _pool,
    g.Reduce: _reduce,
    g.Unary: lambda op, inputs, shape: inputs[0],
    g.Binary: _binary,
    g.Concat: _concat,
    g.Gather: _gather,
    g.Resize: _resize,
    g.DepthToSpace: _depth_to_space,
    g.SpaceToDepth: _space_to_depth,
    g.Permute: _permute,
    g.Lrn: _lrn,
    g.Softmax: _softmax,
    g.LayerNorm: _layer_norm,
    g.ArgMax: _arg_max,
    g.Constant: lambda op, inputs, shape: op.value.astype(np.float64),
    g.Product: _product,
    g.Scan: _scan,
}
