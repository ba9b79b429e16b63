"""Weights as the core reads them: packed pieces of an operator and their sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytee.ir.graph import Array, Binary, Constant, Conv, DepthwiseConv, LayerNorm, Op
from tinytee.ir.quantized import QBinary, QConv, QDepthwiseConv, QLut
from tinytee.plan import quantized
from tinytee.plan.profile import Profile

AnyConv = Conv | QConv

ALIGN = 64
"""Alignment, in bytes, of every tensor and weight piece in the arena."""


def aligned(count_bytes: int) -> int:
    return -(-count_bytes // ALIGN) * ALIGN


WINOGRAD = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""Weight transform of Winograd's F(4, 3), points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, arXiv 1509.09308)."""


def can_be_winograd(op: Conv) -> bool:
    """Whether the core can compute a convolution by F(4, 3) along x."""
    return op.weight.shape[2] == 3 and op.strides[1] == 1 and op.dilations == (1, 1) and op.groups == 1


def conv_depth(op: AnyConv, winograd: bool = False) -> int:
    """Rows of a weight panel: kernel_y * kernel_x * in_channels / groups; kernel_x = 6 after Winograd's transform.

    A row is ``panel`` float32, or ``panel`` times four int8: ``4 * panel`` bytes.
    """
    if isinstance(op, QConv):
        return quantized.conv_rows(op)
    _, kernel_y, kernel_x, channels = op.weight.shape
    return kernel_y * (6 if winograd else kernel_x) * channels


def panel_width(op: AnyConv, profile: Profile) -> int:
    """The panel width that pads least; the widest of those."""
    channels = op.weight.shape[0] // op.groups
    return min(profile.panels, key=lambda panel: (-(-channels // panel) * panel, -panel))


def panel_count(op: AnyConv, panel: int) -> int:
    """Panels over all groups."""
    return op.groups * -(-(op.weight.shape[0] // op.groups) // panel)


def pack_weights(op: AnyConv, panel: int, first: int, last: int, winograd: bool = False) -> NDArray:
    """Panels first .. last of the weights, [panels, depth, panel], zero-filled at the end of each group.

    int8: [panels, depth, panel, 4].
    """
    if isinstance(op, QConv):
        return quantized.pack_weights(op, panel, first, last)
    channels, depth = op.weight.shape[0] // op.groups, conv_depth(op, winograd)
    per_group = -(-channels // panel)
    kernels = op.weight.reshape(op.groups, channels, *op.weight.shape[1:])
    packed = np.zeros((last - first, depth, panel), np.float32)
    for at in range(first, last):
        group, n = at // per_group, at % per_group * panel
        part = kernels[group, n : n + panel]
        if winograd:
            part = np.einsum("jk,nykc->nyjc", WINOGRAD, part.astype(np.float64))
        packed[at - first, :, : len(part)] = part.reshape(len(part), depth).T
    return packed


def small_pieces(op: Op, panel: int, zero_point: int) -> list[NDArray]:
    """What must be in the arena whole while the operator runs, besides a convolution's weights: [first, second].

    zero_point: of its first operand.
    """
    match op:
        case QConv():
            return [quantized.pack_constants(op, panel, zero_point)]
        case QDepthwiseConv():
            return quantized.pack_depthwise(op, zero_point)
        case QBinary() if op.constant is not None:
            return [op.constant]
        case QLut():
            return [op.table]
        case Conv():
            return [pack_bias(op, panel)]
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
