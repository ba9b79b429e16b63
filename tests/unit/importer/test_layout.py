"""Layouts as index functions: every operation on pieces against numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee.importer import layout as lay
from tinytee.importer.layout import Layout, Piece


def store(array: np.ndarray, layout: Layout) -> np.ndarray:
    """The logical array in memory order, by definition of a piece."""
    found = np.empty(layout.shape.elems, array.dtype)
    extents = [piece.extent for piece in layout.pieces]
    for at, index in enumerate(np.ndindex(*extents)):
        logical = [0] * array.ndim
        for piece, i in zip(layout.pieces, index, strict=True):
            logical[piece.axis] += i * piece.stride
        found[at] = array[tuple(logical)]
    return found


@st.composite
def layouts(draw) -> tuple[list[int], Layout]:
    """A shape and some layout of it, axes cut in two where they can be."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3))
    pieces = []
    for axis, extent in enumerate(shape):
        cut = draw(st.sampled_from([d for d in range(1, extent + 1) if extent % d == 0]))
        pieces += [Piece(axis, extent // cut, cut), Piece(axis, cut, 1)]
    order = draw(st.permutations(pieces))
    ny = draw(st.integers(0, len(order)))
    nx = draw(st.integers(ny, len(order)))
    return shape, lay.make(order[:ny], order[ny:nx], order[nx:])


@settings(max_examples=200, deadline=None)
@given(layouts(), st.data())
def test_reshape_keeps_memory(given_layout: tuple, data: st.DataObject) -> None:
    shape, layout = given_layout
    array = np.arange(np.prod(shape)).reshape(shape)
    target, rest = [], int(array.size)
    while rest > 1 and len(target) < 3:
        target.append(data.draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0])))
        rest //= target[-1]
    target.append(rest)
    found = lay.reshape(layout, shape, target)
    if found is not None:
        assert found.shape == layout.shape
        np.testing.assert_array_equal(store(array.reshape(target), found), store(array, layout))


@settings(max_examples=200, deadline=None)
@given(layouts())
def test_locate_finds_every_axis_whole(given_layout: tuple) -> None:
    shape, layout = given_layout
    array = np.arange(np.prod(shape)).reshape(shape)
    memory = store(array, layout)
    runs = [
        run for axis, extent in enumerate(shape) if extent > 1 for run in lay.locate(layout, Piece(axis, extent)) or []
    ]
    index = np.zeros((), np.int64)
    for extent, stride in lay.merge_runs(runs):
        index = index[..., None] + np.arange(extent) * stride
    np.testing.assert_array_equal(memory[index].reshape(-1), array.reshape(-1))


@settings(max_examples=200, deadline=None)
@given(layouts(), st.data())
def test_place_repeats_what_a_group_lacks(given_layout: tuple, data: st.DataObject) -> None:
    shape, layout = given_layout
    own = [extent if data.draw(st.booleans()) else 1 for extent in shape]
    array = np.arange(np.prod(own)).reshape(own)
    found = lay.place(array, layout)
    full = np.broadcast_to(found, (layout.shape.height, layout.shape.width, layout.shape.channels))
    np.testing.assert_array_equal(full.reshape(-1), store(np.broadcast_to(array, shape), layout))


def test_channel_shuffle_is_only_a_relabelling() -> None:
    layout = lay.by_axes([1, 6], c=[1])
    cut = lay.reshape(layout, (1, 6), (1, 2, 3))
    assert cut is not None
    swapped = cut.relabel({0: 0, 1: 2, 2: 1})
    joined = lay.reshape(swapped, (1, 3, 2), (1, 6))
    assert joined == lay.make(c=[Piece(1, 2, 1), Piece(1, 3, 2)])
