"""Removes operators that hand on their input unchanged."""

from __future__ import annotations

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import is_identity, rename


def remove_identity(graph: Graph) -> Graph:
    """The graph without identities; one stays where it makes an output distinct from an input or another output."""
    written = {op.output for op in graph.ops}
    outputs = {port.tensor for port in graph.outputs}
    renamed: dict[str, str] = {}
    kept: list[Op] = []
    for op in graph.ops:
        if not _hands_on(op, graph):
            kept.append(op)
            continue
        source = op.inputs[0]
        while source in renamed:
            source = renamed[source]
        if op.output in outputs:
            if source not in written or source in outputs:
                kept.append(op)
                continue
            outputs = outputs - {op.output} | {source}
        renamed[op.output] = source
    return rename(graph, kept, renamed)


def _hands_on(op: Op, graph: Graph) -> bool:
    if not is_identity(op) or not op.inputs or graph.shapes[op.inputs[0]] != graph.shapes[op.output]:
        return False
    if isinstance(op, g.Gather):
        return op.rows is None and op.cols is None and op.chans is None
    if isinstance(op, g.Permute):
        return op.strides == (1,)
    return isinstance(op, g.Unary) or (isinstance(op, g.Concat) and len(op.inputs) == 1)
