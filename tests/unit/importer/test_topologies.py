"""The light topologies of the onnx package: all of them import to the operators they are made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx.backend.test
import pytest

from tinytee import zoo
from tinytee.importer import load
from tinytee.ir.check import check
from tinytee.passes import optimize
from unit.importer.support import compare

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"

EXPECTED = {
    "bvlc_alexnet": {"Conv": 8, "Pool": 3, "Lrn": 2, "Softmax": 1},
    "densenet121": {"Conv": 121, "DepthwiseConv": 62, "Concat": 58, "Pool": 4, "Reduce": 1},
    "inception_v1": {"Conv": 58, "Pool": 14, "Concat": 9, "Lrn": 2, "Softmax": 1},
    "inception_v2": {"Conv": 70, "Pool": 13, "Concat": 10, "Softmax": 1},
    "resnet50": {"Conv": 54, "Pool": 2, "Softmax": 1},
    "shufflenet": {"Conv": 34, "Gather": 16, "DepthwiseConv": 16, "Pool": 5, "Concat": 3, "Unary": 3, "Softmax": 1},
    "squeezenet": {"Conv": 26, "Concat": 8, "Pool": 3, "Reduce": 1, "Softmax": 1},
    "vgg19": {"Conv": 19, "Pool": 5, "Softmax": 1},
    "zfnet512": {"Conv": 8, "Pool": 3, "Lrn": 2, "Softmax": 1},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_light_topologies(name: str) -> None:
    graph = load(LIGHT / f"light_{name}.onnx")
    check(graph)
    graph = optimize(graph)
    check(graph)
    assert Counter(type(op).__name__ for op in graph.ops) == EXPECTED[name]
    (source,), (result,) = graph.inputs, graph.outputs
    assert source.shape == (1, 3, 224, 224) and source.batched
    assert int(np.prod(result.shape)) == 1000 and result.batched


@pytest.mark.parametrize("name", ["lenet5", "squeezenet", "mobilenet_v3_small"])
def test_whole_networks(name: str) -> None:
    network = zoo.NETWORKS[name]
    compare(network.build(), {network.input_name: zoo.reference_input(network, 0)}, tolerance=1e-4)
