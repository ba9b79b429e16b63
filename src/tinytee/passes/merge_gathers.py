"""Makes one Gather of two in a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Indices, Op
from tinytee.passes.rewrite import fuse_pairs, is_identity


def merge_gathers(graph: Graph) -> Graph:
    """Pad of a slice, slice of a resize, padding of both axes: index of index, where the fill is the same."""
    return fuse_pairs(graph, _fuse)


def _fuse(first: Op, second: Op, _: Graph) -> Op | None:
    if not isinstance(first, g.Gather) or not isinstance(second, g.Gather) or not is_identity(first):
        return None
    if _fills(first) and _fills(second) and first.fill != second.fill:
        return None
    return replace(
        second,
        inputs=first.inputs,
        rows=_compose(first.rows, second.rows),
        cols=_compose(first.cols, second.cols),
        chans=_compose(first.chans, second.chans),
        fill=first.fill if _fills(first) else second.fill,
    )


def _fills(op: g.Gather) -> bool:
    return any(index is not None and bool((index < 0).any()) for index in (op.rows, op.cols, op.chans))


def _compose(first: Indices | None, second: Indices | None) -> Indices | None:
    if first is None or second is None:
        return second if first is None else first
    return np.where(second < 0, -1, first[np.maximum(second, 0)]).astype(np.int32)
