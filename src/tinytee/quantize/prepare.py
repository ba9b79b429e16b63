"""Brings a float32 model into the form that the static quantizer wants."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnx import numpy_helper

from tinytee.errors import TinyteeError
from tinytee.quantize.engine import onnxruntime

OPSET = 13
"""The oldest opset whose DequantizeLinear knows scales for each channel."""
_QUANTIZATION = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "DynamicQuantizeLinear"}


def read_proto(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """A model with its external weights, wherever it comes from; one that ``importer.load`` has accepted."""
    if isinstance(model, onnx.ModelProto):
        return model
    return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that computes the same: opset 13 or later, batch normalization folded, every node named.

    Raises:
        TinyteeError: the model is quantized already, or ONNX Runtime does not take it.
    """
    if any(node.op_type in _QUANTIZATION for node in model.graph.node):
        raise TinyteeError("the model is quantized already; compile it as it is, without --precision int8")
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _drop_weights_from_inputs(changed)
    version = next((entry.version for entry in changed.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    if version < OPSET:
        try:
            changed = onnx.version_converter.convert_version(changed, OPSET)
        except Exception as error:
            raise TinyteeError(
                f"the model uses opset {version}; quantizing takes {OPSET}, and onnx.version_converter cannot convert"
                f" it: {error}; export it anew"
            ) from error
    _drop_weights_from_inputs(changed)
    folded = _merge_scales(_fold(changed))
    taken = {node.name for node in folded.graph.node}
    for position, node in enumerate(folded.graph.node):
        if not node.name:
            name = f"{node.op_type}_{position}"
            node.name = name if name not in taken else f"{name}_{node.output[0]}"
    return onnx.shape_inference.infer_shapes(folded)


def _merge_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """Products and sums with a constant for each channel behind a batch normalization become its scale and bias.

    Where a concatenation stands before it, it cannot go into weights: each of the three would round to 256 steps.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    gone: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or not set(node.input[1:4]) <= stored.keys():
            continue
        scale, bias, mean = (numpy_helper.to_array(stored[name]) for name in node.input[1:4])
        while node.output[0] not in outputs and len(follow := readers.get(node.output[0], [])) == 1:
            factor = _channel_constant(follow[0], node.output[0], stored, len(scale))
            if factor is None:
                break
            scale, bias = (scale * factor, bias * factor) if follow[0].op_type == "Mul" else (scale, bias + factor)
            gone.add(follow[0].output[0])
            node.output[0] = follow[0].output[0]
            for position, array in ((1, scale), (2, bias)):
                name = f"{node.output[0]}/{'scale' if position == 1 else 'bias'}"
                node.input[position] = name
                model.graph.initializer.append(numpy_helper.from_array(array.astype(mean.dtype), name))
    kept = [node for node in model.graph.node if node.output[0] not in gone or node.op_type == "BatchNormalization"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | outputs
    needed = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(needed)
    return model


def _channel_constant(
    node: onnx.NodeProto, source: str, stored: Mapping[str, onnx.TensorProto], channels: int
) -> NDArray | None:
    """What a Mul or Add brings to each of the channels (the second axis of four): [channels]; None for another node."""
    others = [name for name in node.input if name != source]
    if node.op_type not in ("Mul", "Add") or len(others) != 1 or others[0] not in stored:
        return None
    array = numpy_helper.to_array(stored[others[0]])
    fits = array.size == 1 or (array.ndim in (3, 4) and array.shape[-3:] == (channels, 1, 1) and array.size == channels)
    return np.broadcast_to(array.reshape(-1), channels) if fits else None


def _drop_weights_from_inputs(model: onnx.ModelProto) -> None:
    """Up to IR version 3 weights are inputs, too."""
    stored = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 7)


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded and batch normalization in the weights, by ONNX Runtime's basic rewrites."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(target)
        try:
            runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base but this
            raise TinyteeError(f"ONNX Runtime, which calibrates, does not take the model: {error}") from error
        return onnx.load(target)
