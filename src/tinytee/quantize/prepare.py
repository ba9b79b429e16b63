"""Brings a float32 model into the form that the static quantizer wants."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray
from onnx import numpy_helper

from tinytee.errors import TinyteeError
from tinytee.importer import in_float32
from tinytee.quantize.engine import onnxruntime
from tinytee.quantize.nodes import readers_of

OPSET = 13
"""The oldest opset whose DequantizeLinear knows scales for each channel."""
_LARGE = 2**14
"""Elements of a tensor that is weights, not a shape or the like."""
_QUANTIZATION = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "DynamicQuantizeLinear"}


def read_proto(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """A model in float32, with its external weights, wherever it comes from; ``importer.load`` has accepted it."""
    if isinstance(model, onnx.ModelProto):
        return in_float32(model)
    return in_float32(onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model))


def bind(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """The model with its inputs' extents, by name; 0 leaves one open. What it computes of them can then be folded."""
    if not shapes:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value in changed.graph.input:
        for dim, extent in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            if extent > 0:
                dim.dim_value = extent
    return changed


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
            changed = _lightly(changed, lambda light: onnx.version_converter.convert_version(light, OPSET))
        except Exception as error:
            raise TinyteeError(
                f"the model uses opset {version}; quantizing takes {OPSET}, and onnx.version_converter cannot convert"
                f" it: {error}; export it anew"
            ) from error
    _drop_weights_from_inputs(changed)
    folded = _part_operands(_convolve_upsampling(_convolve_scales(_fold(changed))))
    taken = {node.name for node in folded.graph.node}
    for position, node in enumerate(folded.graph.node):
        if not node.name:
            name = f"{node.op_type}_{position}"
            node.name = name if name not in taken else f"{name}_{node.output[0]}"
    return _lightly(folded, onnx.shape_inference.infer_shapes)


def _lightly(model: onnx.ModelProto, change: Callable[[onnx.ModelProto], onnx.ModelProto]) -> onnx.ModelProto:
    """What is made of a model without regard to large weights, which are put aside: each copy of them takes time."""
    aside: dict[str, bytes] = {}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _LARGE and tensor.HasField("raw_data"):
            aside[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="aside")
    changed = change(model)
    for tensor in changed.graph.initializer:
        if tensor.name in aside:
            tensor.raw_data = aside.pop(tensor.name)
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
    return changed


def _convolve_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """Batch normalizations of images that could not be folded become convolutions of one weight a channel.

    Those the quantizer makes integer operators of, where it leaves batch normalization in float32. Products and sums
    with a constant for each channel behind one (Caffe's Scale) become part of it, not two more roundings to 256 steps.
    """
    if all(node.op_type != "BatchNormalization" for node in model.graph.node):
        return model
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    known = [*model.graph.input, *onnx.shape_inference.infer_shapes(model).graph.value_info]
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in known}
    readers = readers_of(model)
    outputs = {value.name for value in model.graph.output}
    gone: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or ranks.get(node.input[0]) != 4 or len(node.output) != 1:
            continue
        if not set(node.input[1:]) <= stored.keys():
            continue
        scale, bias, mean, variance = (numpy_helper.to_array(stored[name]).astype(float) for name in node.input[1:])
        epsilon = next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "epsilon"), 1e-5)
        weight = scale / np.sqrt(variance + epsilon)
        bias -= mean * weight
        result = node.output[0]
        while result not in outputs and len(follow := readers.get(result, [])) == 1:
            factor = _channel_constant(follow[0], result, stored, len(weight))
            if factor is None:
                break
            weight, bias = (weight * factor, bias * factor) if follow[0].op_type == "Mul" else (weight, bias + factor)
            result = follow[0].output[0]
            gone.add(result)
        operands = {f"{result}/weight": weight.reshape(-1, 1, 1, 1), f"{result}/bias": bias}
        for name, array in operands.items():
            model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
        inputs = [node.input[0], *operands]
        node.CopyFrom(
            onnx.helper.make_node("Conv", inputs, [result], node.name, group=len(weight), kernel_shape=[1, 1])
        )
    kept = [node for node in model.graph.node if node.output[0] not in gone or node.op_type == "Conv"]
    return _with_nodes(model, kept)


def _convolve_upsampling(model: onnx.ModelProto) -> onnx.ModelProto:
    """Transposed convolutions whose windows do not overlap become 1 x 1 convolutions and DepthToSpace.

    Transposed ones ONNX Runtime computes in float32, quantized or not.
    """
    if all(node.op_type != "ConvTranspose" for node in model.graph.node):
        return model
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        weight = stored.get(node.input[1]) if node.op_type == "ConvTranspose" else None
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        size = weight.dims[-1] if weight is not None else 0
        stays = weight is None or len(weight.dims) != 4 or list(weight.dims[2:]) != [size, size]
        stays = stays or given.get("strides") != [size, size] or given.get("group", 1) != 1 or "output_shape" in given
        stays = stays or any(given.get("pads", [])) or any(given.get("output_padding", [])) or len(node.input) < 3
        stays = stays or any(step != 1 for step in given.get("dilations", [])) or node.input[2] not in stored
        if stays or weight is None or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            nodes.append(node)
            continue
        filters = numpy_helper.to_array(weight)  # [in, out, size, size]
        bias = numpy_helper.to_array(stored[node.input[2]])
        names = [f"{node.output[0]}/{part}" for part in ("weight", "bias", "deep")]
        arrays = filters.reshape(filters.shape[0], -1).T[:, :, None, None], np.repeat(bias, size * size)
        for name, array in zip(names, arrays, strict=False):
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        inputs = [node.input[0], *names[:2]]
        nodes.append(onnx.helper.make_node("Conv", inputs, names[2:], node.name, kernel_shape=[1, 1]))
        nodes.append(
            onnx.helper.make_node("DepthToSpace", names[2:], node.output, names[2], blocksize=size, mode="CRD")
        )
    return _with_nodes(model, nodes)


def _part_operands(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants that several nodes read, as a detector's heads of all scales do, become copies, one for each.

    Their integers differ from node to node; and of a bias that is read twice ONNX Runtime's quantizer makes a model
    that ONNX Runtime does not load.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name in stored and name in taken:
                node.input[position] = f"{name}/{node.output[0]}/{position}"
                copied = onnx.TensorProto()
                copied.CopyFrom(stored[name])
                copied.name = node.input[position]
                model.graph.initializer.append(copied)
            taken.add(name)
    return model


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """The model with other nodes, and only the weights that they read."""
    used = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    stored = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
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
