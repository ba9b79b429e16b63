"""Resize and Upsample: nearest as a gather, linear and cubic as taps with weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytee.importer import layout as lay
from tinytee.importer.builder import Builder
from tinytee.importer.handlers.samples import first_only
from tinytee.importer.registry import Call, handles
from tinytee.importer.values import Value
from tinytee.ir import graph as g

_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
)  # fmt: skip
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Sampling:
    """How a resize reads an axis; names and meanings are ONNX's."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool


def coordinates(size: int, out: int, scale: float, kind: str, dtype: type = np.float64) -> NDArray:
    """Where on the input axis each output element looks.

    Example:
        >>> coordinates(2, 4, 2.0, "half_pixel").tolist()
        [-0.25, 0.25, 0.75, 1.25]
    """
    at = np.arange(out, dtype=dtype)
    factor, half = dtype(scale), dtype(0.5)
    if kind == "align_corners":
        return at * dtype(size - 1) / dtype(out - 1) if out > 1 else np.zeros(out, dtype)
    if kind == "asymmetric":
        return at / factor
    if kind == "tf_half_pixel_for_nn":
        return (at + half) / factor
    if kind == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, dtype)
    centre = (at + half) / factor - half
    if kind == "half_pixel_symmetric":
        adjustment = dtype(out) / (factor * dtype(size))
        return centre + dtype(size) / 2 * (1 - adjustment)
    return centre


def nearest_index(size: int, out: int, scale: float, sampling: Sampling) -> NDArray:
    """The element that each output element repeats; in float32, as runtimes compute it."""
    at = coordinates(size, out, scale, sampling.coordinates, np.float32)
    half = np.float32(0.5)
    rounded = {
        "round_prefer_floor": lambda: np.ceil(at - half),
        "round_prefer_ceil": lambda: np.floor(at + half),
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
    }[sampling.nearest]()
    return np.clip(rounded, 0, size - 1).astype(np.int64)


def taps(size: int, out: int, scale: float, sampling: Sampling) -> tuple[NDArray, NDArray]:
    """Index and weight of every tap of every output element: [out, taps] each.

    A coordinate x lies between its left neighbour, at ratio 0 < r <= 1 to the right of it, and the next element.
    Downsampling with antialias stretches the kernel by 1 / scale.
    """
    if sampling.mode == "linear" and not sampling.antialias and not sampling.exclude_outside:
        return _linear_taps(size, out, scale, sampling.coordinates)
    at = coordinates(size, out, scale, sampling.coordinates)
    left = np.ceil(at) - 1
    ratio = at - left
    reach = 1 if sampling.mode == "linear" else 2
    shrink = min(scale, 1.0) if sampling.antialias else 1.0
    start = int(np.floor(-reach / shrink) + 1)
    offsets = np.arange(start, 2 - start)
    distance = np.abs((offsets[None, :] - ratio[:, None]) * shrink)
    weights = np.clip(1 - distance, 0, 1) if reach == 1 else _cubic(distance, sampling.cubic_a)
    index = (left[:, None] + offsets[None, :]).astype(np.int64)
    if sampling.exclude_outside:
        weights = np.where((index < 0) | (index >= size), 0, weights)
    if sampling.exclude_outside or sampling.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(index, 0, size - 1), weights


def _linear_taps(size: int, out: int, scale: float, kind: str) -> tuple[NDArray, NDArray]:
    """Both neighbours, in float32, as ONNX Runtime computes them: what is quantized after it may hang on a bit."""
    at = np.clip(coordinates(size, out, scale, kind, np.float32), 0, size - 1).astype(np.float32)
    left = np.floor(at)
    right = np.minimum(left + 1, np.float32(size - 1))
    weights = np.stack([np.abs(at - right), np.abs(at - left)], axis=1)
    weights[left == right] = 0.5
    return np.stack([left, right], axis=1).astype(np.int64), weights


def _cubic(distance: NDArray, a: float) -> NDArray:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


@handles("Resize", "Upsample", sample_wise=first_only, bytewise=True)
def resize(call: Call) -> Value:
    builder, value, sampling = call.builder, call.value(), _sampling(call)
    if value.tensor not in builder.quants or sampling.mode != "nearest":
        call.float_only(0)
    sizes = _sizes(call, value)
    if builder.batched:
        call.forbid(sizes.pop(0, (0, 1.0))[1] != 1.0, "resizing the batch is not supported")
    sizes = {axis: (out, scale) for axis, (out, scale) in sizes.items() if out != value.shape[axis] or scale != 1.0}
    if sampling.mode == "nearest":
        return builder.gather(
            value,
            {axis: nearest_index(value.shape[axis], out, scale, sampling) for axis, (out, scale) in sizes.items()},
        )
    axes = sorted(sizes)
    while axes:
        pair, axes = axes[-2:], axes[:-2]
        value = _interpolate(builder, value, {axis: sizes[axis] for axis in pair}, sampling)
    return value


