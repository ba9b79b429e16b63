"""The invariants of a graph: what every room may rely on, and what every pass must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir import quantized as q
from tinytee.ir.graph import Graph, Op, Port, Shape

MOST_KERNEL_ROWS = 256
"""The core bounds what a window operator may hold of its input (TT_MAX_KERNEL_Y)."""

_DTYPES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
_RULES: dict[type[Op], Callable[..., Shape]] = {}
_INDICES: dict[str, type] = dict.fromkeys(("rows", "cols", "chans", "row_index", "col_index"), np.int32)
_INTEGERS: dict[tuple[type[Op], str], type] = {
    (q.QConv, "weight"): np.int8,
    (q.QConv, "bias"): np.int32,
    (q.QDepthwiseConv, "weight"): np.int8,
    (q.QDepthwiseConv, "bias"): np.int32,
    (q.QBinary, "constant"): np.uint8,
    (q.QLut, "table"): np.uint8,
}


def check(graph: Graph) -> None:
    """Verifies every invariant of ``graph``.

    Tensors are written once and before they are read; every tensor has a shape that its operator's rule yields;
    weights have the right type and a fitting shape; ports agree with their tensors, which are float32; outputs are
    distinct and written by operators, not inputs passed through; operators read and write uint8 where they must and
    nowhere else, and no accumulator can overflow.

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
    for name, quant in graph.quants.items():
        _check_quant(f"tensor '{name}'", quant)
        if name not in known:
            raise ValueError(f"quants list '{name}', which no operator carries")
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
            expected = _INTEGERS.get((type(op), name)) or _INDICES.get(name) or np.float32
            if value.dtype != expected:
                raise ValueError(f"{_label(op)}: {name} is {value.dtype}, not {np.dtype(expected)}")
    _check_types(graph, op)
    found = infer_shape(op, [graph.shapes[name] for name in op.inputs], declared)
    if found != declared:
        raise ValueError(f"{_label(op)}: yields {found}, but '{op.output}' is declared {declared}")


def _check_quant(where: str, quant: g.Quant) -> None:
    scale = quant.scale
    if not (np.isfinite(scale) and scale > 0 and float(np.float32(scale)) == scale):
        raise ValueError(f"{where}: the scale {scale} is not a positive float32")
    if not 0 <= quant.zero_point <= 255:
        raise ValueError(f"{where}: the zero point {quant.zero_point} is not within 0 to 255")


def _check_types(graph: Graph, op: Op) -> None:
    """Which operands and results are uint8."""
    sources, target = [graph.quants.get(name) for name in op.inputs], graph.quants.get(op.output)
    reads = [source is not None for source in sources]
    if isinstance(op, q.MOVING):
        _need(op, all(source == target for source in sources), f"moves elements of {sources} to {target}")
        _need(op, target is None or op.activation.kind == "identity", "has an activation on uint8")
        return
    if not isinstance(op, q.QUANTIZED):
        _need(op, not any(reads) and target is None, "works on float32, but reads or writes uint8")
        return
    convolves = isinstance(op, (q.QConv, q.QDepthwiseConv))
    if isinstance(op, q.Quantize):
        _need(op, not any(reads) and target is not None, "reads float32 and writes uint8")
    elif isinstance(op, q.Dequantize):
        _need(op, all(reads) and target is None, "reads uint8 and writes float32")
    else:
        _need(op, all(reads) and (target is not None or convolves), "reads and writes uint8")
    kind = op.activation.kind
    free = convolves and target is None and kind in ("relu", "clip")
    _need(op, kind == "identity" or free, f"the activation {kind} is not allowed")
    if isinstance(op, q.QBinary) and op.kind == "add" and target is not None:
        _sum(op, sources, target)
    if isinstance(op, q.QPool) and op.kind == "max":
        _need(op, sources[0] == target, f"the largest of {sources[0]} is not of {target}")


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


AnyConv = g.Conv | q.QConv
AnyDepthwise = g.DepthwiseConv | q.QDepthwiseConv


def most_accumulated(weight: np.ndarray, bias: np.ndarray) -> int:
    """The largest magnitude that an accumulator may reach on uint8 inputs. weight: the output's axis first."""
    sums = np.abs(weight.reshape(weight.shape[0], -1).astype(np.int64)).sum(axis=1)
    return int((255 * sums + np.abs(bias.astype(np.int64))).max())


