"""Turns strided copies that keep y, x and c apart into index copies, which work row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Indices, Shape


def permute_to_gather(graph: Graph) -> Graph:
    """A Permute whose source index is a sum of one term each of y, x and c becomes a Gather: channel shuffles, above
    all, and repetition along an axis."""
    return graph.with_ops([_convert(op, graph) if isinstance(op, g.Permute) else op for op in graph.ops])


def _convert(op: g.Permute, graph: Graph) -> g.Permute | g.Gather:
    source, shape = graph.shapes[op.inputs[0]], graph.shapes[op.output]
    found = separate(op, source, shape)
    if found is None:
        return op
    rows, cols, chans = (
        None if np.array_equal(index, np.arange(extent)) else index
        for index, extent in zip(found, (source.height, source.width, source.channels), strict=True)
    )
    return g.Gather(
        name=op.name, inputs=op.inputs, output=op.output, activation=op.activation, rows=rows, cols=cols, chans=chans
    )


def separate(op: g.Permute, source: Shape, shape: Shape) -> tuple[Indices, Indices, Indices] | None:
    """Indices of rows, columns and channels that do what the Permute does."""
    index = _index(op).reshape(shape.height, shape.width, shape.channels)
    rows = index[:, 0, 0] // source.row_elems
    cols = index[0, :, 0] % source.row_elems // source.channels
    chans = index[0, 0, :] % source.channels
    expected = (rows[:, None, None] * source.width + cols[None, :, None]) * source.channels + chans
    if not np.array_equal(index, expected):
        return None
    return rows.astype(np.int32), cols.astype(np.int32), chans.astype(np.int32)


def _index(op: g.Permute) -> NDArray[np.int64]:
    total = np.zeros((), np.int64)
    for extent, stride in zip(op.dims, op.strides, strict=True):
        total = total[..., None] + np.arange(extent, dtype=np.int64) * stride
    return total
