"""Who writes and who reads the tensors of an ONNX model."""

from __future__ import annotations

from typing import Any

import onnx


def writers_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that writes each tensor."""
    return {name: node for node in model.graph.node for name in node.output}


def readers_of(model: onnx.ModelProto, *, of_shapes: bool = True) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor that is read; ``of_shapes``: those, too, that ask for its shape alone."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input if of_shapes or node.op_type != "Shape" else ():
            found.setdefault(name, []).append(node)
    return found


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """A node's attribute by name."""
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
