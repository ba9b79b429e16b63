"""Weights whose products add up in 16 bits, four to a lane (``ir.lanes``): a processor without dot products then needs
fewer instructions. The scale of a channel that lacks it grows, as little as will do, and its weights are rounded anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tinytee.ir.lanes import LANE_BOUND, lane_sums

_STEP = 1.002
"""A scale grows by this where rounding has spoilt what division promised."""


def limit_lane_sums(quantized: onnx.ModelProto, floating: onnx.ModelProto) -> onnx.ModelProto:
    """Makes four products fit a lane in every convolution and product by stored weights, depthwise ones apart.

    A product's weights count in the order in which they are stored. Behind a flattened map the core has another one,
    and may find that they do not fit.

    Args:
        quantized: QDQ, int8 weights of zero point 0, int32 biases in units of input scale times weight scale.
        floating: the model that it was made of, nodes of the same names.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(quantized)
    stored = {tensor.name: tensor for tensor in changed.graph.initializer}
    origin = {tensor.name: tensor for tensor in floating.graph.initializer}
    nodes = {node.name: node for node in floating.graph.node}
    dequantizers = {node.output[0]: node for node in changed.graph.node if node.op_type == "DequantizeLinear"}
    seen: set[str] = set()
    for node in changed.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.name not in nodes:
            continue
        of_weight, exact = dequantizers.get(node.input[1]), origin.get(nodes[node.name].input[1])
        if of_weight is None or exact is None or not set(of_weight.input[:2]) <= set(stored):
            continue
        name, unit = of_weight.input[:2]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        integers, scale = (numpy_helper.to_array(stored[given]).copy() for given in (name, unit))
        kernels = _kernels(numpy_helper.to_array(exact), node.op_type, attributes)
        view = _kernels(integers, node.op_type, attributes)
        groups, dilation_x = attributes.get("group", 1), attributes.get("dilations", [1])[-1]
        if name in seen or integers.dtype != np.int8 or view is None or kernels is None or groups == len(integers) > 1:
            continue
        seen.add(name)
        before = np.broadcast_to(scale.reshape(-1), len(view))
        after = limited_scales(kernels, view, before, groups, dilation_x)
        if scale.size == 1:
            after = np.full_like(after, after.max())
        grown = after > before
        if not grown.any():
            continue
        view[grown] = rounded(kernels, after)[grown]
        stored[name].CopyFrom(numpy_helper.from_array(integers, name))
        stored[unit].CopyFrom(numpy_helper.from_array(after[: scale.size].reshape(scale.shape), unit))
        of_bias = dequantizers.get(node.input[2]) if len(node.input) > 2 else None
        if of_bias is not None:
            _grow_bias(stored, of_bias, after.astype(np.float64) / before)
    return changed


def _kernels(weight: NDArray, kind: str, attributes: dict[str, Any]) -> NDArray | None:
    """A view [out_channels, kernel_y, kernel_x, channels of a group]; None where there is none."""
    if kind == "Conv":
        return weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else None
    if weight.ndim != 2:
        return None
    return (weight if attributes.get("transB", 0) else weight.T)[:, None, None, :]


def _grow_bias(stored: dict[str, onnx.TensorProto], of_bias: onnx.NodeProto, growth: NDArray) -> None:
    name, unit = of_bias.input[:2]
    bias, scale = (numpy_helper.to_array(stored[given]) for given in (name, unit))
    stored[name].CopyFrom(numpy_helper.from_array(np.rint(bias / growth).astype(bias.dtype), name))
    grown = (scale * growth[: scale.size].reshape(scale.shape)).astype(scale.dtype)
    stored[unit].CopyFrom(numpy_helper.from_array(grown, unit))


def limited_scales(
    kernels: NDArray, integers: NDArray, scales: NDArray, groups: int, dilation_x: int
) -> NDArray[np.float32]:
    """Scales, those given or larger, in whose units no lane of four products exceeds the bound.

    Args:
        kernels: float32 weights [out_channels, kernel_y, kernel_x, channels of a group].
        integers: what they are in units of the scales given.
        scales: of the output channels.
        groups: of the convolution.
        dilation_x: likewise.
    """
    found = scales.astype(np.float32)
    sums = lane_sums(integers, groups, dilation_x, 4)
    while (over := sums > LANE_BOUND).any():
        found[over] *= np.maximum(_STEP, sums[over] / (LANE_BOUND + 1)).astype(np.float32)
        sums = np.where(over, lane_sums(rounded(kernels, found), groups, dilation_x, 4), 0)
    return found


def rounded(kernels: NDArray, scales: NDArray) -> NDArray[np.int8]:
    """Weights in units of a scale for each output channel."""
    units = scales.astype(np.float64).reshape(-1, 1, 1, 1)
    return np.clip(np.rint(kernels / units), -127, 127).astype(np.int8)
