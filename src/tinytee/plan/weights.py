"""Weights as the core reads them: packed pieces of an operator and their sizes."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle.abi import constants
from tinytee.ir.coding import WeightCoding
from tinytee.ir.graph import Array, Binary, Constant, Conv, DepthwiseConv, Graph, LayerNorm, Op
from tinytee.ir.quantized import QBinary, QConv, QDepthwiseConv, QLut
from tinytee.plan import quantized
from tinytee.plan.products import MapConv
from tinytee.plan.profile import Profile

AnyConv = Conv | QConv

Method = Literal["direct", "winograd", "winograd_together", "winograd_pairs", "winograd_pairs_together", "strassen"]
"""How a convolution is computed; all but the first on float32. By Winograd's method, along x alone or along y as well,
in pairs of y-planes; a few y-planes at a time with weights that are transformed ahead of time, or all together with
weights that are transformed as they are used."""

ALONG_X: tuple[Method, ...] = ("winograd", "winograd_together")
IN_PAIRS: tuple[Method, ...] = ("winograd_pairs", "winograd_pairs_together")
BY_WINOGRAD = ALONG_X + IN_PAIRS
TOGETHER: tuple[Method, ...] = ("winograd_together", "winograd_pairs_together")
"""Whose weights are transformed as they are used."""
AHEAD: tuple[Method, ...] = ("winograd", "winograd_pairs")
"""Whose weights are transformed ahead of time."""

ALIGN = 64
"""Alignment, in bytes, of every tensor and weight piece in the arena."""


def aligned(count_bytes: int) -> int:
    return -(-count_bytes // ALIGN) * ALIGN


WINOGRAD = np.array(
    [
        [1, 0, 0],
        [1, 1, 1],
        [1, -1, 1],
        [1, 2, 4],
        [1, -2, 4],
        [0, 0, 1],
    ],
    np.float32,
)
"""Weight transform of Winograd's F(4, 3), points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, arXiv 1509.09308). Their
factors 1/4, -1/6 and 1/24 belong to the input's here, so that it takes few operations and columns 0 and 5 none."""


def can_be_winograd(op: Conv, method: Method = "winograd") -> bool:
    """Whether the core can compute a convolution by F(4, 3) along x and, in pairs, F(2, 3) along y."""
    _, kernel_y, kernel_x, _ = op.weight.shape
    fits = kernel_x == 3 and kernel_y <= constants.TT_WINOGRAD_KERNEL_Y
    if method in IN_PAIRS:
        fits = kernel_y == kernel_x == 3 and max(op.pads[0], op.pads[2]) <= 2
    return fits and op.strides == (1, 1) and op.dilations == (1, 1) and op.groups == 1


def can_be_strassen(op: Conv, panel: int) -> bool:
    """Whether the core can compute a convolution by Strassen's method, with panels so wide."""
    channels, *kernel, depth = op.weight.shape
    plain = kernel == [1, 1] and op.groups == 1 and not any(op.pads)
    return plain and depth % 2 == 0 and channels % panel == 0


def conv_depth(op: AnyConv, method: Method = "direct") -> int:
    """Rows of a weight panel: kernel_y * kernel_x * in_channels / groups; kernel_x = 6 where transformed ahead of time,
    and kernel_y = 4 where that is along y, too.

    A row is ``panel`` float32, or ``panel`` times four int8: ``4 * panel`` bytes.
    """
    if isinstance(op, QConv):
        return quantized.conv_rows(op)
    _, kernel_y, kernel_x, channels = op.weight.shape
    if method in AHEAD:
        kernel_y, kernel_x = 4 if method in IN_PAIRS else kernel_y, 6
    return kernel_y * kernel_x * channels


