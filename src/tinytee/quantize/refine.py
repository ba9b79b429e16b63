"""What is done to a quantized model (QDQ) after the quantizer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tinytee.quantize.nodes import attribute, readers_of, writers_of

_MOVES = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast"}
_AFTER_RESULTS = _MOVES | {
    "Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "Concat", "Split", "Slice", "Add", "Sub", "Mul", "Div", "Pow", "Exp",
}  # fmt: skip
_EXPECTATION_WEIGHTS = 64
"""The most weights of a product that is the mean of a distribution, not a layer."""
_RENAMED = "_QuantizeLinear_Input"
"""What the quantizer appends to the name of an output of the model, whose own name its DequantizeLinear takes."""
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
_WEIGHTED = {"Conv", "Gemm"}
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def merge_activations(quantized: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out quantization before a relu or clip, which the quantizer leaves where a neighbour stays in float32.

    What the activation cuts off would else widen the range, and coarsen the steps. It stays where another operator than
    a product writes what the activation reads, and nobody quantizes its result: both would run in float32.
    """
    readers, writers = readers_of(quantized), writers_of(quantized)
    after = {name: {reader.op_type for reader in readers.get(name, ())} for name in writers}
    outputs = {value.name for value in quantized.graph.output}
    renamed: dict[str, str] = {}
    gone: set[str] = set()
    for node in quantized.graph.node:
        source = writers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is None or node.output[0] in outputs or len(readers[source.output[0]]) != 1:
            continue
        found = readers.get(node.output[0], [])
        product = writers[source.input[0]].op_type in _PRODUCTS if source.input[0] in writers else False
        requantized = all(after[reader.output[0]] == {"QuantizeLinear"} for reader in found)
        if all(reader.op_type in ("Relu", "Clip") for reader in found) and (product or requantized):
            renamed[node.output[0]] = source.input[0]
            gone.update((node.output[0], source.output[0]))
    return _without(quantized, renamed, gone)


def after_results(floating: onnx.ModelProto) -> set[str]:
    """Nodes, by name, that lead from the last products to the outputs: a Softmax and the like, a detector's arithmetic.

    They stay in float32. They join scores of 0 to 1 with boxes of hundreds of pixels, of which 256 steps for both would
    leave the boxes alone; and 256 steps are few for scores that are to be ranked.
    """
    readers, writers = readers_of(floating, of_shapes=False), writers_of(floating)
    outputs = {value.name for value in floating.graph.output}
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in floating.graph.initializer}
    found: set[str] = set()
    for node in reversed(floating.graph.node):
        after = [reader for name in node.output for reader in readers.get(name, ())]
        if any(reader.name not in found for reader in after) or not (after or outputs.intersection(node.output)):
            continue
        if node.op_type in _AFTER_RESULTS or _is_expectation(node, writers, sizes):
            found.add(node.name)
    return found


def _is_expectation(node: onnx.NodeProto, writers: Mapping[str, onnx.NodeProto], sizes: Mapping[str, int]) -> bool:
    """Whether a product is the mean of what a Softmax gives (distribution focal loss, arXiv 2006.04388, section 3)."""
    if node.op_type not in _PRODUCTS or not 0 < sizes.get(node.input[1], 0) <= _EXPECTATION_WEIGHTS:
        return False
    source = writers.get(node.input[0])
    while source is not None and source.op_type in _MOVES:
        source = writers.get(source.input[0])
    return source is not None and source.op_type == "Softmax"


def keep_results_float(quantized: onnx.ModelProto, floating: onnx.ModelProto) -> onnx.ModelProto:
    """Leaves results unquantized: tensors that only nodes of ``after_results`` read.

    An integer product can give float32 at no cost.
    """
    graph = quantized.graph
    readers, writers = readers_of(quantized, of_shapes=False), writers_of(quantized)
    outputs = {value.name for value in graph.output}
    origins = {name: node.name for name, node in writers_of(floating).items()}
    after = after_results(floating)

    def is_result(name: str) -> bool:
        found = readers.get(name, [])
        return bool(found or name in outputs) and all(
            is_result(node.output[0]) if node.op_type in _CONVERSIONS else node.name in after for node in found
        )

    renamed: dict[str, str] = {}
    gone: set[str] = set()
    for node in graph.node:
        source = writers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is None or source.op_type != "QuantizeLinear":
            continue
        name = source.input[0]
        # The quantizer drops a relu that the bytes' range implies: its tensor must stay quantized.
        is_own = name in writers and origins.get(name.removesuffix(_RENAMED)) == writers[name].name
        is_own = is_own and (writers[name].op_type in _PRODUCTS or writers[name].name in after)
        if is_own and is_result(node.output[0]):
            renamed[node.output[0]] = name
            gone.update((node.output[0], source.output[0]))
    return _without(quantized, renamed, gone)


