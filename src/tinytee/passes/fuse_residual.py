"""Adds a residual inside the convolution that computes the other operand."""

from __future__ import annotations

from dataclasses import replace

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import is_identity, producers, use_counts


def fuse_residual(graph: Graph) -> Graph:
    """conv(x) + r, shapes equal, becomes a convolution with the residual r, at the addition's place.

    Of two convolutions, the one written later takes the other's result.
    """
    written = producers(graph)
    counts = use_counts(graph)
    position = {op.output: index for index, op in enumerate(graph.ops)}
    gone: set[str] = set()
    result: list[Op] = []
    for op in graph.ops:
        found = _host(op, graph, written, counts, position)
        if found is None:
            result.append(op)
            continue
        conv, residual = found
        gone.add(conv.output)
        fused = replace(conv, inputs=(*conv.inputs, residual), output=op.output, activation=op.activation)
        written[op.output] = fused
        result.append(fused)
    return graph.with_ops([op for op in result if op.output not in gone])


def _host(
    op: Op, graph: Graph, written: dict[str, Op], counts: dict[str, int], position: dict[str, int]
) -> tuple[g.Conv, str] | None:
    if not isinstance(op, g.Binary) or op.kind != "add" or op.constant is not None:
        return None
    left, right = op.inputs
    if left == right or graph.shapes[left] != graph.shapes[right]:
        return None
    for name, other in sorted(((left, right), (right, left)), key=lambda pair: -position.get(pair[0], -1)):
        conv = written.get(name)
        if isinstance(conv, g.Conv) and len(conv.inputs) == 1 and is_identity(conv) and counts[name] == 1:
            return conv, other
    return None
