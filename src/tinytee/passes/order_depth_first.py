"""Orders operators so that few tensors are alive at any time."""

from __future__ import annotations

from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import producers


def order_depth_first(graph: Graph) -> Graph:
    """Each branch is computed to its end before the next one begins: post-order from the outputs."""
    written = producers(graph)
    done: set[str] = set()
    result: list[Op] = []
    for port in graph.outputs:
        stack = [(port.tensor, False)]
        while stack:
            name, ready = stack.pop()
            op = written.get(name)
            if op is None or name in done:
                continue
            if ready:
                done.add(name)
                result.append(op)
                continue
            stack.append((name, True))
            stack.extend((source, False) for source in reversed(op.inputs))
    return graph.with_ops(result)
