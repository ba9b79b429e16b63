"""Merges a table of bytes into what writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.ir import quantized as q
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import fuse_pairs


def merge_tables(graph: Graph) -> Graph:
    """A table of a table is one table; a table that only bounds bytes becomes bounds of the operator before it."""
    return fuse_pairs(graph, _fuse) if graph.quants else graph


def _fuse(first: Op, second: Op, graph: Graph) -> Op | None:
    if not isinstance(second, q.QLut):
        return None
    if isinstance(first, q.QLut):
        return replace(second, inputs=first.inputs, table=second.table[first.table])
    if not isinstance(first, (q.QConv, q.QDepthwiseConv, q.QBinary)):
        return None
    low, high = int(second.table[0]), int(second.table[255])
    same = graph.quants[first.output] == graph.quants[second.output]
    if not same or low > high or not np.array_equal(second.table, np.clip(np.arange(256), low, high)):
        return None
    bounds = (int(np.clip(bound, low, high)) for bound in (first.low, first.high))
    return replace(first, output=second.output, **dict(zip(("low", "high"), bounds, strict=True)))
