"""How a value of the ONNX graph lies in a tensor of y, x, c.

A logical axis is cut into *pieces*: the piece (axis, extent, stride) is an index that runs over ``extent`` values and
advances the logical index of ``axis`` by ``stride``. The pieces of an axis form a chain that counts every index once.
A layout says, outermost first, which pieces make up y, x and c. Pieces of extent 1 are left out, so axes of extent 1
are free to be anywhere, and so is the sample axis of a batched value.

Transpose relabels pieces, Reshape cuts and regroups them; neither touches memory. Example: channels of shape (6,)
stored as c reshaped to (2, 3) and transposed to (3, 2) are c = [(1, 2, 1), (0, 3, 1)]; reshaped to (6,) again they
are c = [(0, 2, 1), (0, 3, 2)]: the channel shuffle, still without a copy. What consumes it in order makes the copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from tinytee.ir.graph import Shape


@dataclass(frozen=True)
class Piece:
    """Part of a logical axis: see the module."""

    axis: int
    extent: int
    stride: int = 1


Group = tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """The pieces of y, x and c, outermost first."""

    y: Group
    x: Group
    c: Group

    @property
    def groups(self) -> tuple[Group, Group, Group]:
        return self.y, self.x, self.c

    @property
    def pieces(self) -> Group:
        return self.y + self.x + self.c

    @property
    def shape(self) -> Shape:
        return Shape(*(prod(piece.extent for piece in group) for group in self.groups))

    def of_axis(self, axis: int) -> Group:
        """Pieces of ``axis`` in memory order."""
        return tuple(piece for piece in self.pieces if piece.axis == axis)

    def relabel(self, axis_of: dict[int, int]) -> Layout:
        """The same memory under other axis numbers."""
        return Layout(*(tuple(Piece(axis_of[p.axis], p.extent, p.stride) for p in group) for group in self.groups))


def make(y: Iterable[Piece] = (), x: Iterable[Piece] = (), c: Iterable[Piece] = ()) -> Layout:
    """A layout in normal form: no pieces of extent 1, and none that continues its neighbour."""
    return Layout(_normal(y), _normal(x), _normal(c))


def by_axes(shape: Sequence[int], y: Sequence[int] = (), x: Sequence[int] = (), c: Sequence[int] = ()) -> Layout:
    """Whole axes in the order given."""
    return make(*([Piece(axis, shape[axis]) for axis in axes] for axes in (y, x, c)))


def row_major(shape: Sequence[int]) -> Layout:
    """The last axis longer than 1 as c, the one before as x, the others as y."""
    axes = [axis for axis, extent in enumerate(shape) if extent > 1]
    return by_axes(shape, axes[:-2], axes[-2:-1], axes[-1:])


def channels_last(shape: Sequence[int]) -> Layout:
    """For shapes (n, c, spatial...): axis 1 as c, the last as x, those between as y; n must be 1."""
    spatial = list(range(2, len(shape)))
    return by_axes(shape, spatial[:-1], spatial[-1:], [1])


def _normal(pieces: Iterable[Piece]) -> Group:
    kept: list[Piece] = []
    for piece in pieces:
        if piece.extent == 1:
            continue
        if kept and kept[-1].axis == piece.axis and kept[-1].stride == piece.extent * piece.stride:
            kept[-1] = Piece(piece.axis, kept[-1].extent * piece.extent, piece.stride)
        else:
            kept.append(piece)
    return tuple(kept)


def memory_strides(layout: Layout) -> list[tuple[Piece, int]]:
    """Every piece with the distance in elements between its neighbours in memory."""
    found: list[tuple[Piece, int]] = []
    distance = 1
    for piece in reversed(layout.pieces):
        found.append((piece, distance))
        distance *= piece.extent
    return found[::-1]


def locate(layout: Layout, piece: Piece) -> list[tuple[int, int]] | None:
    """Where ``piece`` lies in memory laid out by ``layout``: (extent, stride) pairs, outermost first.

    None where the cuts of the two do not fit one another, as in 24 cut into 6 x 4 and into 8 x 3.
    """
    low, high = piece.stride, piece.stride * piece.extent
    found: list[tuple[int, int, int]] = []
    for own, distance in memory_strides(layout):
        if own.axis != piece.axis:
            continue
        start, stop = max(low, own.stride), min(high, own.stride * own.extent)
        if start >= stop:
            continue
        if start % own.stride or stop % start:
            return None
        found.append((start, stop // start, distance * (start // own.stride)))
    found.sort(reverse=True)
    if prod(extent for _, extent, _ in found) != piece.extent:
        return None
    return [(extent, stride) for _, extent, stride in found]


def merge_runs(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """(extent, stride) pairs with neighbours that continue one another joined and extents of 1 dropped."""
    merged: list[tuple[int, int]] = []
    for extent, stride in runs:
        if extent == 1:
            continue
        if merged and merged[-1][1] == extent * stride:
            merged[-1] = (merged[-1][0] * extent, stride)
        else:
            merged.append((extent, stride))
    return merged


def reshape(layout: Layout, old: Sequence[int], new: Sequence[int]) -> Layout | None:
    """The layout of the same memory under the shape ``new``; None where pieces do not cut along its axes.

    Axes are first matched in blocks of equal products; within a block an element's index is one number, of which a
    piece covers the digits between ``stride`` and ``stride * extent``. A piece is cut where a new axis begins.
    """
    block_of_old, block_of_new = _blocks(old, new)
    starts: dict[int, list[tuple[int, int, int]]] = {}
    for axis, (block, stride) in enumerate(block_of_new):
        if new[axis] > 1:
            starts.setdefault(block, []).append((stride, stride * new[axis], axis))
    groups: list[list[Piece]] = []
    for group in layout.groups:
        pieces: list[Piece] = []
        for piece in group:
            block, base = block_of_old[piece.axis]
            low = piece.stride * base
            high = low * piece.extent
            parts: list[Piece] = []
            for start, stop, axis in starts.get(block, []):
                lower, upper = max(low, start), min(high, stop)
                if lower >= upper:
                    continue
                if lower % low or upper % lower or lower % start:
                    return None
                parts.append(Piece(axis, upper // lower, lower // start))
            if prod(part.extent for part in parts) != piece.extent:
                return None
            pieces.extend(parts)
        groups.append(pieces)
    return make(*groups)


def _blocks(old: Sequence[int], new: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """For every axis of both shapes, its block and its stride within the block's single index."""
    cuts_old, cuts_new = _cumulative(old), _cumulative(new)
    common = sorted(set(cuts_old) & set(cuts_new))
    found = []
    for shape, cuts in ((old, cuts_old), (new, cuts_new)):
        axes = []
        for axis in range(len(shape)):
            end = cuts[axis + 1]
            block = next(i for i, cut in enumerate(common) if cut >= end)
            axes.append((block, common[block] // end))
        found.append(axes)
    return found[0], found[1]


def _cumulative(shape: Sequence[int]) -> list[int]:
    products = [1]
    for extent in shape:
        products.append(products[-1] * extent)
    return products


def place(array: NDArray, layout: Layout) -> NDArray:
    """A compile-time array of the logical shape (axes equal to the layout's, or 1) as [y|1, x|1, c|1].

    A group of which the array has no piece becomes 1; a group of which it has some is repeated over the others.
    """
    order: list[int] = []
    dims: list[int] = []
    position: dict[tuple[int, int], int] = {}
    for axis, extent in enumerate(array.shape):
        pieces = sorted(layout.of_axis(axis), key=lambda piece: -piece.stride)
        for piece in pieces:
            position[axis, piece.stride] = len(dims)
            dims.append(piece.extent if extent > 1 else 1)
    split = array.reshape(dims)
    order = [position[piece.axis, piece.stride] for piece in layout.pieces]
    stored = split.transpose(order)
    sizes: list[int] = []
    shape: list[int] = []
    at = 0
    for group in layout.groups:
        own = stored.shape[at : at + len(group)]
        present = prod(own) > 1
        full = [piece.extent for piece in group] if present else [1] * len(group)
        sizes.extend(full)
        shape.append(prod(full))
        at += len(group)
    return np.ascontiguousarray(np.broadcast_to(stored, sizes)).reshape(shape)
