"""Writes topologies as torch.onnx does: one node a module, batch normalization apart, named weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from tinytee.zoo.weights import declare_weight


class Feature(NamedTuple):
    """A feature map under construction: its tensor's name, and how many channels (or features) it has."""

    name: str
    channels: int


class Builder:
    """Collects nodes and weights; ``model`` closes it.

    Layers take a ``name``, as of a PyTorch module: their weights are then those of the state dict ``trained`` under
    ``name.weight`` and so on. The weights of layers without a name are left to ``fill_weights``.
    """

    def __init__(
        self,
        name: str,
        *,
        opset: int,
        channels: int,
        height: int,
        width: int,
        input_name: str = "input",
        trained: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._name = name
        self._trained = trained or {}
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs = [helper.make_tensor_value_info(input_name, onnx.TensorProto.FLOAT, [1, channels, height, width])]
        self.input = Feature(input_name, channels)

    def op(self, kind: str, *inputs: Feature | str, channels: int | None = None, **attributes) -> Feature:
        """Any node with one output; it has as many channels as its first input unless told otherwise."""
        number = len(self._nodes)
        names = [item.name if isinstance(item, Feature) else item for item in inputs]
        node = helper.make_node(kind, names, [f"{kind}_{number}_output"], name=f"{kind}_{number}", **attributes)
        self._nodes.append(node)
        if channels is None:
            first = inputs[0]
            assert isinstance(first, Feature)
            channels = first.channels
        return Feature(node.output[0], channels)

    def constant(self, value: np.ndarray, hint: str) -> str:
        """Stores an array; returns its name."""
        name = f"{hint}_{len(self._nodes)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _layer(self, kind: str, name: str | None, shapes: dict[str, tuple[int, ...]]) -> list[str]:
        """Adds a layer's weights, by the names of the module's parameters; returns their names."""
        prefix = name or f"{kind}_{len(self._nodes)}"
        for part, shape in shapes.items():
            if name is None:
                self._weights.append(declare_weight(f"{prefix}.{part}", shape))
                continue
            value = self._trained[f"{name}.{part}"]
            if value.shape != shape:
                raise ValueError(f"{name}.{part} has the shape {value.shape}, the topology wants {shape}")
            self._weights.append(numpy_helper.from_array(value, f"{name}.{part}"))
        return [f"{prefix}.{part}" for part in shapes]

    def conv(
        self,
        x: Feature,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        pads: tuple[int, int, int, int] | None = None,
        same_upper: bool = False,
        name: str | None = None,
    ) -> Feature:
        """Conv with padding kernel // 2 on all sides, or ``pads`` (top, left, bottom, right), or SAME_UPPER."""
        shapes: dict[str, tuple[int, ...]] = {"weight": (out_channels, x.channels // groups, kernel, kernel)}
        if bias:
            shapes["bias"] = (out_channels,)
        padding: dict[str, object] = {"pads": pads or (kernel // 2,) * 4}
        return self.op(
            "Conv",
            x,
            *self._layer("conv", name, shapes),
            channels=out_channels,
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            dilations=(1, 1),
            group=groups,
            **({"auto_pad": "SAME_UPPER"} if same_upper else padding),
        )

    def conv_transpose(self, x: Feature, out_channels: int, kernel: int, stride: int) -> Feature:
        shapes = {"weight": (x.channels, out_channels, kernel, kernel), "bias": (out_channels,)}
        return self.op(
            "ConvTranspose",
            x,
            *self._layer("up", None, shapes),
            channels=out_channels,
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            pads=(0, 0, 0, 0),
            dilations=(1, 1),
            group=1,
        )

    def batchnorm(self, x: Feature, epsilon: float = 1e-5, name: str | None = None) -> Feature:
        names = self._layer("bn", name, dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (x.channels,)))
        return self.op("BatchNormalization", x, *names, epsilon=epsilon, momentum=0.9)

    def relu6(self, x: Feature) -> Feature:
        low, high = (self.constant(np.array(limit, np.float32), f"clip.{limit}") for limit in (0, 6))
        return self.op("Clip", x, low, high)

    def linear(self, x: Feature, out_features: int, name: str | None = None) -> Feature:
        names = self._layer("fc", name, {"weight": (out_features, x.channels), "bias": (out_features,)})
        return self.op("Gemm", x, *names, channels=out_features, alpha=1.0, beta=1.0, transB=1)

    def max_pool(self, x: Feature, kernel: int, stride: int, **attributes) -> Feature:
        return self.op("MaxPool", x, kernel_shape=(kernel, kernel), strides=(stride, stride), **attributes)

    def flatten(self, x: Feature, pixels: int = 1) -> Feature:
        """Flatten of a map of so many pixels."""
        return self.op("Flatten", x, channels=x.channels * pixels, axis=1)

    def concat(self, *parts: Feature) -> Feature:
        return self.op("Concat", *parts, channels=sum(part.channels for part in parts), axis=1)

    def split(self, x: Feature, channels: Sequence[int]) -> tuple[Feature, ...]:
        """Its channels, so many for each part."""
        sizes = self.constant(np.array(channels), "split")
        name = f"Split_{len(self._nodes)}"
        parts = [f"{name}_output_{part}" for part in range(len(channels))]
        self._nodes.append(helper.make_node("Split", [x.name, sizes], parts, name, axis=1))
        return tuple(map(Feature, parts, channels))

    def model(self, result: Feature, output_name: str = "output") -> onnx.ModelProto:
        """The whole model with ``result`` as its output; its shape is inferred."""
        for node in self._nodes:
            if node.output[0] == result.name:
                node.output[0] = output_name
        output = helper.make_tensor_value_info(output_name, onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, self._name, self._inputs, [output], self._weights)
        opset = helper.make_opsetid("", self._opset)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="tinytee.zoo")
        inferred = shape_inference.infer_shapes(model, strict_mode=True)
        model.graph.output[0].CopyFrom(inferred.graph.output[0])
        return model
