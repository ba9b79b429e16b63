"""Makes a table of every operator that computes each byte from one other byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytee.ir import quantized as q
from tinytee.ir import reference_quantized
from tinytee.ir.graph import Graph, Op, Shape

_EVERY_BYTE = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)


def tabulate(graph: Graph) -> Graph:
    """What depends on one byte alone is a table of that byte: a byte and a scalar, or two functions of the same byte.

    x * hard_sigmoid(x), say, is a table of x, and needs neither the table of the second factor nor the product. Tables
    that nobody reads any more are left to ``eliminate_dead``.
    """
    if not graph.quants:
        return graph
    tables: dict[str, tuple[str, NDArray[np.uint8]]] = {}  # of a tensor: what it is a function of, and which
    result: list[Op] = []
    for op in graph.ops:
        single = op.constant is None or op.constant.size == 1 if isinstance(op, q.QBinary) else isinstance(op, q.QLut)
        functions = [tables.get(name, (name, _EVERY_BYTE)) for name in op.inputs]
        roots = {root for root, _ in functions}
        same_extent = len({graph.shapes[name] for name in (*op.inputs, op.output)}) == 1
        if not (single and len(roots) == 1 and same_extent):
            result.append(op)
            continue
        found = _table(op, [table for _, table in functions], graph)
        tables[op.output] = (roots.pop(), found)
        result.append(op if isinstance(op, q.QLut) else _lookup(op, *tables[op.output]))
    return graph.with_ops(result)


def _table(op: Op, operands: list[NDArray[np.uint8]], graph: Graph) -> NDArray[np.uint8]:
    shape = Shape(*_EVERY_BYTE.shape)
    return reference_quantized.evaluate(op, operands, shape, graph.quants, taps=lambda *_: []).astype(np.uint8)


def _lookup(op: Op, root: str, table: NDArray[np.uint8]) -> Op:
    return q.QLut(name=op.name, inputs=(root,), output=op.output, table=table.reshape(256))
