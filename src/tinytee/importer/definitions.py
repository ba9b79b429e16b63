"""Operators that ONNX itself defines by others, as calls of these definitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

_DEFINED = (
    "Attention",
    "CausalConvWithState",
    "CenterCropPad",
    "MeanVarianceNormalization",
    "RMSNormalization",
    "RotaryEmbedding",
    "Shrink",
    "SwiGLU",
)
"""Those that are taken by their definition. Definitions of others are loops."""
_DOMAIN = "tinytee.definitions"
_DEFAULT = ("", "ai.onnx")


def with_definitions(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model itself if it has no such operators; else a copy in which they are calls of functions, each of its own.

    Args:
        model: in float32.
        version: the opset of its default domain.
    """
    if not any(_is_defined(node) for node in _nodes(model.graph)):
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    types = _types(changed)
    for node in filter(_is_defined, list(_nodes(changed.graph))):
        body = _definition(node, version, types)
        if body is None:
            continue
        _fill_in(node, version)
        where = f"{node.op_type} '{node.name or node.output[0]}'"
        for inner in body.node:
            inner.name = f"{inner.output[0]} of {where}"
        written = [(ours, theirs) for ours, theirs in zip(node.output, body.output, strict=False) if ours]
        body.name, body.domain = f"{node.op_type}_{len(changed.functions)}", _DOMAIN
        node.op_type, node.domain = body.name, _DOMAIN
        for names, side in ((node.output, 0), (body.output, 1)):
            del names[:]
            names.extend(pair[side] for pair in written)
        for entry in body.opset_import:
            if entry.domain in _DEFAULT:
                entry.version = version  # the body is the one that this version has
        changed.functions.append(body)
    changed.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return changed


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _is_defined(node: onnx.NodeProto) -> bool:
    return node.domain in _DEFAULT and node.op_type in _DEFINED


def _fill_in(node: onnx.NodeProto, version: int) -> None:
    """Gives a node the attributes that it leaves to their defaults, which its definition may name."""
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, version, "").attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Of values of the main graph, as far as they can be inferred."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found = {value.name: value.type for value in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in model.graph.initializer:
        found[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return found


def _definition(node: onnx.NodeProto, version: int, types: dict[str, onnx.TypeProto]) -> onnx.FunctionProto | None:
    """None where the version has none."""
    schema: Any = onnx.defs.get_schema(node.op_type, version, "")  # which pyright knows in part
    told = schema.get_function_with_opset_version(version)
    if not told and schema.has_context_dependent_function:
        given = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
        told = schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), given)
    return onnx.FunctionProto.FromString(told) if told else None
