"""Scales what a matrix product reads in place of what it makes, as attention's scores are scaled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import F64, is_identity, scale_shift, use_counts


def hoist_scale(graph: Graph) -> Graph:
    """product(x, matrix) * s becomes product(x * s, matrix) where x is no larger, and x * s is computed before x is cut
    into other y-planes: a convolution may then take the scale (``fold_batchnorm``)."""
    counts, shapes = use_counts(graph), dict(graph.shapes)
    ops = {op.output: op for op in graph.ops}
    for op in graph.ops:
        scale = op
        while scale.inputs and (first := ops.get(scale.inputs[0])) is not None and counts[first.output] == 1:
            if not isinstance(first, g.Product if scale is op else g.Concat):
                break
            weight = _scale_before(first, scale, replace(graph, shapes=shapes))
            if weight is None:
                break
            # The two change places, and with them their names.
            source, rest = first.inputs[0], first.inputs[1:]
            after = replace(first, inputs=(first.output, *rest), output=scale.output, activation=scale.activation)
            scale = _scale(scale.name, source, weight, first.output)
            shapes[scale.output] = shapes[source]
            ops[scale.output], ops[after.output] = scale, after
    return replace(graph, shapes=shapes).with_ops(list(ops.values()))


def _scale_before(first: Op, scale: Op, graph: Graph) -> F64 | None:
    """The scale of each channel of what ``first`` reads that does what ``scale`` does after it; None where there is
    none."""
    source, out = graph.shapes[first.inputs[0]], graph.shapes[first.output]
    found = scale_shift(scale, out.channels)
    if found is None or found[1].any() or not is_identity(first) or first.inputs[0] in graph.quants:
        return None
    if not isinstance(first, g.Product):
        return found[0] if len(first.inputs) == 1 and source.channels == out.channels else None
    groups = found[0].reshape(first.groups, -1)
    if source.elems > out.elems or (groups != groups[:, :1]).any():
        return None
    return np.repeat(groups[:, 0], source.channels // first.groups)


def _scale(name: str, source: str, weight: F64, output: str) -> Op:
    filters = weight.astype(np.float32).reshape(1, 1, -1)
    bias = np.zeros(weight.size, np.float32)
    return g.DepthwiseConv(name=name, inputs=(source,), output=output, weight=filters, bias=bias)
