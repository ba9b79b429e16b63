"""Row maps: which y-planes of its inputs an operator needs.

An operator goes through its *units* one after another: the y-planes of its output, or, for a reduction over the
map, the y-planes of its input. For each operand a row map holds two arrays over the number ``f`` of units done, 0
<= f <= height:

- ``needs[f]``: y-planes of the operand that must have been produced before unit f - 1 is computed (0 for f = 0);
- ``frees[f]``: y-planes below this one are not read again by units f and later (the operand's height for f = height).

Both are non-decreasing. From them alone the planner derives how operators run together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytee.ir.graph import (
    Binary,
    Concat,
    Constant,
    Conv,
    DepthToSpace,
    DepthwiseConv,
    Gather,
    Op,
    Permute,
    Pool,
    Reduce,
    Resize,
    Shape,
    SpaceToDepth,
)
from tinytee.ir.quantized import QBinary, QConv, QDepthwiseConv, QPool, QReduce
from tinytee.plan.products import MapConv

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowMap:
    """needs, frees: int64 [height + 1], see the module's text."""

    needs: Rows
    frees: Rows


def from_ranges(low: Rows, high: Rows, in_height: int) -> RowMap:
    """The row map of an operator whose unit u reads y-planes low[u] .. high[u] (high exclusive; low >= high: none)."""
    low = np.where(low < high, low, in_height)
    high = np.where(low < high, high, 0)
    needs = np.concatenate([[0], np.maximum.accumulate(high)])
    frees = np.concatenate([np.minimum.accumulate(low[::-1])[::-1], [in_height]])
    return RowMap(needs.astype(np.int64), frees.astype(np.int64))


_Windowed = Conv | DepthwiseConv | Pool | QConv | QDepthwiseConv | QPool


def _kernel_y(op: _Windowed) -> int:
    if isinstance(op, Pool | QPool):
        return op.kernel[0]
    return op.weight.shape[1 if isinstance(op, Conv | QConv) else 0]


def _window(op: _Windowed, height: int, in_height: int) -> RowMap:
    first = np.arange(height) * op.strides[0] - op.pads[0]
    last = first + (_kernel_y(op) - 1) * op.dilations[0]
    return from_ranges(np.clip(first, 0, in_height), np.clip(last + 1, 0, in_height), in_height)


def _table(index: Rows, in_height: int) -> RowMap:
    """index: [height, taps], negative entries read nothing."""
    low = np.where(index < 0, in_height, index).min(axis=1)
    return from_ranges(low, index.max(axis=1) + 1, in_height)


def identity(height: int) -> RowMap:
    """Unit u reads y-plane u."""
    return from_ranges(np.arange(height), np.arange(height) + 1, height)


def everything(height: int, in_height: int) -> RowMap:
    """Every unit reads the whole operand."""
    return from_ranges(np.zeros(height, np.int64), np.full(height, in_height), in_height)


def units(op: Op, shapes: dict[str, Shape]) -> int:
    """How many units an operator has."""
    return shapes[op.inputs[0] if isinstance(op, Reduce | QReduce) else op.output].height


def row_maps(op: Op, shapes: dict[str, Shape]) -> tuple[RowMap, ...]:
    """One row map for each operand, in the order of ``op.inputs``."""
    height = units(op, shapes)
    heights = [shapes[name].height for name in op.inputs]
    rows = np.arange(height)
    match op:
        case Conv() | DepthwiseConv() | Pool() | QConv() | QDepthwiseConv() | QPool():
            return (_window(op, height, heights[0]), *(identity(height) for _ in heights[1:]))
        case Binary() | QBinary():
            return tuple(identity(height) if h == height else everything(height, h) for h in heights)
        case Concat(axis="y"):
            each = [shapes[name].row_elems // shapes[op.output].row_elems for name in op.inputs]
            starts = np.cumsum([0, *np.multiply(heights, each)])
            return tuple(
                from_ranges(np.clip((rows - start) // n, 0, h), np.clip((rows - start) // n + 1, 0, h), h)
                for start, h, n in zip(starts, heights, each, strict=False)
            )
        case Gather(rows=index) if index is not None:
            return (_table(np.asarray(index, np.int64)[:, None], heights[0]),)
        case Resize():
            return (_table(np.asarray(op.row_index, np.int64), heights[0]),)
        case DepthToSpace():
            return (from_ranges(rows // op.block, rows // op.block + 1, heights[0]),)
        case SpaceToDepth():
            return (from_ranges(rows * op.block, (rows + 1) * op.block, heights[0]),)
        case MapConv():
            return (identity(height), everything(height, heights[1]))
        case Permute():
            return (everything(height, heights[0]),)
        case Constant():
            return ()
        case _:
            return tuple(identity(height) for _ in heights)