def _sampling(call: Call) -> Sampling:
    mode = call.text("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    call.forbid(mode not in ("nearest", "linear", "cubic"), f"mode = '{mode}' is unknown")
    if call.op_type == "Upsample" or call.version < 11:
        return Sampling(mode, "asymmetric", "floor", -0.75, False, False)
    kind = call.text("coordinate_transformation_mode", "half_pixel")
    call.forbid(kind not in _COORDINATES, f"coordinate_transformation_mode = '{kind}' is not supported")
    nearest = call.text("nearest_mode", "round_prefer_floor")
    call.forbid(nearest not in _NEAREST, f"nearest_mode = '{nearest}' is unknown")
    return Sampling(
        mode,
        kind,
        nearest,
        call.float("cubic_coeff_a", -0.75),
        bool(call.int("exclude_outside", 0)),
        bool(call.int("antialias", 0)),
    )


def _sizes(call: Call, value: Value) -> dict[int, tuple[int, float]]:
    """New extent and scale of every axis that the node names."""
    old = call.op_type == "Upsample" or call.version < 11
    axes = [call.axis(axis, value.rank) for axis in call.ints("axes") or range(value.rank)]
    if old:
        given = call.floats("scales")
        scales = given if given is not None else [float(s) for s in call.constant(1, "the scales").reshape(-1)]
        sizes = None
    else:
        scales = [float(s) for s in call.constant(2, "the scales").reshape(-1)] if call.has(2) else []
        sizes = call.sizes(3, "the sizes", axes) if call.has(3) else None
    if scales:
        call.forbid(len(scales) != len(axes) or min(scales) <= 0, f"scales {scales} meet {len(axes)} axes")
        found = {
            axis: (int(np.floor(np.float32(value.shape[axis]) * np.float32(scale))), scale)
            for axis, scale in zip(axes, scales, strict=True)
        }
    else:
        if sizes is None:
            call.forbid(True, "it has neither scales nor sizes")
            return {}
        call.forbid(len(sizes) != len(axes), f"sizes {sizes} meet {len(axes)} axes")
        found = _fit(call, value, axes, sizes)
    call.forbid(any(out < 1 for out, _ in found.values()), "the result is empty")
    return found


def _fit(call: Call, value: Value, axes: list[int], sizes: list[int]) -> dict[int, tuple[int, float]]:
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    ratios = [size / value.shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    if policy == "stretch":
        return {axis: (size, ratio) for axis, size, ratio in zip(axes, sizes, ratios, strict=True)}
    call.forbid(policy not in ("not_larger", "not_smaller"), f"keep_aspect_ratio_policy = '{policy}' is unknown")
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return {axis: (int(scale * value.shape[axis] + 0.5), scale) for axis in axes}


def _interpolate(builder: Builder, value: Value, sizes: dict[int, tuple[int, float]], sampling: Sampling) -> Value:
    """At most two axes, as y and x."""
    sample = value.sample
    *first, last = sorted(sizes)
    over = (first[0] if first else None, last)
    if not _stands(value, over):
        channels = [axis for axis in range(value.rank) if axis not in over]
        value = builder.with_layout(value, lay.by_axes(sample, first, [last], channels))
        groups = [[lay.Piece(axis, sample[axis]) for axis in first], [lay.Piece(last, sample[last])]]
    else:
        groups = [list(value.layout.y), list(value.layout.x)]
    source = builder.shapes[value.tensor]
    attributes: dict[str, NDArray] = {}
    extents = []
    for axis, side, old in zip(over, ("row", "col"), (source.height, source.width), strict=True):
        if axis is None:
            index, weights = np.arange(old)[:, None], np.ones((old, 1))
        else:
            index, weights = taps(old, *sizes[axis], sampling)
        attributes[f"{side}_index"] = index.astype(np.int32)
        attributes[f"{side}_weights"] = weights.astype(np.float32)
        extents.append(len(index))
    shape = g.Shape(extents[0], extents[1], source.channels)
    tensor = builder.emit(g.Resize, (value.tensor,), shape, **attributes)
    for position, axis in enumerate(over):
        if axis is not None:
            groups[position] = [lay.Piece(axis, sizes[axis][0])]
    logical = [sizes[axis][0] if axis in sizes else extent for axis, extent in enumerate(sample)]
    return builder.value(tensor, logical, lay.make(groups[0], groups[1], value.layout.c))


def _stands(value: Value, over: tuple[int | None, int]) -> bool:
    """Whether the axes already are y (or absent) and x, each whole and alone."""
    layout, sample = value.layout, value.sample
    y, x = over
    if any(piece.axis in over for piece in layout.c):
        return False
    x_fits = layout.x == lay.make(x=[lay.Piece(x, sample[x])]).x
    y_fits = y is None or layout.y == lay.make(y=[lay.Piece(y, sample[y])]).y
    return x_fits and y_fits and (y is not None or all(piece.axis != x for piece in layout.y))
