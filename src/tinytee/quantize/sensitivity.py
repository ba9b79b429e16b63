"""Which nodes are best left in float32: those whose own quantization harms the outputs most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from tinytee.quantize.engine import Feed, open_session, run
from tinytee.quantize.nodes import readers_of, writers_of

_PICTURES = 8
_ACTIVATIONS = ("Relu", "Clip")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def rank(
    floating: onnx.ModelProto,
    quantized: onnx.ModelProto,
    samples: Sequence[Feed],
    told: Callable[[float], None] | None = None,
) -> list[str]:
    """Names of nodes with weights, the most harmful first: each is quantized alone, and the outputs' error measured.

    told: hears the fraction that is done.
    """
    step = max(1, len(samples) // _PICTURES)
    chosen = samples[::step][:_PICTURES]
    names = [value.name for value in floating.graph.output]
    plain = open_session(floating)
    expected = [run(plain, names, sample) for sample in chosen]
    nodes = [node.name for node in quantized.graph.node if node.op_type in WEIGHTED]
    harm: dict[str, float] = {}
    for position, name in enumerate(nodes):
        session = open_session(quantize_only(floating, quantized, name))
        harm[name] = 0.0
        for sample, wanted in zip(chosen, expected, strict=True):
            for one, other in zip(wanted, run(session, names, sample), strict=True):
                scale = float(np.square(one.astype(np.float64)).sum()) or 1.0
                harm[name] += float(np.square(one.astype(np.float64) - other).sum()) / scale
        if told is not None:
            told((position + 1) / len(nodes))
    return sorted(nodes, key=lambda name: -harm[name])


def with_writers(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Nodes, and the products that write what only these read, through a relu or clip at most.

    An operand of a node in float32 is still rounded to 256 steps where its writer yields integers.
    """
    readers, writers = readers_of(model, of_shapes=False), writers_of(model)
    by_name = {node.name: node for node in model.graph.node}
    found, outputs = list(names), {value.name for value in model.graph.output}
    for name in names:
        source = by_name[name].input[0]
        while (writer := writers.get(source)) is not None and source not in outputs:
            if any(reader.name not in found and reader.op_type not in _ACTIVATIONS for reader in readers[source]):
                break
            if writer.op_type not in _ACTIVATIONS:
                if writer.op_type in WEIGHTED and writer.name not in found:
                    found.append(writer.name)
                break
            source = writer.input[0]
    return found


def quantize_only(floating: onnx.ModelProto, quantized: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The float32 model, one node's operands quantized as in the quantized model."""
    changed = onnx.ModelProto()
    changed.CopyFrom(floating)
    writers = writers_of(quantized)
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    taken = {tensor.name for tensor in changed.graph.initializer}
    twin = next(node for node in quantized.graph.node if node.name == name)
    at = next(position for position, node in enumerate(changed.graph.node) if node.name == name)
    node = changed.graph.node[at]
    before: list[onnx.NodeProto] = []
    for position, operand in enumerate(twin.input):
        source, chain = operand, list[onnx.NodeProto]()
        while source in writers and writers[source].op_type in ("QuantizeLinear", "DequantizeLinear"):
            chain.append(writers[source])
            source = writers[source].input[0]
        current = source
        for link in reversed(chain):
            copied = onnx.NodeProto()
            copied.CopyFrom(link)
            copied.input[0] = current
            copied.name = f"{link.name}/{position}"
            current = f"{link.output[0]}/{position}"
            copied.output[0] = current
            before.append(copied)
            for parameter in (source, *link.input[1:]):
                if parameter in stored and parameter not in taken:
                    taken.add(parameter)
                    changed.graph.initializer.append(stored[parameter])
        if chain:
            node.input[position] = current
    nodes = [*changed.graph.node[:at], *before, *changed.graph.node[at:]]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    for entry in quantized.opset_import:
        if entry.domain not in {known.domain for known in changed.opset_import}:
            changed.opset_import.append(entry)
    return changed
