"""What the passes share: who writes and who reads a tensor, and scale-and-shift as one notion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op

F64 = NDArray[np.float64]


def producers(graph: Graph) -> dict[str, Op]:
    """The operator that writes each tensor; inputs of the graph have none."""
    return {op.output: op for op in graph.ops}


def use_counts(graph: Graph) -> dict[str, int]:
    """How often each tensor is read: once for every place in an operator, once for every output port."""
    counts = dict.fromkeys(graph.shapes, 0)
    for op in graph.ops:
        for name in op.inputs:
            counts[name] += 1
    for port in graph.outputs:
        counts[port.tensor] += 1
    return counts


def rename(graph: Graph, ops: list[Op], renamed: dict[str, str]) -> Graph:
    """``graph`` over ``ops``, every read of a key of ``renamed`` (chains allowed) turned to its value."""

    def final(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    changed = [
        replace(op, inputs=tuple(final(name) for name in op.inputs)) if any(n in renamed for n in op.inputs) else op
        for op in ops
    ]
    outputs = tuple(replace(port, tensor=final(port.tensor)) for port in graph.outputs)
    return replace(graph, outputs=outputs).with_ops(changed)


def fuse_pairs(graph: Graph, fuse) -> Graph:
    """Applies ``fuse(first, second, graph)`` to every operator ``second`` and the writer ``first`` of its first
    input, where nothing else reads that; the operator it returns takes the place of both. None leaves them."""
    written = producers(graph)
    counts = use_counts(graph)
    gone: set[str] = set()
    result: list[Op] = []
    for second in graph.ops:
        current = second
        if second.inputs and counts[second.inputs[0]] == 1 and (first := written.get(second.inputs[0])) is not None:
            fused = fuse(first, second, graph)
            if fused is not None:
                gone.add(first.output)
                current = fused
        written[current.output] = current
        result.append(current)
    return graph.with_ops([op for op in result if op.output not in gone])


def scale_shift(op: Op, channels: int) -> tuple[F64, F64] | None:
    """(scale, shift) of [channels] where ``op`` computes x * scale + shift per channel; None where it does not."""
    if isinstance(op, g.DepthwiseConv) and op.weight.shape[:2] == (1, 1) and op.strides == (1, 1) and not any(op.pads):
        return op.weight.reshape(-1).astype(np.float64), op.bias.astype(np.float64)
    if not isinstance(op, g.Binary) or op.constant is None or op.constant.shape[:2] != (1, 1):
        return None
    if op.constant.shape[2] not in (1, channels):
        return None
    constant = np.broadcast_to(op.constant.reshape(-1).astype(np.float64), (channels,))
    one, zero = np.ones(channels), np.zeros(channels)
    if op.kind == "mul":
        return constant, zero
    if op.kind == "add":
        return one, constant
    if op.kind == "sub":
        return (-one, constant) if op.constant_first else (one, -constant)
    if op.kind == "div" and not op.constant_first and constant.all():
        return 1 / constant, zero
    return None


def is_identity(op: Op) -> bool:
    return op.activation.kind == "identity"
