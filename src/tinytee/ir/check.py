"""The invariants of a graph: what every room may rely on, and what every pass must keep."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op, Port, Shape

MOST_KERNEL_ROWS = 256
"""The core bounds what a window operator may hold of its input (TT_MAX_KERNEL_Y)."""

_DTYPES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
_RULES: dict[type[Op], Callable[..., Shape]] = {}


def check(graph: Graph) -> None:
    """Verifies every invariant of ``graph``.

    Tensors are written once and before they are read; every tensor has a shape that its operator's rule yields;
    weights are float32 and of fitting shape; ports agree with their tensors; outputs are distinct and written by
    operators, not inputs passed through.

    Raises:
        ValueError: naming the operator or port, what was found and what the rule asks for.
    """
    known: set[str] = set()
    for port in graph.inputs:
        if port.tensor in known:
            raise ValueError(f"input '{port.name}': tensor '{port.tensor}' is fed twice")
        known.add(port.tensor)
        _check_port(graph, port, "input")
    written: set[str] = set()
    for op in graph.ops:
        for name in op.inputs:
            if name not in known:
                raise ValueError(f"{_label(op)}: reads '{name}' before it is written")
        if op.output in known:
            raise ValueError(f"{_label(op)}: writes '{op.output}' a second time")
        _check_op(graph, op)
        known.add(op.output)
        written.add(op.output)
    if set(graph.shapes) != known:
        raise ValueError(f"shapes list {sorted(set(graph.shapes) ^ known)}, which no operator or port carries")
    tensors = [port.tensor for port in graph.outputs]
    if not tensors or len(set(tensors)) != len(tensors):
        raise ValueError("a graph has outputs, and no tensor is an output twice")
    for port in graph.outputs:
        if port.tensor not in written:
            raise ValueError(f"output '{port.name}': tensor '{port.tensor}' is written by no operator")
        _check_port(graph, port, "output")


def infer_shape(op: Op, inputs: list[Shape], declared: Shape) -> Shape:
    """Shape of the output of ``op``; ``declared`` decides where the rule leaves a choice (Pool, Permute).

    Raises:
        ValueError: where the inputs or attributes break the operator's rule.
    """
    rule = _RULES.get(type(op))
    if rule is None:
        raise ValueError(f"{_label(op)}: no such operator")
    return rule(op, inputs, declared)


def window_shape(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Number of windows along an axis of ``size`` elements, padded; only whole windows count."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def reach(kernel: tuple[int, int], dilations: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a window spans."""
    return (kernel[0] - 1) * dilations[0] + 1, (kernel[1] - 1) * dilations[1] + 1


def _label(op: Op) -> str:
    return f"{type(op).__name__} '{op.name}'"


def _check_port(graph: Graph, port: Port, side: str) -> None:
    where = f"{side} '{port.name}'"
    if port.tensor not in graph.shapes:
        raise ValueError(f"{where}: tensor '{port.tensor}' has no shape")
    if port.dtype not in _DTYPES:
        raise ValueError(f"{where}: dtype {port.dtype} is not carried")
    if sorted(port.perm) != list(range(len(port.shape))):
        raise ValueError(f"{where}: perm {port.perm} does not order the axes of {port.shape}")
    if port.batched and not port.shape:
        raise ValueError(f"{where}: a scalar has no sample axis")
    sample = port.shape[1:] if port.batched else port.shape
    if prod(sample) != graph.shapes[port.tensor].elems:
        raise ValueError(f"{where}: shape {port.shape} does not fill the tensor {graph.shapes[port.tensor]}")


def _check_op(graph: Graph, op: Op) -> None:
    declared = graph.shapes.get(op.output)
    if declared is None or min(declared.height, declared.width, declared.channels) < 1:
        raise ValueError(f"{_label(op)}: output '{op.output}' has the shape {declared}")
    for name, value in vars(op).items():
        if isinstance(value, np.ndarray):
            expected = np.int32 if name in ("rows", "cols", "chans", "row_index", "col_index") else np.float32
            if value.dtype != expected:
                raise ValueError(f"{_label(op)}: {name} is {value.dtype}, not {np.dtype(expected)}")
    found = infer_shape(op, [graph.shapes[name] for name in op.inputs], declared)
    if found != declared:
        raise ValueError(f"{_label(op)}: yields {found}, but '{op.output}' is declared {declared}")


