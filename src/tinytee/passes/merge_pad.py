"""Lets an operator pad its input itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir import quantized as q
from tinytee.ir.check import reach
from tinytee.ir.graph import Graph, Indices, Op
from tinytee.passes.eliminate_dead import eliminate_dead
from tinytee.passes.rewrite import producers

_NON_NEGATIVE = {"relu", "sigmoid", "hard_sigmoid", "softplus", "abs", "sqrt", "exp"}


def merge_pad(graph: Graph) -> Graph:
    """A Gather that only surrounds its input with a constant becomes padding of the window operator that reads it.

    Zeros for convolutions, and for average pooling that then counts them; -inf for max pooling, or zeros around what
    is never negative. Padding as wide as the window stays a Gather: every window keeps an element of the input.
    """
    written = producers(graph)
    result: list[Op] = []
    for op in graph.ops:
        pad = written.get(op.inputs[0]) if op.inputs else None
        merged = None
        if isinstance(pad, g.Gather):
            merged = _merge(op, pad, written, graph)
        result.append(merged or op)
    return eliminate_dead(graph.with_ops(result))


Windowed = g.Conv | g.DepthwiseConv | g.Pool | q.QConv | q.QDepthwiseConv | q.QPool


def _merge(op: Op, pad: g.Gather, written: dict[str, Op], graph: Graph) -> Op | None:
    sides = _sides(pad, graph.shapes[pad.inputs[0]])
    if sides is None or not isinstance(op, Windowed):
        return None
    pads = tuple(own + more for own, more in zip(op.pads, sides, strict=True))
    changed = {"inputs": (pad.inputs[0], *op.inputs[1:]), "pads": pads}
    span = reach(_kernel(op), op.dilations)
    if any(pads[i] >= span[i % 2] for i in range(4)):
        return None
    if isinstance(op, g.Pool | q.QPool) and op.kind == "max":
        return replace(op, **changed) if _max_ignores(op, pad, written, graph) else None
    if pad.fill != 0:
        return None
    if isinstance(op, g.Pool | q.QPool):
        if any(op.pads) and not op.count_include_pad:
            return None
        return replace(op, count_include_pad=True, **changed)
    return replace(op, **changed)


def _kernel(op: Windowed) -> tuple[int, int]:
    if isinstance(op, g.Pool | q.QPool):
        return op.kernel
    return op.weight.shape[1:3] if isinstance(op, g.Conv | q.QConv) else op.weight.shape[:2]


def _max_ignores(op: g.Pool | q.QPool, pad: g.Gather, written: dict[str, Op], graph: Graph) -> bool:
    if isinstance(op, q.QPool):
        return q.quantized_fill(pad, graph.quants[op.output]) == 0
    if pad.fill == -np.inf:
        return True
    source = written.get(pad.inputs[0])
    if pad.fill != 0 or op.dilations != (1, 1) or source is None:
        return False
    activation = source.activation
    return activation.kind in _NON_NEGATIVE or (activation.kind == "clip" and activation.alpha >= 0)


def _sides(pad: g.Gather, source: g.Shape) -> tuple[int, int, int, int] | None:
    """top, left, bottom, right where the Gather is nothing but padding."""
    if pad.chans is not None or pad.activation.kind != "identity":
        return None
    top, bottom = _around(pad.rows, source.height)
    left, right = _around(pad.cols, source.width)
    return None if min(top, bottom, left, right) < 0 else (top, left, bottom, right)


def _around(index: Indices | None, size: int) -> tuple[int, int]:
    """How many -1 stand before and after 0, 1, ..., size - 1; (-1, -1) where the index is anything else."""
    if index is None:
        return 0, 0
    inside = np.flatnonzero(index >= 0)
    if len(inside) == 0:
        return -1, -1
    before, after = int(inside[0]), len(index) - 1 - int(inside[-1])
    middle = index[before : len(index) - after]
    return (before, after) if np.array_equal(middle, np.arange(size)) else (-1, -1)