def _integer_filters(op: q.QConv | q.QDepthwiseConv, channels: int) -> None:
    _need(op, op.multiplier.shape == (channels,), f"multiplier is {op.multiplier.shape}, weight {op.weight.shape}")
    _need(
        op, bool(np.isfinite(op.multiplier).all() and (op.multiplier >= 0).all()), "multipliers are finite, not below 0"
    )
    _bounds(op)
    weight = op.weight if isinstance(op, q.QConv) else np.moveaxis(op.weight, 2, 0)
    _need(op, most_accumulated(weight, op.bias) < 2**31, "an accumulator may overflow")


def _bounds(op: q.QConv | q.QDepthwiseConv | q.QBinary) -> None:
    _need(op, 0 <= op.low <= op.high <= 255, f"bounds {op.low} to {op.high}")


def _float_filters(op: g.Conv | g.DepthwiseConv, channels: int) -> None:
    if op.weight_scale is not None:
        _need(op, op.weight_scale.shape == (channels,), f"weight_scale is {op.weight_scale.shape}")
        _need(op, bool((op.weight_scale > 0).all()), "a weight_scale is not positive")


def _window_attributes(op: AnyConv | AnyDepthwise | g.Pool | q.QPool, kernel: tuple[int, int]) -> None:
    _need(op, min(op.pads) >= 0, f"pads {op.pads} are negative")
    _need(op, min(op.strides) >= 1 and min(op.dilations) >= 1, "strides and dilations start at 1")
    _need(op, kernel[0] <= MOST_KERNEL_ROWS, f"a window of {kernel[0]} rows is more than {MOST_KERNEL_ROWS}")
    span = reach(kernel, op.dilations)
    _need(op, all(op.pads[i] < span[i % 2] for i in range(4)), f"a window lies wholly in the padding {op.pads}")


def _windows(op: AnyConv | AnyDepthwise, shape: Shape, kernel: tuple[int, int], channels: int) -> Shape:
    top, left, bottom, right = op.pads
    _window_attributes(op, kernel)
    height = window_shape(shape.height, kernel[0], op.strides[0], op.dilations[0], top, bottom)
    width = window_shape(shape.width, kernel[1], op.strides[1], op.dilations[1], left, right)
    return Shape(height, width, channels)


@_rule(g.Conv)
@_rule(q.QConv)
def _conv(op: AnyConv, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, *((1, 2) if isinstance(op, g.Conv) else (1,)))
    _need(op, op.weight.ndim == 4, f"weight has {op.weight.ndim} axes")
    out_channels, kernel_y, kernel_x, group_channels = op.weight.shape
    _need(op, min(op.weight.shape) >= 1, f"weight is {op.weight.shape}")
    _need(op, op.bias.shape == (out_channels,), f"bias is {op.bias.shape}, weight {op.weight.shape}")
    _need(op, op.groups >= 1 and out_channels % op.groups == 0, f"{op.groups} groups of {out_channels} outputs")
    _need(op, group_channels * op.groups == inputs[0].channels, f"weight {op.weight.shape} meets {inputs[0]}")
    if isinstance(op, g.Conv):
        _float_filters(op, out_channels)
    else:
        _integer_filters(op, out_channels)
    shape = _windows(op, inputs[0], (kernel_y, kernel_x), out_channels)
    _need(op, len(inputs) == 1 or inputs[1] == shape, f"residual {inputs[-1]} is added to {shape}")
    return shape