def _without(model: onnx.ModelProto, renamed: Mapping[str, str], gone: set[str]) -> onnx.ModelProto:
    """The model without the nodes that write ``gone``, reads turned; outputs keep their names."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    outputs = {value.name for value in changed.graph.output}
    turned = {new: old for old, new in renamed.items() if old in outputs}
    kept = [node for node in changed.graph.node if node.output[0] not in gone]
    for node in kept:
        for position, name in enumerate(node.input):
            source = renamed.get(name, name)
            node.input[position] = turned.get(source, source)
        for position, name in enumerate(node.output):
            node.output[position] = turned.get(name, name)
    nodes = list(kept)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def weighted_inputs(floating: onnx.ModelProto) -> dict[str, str]:
    """Convolutions and Gemms with stored weights, by name, to the tensor that they read."""
    stored = {tensor.name for tensor in floating.graph.initializer}
    return {
        node.name: node.input[0]
        for node in floating.graph.node
        if node.op_type in _WEIGHTED and len(node.input) > 2 and {node.input[1], node.input[2]} <= stored
    }


def correct_biases(
    quantized: onnx.ModelProto, floating: onnx.ModelProto, means: Mapping[str, NDArray]
) -> onnx.ModelProto:
    """Takes out of each bias what rounding the weights adds to it on average.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section
    4.2, with means that calibration saw. What padding contributes is neglected.

    Args:
        quantized: the model with int32 biases and integer weights behind DequantizeLinear.
        floating: the model that it was made of, nodes of the same names.
        means: of the tensors of ``weighted_inputs``, the mean of each channel.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(quantized)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    origin = {tensor.name: tensor for tensor in floating.graph.initializer}
    inputs = weighted_inputs(floating)
    nodes = {node.name: node for node in floating.graph.node}
    dequantizers = {node.output[0]: node for node in changed.graph.node if node.op_type == "DequantizeLinear"}
    for node in changed.graph.node:
        source = inputs.get(node.name)
        if source is None or source not in means or len(node.input) < 3:
            continue
        of_weight, of_bias = (dequantizers.get(name) for name in node.input[1:3])
        if of_weight is None or of_bias is None or not {of_weight.input[0], of_bias.input[0]} <= set(stored):
            continue
        integers, scale = (numpy_helper.to_array(stored[name]).astype(np.float64) for name in of_weight.input[:2])
        bias, unit = (numpy_helper.to_array(stored[name]).astype(np.float64) for name in of_bias.input[:2])
        exact = numpy_helper.to_array(origin[nodes[node.name].input[1]]).astype(np.float64)
        axis = attribute(of_weight, "axis", 1) if scale.size > 1 else 0
        shape = [-1 if position == axis else 1 for position in range(exact.ndim)]
        error = integers * (scale.reshape(shape) if scale.size > 1 else scale) - exact
        shift = _mean_shift(node, error, np.asarray(means[source], np.float64))
        corrected = np.clip(np.rint(bias - shift / unit), -(2**31), 2**31 - 1).astype(np.int32)
        stored[of_bias.input[0]].CopyFrom(numpy_helper.from_array(corrected, of_bias.input[0]))
    return changed


def _mean_shift(node: onnx.NodeProto, error: NDArray, mean: NDArray) -> NDArray:
    """What wrong weights add to each output on average; mean: [channels] of the input."""
    if node.op_type == "Gemm":
        matrix = error.T if attribute(node, "transB", 0) else error
        return mean @ matrix * attribute(node, "alpha", 1)
    groups = attribute(node, "group", 1)
    by_channel = error.reshape(*error.shape[:2], -1).sum(axis=2).reshape(groups, -1, error.shape[1])
    return np.einsum("goc,gc->go", by_channel, mean.reshape(groups, -1)).reshape(-1)
