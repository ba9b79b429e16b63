"""Operators that move elements: reshaping, slicing, padding, concatenation, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from tinytee.importer.builder import broadcast
from tinytee.importer.handlers.samples import always, axis_is_not_first, first_only
from tinytee.importer.layout import by_axes
from tinytee.importer.registry import Call, Result, handles
from tinytee.importer.values import Known, NotSampleWise, Value
from tinytee.ir import graph as g


def reshaped(call: Call, value: Value, shape: Sequence[int]) -> Value:
    """The value under the model's own shape; a sample axis must stay what it is."""
    shape = [int(extent) for extent in shape]
    call.forbid(prod(shape) != prod(value.shape), f"{value.shape} cannot be reshaped to {tuple(shape)}")
    call.forbid(0 in shape, f"the result is empty: {tuple(shape)}")
    if not call.builder.batched:
        return call.builder.reshape(value, shape)
    if not shape or shape[0] != call.builder.batch:
        raise NotSampleWise(f"{call.op_type} '{call.builder.node}' merges the leading axis with others")
    return call.builder.reshape(value, [1, *shape[1:]])


@handles("Reshape", sample_wise=first_only, bytewise=True)
def reshape(call: Call) -> Value:
    value = call.value()
    target = call.sizes(1, "the target shape")
    if not call.int("allowzero", 0):
        call.forbid(
            any(extent == 0 and axis >= value.rank for axis, extent in enumerate(target)),
            f"the target {target} copies axes that {value.shape} does not have",
        )
        target = [value.shape[axis] if extent == 0 else extent for axis, extent in enumerate(target)]
    if -1 in target:
        rest = prod(extent for extent in target if extent != -1)
        call.forbid(target.count(-1) > 1 or rest == 0, f"the target {target} is ambiguous")
        target = [prod(value.shape) // rest if extent == -1 else extent for extent in target]
    return reshaped(call, value, target)


@handles("Flatten", sample_wise=first_only, bytewise=True)
def flatten(call: Call) -> Value:
    value = call.value()
    axis = call.int("axis", 1)
    axis = axis + value.rank if axis < 0 else axis
    return reshaped(call, value, (prod(value.shape[:axis]), prod(value.shape[axis:])))


@handles("Squeeze", sample_wise=first_only, bytewise=True)
def squeeze(call: Call) -> Value:
    value = call.value()
    axes = call.axes(1, value.rank)
    if axes is None:
        axes = [axis for axis, extent in enumerate(value.shape) if extent == 1]
    call.forbid(any(value.shape[axis] != 1 for axis in axes), f"axes {axes} of {value.shape} are not all 1")
    return reshaped(call, value, [extent for axis, extent in enumerate(value.shape) if axis not in axes])


@handles("Unsqueeze", sample_wise=first_only, bytewise=True)
def unsqueeze(call: Call) -> Value:
    value = call.value()
    given = call.ints("axes")
    if given is None:
        given = [int(axis) for axis in call.constant(1, "axes").reshape(-1)]
    rank = value.rank + len(given)
    axes = {call.axis(axis, rank) for axis in given}
    if call.builder.batched and 0 in axes:
        raise NotSampleWise("Unsqueeze puts an axis before the leading one")
    rest = iter(value.shape)
    return reshaped(call, value, [1 if axis in axes else next(rest) for axis in range(rank)])


def _perm(call: Call) -> list[int]:
    rank = len(call.shape(0))
    return call.ints("perm") or list(reversed(range(rank)))


@handles("Transpose", sample_wise=lambda call: bool(_perm(call)) and _perm(call)[0] == 0, bytewise=True)
def transpose(call: Call) -> Value:
    value, perm = call.value(), _perm(call)
    call.forbid(sorted(perm) != list(range(value.rank)), f"perm = {perm} does not order {value.rank} axes")
    return call.builder.transpose(value, perm)


def _slices(call: Call) -> dict[int, NDArray]:
    """Indices kept of every axis that is cut."""
    shape = call.shape(0)
    if call.version < 10:
        starts, ends, axes, steps = call.ints("starts"), call.ints("ends"), call.ints("axes"), None
    else:
        axes, steps = (
            [int(item) for item in call.constant(position, what).reshape(-1)] if call.has(position) else None
            for position, what in ((3, "axes"), (4, "steps"))
        )
        named = None if axes is None else [call.axis(axis, len(shape)) for axis in axes]
        starts, ends = call.sizes(1, "the starts", named), call.sizes(2, "the ends", named)
    starts, ends = starts or [], ends or []
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    call.forbid(0 in steps, "a step is 0")
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = call.axis(axis, len(shape))
        found[at] = np.arange(shape[at])[_slice(start, end, step, shape[at])]
    return found


def _slice(start: int, end: int, step: int, extent: int) -> slice:
    """ONNX's clamping: an end before the first element of a backward slice includes it."""
    if step < 0 and end < -extent:
        return slice(start, None, step)
    return slice(start, end, step)


def _slices_within(call: Call) -> bool:
    kept = _slices(call).get(0)
    return kept is None or (len(kept) == call.shape(0)[0] and bool((np.diff(kept) == 1).all()))


@handles("Slice", sample_wise=_slices_within, bytewise=True)
def slice_(call: Call) -> Value:
    value, kept = call.value(), _slices(call)
    if call.builder.batched:
        kept.pop(0, None)
    call.forbid(any(len(index) == 0 for index in kept.values()), "the result is empty")
    return call.builder.gather(value, kept)


@handles("Split", sample_wise=axis_is_not_first(0), bytewise=True)
def split(call: Call) -> list[Result]:
    """Empty parts are constants, which Concat leaves out again."""
    value = call.value()
    axis = call.axis(call.int("axis", 0), value.rank)
    extent = value.shape[axis]
    sizes = call.ints("split")
    if sizes is None and call.has(1):
        sizes = [int(size) for size in call.constant(1, "the sizes").reshape(-1)]
    if sizes is None:
        count = call.int("num_outputs", call.output_count)
        size = -(-extent // count)
        sizes = [min(size, extent - start) for start in range(0, size * count, size)]
    call.forbid(sum(sizes) != extent or min(sizes) < 0, f"an axis of {extent} cannot be split into {sizes}")
    empty = Known(np.zeros([0 if i == axis else n for i, n in enumerate(value.shape)], value.dtype))
    starts = np.cumsum([0, *sizes])
    return [
        call.builder.gather(value, {axis: np.arange(start, start + size)}) if size else empty
        for start, size in zip(starts, sizes, strict=False)
    ]


def _concat_within(call: Call) -> bool:
    rank = len(call.shape(0))
    return call.axis(call.int("axis"), rank) != 0 and all(
        len(call.shape(position)) == rank for position in range(len(call.inputs))
    )


@handles("Concat", sample_wise=_concat_within, bytewise=True)
def concat(call: Call) -> Value:
    rank = len(call.shape(0))
    axis = call.axis(call.int("axis"), rank)
    kept = [position for position in range(len(call.inputs)) if call.shape(position)[axis] > 0]
    parts = [call.value(position) for position in kept]
    others = {tuple(part.sample[:axis] + part.sample[axis + 1 :]) for part in parts}
    call.forbid(len(others) > 1, f"the shapes {[part.shape for part in parts]} differ beside axis {axis}")
    call.forbid(len({part.dtype for part in parts}) > 1, "its inputs have different types")
    return call.builder.concat(parts, axis)


def _pads(call: Call) -> dict[int, tuple[int, int]]:
    rank = len(call.shape(0))
    if call.version < 11:
        pads, axes = call.ints("pads") or [], None
    else:
        pads = [int(pad) for pad in call.constant(1, "the pads").reshape(-1)]
        given = call.constant(3, "axes").reshape(-1) if call.has(3) else None
        axes = None if given is None else [call.axis(int(axis), rank) for axis in given]
    axes = list(range(rank)) if axes is None else axes
    call.forbid(len(pads) != 2 * len(axes), f"{len(pads)} pads for {len(axes)} axes")
    half = len(pads) // 2
    return {axis: (pads[i], pads[half + i]) for i, axis in enumerate(axes) if pads[i] or pads[half + i]}


@handles("Pad", sample_wise=lambda call: 0 not in _pads(call), bytewise=True)
def pad(call: Call) -> Value:
    value, mode = call.value(), call.text("mode", "constant")
    call.forbid(mode not in ("constant", "reflect", "edge", "wrap"), f"mode = '{mode}' is unknown")
    fill = 0.0
    if mode == "constant":
        if call.version < 11:
            fill = call.float("value", 0.0)
        elif call.has(2):
            fill = float(call.constant(2, "the value").reshape(()))
        fill = call.builder.meaning(value, fill)
    indices = {}
    for axis, (before, after) in _pads(call).items():
        extent = value.shape[axis]
        kept = np.arange(max(-before, 0), extent - max(-after, 0))
        call.forbid(len(kept) == 0, "the result is empty")
        widths = (max(before, 0), max(after, 0))
        options = {"constant_values": -1} if mode == "constant" else {}
        indices[axis] = np.pad(kept, widths, mode=mode, **options)  # type: ignore[call-overload]
    return call.builder.gather(value, indices, fill)


@handles("Expand", sample_wise=first_only, bytewise=True)
def expand(call: Call) -> Value:
    builder, value = call.builder, call.value()
    target = call.sizes(1, "the target shape")
    shape = broadcast([value.shape, target])
    if builder.batched and (len(shape) != value.rank or shape[0] != builder.batch):
        raise NotSampleWise("Expand changes the leading axis")
    value = builder.pad_rank(value, len(shape))
    sample = (1, *shape[1:]) if builder.batched else shape
    if sample == value.sample:
        return value
    layout = builder.common_layout([value], sample)
    return builder.value(builder.realise(value, layout, expand=True), sample, layout, value.dtype)


def _repeats(call: Call) -> list[int]:
    return [int(count) for count in call.constant(1, "the repeats").reshape(-1)]


@handles("Tile", sample_wise=lambda call: first_only(call) and _repeats(call)[0] == 1, bytewise=True)
def tile(call: Call) -> Value:
    value = call.value()
    return call.builder.gather(
        value,
        {
            axis: np.tile(np.arange(value.sample[axis]), count)
            for axis, count in enumerate(_repeats(call))
            if count != 1
        },
    )


@handles("Gather", sample_wise=lambda call: first_only(call) and axis_is_not_first(0)(call), bytewise=True)
def gather(call: Call) -> Value:
    builder = call.builder
    call.forbid(not isinstance(call.any(0), Value), "indices that depend on the model's inputs are not supported")
    value, index = call.value(), call.constant(1, "the indices")
    axis = call.axis(call.int("axis", 0), value.rank)
    extent = value.shape[axis]
    index = np.where(index < 0, index + extent, index)
    call.forbid(bool(index.size == 0 or index.min() < 0 or index.max() >= extent), f"an index is beyond {extent}")
    picked = builder.gather(value, {axis: index.reshape(-1)})
    return builder.reshape(picked, [*value.sample[:axis], *index.shape, *value.sample[axis + 1 :]])


@handles("DepthToSpace", sample_wise=first_only, bytewise=True)
def depth_to_space(call: Call) -> Value:
    block, mode = call.int("blocksize"), call.text("mode", "DCR")
    value = call.value()
    call.forbid(value.rank != 4 or value.shape[1] % block**2 != 0, f"block {block} does not fit {value.shape}")
    call.forbid(mode not in ("DCR", "CRD"), f"mode = '{mode}' is unknown")
    image = call.builder.image(value)
    source = call.builder.shapes[image.tensor]
    shape = g.Shape(source.height * block, source.width * block, source.channels // block**2)
    tensor = call.builder.emit(g.DepthToSpace, (image.tensor,), shape, block=block, mode=mode)
    return _image(call, tensor, shape, value)


@handles("SpaceToDepth", sample_wise=first_only, bytewise=True)
def space_to_depth(call: Call) -> Value:
    block, value, mode = call.int("blocksize"), call.value(), call.text("mode", "DCR")
    call.forbid(mode not in ("DCR", "CRD"), f"mode = '{mode}' is unknown")
    call.forbid(
        value.rank != 4 or value.shape[2] % block != 0 or value.shape[3] % block != 0,
        f"block {block} does not fit {value.shape}",
    )
    image = call.builder.image(value)
    source = call.builder.shapes[image.tensor]
    shape = g.Shape(source.height // block, source.width // block, source.channels * block**2)
    tensor = call.builder.emit(g.SpaceToDepth, (image.tensor,), shape, block=block)
    result = _image(call, tensor, shape, value)
    if mode == "DCR":
        return result
    order = np.arange(shape.channels).reshape(block * block, source.channels).T.reshape(-1)
    return call.builder.gather(result, {1: order})


def _image(call: Call, tensor: str, shape: g.Shape, value: Value) -> Value:
    logical = (1, shape.channels, shape.height, shape.width)
    return call.builder.value(tensor, logical, by_axes(logical, [2], [3], [1]), value.dtype)


@handles("ConstantOfShape", sample_wise=always)
def constant_of_shape(call: Call) -> Result:
    """Only reached where the shape is not known."""
    return Known(call.constant(0, "the shape"))
