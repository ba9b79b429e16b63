"""The nine classic networks whose topologies come with the onnx package, with seeded random weights.

The files (``onnx/backend/test/data/light/light_*.onnx``) are those of the ONNX model zoo, except that their weights
are constants: large ones made by a ConstantOfShape node, small ones stored. Both become stored random weights here,
which is what the zoo's own files have; every other node stays as it is.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.backend.test
from onnx import helper, numpy_helper

from tinytee.zoo.weights import declare_weight, fill_weights

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def build_classic(name: str, input_std: float = 1.0) -> onnx.ModelProto:
    """The model of ``light_{name}.onnx``, its constant weights replaced by random ones."""
    model = onnx.load(str(LIGHT / f"light_{name}.onnx"))
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    generated = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes = {node.output[0]: numpy_helper.to_array(stored[node.input[0]]) for node in generated}
    gone = {node.input[0] for node in generated}
    read = {name for node in graph.node for name in node.input}

    weights = [declare_weight(name, tuple(int(extent) for extent in shape)) for name, shape in shapes.items()]
    for tensor in graph.initializer:
        if tensor.name in gone:
            continue
        is_weight = tensor.data_type == onnx.TensorProto.FLOAT and tensor.name in read
        weights.append(declare_weight(tensor.name, tuple(tensor.dims)) if is_weight else tensor)
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    # Up to IR version 3 every initializer is an input, too.
    signature = [value for value in graph.input if value.name not in gone]
    declared = {value.name for value in signature}
    signature += [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in weights
        if tensor.name not in declared
    ]
    rebuilt = helper.make_graph(nodes, graph.name, signature, list(graph.output), weights)
    opsets = list(model.opset_import)
    rebuilt_model = helper.make_model(rebuilt, opset_imports=opsets, ir_version=model.ir_version)
    return fill_weights(rebuilt_model, input_std=input_std)
