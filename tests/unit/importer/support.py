"""Small models, run by ONNX Runtime and by the importer, the passes and the reference interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tinytee.importer import load
from tinytee.ir.check import check
from tinytee.ir.graph import Graph
from tinytee.ir.reference import evaluate
from tinytee.passes import PASSES

OPSET = 21


def node(op_type: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node whose inputs and outputs are given as words; '-' is an omitted one."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(
        op_type, names, outputs.split(), name=f"{op_type}_{outputs.split(maxsplit=1)[0]}", **attributes
    )


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = OPSET,
    dtypes: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of float32 inputs; ``dtypes`` gives the element types of others, outputs included."""
    types = dtypes or {}
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, types.get(name, 1), list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, types.get(name, 1), None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def random(shape: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)


def in_half(**dtypes: int) -> onnx.ModelProto:
    """'x' [1, 3, 8, 8] to 'y' [1, 5]: weights, a Constant, a ConstantOfShape and Casts in float16."""
    constants = {
        "w": random((4, 3, 3, 3), 1).astype(np.float16), "b": random((4,), 2).astype(np.float16),
        "m": random((256, 5), 3).astype(np.float16) / 8, "extent": np.array([1, 1]), "flat": np.array([1, -1]),
    }  # fmt: skip
    filled = numpy_helper.from_array(np.array([0.25], np.float16), "quarter")
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Cast", "c", "wide", to=TensorProto.FLOAT),
        node("Sigmoid", "wide", "s"),
        node("Cast", "s", "narrow", to=TensorProto.FLOAT16),
        node("Constant", "", "two", value=numpy_helper.from_array(np.array(2, np.float16))),
        node("Mul", "narrow two", "twice"),
        node("ConstantOfShape", "extent", "quarter", value=filled),
        node("Reshape", "twice flat", "row"),
        node("MatMul", "row m", "product"),
        node("Add", "product quarter", "y"),
    ]
    return model(
        nodes, {"x": (1, 3, 8, 8)}, constants, dtypes={"x": TensorProto.FLOAT16, "y": TensorProto.FLOAT16, **dtypes}
    )


def by_rate() -> onnx.ModelProto:
    """'y' = x + s where 'rate' is 16000, else x - s: x and s [1, 4], rate a single int64."""

    def branch(op_type: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
        return helper.make_graph([node(op_type, "x s", "z")], op_type, [], [out])

    nodes = [
        node("Equal", "rate wanted", "is_fast"),
        node("If", "is_fast", then_branch=branch("Add"), else_branch=branch("Sub")),
    ]
    constants, dtypes = {"wanted": np.array(16000)}, {"rate": TensorProto.INT64}
    return model(nodes, {"x": (1, 4), "s": (1, 4), "rate": ()}, constants, dtypes=dtypes)


def run_onnxruntime(proto: onnx.ModelProto, feeds: Mapping[str, NDArray]) -> list[NDArray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, dict(feeds))]


def compare(
    proto: onnx.ModelProto,
    feeds: Mapping[str, NDArray] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    tolerance: float = 2e-5,
) -> Graph:
    """Holds the imported graph, and the graph after every pass, to ONNX Runtime; returns the optimized graph."""
    graph = load(proto, input_shapes)
    if feeds is None:
        feeds = {port.name: random([extent or 2 for extent in port.shape], i) for i, port in enumerate(graph.inputs)}
    expected = run_onnxruntime(proto, feeds)
    _agree(graph, feeds, expected, tolerance, "load")
    for rewrite in PASSES:
        graph = rewrite(graph)
        _agree(graph, feeds, expected, tolerance, rewrite.__name__)
    return graph


def _agree(
    graph: Graph, feeds: Mapping[str, NDArray], expected: Sequence[NDArray], tolerance: float, stage: str
) -> None:
    check(graph)
    found = evaluate(graph, feeds)
    assert len(found) == len(expected)
    for port, wanted in zip(graph.outputs, expected, strict=True):
        got = found[port.name]
        assert got.shape == wanted.shape and got.dtype == wanted.dtype, (stage, got.shape, wanted.shape)
        scale = max(float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)), 1e-3) if wanted.size else 1
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=stage)


def kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in graph.ops]
