"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinytee.importer import layout as lay
from tinytee.importer.builder import Builder, as_float
from tinytee.importer.handlers.elementwise import is_used
from tinytee.importer.handlers.samples import first_only
from tinytee.importer.registry import Call, handles
from tinytee.importer.values import Value
from tinytee.ir import graph as g
from tinytee.ir.check import MOST_KERNEL_ROWS, window_shape


@dataclass(frozen=True)
class Window:
    """Attributes of a sliding window over y and x; a 1-D operator has a window of 1 along y."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def pads(self) -> tuple[int, int, int, int]:
        return (*self.before, *self.after)

    @property
    def reach(self) -> tuple[int, int]:
        """Elements that a window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))  # type: ignore[return-value]


def _spatial(call: Call, value: Value) -> tuple[int, int]:
    call.forbid(value.rank not in (3, 4), f"{value.rank - 2}-D is not supported, only 1-D and 2-D")
    return (1, value.shape[2]) if value.rank == 3 else (value.shape[2], value.shape[3])


def _pair(items: list[int] | None, default: int, rank: int) -> tuple[int, int]:
    found = items if items else [default] * (rank - 2)
    return (default if default else 0, found[0]) if rank == 3 else (found[0], found[1])


def _window(call: Call, value: Value, kernel: tuple[int, int]) -> Window:
    size = _spatial(call, value)
    call.forbid(kernel[0] > MOST_KERNEL_ROWS, f"windows of more than {MOST_KERNEL_ROWS} rows are not supported")
    strides = _pair(call.ints("strides"), 1, value.rank)
    dilations = _pair(call.ints("dilations"), 1, value.rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    auto = call.text("auto_pad", "NOTSET")
    call.forbid(auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), f"auto_pad = '{auto}' is unknown")
    if auto.startswith("SAME"):
        totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, strides, reach, strict=True)]
        small = (totals[0] // 2, totals[1] // 2)
        large = (totals[0] - small[0], totals[1] - small[1])
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    else:
        given = call.ints("pads") if auto == "NOTSET" else None
        given = given or [0] * (2 * (value.rank - 2))
        half = len(given) // 2
        before, after = _pair(given[:half], 0, value.rank), _pair(given[half:], 0, value.rank)
    return Window(kernel, strides, dilations, before, after)


def _crop_negative(builder: Builder, value: Value, window: Window) -> tuple[Value, Window]:
    """Negative padding removes rows and columns."""
    if min(window.pads) >= 0:
        return value, window
    indices = {}
    for axis in range(value.rank - 2):
        at = axis + 4 - value.rank
        extent = value.shape[2 + axis]
        indices[2 + axis] = np.arange(extent)[max(-window.before[at], 0) : extent - max(-window.after[at], 0)]
    before, after = (tuple(max(pad, 0) for pad in pads) for pads in (window.before, window.after))
    return builder.gather(value, indices), replace(window, before=before, after=after)


def _pad_ahead(builder: Builder, value: Value, window: Window) -> tuple[Value, Window]:
    """Zeros for what padding is as wide as the window; the operator itself pads less than that."""
    before = tuple(min(pad, span - 1) for pad, span in zip(window.before, window.reach, strict=True))
    after = tuple(min(pad, span - 1) for pad, span in zip(window.after, window.reach, strict=True))
    indices = {}
    for axis in range(value.rank - 2):
        at = axis + 4 - value.rank
        ahead = (window.before[at] - before[at], window.after[at] - after[at])
        if any(ahead):
            indices[2 + axis] = np.pad(np.arange(value.shape[2 + axis]), ahead, constant_values=-1)
    return builder.gather(value, indices), replace(window, before=before, after=after)


def _result(builder: Builder, tensor: str, value: Value, channels: int) -> Value:
    shape = builder.shapes[tensor]
    spatial = [shape.width] if value.rank == 3 else [shape.height, shape.width]
    logical = [1, channels, *spatial]
    return builder.value(tensor, logical, lay.channels_last(logical))


@handles("Conv", sample_wise=first_only)
def conv(call: Call) -> Value:
    call.float_only()
    value, weight = call.value(), call.constant(1, "the weight")
    _spatial(call, value)
    call.forbid(weight.ndim != value.rank, f"a weight of shape {weight.shape} meets the input {value.shape}")
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    out_channels, group_channels = weight.shape[:2]
    groups = call.int("group", 1)
    call.forbid(
        group_channels * groups != value.shape[1] or out_channels % groups != 0,
        f"a weight of shape {weight.shape} in {groups} groups meets {value.shape[1]} channels",
    )
    window = _window(call, value, weight.shape[2:])  # type: ignore[arg-type]
    bias = call.constant(2, "the bias") if call.has(2) else np.zeros(out_channels, np.float32)
    value, window = _crop_negative(call.builder, value, window)
    grid = call.grid(1)
    scale = None if grid is None else grid.along(0, out_channels)
    return emit_conv(call, value, weight.transpose(0, 2, 3, 1), bias, window, groups, scale)


def emit_conv(
    call: Call,
    value: Value,
    weight: NDArray,
    bias: NDArray,
    window: Window,
    groups: int,
    scale: NDArray | None = None,
) -> Value:
    """A convolution of an image; weight: [out, y, x, in / groups], scale: [out], of its integers."""
    builder = call.builder
    value, window = _pad_ahead(builder, value, window)
    is_pointwise = window.kernel == window.strides == (1, 1) and not any(window.pads) and value.sample[0] == 1
    value = builder.with_channels(value, [1]) if is_pointwise else builder.image(value)
    source = builder.shapes[value.tensor]
    height = _count(call, source.height, window, 0)
    width = _count(call, source.width, window, 1)
    channels = weight.shape[0]
    attributes = {
        "bias": as_float(bias).reshape(channels),
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": window.pads,
        "weight_scale": scale,
    }
    shape = g.Shape(height, width, channels)
    if groups > 1 and groups == source.channels == channels:
        filters = as_float(weight[..., 0].transpose(1, 2, 0))
        tensor = builder.emit(g.DepthwiseConv, (value.tensor,), shape, weight=filters, **attributes)
    else:
        tensor = builder.emit(g.Conv, (value.tensor,), shape, weight=as_float(weight), groups=groups, **attributes)
    if is_pointwise:
        layout = lay.make(value.layout.y, value.layout.x, [lay.Piece(1, channels)])
        return builder.value(tensor, [1, channels, *value.sample[2:]], layout)
    return _result(builder, tensor, value, channels)


def _count(call: Call, size: int, window: Window, axis: int) -> int:
    count = window_shape(
        size, window.kernel[axis], window.strides[axis], window.dilations[axis], window.before[axis], window.after[axis]
    )
    call.forbid(count < 1, f"a window of {window.reach[axis]} does not fit an axis of {size}: the result is empty")
    return count


@handles("ConvTranspose", sample_wise=first_only)
def conv_transpose(call: Call) -> Value:
    """As a convolution at the input's resolution that computes all phases of a stride, then DepthToSpace and a crop.

    Output row f = iy * s + ky (before the crop) has the phase r = f mod s and reads the taps ky = r + s t at the
    input rows f div s - t: a window of ceil(k / s) rows for each of s phases. Unequal strides insert zeros instead.
    """
    call.float_only()
    builder, value, weight = call.builder, call.value(), call.constant(1, "the weight")
    size = _spatial(call, value)
    weight = weight[:, :, None, :] if weight.ndim == 3 else weight
    groups = call.int("group", 1)
    channels = weight.shape[1] * groups
    call.forbid(weight.shape[0] != value.shape[1], f"a weight of shape {weight.shape} meets {value.shape[1]} channels")
    bias = call.constant(2, "the bias") if call.has(2) else np.zeros(channels, np.float32)
    window = _window(call, value, weight.shape[2:])  # type: ignore[arg-type]
    start, out = _transposed_extent(call, size, window, value.rank)
    spread = np.zeros((*weight.shape[:2], *window.reach), np.float32)
    spread[:, :, :: window.dilations[0], :: window.dilations[1]] = weight
    value = builder.image(value)
    stride = window.strides[0]
    if stride == window.strides[1] and stride > 1:
        result = _by_phases(call, value, spread, bias, groups, stride, (start, out))
        first = start
    else:
        result, first = _by_zeros(call, value, spread, bias, groups, window.strides, (start, out)), (0, 0)
    axes = range(4 - value.rank, 2)
    return builder.gather(
        result, {axis + value.rank - 2: np.arange(first[axis], first[axis] + out[axis]) for axis in axes}
    )


def _transposed_extent(
    call: Call, size: tuple[int, int], window: Window, rank: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """First row and column kept of the full result, and how many are kept."""
    extra = _pair(call.ints("output_padding"), 0, rank)
    full = [(n - 1) * s + r + e for n, s, r, e in zip(size, window.strides, window.reach, extra, strict=True)]
    wanted = call.ints("output_shape")
    auto = call.text("auto_pad", "NOTSET")
    if wanted is None and not auto.startswith("SAME"):
        out = tuple(f - b - a for f, b, a in zip(full, window.before, window.after, strict=True))
        call.forbid(min(out) < 1 or min(window.pads) < 0, f"the result would be {out[0]} x {out[1]}")
        return window.before, out  # type: ignore[return-value]
    if wanted is not None:
        out = (1, wanted[-1]) if rank == 3 else (wanted[-2], wanted[-1])
    else:
        out = (size[0] * window.strides[0], size[1] * window.strides[1])
    totals = [max(f - o, 0) for f, o in zip(full, out, strict=True)]
    start = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in totals]
    return (start[0], start[1]), out


def _by_phases(
    call: Call,
    value: Value,
    kernel: NDArray,
    bias: NDArray,
    groups: int,
    s: int,
    kept: tuple[tuple[int, int], tuple[int, int]],
) -> Value:
    builder = call.builder
    source = builder.shapes[value.tensor]
    per_in, per_out = kernel.shape[0] // groups, kernel.shape[1]
    taps = [-(-extent // s) for extent in kernel.shape[2:]]
    padded = np.zeros((*kernel.shape[:2], taps[0] * s, taps[1] * s), np.float32)
    padded[:, :, : kernel.shape[2], : kernel.shape[3]] = kernel
    cut = padded.reshape(groups, per_in, per_out, taps[0], s, taps[1], s)[:, :, :, ::-1, :, ::-1, :]
    weight = cut.transpose(0, 2, 4, 6, 3, 5, 1).reshape(groups * per_out * s * s, taps[0], taps[1], per_in)
    grid = call.grid(1)
    along = None if grid is None else grid.along(1, per_out)
    scale = None if along is None else np.tile(np.repeat(along, s * s), groups)
    rows, cols = (-(-(first + count) // s) for first, count in zip(*kept, strict=True))
    after = (max(rows - source.height, 0), max(cols - source.width, 0))
    window = Window((taps[0], taps[1]), (1, 1), (1, 1), (taps[0] - 1, taps[1] - 1), after)
    phases = emit_conv(call, value, weight, np.repeat(bias, s * s), window, groups, scale)
    shape = builder.shapes[phases.tensor]
    wide = g.Shape(shape.height * s, shape.width * s, groups * per_out)
    tensor = builder.emit(g.DepthToSpace, (phases.tensor,), wide, block=s, mode="CRD")
    return _result(builder, tensor, value, groups * per_out)


def _by_zeros(
    call: Call,
    value: Value,
    kernel: NDArray,
    bias: NDArray,
    groups: int,
    strides: tuple[int, int],
    kept: tuple[tuple[int, int], tuple[int, int]],
) -> Value:
    builder = call.builder
    source = builder.shapes[value.tensor]
    sizes = (source.height, source.width)
    before, after, indices = [0, 0], [0, 0], {}
    for axis in range(2):
        reach, (first, count) = kernel.shape[2 + axis], (kept[0][axis], kept[1][axis])
        index = np.full((sizes[axis] - 1) * strides[axis] + 1, -1)
        index[:: strides[axis]] = np.arange(sizes[axis])
        before[axis] = reach - 1 - first
        after[axis] = count - len(index) - before[axis] + reach - 1
        index = index[max(-before[axis], 0) : len(index) - max(-after[axis], 0)]
        before[axis], after[axis] = max(before[axis], 0), max(after[axis], 0)
        if axis + value.rank - 2 >= 2:
            indices[axis + value.rank - 2] = index
    value = builder.gather(value, indices)
    per_in, per_out = kernel.shape[0] // groups, kernel.shape[1]
    cut = kernel.reshape(groups, per_in, per_out, *kernel.shape[2:])[..., ::-1, ::-1]
    weight = cut.transpose(0, 2, 3, 4, 1).reshape(groups * per_out, *kernel.shape[2:], per_in)
    window = Window(kernel.shape[2:], (1, 1), (1, 1), (before[0], before[1]), (after[0], after[1]))  # type: ignore[arg-type]
    return emit_conv(call, value, weight, bias, window, groups)


@handles("MaxPool", "AveragePool", sample_wise=first_only, bytewise=True)
def pool(call: Call) -> Value:
    builder, value = call.builder, call.value()
    quant = builder.quants.get(value.tensor)
    if quant is None:
        return _pool(call)
    call.forbid(call.op_type != "MaxPool", "averages of integers are not supported, only QLinearAveragePool")
    result = _pool(replace(call, inputs=[builder.dequantize(value, quant)]))
    return builder.quantize(result, quant, value.dtype)


def _pool(call: Call) -> Value:
    call.float_only(integers=call.op_type == "MaxPool")
    call.forbid(call.output_count > 1 and is_used(call.node, 1), "its second output, Indices, is not supported")
    builder, value = call.builder, call.value()
    _spatial(call, value)
    window = _window(call, value, _pair(call.ints("kernel_shape"), 1, value.rank))
    call.forbid(min(window.pads) < 0, f"negative pads {window.pads} are not supported")
    wide = any(pad >= span for pad, span in zip(window.pads, window.reach * 2, strict=True))
    call.forbid(wide, f"pads {window.pads} as wide as the window are not supported")
    image = builder.image(value)
    source = builder.shapes[image.tensor]
    ceil = bool(call.int("ceil_mode", 0)) and call.text("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    out = [_pool_count(call, size, window, axis, ceil) for axis, size in enumerate((source.height, source.width))]
    tensor = builder.emit(
        g.Pool,
        (image.tensor,),
        g.Shape(out[0], out[1], source.channels),
        kind="max" if call.op_type == "MaxPool" else "average",
        kernel=window.kernel,
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
        count_include_pad=call.op_type == "AveragePool" and bool(call.int("count_include_pad", 0)),
    )
    return replace(_result(builder, tensor, value, source.channels), dtype=value.dtype)


def _pool_count(call: Call, size: int, window: Window, axis: int, ceil: bool) -> int:
    room = size + window.before[axis] + window.after[axis] - window.reach[axis]
    stride = window.strides[axis]
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= size + window.before[axis]:
        count -= 1
    call.forbid(count < 1, f"a window of {window.reach[axis]} does not fit an axis of {size}: the result is empty")
    return count


@handles("GlobalAveragePool", "GlobalMaxPool", sample_wise=first_only)
def global_pool(call: Call) -> Value:
    call.float_only()
    builder, value = call.builder, call.value()
    image = builder.image(value)
    kind = "mean" if call.op_type == "GlobalAveragePool" else "max"
    channels = value.shape[1]
    tensor = builder.emit(g.Reduce, (image.tensor,), g.Shape(1, 1, channels), kind=kind)
    shape = [1, channels] + [1] * (value.rank - 2)
    return builder.value(tensor, shape, lay.by_axes(shape, c=[1]))
