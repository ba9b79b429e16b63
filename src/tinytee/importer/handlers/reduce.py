"""Reductions over any axes, by whichever operator suits the layout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinytee.importer import layout as lay
from tinytee.importer.builder import Builder
from tinytee.importer.handlers.samples import axis_is_not_first
from tinytee.importer.registry import Call, handles
from tinytee.importer.values import Known, Value
from tinytee.ir import graph as g
from tinytee.ir.check import MOST_KERNEL_ROWS


def reduce(builder: Builder, value: Value, axes: Sequence[int], kind: str) -> Value:
    """mean, sum, max or min over ``axes``, which stay with extent 1.

    y and x together are a Reduce, y or x alone a Pool, c a 1 x 1 convolution (mean, sum); what mixes them is copied
    so that what is kept lies in c.
    """
    axes = [axis for axis in axes if value.sample[axis] > 1]
    if not axes:
        return value
    y, x, c = (_share(group, axes) for group in value.layout.groups)
    inner = {piece.axis for piece in value.layout.c}
    outer = [axis for axis in axes if axis not in inner]
    if c == "all" and outer:
        return reduce(builder, reduce(builder, value, outer, kind), sorted(inner), kind)
    if c == "none" and y in ("all", "empty") and x in ("all", "empty"):
        return _emit_reduce(builder, value, axes, kind)
    if c == "none" and "some" not in (y, x) and value.layout.shape.height <= MOST_KERNEL_ROWS:
        return _emit_pool(builder, value, axes, kind, (y == "all", x == "all"))
    if c == "all" and kind in ("mean", "sum") and y in ("none", "empty") and x in ("none", "empty"):
        return _emit_conv(builder, value, axes, kind)
    reduced = [piece for piece in value.layout.pieces if piece.axis in axes]
    kept = [piece for piece in value.layout.pieces if piece.axis not in axes]
    value = builder.with_layout(value, lay.make(reduced[:-1], reduced[-1:], kept))
    return _emit_reduce(builder, value, axes, kind)


def _share(group: lay.Group, axes: Sequence[int]) -> str:
    found = {piece.axis in axes for piece in group}
    return "empty" if not found else "some" if len(found) > 1 else "all" if True in found else "none"


def _finish(builder: Builder, tensor: str, value: Value, axes: Sequence[int]) -> Value:
    shape = [1 if axis in axes else extent for axis, extent in enumerate(value.sample)]
    layout = lay.make(*([piece for piece in group if piece.axis not in axes] for group in value.layout.groups))
    return builder.value(tensor, shape, layout, value.dtype)


def _emit_reduce(builder: Builder, value: Value, axes: Sequence[int], kind: str) -> Value:
    channels = builder.shapes[value.tensor].channels
    tensor = builder.emit(g.Reduce, (value.tensor,), g.Shape(1, 1, channels), kind=kind)
    return _finish(builder, tensor, value, axes)


def _emit_pool(builder: Builder, value: Value, axes: Sequence[int], kind: str, over: tuple[bool, bool]) -> Value:
    if kind == "min":
        negated = _emit_pool(builder, builder.unary(value, "neg"), axes, "max", over)
        return builder.unary(negated, "neg")
    source = builder.shapes[value.tensor]
    kernel = (source.height if over[0] else 1, source.width if over[1] else 1)
    shape = g.Shape(source.height // kernel[0], source.width // kernel[1], source.channels)
    tensor = builder.emit(g.Pool, (value.tensor,), shape, kind="max" if kind == "max" else "average", kernel=kernel)
    result = _finish(builder, tensor, value, axes)
    if kind == "sum":
        result = builder.binary("mul", result, Known(np.float32(kernel[0] * kernel[1]).reshape(())))
    return result


def _emit_conv(builder: Builder, value: Value, axes: Sequence[int], kind: str) -> Value:
    source = builder.shapes[value.tensor]
    weight = np.full((1, 1, 1, source.channels), 1 / source.channels if kind == "mean" else 1, np.float32)
    shape = g.Shape(source.height, source.width, 1)
    tensor = builder.emit(g.Conv, (value.tensor,), shape, weight=weight, bias=np.zeros(1, np.float32))
    return _finish(builder, tensor, value, axes)


def _reduced_axes(call: Call) -> list[int]:
    rank = len(call.shape(0))
    axes = call.axes(1, rank)
    if axes:
        return axes
    return [] if call.int("noop_with_empty_axes", 0) else list(range(rank))


def keeps_samples(call: Call) -> bool:
    return 0 not in _reduced_axes(call)


_KINDS = {"ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceSum": "sum"}


@handles(
    *_KINDS, "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", sample_wise=keeps_samples
)
def reduction(call: Call) -> Value:
    builder, value, op_type = call.builder, call.value(), call.op_type
    if op_type not in ("ReduceMax", "ReduceMin"):
        call.float_only(0)
    axes = _reduced_axes(call)
    if op_type in _KINDS:
        result = reduce(builder, value, axes, _KINDS[op_type])
    elif op_type == "ReduceL1":
        result = reduce(builder, builder.unary(value, "abs"), axes, "sum")
    elif op_type == "ReduceLogSum":
        result = builder.unary(reduce(builder, value, axes, "sum"), "log")
    elif op_type == "ReduceLogSumExp":
        largest = reduce(builder, value, axes, "max")
        shifted = builder.unary(builder.binary("sub", value, largest), "exp")
        result = builder.binary("add", builder.unary(reduce(builder, shifted, axes, "sum"), "log"), largest)
    else:
        result = reduce(builder, builder.binary("mul", value, value), axes, "sum")
        result = builder.unary(result, "sqrt") if op_type == "ReduceL2" else result
    if call.int("keepdims", 1) or not axes:
        return result
    return builder.reshape(result, [extent for axis, extent in enumerate(result.sample) if axis not in axes])


@handles("ArgMax", "ArgMin", sample_wise=axis_is_not_first(0))
def arg_max(call: Call) -> Value:
    call.float_only(0)
    builder, value = call.builder, call.value()
    axis = call.axis(call.int("axis", 0), value.rank)
    if call.op_type == "ArgMin":
        value = builder.unary(value, "neg")
    value = builder.with_channels(value, [axis])
    shape = builder.shapes[value.tensor]
    last = bool(call.int("select_last_index", 0))
    tensor = builder.emit(g.ArgMax, (value.tensor,), g.Shape(shape.height, shape.width, 1), select_last=last)
    logical = [1 if i == axis else extent for i, extent in enumerate(value.sample)]
    layout = lay.make(value.layout.y, value.layout.x)
    result = builder.value(tensor, logical, layout, np.dtype(np.int64))
    if call.int("keepdims", 1):
        return result
    return builder.reshape(result, [extent for i, extent in enumerate(logical) if i != axis])
