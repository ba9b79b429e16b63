"""Removes operators that no output depends on."""

from __future__ import annotations

from tinytee.ir.graph import Graph


def eliminate_dead(graph: Graph) -> Graph:
    """The graph without operators whose results nothing reads."""
    needed = {port.tensor for port in graph.outputs}
    kept = []
    for op in reversed(graph.ops):
        if op.output in needed:
            kept.append(op)
            needed.update(op.inputs)
    return graph.with_ops(kept[::-1])
