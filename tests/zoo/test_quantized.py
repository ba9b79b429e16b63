"""Networks of the zoo in int8 against ONNX Runtime with its optimizations, compiled at a budget of 1 MiB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnxruntime import quantization as tool

import tinytee
from tinytee import zoo
from tinytee.api import compile_graph, load_graph
from tinytee.ir.graph import Graph
from tinytee.quantize.engine import open_session
from tinytee.quantize.prepare import prepare
from tinytee.report import precision_of
from tinytee.zoo.quantized import builders, quantized_network
from zoo.support import largest_error

KEY = bytes(range(32))
BUDGET = zoo.MIB

FLOAT_OPS = {"lenet5": 5, "squeezenet": 1, "mobilenet_v1_025_128": 0, "mobilenet_v3_small": 0, "shufflenet": 1,
             "densenet121": 0, "unet_transposed": 1, "unet_resized": 4, "yolov8n": 16}  # fmt: skip
"""How many operators may stay in float32; of YOLOv8n those that make boxes of what its last convolutions give."""

SAME = 1e-3
"""Of a step: what float32's rounding of a result may differ by where every byte before it is the same."""

RANGES = {"inception_v1": 1.0, "zfnet512": 1.0}
"""Networks with LRN, whose powers of float32 differ from one implementation to the next and so may round to other
bytes: one step of what quantization would make of their results, of Softmax, is allowed."""

HEAVY = ("alexnet", "zfnet512", "vgg19")

CASES = [
    pytest.param(name, marks=[pytest.mark.xdist_group(f"int8-{name}"), *([pytest.mark.slow] if name in HEAVY else [])])
    for name in zoo.NETWORKS
]


def _rival(model: onnx.ModelProto, network: zoo.Network, feed: dict[str, NDArray]) -> NDArray:
    session = open_session(model)
    return np.asarray(session.run([network.output_name], feed)[0])


def _compiled(graph: Graph, network: zoo.Network, feed: dict[str, NDArray]) -> NDArray:
    bundle = compile_graph(graph, BUDGET, KEY)
    with tinytee.Session(bundle, KEY) as session:
        return session.run(feed)[network.output_name]


def test_every_network_has_an_int8_version() -> None:
    assert set(builders()) == set(zoo.NETWORKS)
    assert quantized_network("lenet5") is quantized_network("lenet5")


@pytest.mark.parametrize("name", CASES)
def test_int8_networks(name: str) -> None:
    network, model = zoo.NETWORKS[name], quantized_network(name)
    if name in HEAVY:
        quantized_network.cache_clear()
    graph = load_graph(model)
    precision = precision_of(graph)
    assert precision is not None and precision.float_ops <= FLOAT_OPS.get(name, 3)
    feed = {network.input_name: zoo.reference_input(network, 99)}
    expected = _rival(model, network, feed)
    found = _compiled(graph, network, feed)
    if name in RANGES:
        assert np.abs(found - expected).max() * 255 <= RANGES[name]
    else:
        assert largest_error(found, expected) * 255 <= SAME


FORMS = [("QDQ", "QUInt8"), ("QOperator", "QUInt8"), ("QOperator", "QInt8")]
"""QDQ of int8 activations ONNX Runtime does not fuse on x86-64: it computes them in float32."""


@pytest.mark.parametrize(("form", "kind"), FORMS)
@pytest.mark.parametrize("name", ["lenet5", "squeezenet", "mobilenet_v2", "mobilenet_v3_small", "shufflenet"])
def test_what_the_tool_makes(name: str, form: str, kind: str, tmp_path: Path) -> None:
    """quantize_static by itself, which quantizes results, too: one step of theirs at most."""
    network = zoo.NETWORKS[name]
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(prepare(network.build()), source)

    class Reader(tool.CalibrationDataReader):
        pictures = iter([{network.input_name: zoo.reference_input(network, seed)} for seed in range(2)])

        def get_next(self) -> dict[str, NDArray] | None:  # type: ignore[override]
            return next(self.pictures, None)

    tool.quantize_static(
        source,
        target,
        Reader(),
        quant_format=tool.QuantFormat[form],
        per_channel=True,
        activation_type=tool.QuantType[kind],
        weight_type=tool.QuantType.QInt8,
    )
    model = onnx.load(target)
    feed = {network.input_name: zoo.reference_input(network, 99)}
    expected = _rival(model, network, feed)
    last = next(node for node in model.graph.node if node.output[0] == network.output_name)
    assert last.op_type == "DequantizeLinear"
    scale = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == last.input[1])
    steps = np.abs(_compiled(load_graph(model), network, feed) - expected) / scale
    assert steps.max() <= 1 + SAME
