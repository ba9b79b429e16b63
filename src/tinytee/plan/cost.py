"""The cost model: predicted time of an operator's arithmetic on one sample."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from tinytee.bundle.abi import constants
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
from tinytee.ir.quantized import Dequantize, QBinary, QConv, QDepthwiseConv, QLrn, QLut, QPool, QReduce, Quantize
from tinytee.plan.products import MapConv
from tinytee.plan.profile import Profile
from tinytee.plan.quantized import conv_rows
from tinytee.plan.weights import IN_PAIRS, TOGETHER, Method, conv_depth, panel_count

FREE_ACTIVATIONS = ("identity", "relu", "clip")
"""Those that a convolution applies as it stores; one that is not depthwise applies ``hard_swish``, too."""

CHEAP_ACTIVATIONS = ("relu", "clip", "leaky_relu", "hard_sigmoid", "hard_swish", "abs", "neg", "reciprocal", "trunc")


_CLAMPING = Conv | DepthwiseConv | QConv | QDepthwiseConv


SINGLE_PENALTY = 1.15
"""A register tile of one vector of channels loads an input for every multiply-accumulate, one of two for each two."""

LEAST_PAIR, LEAST_SINGLE = 2.2, 1.5
"""Multiply-accumulates' worth of time that a row of the panel takes at least, in a tile of two vectors and of one."""


MULTIPLICATIONS: dict[Method, float] = {
    "direct": 1.0,
    "winograd": 0.5,
    "winograd_together": 0.5,
    "winograd_pairs": 1 / 3,
    "winograd_pairs_together": 1 / 3,
    "strassen": 7 / 8,
}
"""Of those of a direct convolution."""

WINOGRAD_CACHED_BYTES = 384 * 1024
"""Panels that a y-plane of transformed input serves before it is transformed anew (core/ops/winograd.c)."""

WINOGRAD_SHARING: dict[Method, float] = {
    "winograd": 1.5,
    "winograd_together": 1.2,
    "winograd_pairs": 1.2,
    "winograd_pairs_together": 1.2,
}
"""Time of its products over that predicted, where threads share them: their weights come from another's cache, or each
thread transforms what others do."""

STRASSEN_LEAST_PIXELS = 7
"""Pixels of half of a y-plane from which on one that has no second to go with is divided (core/ops/strassen.c)."""