def _rule(kind: type[Op]) -> Callable[[Callable[..., Shape]], Callable[..., Shape]]:
    def register(function: Callable[..., Shape]) -> Callable[..., Shape]:
        _RULES[kind] = function
        return function

    return register


def _need(op: Op, condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(f"{_label(op)}: {text}")


def _arity(op: Op, *allowed: int) -> None:
    _need(op, len(op.inputs) in allowed, f"has {len(op.inputs)} inputs, not {allowed}")


def _window_attributes(op: g.Conv | g.DepthwiseConv | g.Pool, kernel: tuple[int, int]) -> None:
    _need(op, min(op.pads) >= 0, f"pads {op.pads} are negative")
    _need(op, min(op.strides) >= 1 and min(op.dilations) >= 1, "strides and dilations start at 1")
    _need(op, kernel[0] <= MOST_KERNEL_ROWS, f"a window of {kernel[0]} rows is more than {MOST_KERNEL_ROWS}")
    span = reach(kernel, op.dilations)
    _need(op, all(op.pads[i] < span[i % 2] for i in range(4)), f"a window lies wholly in the padding {op.pads}")


def _windows(op: g.Conv | g.DepthwiseConv, shape: Shape, kernel: tuple[int, int], channels: int) -> Shape:
    top, left, bottom, right = op.pads
    _window_attributes(op, kernel)
    height = window_shape(shape.height, kernel[0], op.strides[0], op.dilations[0], top, bottom)
    width = window_shape(shape.width, kernel[1], op.strides[1], op.dilations[1], left, right)
    return Shape(height, width, channels)


@_rule(g.Conv)
def _conv(op: g.Conv, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1, 2)
    _need(op, op.weight.ndim == 4, f"weight has {op.weight.ndim} axes")
    out_channels, kernel_y, kernel_x, group_channels = op.weight.shape
    _need(op, min(op.weight.shape) >= 1, f"weight is {op.weight.shape}")
    _need(op, op.bias.shape == (out_channels,), f"bias is {op.bias.shape}, weight {op.weight.shape}")
    _need(op, op.groups >= 1 and out_channels % op.groups == 0, f"{op.groups} groups of {out_channels} outputs")
    _need(op, group_channels * op.groups == inputs[0].channels, f"weight {op.weight.shape} meets {inputs[0]}")
    shape = _windows(op, inputs[0], (kernel_y, kernel_x), out_channels)
    _need(op, len(inputs) == 1 or inputs[1] == shape, f"residual {inputs[-1]} is added to {shape}")
    return shape


@_rule(g.DepthwiseConv)
def _depthwise(op: g.DepthwiseConv, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    _need(op, op.weight.ndim == 3, f"weight has {op.weight.ndim} axes")
    kernel_y, kernel_x, channels = op.weight.shape
    _need(op, op.bias.shape == (channels,), f"bias is {op.bias.shape}, weight {op.weight.shape}")
    _need(op, channels == inputs[0].channels, f"weight {op.weight.shape} meets {inputs[0]}")
    return _windows(op, inputs[0], (kernel_y, kernel_x), channels)


@_rule(g.Pool)
def _pool(op: g.Pool, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    top, left, bottom, right = op.pads
    _window_attributes(op, op.kernel)
    for axis, (size, out, before, after) in enumerate(
        ((inputs[0].height, declared.height, top, bottom), (inputs[0].width, declared.width, left, right))
    ):
        floor = window_shape(size, op.kernel[axis], op.strides[axis], op.dilations[axis], before, after)
        _need(op, floor <= out <= floor + 1, f"output {declared} is neither the floor nor the ceiling, {floor}")
        reach = (out - 1) * op.strides[axis]
        _need(op, reach < size + before, "the last window starts beyond the input")
    return Shape(declared.height, declared.width, inputs[0].channels)


@_rule(g.Reduce)
def _reduce(op: g.Reduce, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    return Shape(1, 1, inputs[0].channels)


@_rule(g.Unary)
@_rule(g.Softmax)
def _same(op: Op, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    return inputs[0]


@_rule(g.Lrn)
def _lrn(op: g.Lrn, inputs: list[Shape], declared: Shape) -> Shape:
    _need(op, op.size >= 1, f"size is {op.size}")
    return _same(op, inputs, declared)


@_rule(g.LayerNorm)
def _layer_norm(op: g.LayerNorm, inputs: list[Shape], declared: Shape) -> Shape:
    expected = (inputs[0].channels,)
    _need(op, op.scale.shape == expected and op.bias.shape == expected, f"scale {op.scale.shape} meets {inputs[0]}")
    return _same(op, inputs, declared)


@_rule(g.ArgMax)
def _arg_max(op: g.ArgMax, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    return Shape(inputs[0].height, inputs[0].width, 1)


@_rule(g.Binary)
def _binary(op: g.Binary, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 2 if op.constant is None else 1)
    sides = [(s.height, s.width, s.channels) for s in inputs]
    if op.constant is not None:
        _need(op, op.constant.ndim == 3, f"constant has {op.constant.ndim} axes")
        sides.append(op.constant.shape)
    extents = []
    for left, right in zip(*sides, strict=True):
        _need(op, left == right or 1 in (left, right), f"{sides[0]} and {sides[1]} do not broadcast")
        extents.append(max(left, right))
    return Shape(*extents)


@_rule(g.Concat)
def _concat(op: g.Concat, inputs: list[Shape], declared: Shape) -> Shape:
    _need(op, len(inputs) >= 1, "has no inputs")
    sides = np.array([(s.height, s.width, s.channels) for s in inputs])
    axis = "yxc".index(op.axis)
    others = np.delete(sides, axis, axis=1)
    _need(op, bool((others == others[0]).all()), f"the other axes of {[str(s) for s in inputs]} differ")
    total = sides[0].copy()
    total[axis] = sides[:, axis].sum()
    return Shape(*(int(extent) for extent in total))


@_rule(g.Gather)
def _gather(op: g.Gather, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    extents = []
    source = inputs[0]
    for index, size in ((op.rows, source.height), (op.cols, source.width), (op.chans, source.channels)):
        if index is not None:
            _need(op, index.ndim == 1 and index.size > 0, f"index of shape {index.shape}")
            _need(op, int(index.min()) >= -1 and int(index.max()) < size, f"index beyond {source}")
        extents.append(size if index is None else index.size)
    return Shape(*extents)


@_rule(g.Resize)
def _resize(op: g.Resize, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    for index, weights, size in (
        (op.row_index, op.row_weights, inputs[0].height),
        (op.col_index, op.col_weights, inputs[0].width),
    ):
        _need(op, index.ndim == 2 and index.size > 0 and index.shape == weights.shape, "taps and weights disagree")
        _need(op, int(index.min()) >= 0 and int(index.max()) < size, f"tap beyond {inputs[0]}")
    return Shape(op.row_index.shape[0], op.col_index.shape[0], inputs[0].channels)


@_rule(g.DepthToSpace)
def _depth_to_space(op: g.DepthToSpace, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    source, block = inputs[0], op.block
    _need(op, source.channels % (block * block) == 0, f"block {block} does not divide {source}")
    return Shape(source.height * block, source.width * block, source.channels // (block * block))


@_rule(g.SpaceToDepth)
def _space_to_depth(op: g.SpaceToDepth, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    source, block = inputs[0], op.block
    _need(op, source.height % block == 0 and source.width % block == 0, f"block {block} does not divide {source}")
    return Shape(source.height // block, source.width // block, source.channels * block * block)


@_rule(g.Permute)
def _permute(op: g.Permute, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    _need(op, 1 <= len(op.dims) <= 6 and len(op.dims) == len(op.strides), f"dims {op.dims}, strides {op.strides}")
    _need(op, min(op.strides) >= 0, f"strides {op.strides} are negative")
    last = sum((extent - 1) * stride for extent, stride in zip(op.dims, op.strides, strict=True))
    _need(op, last < inputs[0].elems, f"reaches element {last} of {inputs[0]}")
    _need(op, prod(op.dims) == declared.elems, f"dims {op.dims} do not fill {declared}")
    return declared


@_rule(g.Constant)
def _constant(op: g.Constant, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 0)
    _need(op, op.value.ndim == 3, f"value has {op.value.ndim} axes")
    return Shape(*op.value.shape)
