"""The cost model: predicted time of an operator's arithmetic on one sample."""

from __future__ import annotations

import math
from dataclasses import replace

from tinytee.ir.graph import (
    Binary,
    Conv,
    DepthwiseConv,
    LayerNorm,
    Lrn,
    Op,
    Permute,
    Pool,
    Reduce,
    Resize,
    Shape,
    Softmax,
)
from tinytee.plan.profile import Profile

FREE_ACTIVATIONS = ("identity", "relu", "clip")
"""Those that a convolution applies as it stores."""

CHEAP_ACTIVATIONS = ("relu", "clip", "leaky_relu", "hard_sigmoid", "hard_swish", "abs", "neg", "reciprocal", "trunc")


def conv_seconds(op: Conv, out: Shape, profile: Profile) -> float:
    """Time of a convolution, all register tiles of nearly equal width (see core/kernels/f32.c).

    A tile of m pixels by v vectors takes max(m * v, 4) multiply-accumulates a row of the panel: 4 is the latency that
    a narrow tile cannot hide.
    """
    channels, kernel_y, kernel_x, depth = op.weight.shape
    rows = kernel_y * kernel_x * depth
    per_group = channels // op.groups
    vectors = math.ceil(per_group / profile.lanes) * op.groups
    tiles = math.ceil(out.width / profile.tile_pixels)
    pixels = out.width / tiles
    pairs = vectors / 2
    per_row = max(pixels * 2, 4.0) if per_group > profile.lanes else max(pixels, 4.0) * 2
    return out.height * tiles * pairs * (rows * per_row * profile.fma_seconds + profile.tile_seconds)


def winograd_seconds(op: Conv, out: Shape, profile: Profile) -> float:
    """Time of a convolution by Winograd's F(4, 3) along x: six products for four pixels in place of twelve.

    Input and output transforms count as about 4 accesses of a vector for each that they read or write.
    """
    channels, _, _, depth = op.weight.shape
    tiles = -(-out.width // 4)
    narrow = replace(op, weight=op.weight[:, :, :1], strides=(op.strides[0], 1))
    products = 6 * conv_seconds(narrow, Shape(out.height, tiles, channels), profile)
    vectors = math.ceil(depth / profile.lanes) * op.strides[0] + math.ceil(channels / profile.lanes)
    transforms = 12 * out.height * tiles * vectors * 2 * profile.depthwise_seconds
    return products + transforms + activation_seconds(op, out.elems, profile)


def activation_seconds(op: Op, elems: int, profile: Profile) -> float:
    kind = op.activation.kind
    if kind == "identity" or (kind in FREE_ACTIVATIONS and isinstance(op, Conv | DepthwiseConv)):
        return 0.0
    return elems * (profile.element_seconds if kind in CHEAP_ACTIVATIONS else profile.function_seconds)


def op_seconds(op: Op, shapes: dict[str, Shape], profile: Profile) -> float:
    """Predicted time of all of an operator's y-planes, without instructions and chunks."""
    out = shapes[op.output]
    read = sum(shapes[name].elems for name in op.inputs)
    base = activation_seconds(op, out.elems, profile)
    match op:
        case Conv():
            return base + conv_seconds(op, out, profile)
        case DepthwiseConv():
            taps = op.weight.shape[0] * op.weight.shape[1]
            vectors = math.ceil(out.channels / profile.lanes)
            return base + out.height * out.width * vectors * (taps + 2) * profile.depthwise_seconds
        case Pool():
            vectors = math.ceil(out.channels / profile.lanes)
            taps = op.kernel[0] * op.kernel[1]
            return base + out.height * out.width * vectors * (taps + 2) * profile.depthwise_seconds
        case Softmax() | Lrn():
            return base + out.elems * profile.function_seconds * 2
        case LayerNorm():
            return base + out.elems * profile.element_seconds * 6
        case Resize():
            return base + out.elems * op.row_index.shape[1] * op.col_index.shape[1] * profile.element_seconds
        case Permute():
            return base + out.elems * profile.element_seconds * 10
        case Reduce():
            return base + read * profile.element_seconds
        case Binary(kind="pow"):
            return base + out.elems * profile.function_seconds * 2
        case _:
            return base + out.elems * profile.element_seconds
