"""Normalizations, and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinytee.importer import layout as lay
from tinytee.importer.builder import Builder, as_float
from tinytee.importer.handlers.elementwise import is_used
from tinytee.importer.handlers.reduce import reduce
from tinytee.importer.handlers.samples import axis_is_not_first, first_only
from tinytee.importer.registry import Call, handles
from tinytee.importer.values import Known, Value
from tinytee.ir import graph as g


@handles("BatchNormalization", sample_wise=lambda call: first_only(call) and len(call.shape(0)) >= 2)
def batch_normalization(call: Call) -> Value:
    call.float_only()
    call.forbid(bool(call.int("training_mode", 0)), "training mode is not supported; export the model for inference")
    call.forbid(not call.int("spatial", 1), "spatial = 0 is not supported")
    call.forbid(any(is_used(call.node, position) for position in range(1, 5)), "only its first output is supported")
    scale, shift, mean, variance = (
        call.constant(position, what).astype(np.float64).reshape(-1)
        for position, what in ((1, "the scale"), (2, "the bias"), (3, "the mean"), (4, "the variance"))
    )
    factor = scale / np.sqrt(variance + call.float("epsilon", 1e-5))
    value = call.value()
    axis = 1 if value.rank > 1 else 0
    call.forbid(factor.size != value.shape[axis], f"{factor.size} scales meet {value.shape[axis]} channels")
    return call.builder.affine(value, axis, factor, shift - mean * factor)


def standardize(builder: Builder, value: Value, axes: Sequence[int], epsilon: float) -> Value:
    """(x - mean) / sqrt(variance + epsilon) over ``axes``."""
    centred = builder.binary("sub", value, reduce(builder, value, axes, "mean"))
    variance = reduce(builder, builder.binary("mul", centred, centred), axes, "mean")
    shifted = builder.binary("add", variance, Known(np.float32(epsilon).reshape(())))
    inverse = builder.unary(builder.unary(shifted, "sqrt"), "reciprocal")
    return builder.binary("mul", centred, inverse)


@handles("InstanceNormalization", sample_wise=first_only)
def instance_normalization(call: Call) -> Value:
    call.float_only()
    scale, shift = call.constant(1, "the scale"), call.constant(2, "the bias")
    value = call.builder.image(call.value())
    normal = standardize(call.builder, value, range(2, value.rank), call.float("epsilon", 1e-5))
    return call.builder.affine(normal, 1, scale, shift)


@handles("GroupNormalization", sample_wise=first_only)
def group_normalization(call: Call) -> Value:
    call.float_only()
    builder = call.builder
    scale, shift = call.constant(1, "the scale"), call.constant(2, "the bias")
    value, groups = builder.image(call.value()), call.int("num_groups")
    channels = value.shape[1]
    call.forbid(channels % groups != 0, f"{groups} groups of {channels} channels")
    if call.version < 21:
        scale, shift = np.repeat(scale, channels // groups), np.repeat(shift, channels // groups)
    grouped = builder.reshape(value, (1, groups, channels // groups, *value.shape[2:]))
    normal = standardize(builder, grouped, range(2, grouped.rank), call.float("epsilon", 1e-5))
    return builder.affine(builder.reshape(normal, value.sample), 1, scale, shift)


@handles("LayerNormalization", sample_wise=lambda call: first_only(call) and axis_is_not_first(-1)(call))
def layer_normalization(call: Call) -> list[Value | None]:
    call.float_only()
    builder, value = call.builder, call.value()
    axis = call.axis(call.int("axis", -1), value.rank)
    axes = range(axis, value.rank)
    statistics = _statistics(call, value, axes)
    value = builder.with_channels(value, axes, ordered=False)
    over = tuple(value.shape[axis:])
    parameters = []
    for position, what, default in ((1, "the scale", 1.0), (2, "the bias", 0.0)):
        array = call.constant(position, what) if call.has(position) else np.float32(default)
        full = np.broadcast_to(array, over).reshape((1,) * axis + over)
        parameters.append(lay.place(as_float(full), lay.make(c=value.layout.c)).reshape(-1))
    tensor = builder.emit(
        g.LayerNorm,
        (value.tensor,),
        builder.shapes[value.tensor],
        scale=parameters[0],
        bias=parameters[1],
        epsilon=call.float("epsilon", 1e-5),
    )
    return [replace(value, tensor=tensor, source=None), *statistics]


def _statistics(call: Call, value: Value, axes: Sequence[int]) -> list[Value | None]:
    """LayerNormalization's mean and inverse standard deviation, where anything reads them."""
    if not is_used(call.node, 1) and not is_used(call.node, 2):
        return [None, None]
    builder = call.builder
    mean = reduce(builder, value, axes, "mean")
    centred = builder.binary("sub", value, mean)
    variance = reduce(builder, builder.binary("mul", centred, centred), axes, "mean")
    shifted = builder.binary("add", variance, Known(np.float32(call.float("epsilon", 1e-5)).reshape(())))
    return [mean, builder.unary(builder.unary(shifted, "sqrt"), "reciprocal")]


@handles("LRN", sample_wise=first_only)
def lrn(call: Call) -> Value:
    call.float_only()
    value = call.builder.with_channels(call.value(), [1])
    tensor = call.builder.emit(
        g.Lrn,
        (value.tensor,),
        call.builder.shapes[value.tensor],
        size=call.int("size"),
        alpha=call.float("alpha", 0.0001),
        beta=call.float("beta", 0.75),
        bias=call.float("bias", 1.0),
    )
    return replace(value, tensor=tensor, source=None)


along_last = axis_is_not_first(-1, old_default=1, since=13)
"""For Softmax."""


@handles("Softmax", "LogSoftmax", sample_wise=along_last)
def softmax(call: Call) -> Value:
    """Before opset 13 over all axes from ``axis`` on, since then over ``axis`` alone."""
    call.float_only()
    builder, value = call.builder, call.value()
    new = call.version >= 13
    axis = call.axis(call.int("axis", -1 if new else 1), value.rank)
    axes = [axis] if new else list(range(axis, value.rank))
    value = builder.with_channels(value, axes, ordered=False)
    tensor = builder.emit(g.Softmax, (value.tensor,), builder.shapes[value.tensor], log=call.op_type == "LogSoftmax")
    return replace(value, tensor=tensor, source=None)