@_rule(g.DepthwiseConv)
@_rule(q.QDepthwiseConv)
def _depthwise(op: AnyDepthwise, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    _need(op, op.weight.ndim == 3, f"weight has {op.weight.ndim} axes")
    kernel_y, kernel_x, channels = op.weight.shape
    _need(op, op.bias.shape == (channels,), f"bias is {op.bias.shape}, weight {op.weight.shape}")
    _need(op, channels == inputs[0].channels, f"weight {op.weight.shape} meets {inputs[0]}")
    if isinstance(op, g.DepthwiseConv):
        _float_filters(op, channels)
    else:
        _integer_filters(op, channels)
    return _windows(op, inputs[0], (kernel_y, kernel_x), channels)


@_rule(g.Pool)
@_rule(q.QPool)
def _pool(op: g.Pool | q.QPool, inputs: list[Shape], declared: Shape) -> Shape:
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
@_rule(q.QReduce)
def _reduce(op: Op, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    return Shape(1, 1, inputs[0].channels)


@_rule(g.Unary)
@_rule(g.Softmax)
@_rule(q.Quantize)
@_rule(q.Dequantize)
def _same(op: Op, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 1)
    return inputs[0]


@_rule(q.QLut)
def _lut(op: q.QLut, inputs: list[Shape], declared: Shape) -> Shape:
    _need(op, op.table.shape == (256,), f"table is {op.table.shape}")
    return _same(op, inputs, declared)


@_rule(g.Lrn)
@_rule(q.QLrn)
def _lrn(op: g.Lrn | q.QLrn, inputs: list[Shape], declared: Shape) -> Shape:
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


@_rule(q.QBinary)
def _q_binary(op: q.QBinary, inputs: list[Shape], declared: Shape) -> Shape:
    _need(op, (op.constant is None) == (op.constant_quant is None), "a constant has a quant")
    if op.constant_quant is not None:
        _check_quant(f"{_label(op)}: constant", op.constant_quant)
    _bounds(op)
    return _binary(op, inputs, declared)


def _sum(op: q.QBinary, sources: list[g.Quant | None], target: g.Quant) -> None:
    """The scales of an addition, which must lie near enough to one another."""
    quants = [quant for quant in sources if quant is not None]
    if op.constant_quant is not None:
        quants.insert(0 if op.constant_first else 1, op.constant_quant)
    _need(op, len(quants) == 2, "adds two operands")
    _need(op, q.adds_exactly(quants[0], quants[1], target), "the scales differ too much to be added")


@_rule(g.Binary)
def _binary(op: g.Binary | q.QBinary, inputs: list[Shape], declared: Shape) -> Shape:
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
    if op.axis == "y":
        fits = all(s.row_elems % declared.row_elems == 0 for s in inputs)
        _need(op, fits, f"y-planes of {[str(s) for s in inputs]} are not divided into those of {declared}")
        return replace(declared, height=sum(s.elems for s in inputs) // declared.row_elems)
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


@_rule(g.Product)
def _product(op: g.Product, inputs: list[Shape], declared: Shape) -> Shape:
    _arity(op, 2)
    x, matrix = inputs
    _need(op, op.groups >= 1, f"{op.groups} groups")
    _need(op, matrix.width == 1, f"its matrix is {matrix}, of more than a column")
    fits = x.channels % op.groups == 0 and matrix.channels % op.groups == 0
    contracted = matrix.channels // op.groups if op.transposed else matrix.height
    _need(op, fits and x.channels == op.groups * contracted, f"{x} meets {matrix} in {op.groups} groups")
    outputs = matrix.height if op.transposed else matrix.channels // op.groups
    return replace(x, channels=op.groups * outputs)


def _is_rowwise(op: Op) -> bool:
    """Whether a y-plane of the output depends on that y-plane of the inputs alone."""
    match op:
        case g.Conv():
            return op.weight.shape[1] == op.strides[0] == 1 and op.pads[0] == op.pads[2] == 0
        case g.DepthwiseConv():
            return op.weight.shape[0] == op.strides[0] == 1 and op.pads[0] == op.pads[2] == 0
        case g.Gather():
            return op.rows is None
        case g.Binary():
            return op.constant is None or op.constant.shape[0] == 1
        case g.Concat():
            return op.axis != "y"
        case _:
            return isinstance(op, g.Unary | g.Softmax | g.LayerNorm)


@_rule(g.Scan)
def _scan(op: g.Scan, inputs: list[Shape], declared: Shape) -> Shape:
    shapes = op.body_shapes
    _need(op, op.activation.kind == "identity", "has an activation")
    _need(op, len(op.operands) == len(inputs) >= 1, f"its body reads {op.operands}, and it has {len(inputs)} inputs")
    for name, shape in zip(op.operands, inputs, strict=True):
        _need(op, shape.height == declared.height, f"goes through {declared.height} y-planes, and reads {shape}")
        _need(op, shapes.get(name) == replace(shape, height=1), f"'{name}' is {shapes.get(name)}, of {shape}")
    known = {*op.operands, *(before for before, _ in op.states)}
    _need(op, len(known) == len(op.operands) + len(op.states), "a name stands for two tensors")
    for inner in op.body:
        _need(op, known.issuperset(inner.inputs), f"'{inner.output}' is made of what comes later")
        _need(op, inner.output not in known, f"'{inner.output}' is written twice")
        _need(op, _is_rowwise(inner), f"'{inner.output}' depends on other y-planes")
        _check_op(Graph((), (), shapes, op.body), inner)
        known.add(inner.output)
    written = {inner.output for inner in op.body}
    _need(op, set(shapes) == known, f"shapes list {sorted(set(shapes) ^ known)}, which the body does not have")
    _need(op, all(shape.height == 1 for shape in shapes.values()), "a tensor of its body is higher than a y-plane")
    for before, after in op.states:
        _need(op, after in written and shapes[before] == shapes[after], f"'{before}' is not what '{after}' was")
    _need(op, op.result in written, f"its body does not write '{op.result}'")
    return replace(shapes[op.result], height=declared.height)