def least_panel(op: AnyConv, profile: Profile) -> int:
    """The panel width that pads least; the widest of those that are not too large for the profile."""
    channels = op.weight.shape[0] // op.groups
    widths = profile.dot_panels or profile.panels
    row_bytes, most = panel_bytes(op, 1, conv_depth(op)), profile.dot_panel_bytes
    fitting = [panel for panel in widths if not most or panel * row_bytes <= most]
    return min(fitting or [min(widths)], key=lambda panel: (-(-channels // panel) * panel, -panel))


def panel_count(op: AnyConv, panel: int) -> int:
    """Panels over all groups."""
    return op.groups * -(-(op.weight.shape[0] // op.groups) // panel)


def coding_of(op: Op | None) -> WeightCoding | None:
    return op.coding if isinstance(op, Conv) else None


def without_codes(graph: Graph, outputs: Container[str] | None = None) -> Graph:
    """The same network with the weights of these operators, by their outputs, or of all stored as float32."""
    ops = (
        replace(op, coding=None) if isinstance(op, Conv) and (outputs is None or op.output in outputs) else op
        for op in graph.ops
    )
    return replace(graph, ops=tuple(ops))


def constant_rows(op: AnyConv) -> int:
    """Rows that the constants are as long as which come with every panel, and every part of one."""
    return quantized.CONSTANT_ROWS if isinstance(op, quantized.FedConv) else 0


def panel_bytes(op: AnyConv, panel: int, rows: int) -> int:
    """Bytes of so many rows of a panel; if it is coded, they begin a group, or a stream."""
    coding = coding_of(op)
    if coding is None:
        return (rows + constant_rows(op)) * panel * 4
    if coding.kind == "fp16":
        return rows * panel * 2
    scales = -(-rows // coding.group) * 4 * panel
    pairs = -(-rows // 2) * panel
    if coding.streams is not None:
        return scales + sum(
            coding.streams.head_bytes(count) + (-(-count // 2) * panel if coding.kind == "int8" else 0)
            for count in coding.streams.lengths(rows)
        )
    return scales + (rows * panel if coding.kind == "int8" else pairs)


def split_rows(op: AnyConv, panel: int, most_bytes: int) -> int:
    """How many rows of a panel, at most, are fed at once into so many bytes; at least one row, group or stream."""
    coding = coding_of(op)
    if coding is None:
        return max(1, most_bytes // (4 * panel) - constant_rows(op))
    return max(1, most_bytes // panel_bytes(op, panel, coding.unit)) * coding.unit


PIECE_BYTES = 64 * 1024
"""Pieces that a chunk is sealed in where several threads open it: small enough to spread, long enough for the AEAD."""


def piece_rows(op: Conv, panel: int, method: Method) -> int:
    """Rows of the pieces that a panel is sealed in where whoever computes with them opens them: all have as many, at
    most ``PIECE_BYTES`` where that divides a panel well; what Winograd's method transforms at once is one."""
    depth = conv_depth(op, method)
    if method in TOGETHER:
        return depth if method in IN_PAIRS else depth // op.weight.shape[1]
    most = max(1, PIECE_BYTES // (4 * panel))
    counts = (count for count in range(-(-depth // most), 2 * -(-depth // most) + 1) if depth % count == 0)
    return depth // next(counts, 1)


def pack_bytes(op: AnyConv, panel: int, panels: tuple[int, int], rows: tuple[int, int], method: Method) -> bytes:
    """Rows [begin, end) of panels [begin, end) as they lie in the arena."""
    coding = coding_of(op)
    if coding is None:
        packed = pack_weights(op, panel, *panels, method)[:, slice(*rows)]
        if isinstance(op, quantized.FedConv):
            before = quantized.fed_constants(op, panel)[slice(*panels)]
            packed = np.concatenate([before.view(np.int8).reshape(len(before), -1, panel, 4), packed], axis=1)
        return as_bytes(packed)
    channels = op.weight.shape[0] // op.groups
    parts = []
    for at in range(*panels):
        codes = panel_of(coding.codes, channels, panel, at)
        scales = panel_of(coding.scales, channels, panel, at)
        for row in range(*rows, coding.unit):
            last = min(row + coding.unit, rows[1])
            here = codes[row:last]
            if coding.kind != "fp16":
                parts.append(as_bytes(scales[row // coding.group : -(-last // coding.group)]))
            if coding.streams is None:
                parts.append(as_bytes(_nibbles(here + 8) if coding.kind == "int4" else here))
                continue
            for begin in range(row, last, coding.streams.rows):
                end = min(begin + coding.streams.rows, last)
                parts.append(coding.streams.head(at, begin, end - begin))
                if coding.kind == "int8":
                    parts.append(as_bytes(_nibbles(codes[begin:end] & 15)))
    return b"".join(parts)


def panel_of(values: NDArray, channels: int, panel: int, at: int) -> NDArray:
    """[rows, panel] of a panel, zero-filled, out of [out_channels, rows]. channels: of a group."""
    per_group = -(-channels // panel)
    begin = at // per_group * channels + at % per_group * panel
    end = min(begin + panel, (at // per_group + 1) * channels)
    found = np.zeros((values.shape[1], panel), values.dtype)
    found[:, : end - begin] = values[begin:end].T
    return found


def symbols_of(op: Conv, coding: WeightCoding, panel: int) -> NDArray[np.uint8]:
    """[panels, rows, panel]: what of an int8's or int4's codes is entropy-coded."""
    channels, panels = op.weight.shape[0] // op.groups, range(panel_count(op, panel))
    shift = 4 if coding.kind == "int8" else 0
    return np.stack([((panel_of(coding.codes, channels, panel, at) >> shift) + 8).astype(np.uint8) for at in panels])


def _nibbles(values: NDArray) -> NDArray[np.uint8]:
    """Pairs of rows [rows, panel] of 0 .. 15 in one byte each, the even one in the low bits."""
    even = np.pad(values, ((0, len(values) % 2), (0, 0))).astype(np.uint8)
    return (even[0::2] | even[1::2] << 4).astype(np.uint8)


def slice_bytes(op: Conv, panel: int) -> int:
    """Bytes that a worker decodes coded weights into: see ``tt_op``."""
    coding = coding_of(op)
    if coding is None:
        return 0
    rows = constants.TT_SLICE_BYTES // (4 * panel) // coding.unit * coding.unit
    return min(rows, conv_depth(op)) * panel * 4


def pack_weights(op: AnyConv, panel: int, first: int, last: int, method: Method = "direct") -> NDArray:
    """Panels first .. last of the weights, [panels, depth, panel], zero-filled at the end of each group.

    int8: [panels, depth, panel, 4].
    """
    if isinstance(op, QConv):
        return quantized.pack_weights(op, panel, first, last)
    channels, depth = op.weight.shape[0] // op.groups, conv_depth(op, method)
    per_group = -(-channels // panel)
    kernels = op.weight.reshape(op.groups, channels, *op.weight.shape[1:])
    packed = np.zeros((last - first, depth, panel), np.float32)
    for at in range(first, last):
        group, n = at // per_group, at % per_group * panel
        part = kernels[group, n : n + panel]
        if method in AHEAD:
            part = _winograd_columns(_winograd_rows(part) if method in IN_PAIRS else part)
        packed[at - first, :, : len(part)] = part.reshape(len(part), depth).T
    return _strassen_order(packed) if method == "strassen" else packed


def _winograd_columns(kernels: NDArray) -> NDArray:
    """[n, kernel_y, 3, c] as [n, kernel_y, 6, c], summed as the core sums where it transforms: the same bits."""
    first, second, third = (kernels[:, :, k : k + 1] for k in range(3))
    g = WINOGRAD[:, :, None]
    return first * g[:, 0] + third * g[:, 2] + second * g[:, 1]


def _winograd_rows(kernels: NDArray) -> NDArray:
    """[n, 3, 3, c] as [n, 4, 3, c], by F(2, 3) along y, likewise; its factors 1/2 belong to the input's transform."""
    first, second, third = (kernels[:, k] for k in range(3))
    return np.stack([first, (first + third) + second, (first + third) - second, third], axis=1)


def _strassen_order(packed: NDArray) -> NDArray:
    """Panels [B11 B12; B21 B22] as the core wants them, see ``tt_op``: of the same shape, in another order."""
    panels, depth, panel = packed.shape
    quarters = packed.reshape(panels, 2, depth // 2, 2, panel // 2).astype(np.float64)
    (b11, b12), (b21, b22) = ((quarters[:, k, :, 0], quarters[:, k, :, 1]) for k in range(2))
    stored = np.stack([b11, b22 - b12 + b11, b21, b22], axis=1)
    return stored.astype(np.float32).reshape(packed.shape)


def small_pieces(op: Op, panel: int, zero_point: int, method: Method = "direct") -> list[NDArray]:
    """What must be in the arena whole while the operator runs, besides a convolution's weights: [first, second].

    zero_point: of its first operand.
    """
    match op:
        case quantized.FedConv():
            return []
        case QConv():
            return [quantized.pack_constants(op, panel, zero_point)]
        case QDepthwiseConv():
            return quantized.pack_depthwise(op, zero_point)
        case QBinary() if op.constant is not None:
            return [op.constant]
        case QLut():
            return [op.table]
        case Conv():
            bias, coding = pack_bias(op, panel), coding_of(op)
            if method == "strassen":
                bias[:, panel // 2 :] -= bias[:, : panel // 2]
            if coding is None or coding.streams is None:
                return [bias]
            alphabet = np.frombuffer(coding.streams.alphabet.to_bytes(), np.uint8)
            return [np.concatenate([np.frombuffer(as_bytes(bias), np.uint8), alphabet])]
        case MapConv():
            return [pack_bias(op.with_weights, op.panel)]
        case DepthwiseConv():
            return [op.weight, op.bias]
        case LayerNorm():
            return [op.scale, op.bias]
        case Binary() if op.constant is not None:
            return [op.constant]
        case Constant():
            return [op.value]
        case _:
            return []


def pack_bias(op: Conv, panel: int) -> Array:
    channels = op.weight.shape[0] // op.groups
    padded = -(-channels // panel) * panel
    bias = np.zeros((op.groups, padded), np.float32)
    bias[:, :channels] = op.bias.reshape(op.groups, channels)
    return bias.reshape(-1, panel)


def as_bytes(piece: NDArray) -> bytes:
    return np.ascontiguousarray(piece, dtype=piece.dtype.newbyteorder("<")).tobytes()