def conv_seconds(op: Conv | QConv, out: Shape, profile: Profile, panel: int) -> float:
    """Time of a convolution with panels so wide, all register tiles of nearly equal width (see core/kernels/f32.c)."""
    if isinstance(op, QConv):
        return _integer_conv_seconds(op, out, profile)
    channels, kernel_y, kernel_x, depth = op.weight.shape
    whole, rest = divmod(channels // op.groups, panel)
    vectors = [math.ceil(panel / profile.lanes)] * whole + ([math.ceil(rest / profile.lanes)] if rest else [])
    pairs, singles = sum(v // 2 for v in vectors) * op.groups, sum(v % 2 for v in vectors) * op.groups
    tiles = math.ceil(out.width / profile.tile_pixels)
    pixels = out.width / tiles
    per_row = pairs * max(pixels * 2, LEAST_PAIR) + singles * max(pixels * SINGLE_PENALTY, LEAST_SINGLE)
    rows = kernel_y * kernel_x * depth
    return out.height * tiles * (rows * per_row * profile.fma_seconds + (pairs + singles) * profile.tile_seconds)


def _integer_conv_seconds(op: QConv, out: Shape, profile: Profile) -> float:
    """A tile of m pixels by v vectors takes max(m * v, 4) dot products a row of the panel.

    4 is the latency that a narrow tile cannot hide (see core/kernels/i8.c).
    """
    channels = op.weight.shape[0]
    rows, tile_pixels = conv_rows(op), profile.dot_tile_pixels
    step_seconds, tile_seconds = profile.dot_seconds, profile.dot_tile_seconds
    per_group = channels // op.groups
    vectors = math.ceil(per_group / profile.lanes) * op.groups
    tiles = math.ceil(out.width / tile_pixels)
    pixels = out.width / tiles
    pairs = vectors / 2
    per_row = max(pixels * 2, 4.0) if per_group > profile.lanes else max(pixels, 4.0) * 2
    return out.height * tiles * pairs * (rows * per_row * step_seconds + tile_seconds)


class WinogradSize(NamedTuple):
    """What ``tt_op`` says of a convolution by Winograd's method.

    Attributes:
        height: output y-planes, in whole pairs.
        tiles: of an output y-plane.
        rows: output y-planes that are computed together.
        inputs, products: y-planes of transformed input and of products that these take.
        kept_columns: of transformed weights, which are kept.
        together: whether all y-planes are computed together.
    """

    height: int
    tiles: int
    rows: int
    inputs: int
    products: int
    kept_columns: int
    together: bool


def winograd_tiles(out: Shape) -> int:
    """Of an output y-plane."""
    return -(-out.width // 4)


def winograd_size(op: Conv, out: Shape, method: Method) -> WinogradSize:
    in_pairs, tiles = method in IN_PAIRS, winograd_tiles(out)
    each = 2 if in_pairs else 1
    most = -(-out.height // each)
    rows = each * (most if method in TOGETHER else min(most, max(1, constants.TT_WINOGRAD_TILES // tiles)))
    inputs = 2 * rows if in_pairs else rows + op.weight.shape[1] - 1
    columns = (6 if in_pairs else 4) if method in TOGETHER else 0
    return WinogradSize(each * most, tiles, rows, inputs, each * rows, columns, rows >= out.height)


class WinogradReading(NamedTuple):
    """Transforming a convolution's input, by Winograd's method.

    Attributes:
        seconds: to transform all of it once.
        panels: that it serves then, at most, and of a block that is fed no more than the block's; 0: all of all blocks.
    """

    seconds: float
    panels: int

    def passes(self, panels: int, block_panels: int) -> int:
        """How often it is transformed for so many panels that come in blocks of so many."""
        if not self.panels:
            return 1
        blocks, rest = divmod(panels, block_panels)
        return blocks * -(-block_panels // self.panels) + -(-rest // self.panels)


def winograd_reading(op: Conv, out: Shape, profile: Profile, panel: int, method: Method) -> WinogradReading:
    """Input transforms, by what ``_transforming`` says of them."""
    size, panels = winograd_size(op, out, method), 0
    if not size.together:
        panels = 1 + size.rows * WINOGRAD_CACHED_BYTES // (conv_depth(op, method) * panel * 4)
    each = 3 if method in IN_PAIRS else 1
    return WinogradReading(_transforming(size, op.weight.shape[3], each, profile), panels)


def _transforming(size: WinogradSize, channels: int, each: int, profile: Profile) -> float:
    """Time to transform a map of so many channels, of which a tile is read or written ``each`` times: about 4 accesses
    of a vector for each that is read or written."""
    vectors = size.tiles * math.ceil(channels / profile.lanes) * each
    return 12 * size.height * vectors * 2 * profile.depthwise_seconds


def _winograd_products(op: Conv, out: Shape, profile: Profile, panel: int, method: Method) -> float:
    """Time of the products: six for four pixels in place of twelve and, in pairs, 24 for eight pixels in place of 72.
    Where a core's own cache does not hold a panel beside the input, read and transformed, the panel comes from farther
    away each time."""
    channels, kernel_y, _, depth = op.weight.shape
    size, in_pairs = winograd_size(op, out, method), method in IN_PAIRS
    calls, pixels = (24, size.rows // 2 * size.tiles) if in_pairs else (6 * kernel_y, size.rows * size.tiles)
    tap = replace(op, weight=op.weight[:, :1, :1])
    seconds = calls * size.height / size.rows * conv_seconds(tap, Shape(1, pixels, channels), profile, panel)
    seconds *= WINOGRAD_SHARING[method] if profile.threads > 1 else 1.0
    panel_bytes, read_bytes = conv_depth(op, method) * panel * 4, (size.rows + kernel_y - 1) * out.width * depth * 4
    if not size.together and panel_bytes + read_bytes + 24 * size.inputs * size.tiles * depth > profile.cache_bytes:
        far_bytes = size.height / size.rows * panel_count(op, panel) * panel_bytes
        seconds += far_bytes / (profile.far_bytes_per_second * profile.threads)
    return seconds


def winograd_seconds(
    op: Conv, out: Shape, profile: Profile, panel: int, method: Method, block_panels: int | None = None
) -> float:
    """Time of a convolution by Winograd's F(4, 3) along x and, in pairs, F(2, 3) along y: of weights that are in the
    arena, or come in blocks of so many panels."""
    panels, reading = panel_count(op, panel), winograd_reading(op, out, profile, panel, method)
    read = reading.passes(panels, block_panels or panels) * reading.seconds
    each = 2 if method in IN_PAIRS else 1
    written = _transforming(winograd_size(op, out, method), op.weight.shape[0], each, profile)
    products = _winograd_products(op, out, profile, panel, method)
    return products + read + written + activation_seconds(op, out.elems, profile)


def strassen_seconds(op: Conv, out: Shape, profile: Profile, panel: int) -> float:
    """Time of a convolution by Strassen's method: seven products of halves of pixels and channels in place of eight.

    Sums of inputs count as about 9 accesses of a vector; three times, because panels that are fed in blocks may need
    them anew. Each product of a pair with a panel costs as much again as a register tile does besides its arithmetic,
    an addition to a residual 4 accesses. A last y-plane of its own that is too narrow to be divided takes all eight.
    """
    channels, _, _, depth = op.weight.shape
    quarter = replace(op, weight=op.weight[: channels // 2, :, :, : depth // 2])
    alone = out.height % 2 if out.width < 2 * STRASSEN_LEAST_PIXELS else 0
    products = 3.5 * (out.height - alone) + 4 * alone
    each = conv_seconds(quarter, Shape(1, out.width, channels // 2), profile, panel // 2)
    sums = 3 * out.height / 2 * out.width * math.ceil(depth / 2 / profile.lanes) * 9 * profile.depthwise_seconds
    kept = 9 * out.height / 2 * out.width * math.ceil(channels / 2 / profile.lanes) * profile.depthwise_seconds
    calls = products * (channels // panel) * profile.tile_seconds
    added = 4 * out.height * out.width * math.ceil(channels / profile.lanes) * profile.depthwise_seconds
    added *= len(op.inputs) > 1
    return products * each + calls + sums + kept + added + activation_seconds(op, out.elems, profile)


def activation_seconds(op: Op, elems: int, profile: Profile) -> float:
    kind = op.activation.kind
    free = kind == "identity" or (kind in FREE_ACTIVATIONS and isinstance(op, _CLAMPING))
    if free or (kind == "hard_swish" and isinstance(op, Conv)):
        return 0.0
    return elems * (profile.element_seconds if kind in CHEAP_ACTIVATIONS else profile.function_seconds)


def op_seconds(op: Op, shapes: dict[str, Shape], profile: Profile, panel: int = 0) -> float:
    """Predicted time of all of an operator's y-planes, without instructions and chunks.

    panel: width of a convolution's panels.
    """
    out = shapes[op.output]
    read = sum(shapes[name].elems for name in op.inputs)
    base = activation_seconds(op, out.elems, profile)
    match op:
        case Conv() | QConv():
            return base + conv_seconds(op, out, profile, panel)
        case MapConv():
            return base + conv_seconds(op.with_weights, out, profile, op.panel)
        case QDepthwiseConv():
            columns = math.ceil(op.weight.shape[0] / 4) * op.weight.shape[1]
            vectors = math.ceil(out.channels / profile.lanes)
            return out.height * out.width * vectors * (columns + 2) * profile.dot_depthwise_seconds
        case QPool():
            return out.elems * (op.kernel[0] * op.kernel[1] + 1) * profile.byte_seconds / 8  # bytes, not floats
        case QReduce():
            return read * profile.byte_seconds
        case QBinary() | QLut():
            return base + out.elems * profile.byte_seconds
        case Quantize() | Dequantize():
            return base + out.elems * (profile.byte_seconds + profile.element_seconds) / 2
        case DepthwiseConv():
            taps = op.weight.shape[0] * op.weight.shape[1]
            vectors = math.ceil(out.channels / profile.lanes)
            return base + out.height * out.width * vectors * (taps + 2) * profile.depthwise_seconds
        case Pool():
            vectors = math.ceil(out.channels / profile.lanes)
            taps = op.kernel[0] * op.kernel[1]
            return base + out.height * out.width * vectors * (taps + 2) * profile.depthwise_seconds
        case Softmax() | Lrn() | QLrn():
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


def least_seconds(op: Op | None, out: Shape | None, profile: Profile, method: Method = "direct") -> float:
    """Time of an operator's multiplications at the peak rate of the profile's vectors, nothing else."""
    op = op.with_weights if isinstance(op, MapConv) else op
    match op:
        case Conv() if out:
            products = out.elems * math.prod(op.weight.shape[1:]) * MULTIPLICATIONS[method]
            return products / profile.lanes * profile.fma_seconds
        case QConv() if out:
            return out.elems * math.prod(op.weight.shape[1:]) / (4 * profile.lanes) * profile.dot_seconds
        case DepthwiseConv() if out:
            return out.elems * math.prod(op.weight.shape[:2]) / profile.lanes * profile.fma_seconds
        case QDepthwiseConv() if out:
            return out.elems * math.prod(op.weight.shape[:2]) / (4 * profile.lanes) * profile.dot_seconds
        case _:
            return 0.0
