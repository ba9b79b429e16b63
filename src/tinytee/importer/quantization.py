"""What QuantizeLinear and DequantizeLinear say: parameters checked once, and constants evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tinytee.importer.values import Grid, Known, Refusal
from tinytee.ir.graph import Quant

_RANGES = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767), "int32": None,
           "uint4": (0, 15), "int4": (-8, 7), "uint2": (0, 3), "int2": (-2, 1)}  # fmt: skip
_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
_DYNAMIC = "quantize statically, so that scales are constants (onnxruntime.quantization.quantize_static)"


@dataclass(frozen=True, eq=False)
class Parameters:
    """Scale and zero point of integers of one type.

    Attributes:
        scale: float32 [n]; zero_point: int64 [n].
        axis: that of n elements; None where n = 1.
        dtype: the integers'.
        low, high: the integers' range.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int | None
    dtype: np.dtype
    low: int
    high: int

    @property
    def quant(self) -> Quant | None:
        """As the quant of a uint8 tensor; None for another width, or for several scales."""
        if self.axis is not None or self.dtype.name not in ("int8", "uint8"):
            return None
        return Quant(float(self.scale[0]), int(self.zero_point[0]) + (128 if self.dtype == np.int8 else 0))

    def shaped(self, array: NDArray, rank: int) -> NDArray:
        """Scale or zero point, to broadcast against a value of ``rank`` axes."""
        return array.reshape(()) if self.axis is None else array.reshape([-1] + [1] * (rank - 1 - self.axis))


def parameters(
    scale: Known | None, zero_point: Known | None, shape: Sequence[int], axis: int, dtype: np.dtype | None
) -> Parameters:
    """Checks scale and zero point of a value of ``shape``.

    Args:
        scale: None where it is not known at compile time.
        zero_point: None where the node omits it: zero.
        shape: of the value.
        axis: the node's, which counts where the scale has several elements.
        dtype: of the integers, where the value has one; else the zero point's.

    Raises:
        Refusal: naming what is wrong with them.
    """
    if scale is None:
        raise Refusal(f"its scale depends on the model's inputs; {_DYNAMIC}")
    scales = np.asarray(scale.array)
    if scales.dtype != np.float32:
        raise Refusal(f"a scale of type {scales.dtype} is not supported, only float32")
    if scales.ndim > 1:
        raise Refusal(f"scales of the shape {scales.shape} (blocks) are not supported, only one, or one a channel")
    bad = scales[~(np.isfinite(scales) & (scales > 0))]
    if bad.size:
        raise Refusal(
            f"its scale is {bad.reshape(-1)[0]}; scales are positive, finite numbers: quantize the model anew"
        )
    along = _axis(scales, shape, axis)
    found = zero_point.array if zero_point is not None else np.zeros(scales.shape, dtype or np.uint8)
    if dtype is not None and found.dtype != dtype:
        raise Refusal(f"its zero point is {found.dtype}, its integers are {dtype}")
    if found.dtype.name not in _RANGES:
        raise Refusal(f"its zero point is {found.dtype}; supported are {', '.join(_RANGES)}")
    if found.size != scales.size:
        raise Refusal(f"{found.size} zero points stand beside {scales.size} scales")
    limits = _RANGES[found.dtype.name]
    zeros = found.reshape(-1).astype(np.int64)
    if limits is None and zeros.any():
        raise Refusal("int32 values have the zero point 0")
    low, high = limits or (-(2**31), 2**31 - 1)
    return Parameters(scales.reshape(-1), zeros, along, found.dtype, low, high)


def _axis(scales: NDArray, shape: Sequence[int], axis: int) -> int | None:
    if scales.size == 1:
        return None
    if not -len(shape) <= axis < len(shape):
        raise Refusal(f"axis {axis} of its scales is beyond a value of {len(shape)} axes")
    axis %= len(shape)
    if scales.size != shape[axis]:
        raise Refusal(f"{scales.size} scales meet an axis of {shape[axis]} elements")
    return axis


def node_axis(node: ir.Node) -> int:
    """The attribute ``axis`` of QuantizeLinear or DequantizeLinear."""
    found = node.attributes.get("axis")
    return 1 if found is None else int(found.value)


def has_blocks(node: ir.Node) -> bool:
    found = node.attributes.get("block_size")
    return found is not None and int(found.value) != 0


def fold_quantization(node: ir.Node, inputs: Sequence[Known | None]) -> Known | None:
    """QuantizeLinear or DequantizeLinear of a constant; None where the node is another, or has blocks.

    Raises:
        Refusal: see ``parameters``.
    """
    if node.op_type not in _QUANTIZATION or has_blocks(node) or len(inputs) < 2 or inputs[0] is None:
        return None
    value = inputs[0].array
    zero_point = inputs[2] if len(inputs) > 2 else None
    dtype = value.dtype if node.op_type == "DequantizeLinear" else None
    found = parameters(inputs[1], zero_point, value.shape, node_axis(node), dtype)
    if node.op_type == "DequantizeLinear":
        return dequantized(value, found)
    with np.errstate(all="ignore"):
        steps = np.rint(value.astype(np.float32) / found.shaped(found.scale, value.ndim))
    return Known(np.clip(steps + found.shaped(found.zero_point, value.ndim), found.low, found.high).astype(found.dtype))


def dequantized(integers: NDArray, found: Parameters) -> Known:
    """A constant given as integers, as float32 with its grid."""
    rank = integers.ndim
    steps = (integers.astype(np.int64) - found.shaped(found.zero_point, rank)).astype(np.float32)
    grid = Grid(found.scale, found.zero_point, found.axis, found.dtype)
    return Known((steps * found.shaped(found.scale, rank)).astype(np.float32), grid=grid)
