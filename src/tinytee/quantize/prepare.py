"""Brings a float32 model into the form that the static quantizer wants."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx
import onnx.version_converter

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
    folded = _fold(changed)
    taken = {node.name for node in folded.graph.node}
    for position, node in enumerate(folded.graph.node):
        if not node.name:
            name = f"{node.op_type}_{position}"
            node.name = name if name not in taken else f"{name}_{node.output[0]}"
    return onnx.shape_inference.infer_shapes(folded)


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
