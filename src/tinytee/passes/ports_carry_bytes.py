"""Lets inputs and outputs cross the boundary as the bytes that a quantized network works on."""

from __future__ import annotations

from dataclasses import replace

from tinytee.ir import quantized as q
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import is_identity, use_counts


def ports_carry_bytes(graph: Graph) -> Graph:
    """The graph without the conversions at its edges: whoever seals an input quantizes it before, and whoever opens an
    output dequantizes it after.

    A fourth of the bytes is sealed, opened and held, and nothing is computed differently. An input that is read as
    float32, too, or under another quant, stays float32; so does an output that is more than a conversion.
    """
    if not graph.quants:
        return graph
    counts, renamed = use_counts(graph), {}
    bytes_of: dict[str, str] = {}
    for op in graph.ops:
        if isinstance(op, q.Quantize) and counts[op.inputs[0]] == 1:
            bytes_of[op.inputs[0]] = op.output
    written = {op.output: op for op in graph.ops}
    inputs = tuple(replace(port, tensor=bytes_of.get(port.tensor, port.tensor)) for port in graph.inputs)
    fed = {port.tensor for port in inputs}
    for port in graph.outputs:
        op = written.get(port.tensor)
        if isinstance(op, q.Dequantize) and _only_converts(op, counts) and op.inputs[0] not in fed:
            renamed[op.output] = op.inputs[0]
    outputs = tuple(replace(port, tensor=renamed.get(port.tensor, port.tensor)) for port in graph.outputs)
    kept = [op for op in graph.ops if op.output not in fed and op.output not in renamed]
    return replace(graph, inputs=inputs, outputs=outputs).with_ops(kept)


def _only_converts(op: Op, counts: dict[str, int]) -> bool:
    """Whether an output is all that comes of a tensor and of its dequantization."""
    return is_identity(op) and counts[op.output] == 1 and counts[op.inputs[0]] == 1
