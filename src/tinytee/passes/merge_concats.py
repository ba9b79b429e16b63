"""Makes one Concat of two in a row."""

from __future__ import annotations

from dataclasses import replace

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import is_identity, producers, use_counts


def merge_concats(graph: Graph) -> Graph:
    """Operands that are joined along the same axis, for this reader alone, are joined with the others."""
    written, counts = producers(graph), use_counts(graph)
    gone: set[str] = set()
    result: list[Op] = []
    for op in graph.ops:
        if isinstance(op, g.Concat):
            parts: list[str] = []
            for name in op.inputs:
                inner = written.get(name)
                if isinstance(inner, g.Concat) and inner.axis == op.axis and is_identity(inner) and counts[name] == 1:
                    gone.add(name)
                    parts.extend(inner.inputs)
                else:
                    parts.append(name)
            op = replace(op, inputs=tuple(parts))  # noqa: PLW2901
            written[op.output] = op
        result.append(op)
    return graph.with_ops([op for op in result if op.output not in gone])
