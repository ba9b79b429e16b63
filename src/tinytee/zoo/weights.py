"""Gives a topology without weights seeded random ones, of the scale that trained ones have.

The rule is LSUV's (Mishkin and Matas, "All you need is a good init", arXiv 1511.06422), worked out on paper instead
of by running the network: ``second moment`` E[x^2] of every tensor is estimated from those of its inputs, and each
layer's weights are drawn so that its output's is what is wanted. So activations neither vanish nor explode, batch
normalization meets the mean and variance it was told, local response normalization has something to normalize, and
the last layer's outputs spread like a classifier's: an error anywhere shows at the output.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]

LOGIT_STD = 2.0
BEFORE_LRN_STD = 100.0
"""Trained networks with local response normalization see pixels of 0 to 255, and features of this order."""

_HALVES = 0.5  # of a symmetric distribution's second moment, what a rectifier leaves

_UNARY_GAIN: dict[str, float] = {
    "Relu": _HALVES, "Clip": _HALVES, "LeakyRelu": _HALVES * 1.01, "HardSwish": 0.35, "Tanh": 0.4, "Sigmoid": 0.3,
    "HardSigmoid": 0.3, "GlobalAveragePool": 0.35, "ReduceMean": 0.35, "AveragePool": 0.9, "Resize": 0.6,
}  # fmt: skip
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def declare_weight(name: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    """A float32 initializer that has a shape, and no data yet."""
    return onnx.TensorProto(name=name, dims=shape, data_type=onnx.TensorProto.FLOAT)


def is_unfilled(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and not tensor.raw_data and not tensor.float_data


def fill_weights(model: onnx.ModelProto, seed: int = 0, input_std: float = 1.0) -> onnx.ModelProto:
    """Fills every initializer made by ``declare_weight``, in place, and returns the model.

    Args:
        input_std: root of the mean square of the elements that the model will be fed.
    """
    _Filler(model, seed, input_std).run()
    return model


class _Filler:
    def __init__(self, model: onnx.ModelProto, seed: int, input_std: float) -> None:
        graph = model.graph
        self.nodes = list(graph.node)
        self.seed = seed
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.unfilled = {name: tensor for name, tensor in self.initializers.items() if is_unfilled(tensor)}
        self.moments = {value.name: input_std**2 for value in graph.input if value.name not in self.initializers}
        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and not is_unfilled(tensor):
                self.moments[tensor.name] = float(np.mean(numpy_helper.to_array(tensor) ** 2))
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        weighted = [node for node in self.nodes if self._is_layer(node)]
        self.last = weighted[-1].output[0]

    def run(self) -> None:
        for node in self.nodes:
            if node.op_type in ("Unsqueeze", "Reshape") and node.input[0] in self.unfilled:
                self.unfilled[node.output[0]] = self.unfilled[node.input[0]]
                continue
            moment = self._second_moment(node)
            for name in node.output:
                self.moments[name] = moment
        missing = [tensor.name for tensor in self.initializers.values() if is_unfilled(tensor) and self._used(tensor)]
        if missing:
            raise ValueError(f"no rule gives weights to {', '.join(missing)}")

    def _is_layer(self, node: onnx.NodeProto) -> bool:
        """Whether it has weights to fill; a product with numbers that the topology gives is arithmetic."""
        return node.op_type in _WEIGHTED and node.input[1] not in self.moments

    def _used(self, tensor: onnx.TensorProto) -> bool:
        return tensor.name in self.readers

    def _set(self, name: str, draw: Callable[[np.random.Generator, tuple[int, ...]], Array]) -> None:
        tensor = self.unfilled[name]
        rng = np.random.default_rng([self.seed, zlib.crc32(tensor.name.encode())])
        tensor.raw_data = draw(rng, tuple(tensor.dims)).astype(np.float32, copy=False).tobytes()

    def _normal(self, name: str, std: float, mean: float = 0.0) -> None:
        self._set(name, lambda rng, shape: rng.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean))

    def _filters(self, node: onnx.NodeProto, fan_in: float, std: float) -> None:
        """Draws filters under which the output keeps depending on the picture, as in a trained network.

        Large ones sum to zero: what is common to all inputs cancels. Those of one channel have a share of blur:
        what is large in the picture stays.
        """
        outputs_last = node.op_type in ("Gemm", "MatMul") and not _attribute(node, "transB", 0)
        depthwise = _attribute(node, "group", 1) > 1 and self._shape(node.input[1])[1] == 1
        zero_sum = fan_in >= 16 and node.op_type != "ConvTranspose" and not depthwise
        if depthwise:
            coherent = 1 + 0.6 * (fan_in - 1)
            std /= float(np.sqrt(0.75 + 0.25 * coherent))

        def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
            weight = rng.standard_normal(shape, np.float32)
            if zero_sum:
                flat = weight.T if outputs_last else weight.reshape(shape[0], -1)
                flat -= flat.mean(axis=1, keepdims=True)
            if depthwise:
                weight = np.float32(np.sqrt(0.75)) * weight + np.float32(0.5)
            weight *= np.float32(std)
            return weight

        self._set(node.input[1], draw)

    def _uniform(self, name: str, low: float, high: float) -> None:
        self._set(name, lambda rng, shape: rng.uniform(low, high, shape))

    def _second_moment(self, node: onnx.NodeProto) -> float:
        """Fills the node's weights, and estimates its output's second moment."""
        inputs = [self.moments[name] for name in node.input if name in self.moments]
        if self._is_layer(node):
            return self._fill_weighted(node, inputs[0])
        if node.op_type == "BatchNormalization":
            return self._fill_batchnorm(node, inputs[0])
        if node.op_type in ("Mul", "Add") and any(name in self.unfilled for name in node.input):
            name = next(name for name in node.input if name in self.unfilled)
            if node.op_type == "Mul":
                self._uniform(name, 0.6, 1.4)
                return inputs[0]
            self._normal(name, 0.25)
            return inputs[0] + 0.06
        match node.op_type:
            case "Mul":
                return float(np.prod(inputs))
            case "Add" | "Sum":
                return float(np.sum(inputs))
            case "Concat":
                return float(np.mean(inputs))
            case "LRN":
                alpha, beta, bias = (_attribute(node, key, 0.0) for key in ("alpha", "beta", "bias"))
                return inputs[0] / (bias + alpha * inputs[0]) ** (2 * beta)
            case "MaxPool":
                return inputs[0] * (1 + 0.5 * np.log2(np.prod(_attribute(node, "kernel_shape", [1]))))
            case _:
                return inputs[0] * _UNARY_GAIN.get(node.op_type, 1.0) if inputs else 1.0

    def _fill_weighted(self, node: onnx.NodeProto, moment: float) -> float:
        shape = self._shape(node.input[1])
        match node.op_type:
            case "Conv":
                fan_in = math.prod(shape[1:])
            case "ConvTranspose":
                outputs_per_input = math.prod(_attribute(node, "strides", [1, 1]))
                fan_in = shape[0] * math.prod(shape[2:]) / outputs_per_input / _attribute(node, "group", 1)
            case _:
                fan_in = shape[1] if _attribute(node, "transB", 0) else shape[0]
        hidden_std = BEFORE_LRN_STD if self._feeds_lrn(node) else 1.0
        std = LOGIT_STD if node.output[0] == self.last else hidden_std
        self._filters(node, fan_in, std / float(np.sqrt(fan_in * moment)))
        if len(node.input) > 2 and node.input[2] in self.unfilled:
            self._normal(node.input[2], 0.2 * std)
        return 1.04 * std**2

    def _fill_batchnorm(self, node: onnx.NodeProto, moment: float) -> float:
        _, scale, bias, mean, variance = node.input
        self._uniform(scale, 0.6, 1.4)
        self._normal(bias, 0.25)
        self._normal(mean, 0.25 * float(np.sqrt(moment)))
        self._uniform(variance, 0.6 * moment, 1.6 * moment)
        return 1.15

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight as the node that uses it sees it."""
        for node in self.nodes:
            if node.op_type == "Reshape" and node.output[0] == name:
                return tuple(int(extent) for extent in numpy_helper.to_array(self.initializers[node.input[1]]))
        return tuple(self.unfilled[name].dims)

    def _feeds_lrn(self, node: onnx.NodeProto) -> bool:
        while True:
            readers = self.readers.get(node.output[0], [])
            if len(readers) != 1 or readers[0].op_type not in ("Relu", "MaxPool", "LRN"):
                return False
            node = readers[0]
            if node.op_type == "LRN":
                return True


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
