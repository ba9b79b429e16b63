"""Networks of the zoo in int8 against ONNX Runtime, by the reference interpreter."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tinytee import zoo
from tinytee.importer import load
from tinytee.ir.check import check
from tinytee.ir.reference import evaluate
from tinytee.passes import optimize
from tinytee.report import precision_of
from tinytee.zoo.quantized import builders, quantized_network

# Networks that the interpreter runs in seconds, and how many of their operators stay in float32.
NETWORKS = {"lenet5": 5, "squeezenet": 1, "mobilenet_v1_025_128": 0, "mobilenet_v3_small": 0, "shufflenet": 1}


def test_every_network_has_an_int8_version() -> None:
    assert set(builders()) == set(zoo.NETWORKS)
    assert quantized_network("lenet5") is quantized_network("lenet5")


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_networks(name: str) -> None:
    network, model = zoo.NETWORKS[name], quantized_network(name)
    graph = optimize(load(model))
    check(graph)
    found = precision_of(graph)
    assert found is not None and found.float_ops <= NETWORKS[name]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {network.input_name: zoo.reference_input(network, 99)}
    expected = np.asarray(session.run(None, feed)[0])
    got = evaluate(graph, feed)[network.output_name]
    # A step of an addition, which ONNX Runtime rounds in another order, may grow on its way to the outputs.
    error = np.abs(got - expected).max() / np.ptp(expected)
    assert error <= 0.05
