"""Operators on uint8 tensors, and the arithmetic that they share.

uint8 is the one integer type that tensors have: a model's int8 activations become uint8 by adding 128 to values and
zero points. Weights are int8 with the zero point 0. Every result is defined to the bit:

- sums of products are exact in int32;
- they are converted to float32 and scaled in float32, every operation rounded once, in the order written; ``fma`` is
  one operation;
- ``requantize``: rounded to the nearest integer, ties to even, the zero point added, cut to what is allowed;
  ``to_bytes``: the same of a value that the zero point was added to before.

The order is that of ONNX Runtime's optimized operators on x86-64, whose results these are, to the bit.

No operator here applies ``activation``, but for a convolution with a float32 result: relu and clip of a uint8 result
are its bounds ``low`` and ``high``. Concat, Gather, DepthToSpace, SpaceToDepth and Permute move uint8 elements as they
are, where the quants of all inputs and the output are the same; -1 in a Gather then stands for ``quantized_fill``.
All other operators of ``ir.graph`` read and write float32 only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinytee.ir.graph import Array, Concat, DepthToSpace, Gather, Op, Permute, Quant, SpaceToDepth

Bytes = NDArray[np.uint8]
SignedBytes = NDArray[np.int8]
Words = NDArray[np.int32]

MOVING = (Concat, Gather, DepthToSpace, SpaceToDepth, Permute)
"""Operators that move elements whatever their type."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantize(Op):
    """float32 to uint8: requantize(x / scale) of the output's quant; NaN becomes 0, the least."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Dequantize(Op):
    """uint8 to float32: float32(x - zero_point) * scale of the input's quant."""


@dataclass(frozen=True, eq=False, kw_only=True)
class QConv(Op):
    """Convolution of uint8 by int8; also Gemm and MatMul, as Conv.

    acc[c] = bias[c] + sum (x - zero point of the input) * weight, in int32; padding adds nothing to it. The output is
    requantize(float32(acc[c]) * multiplier[c]) within low and high where it has a quant, and
    activation(float32(acc[c]) * multiplier[c]) in float32 where it has none (identity, relu or clip).

    inputs: x. weight: [out_channels, kernel_y, kernel_x, in_channels / groups].
    bias: [out_channels], in units of the input's scale times the weight's.
    multiplier: [out_channels], input scale * weight scale / output scale, or without the output scale.
    low, high: bounds of a uint8 output.
    """

    weight: SignedBytes
    bias: Words
    multiplier: Array
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    low: int = 0
    high: int = 255


@dataclass(frozen=True, eq=False, kw_only=True)
class QDepthwiseConv(Op):
    """One filter a channel; otherwise as QConv.

    weight: [kernel_y, kernel_x, channels]; bias, multiplier: [channels].
    """

    weight: SignedBytes
    bias: Words
    multiplier: Array
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    low: int = 0
    high: int = 255


@dataclass(frozen=True, eq=False, kw_only=True)
class QBinary(Op):
    """Elementwise on two uint8 operands, broadcast as Binary's; the quants are a's, b's and the output's.

    add, with the factors and the offset of ``addition``: to_bytes(fma(a, of_a, fma(b, of_b, offset))).
    sum, sub: requantize((dequantize(a) +- dequantize(b)) / scale of the output): what models quantize as Sum and Sub.
    mul: to_bytes(float32((a - zero) * (b - zero)) * product_ratio(a, b, out) + float32(zero point of the output)).

    inputs: two tensors, or one where ``constant`` ([1|height, 1|width, 1|channels], with its quant) is the other
    operand: the second, or the first if ``constant_first``.
    """

    kind: Literal["add", "sum", "sub", "mul"]
    constant: Bytes | None = None
    constant_quant: Quant | None = None
    constant_first: bool = False
    low: int = 0
    high: int = 255


@dataclass(frozen=True, eq=False, kw_only=True)
class QLut(Op):
    """out = table[x]: any function of one element, and the change from one quant to another. table: [256]."""

    table: Bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class QPool(Op):
    """Max or average pooling, windows as Pool's.

    max: input and output have one quant; padding never wins. average, over the n elements that a window counts:
    to_bytes(sum / float32(n) / scale of the output + float32(zero point of the output)), where the sum, in float32,
    adds float32(x - zero) * scale of the input in the order y, x; padding adds nothing to it.
    """

    kind: Literal["max", "average"]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    count_include_pad: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class QReduce(Op):
    """Mean over y and x: output 1 x 1 x channels. Consumes its input row by row.

    requantize(float32(sum (x - zero)) * mean_factor(in, out, n)), n = height * width of the input.
    """

    kind: Literal["mean"] = "mean"


@dataclass(frozen=True, eq=False, kw_only=True)
class QLrn(Op):
    """Lrn of what the bytes stand for, a pixel at a time: quantize(Lrn(dequantize(x)))."""

    size: int
    alpha: float
    beta: float
    bias: float


QUANTIZED = (Quantize, Dequantize, QConv, QDepthwiseConv, QBinary, QLut, QPool, QReduce, QLrn)


def ratio(source: Quant, target: Quant) -> np.float32:
    """source scale / target scale, in float32."""
    return np.float32(source.scale) / np.float32(target.scale)


def product_ratio(left: Quant, right: Quant, target: Quant) -> np.float32:
    """left scale * right scale / target scale, in float32, from the left."""
    return np.float32(left.scale) * np.float32(right.scale) / np.float32(target.scale)


def mean_factor(source: Quant, target: Quant, count: int) -> np.float32:
    """source scale / (target scale * count), in float32."""
    return np.float32(source.scale) / (np.float32(target.scale) * np.float32(count))


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> NDArray[np.float32]:
    """a * b + c of float32 values, rounded once: where float64 holds the sum exactly, as ``adds_exactly`` says."""
    wide = [np.asarray(value, np.float32).astype(np.float64) for value in (a, b, c)]
    return (wide[0] * wide[1] + wide[2]).astype(np.float32)


def addition(left: Quant, right: Quant, target: Quant) -> tuple[np.float32, np.float32, np.float32]:
    """Factors of both operands, and the offset that stands for all three zero points."""
    of_left, of_right = ratio(left, target), ratio(right, target)
    zeros = fma(of_left, left.zero_point, of_right * np.float32(right.zero_point))
    return of_left, of_right, np.float32(target.zero_point) - np.float32(zeros)


def adds_exactly(left: Quant, right: Quant, target: Quant) -> bool:
    """Whether float64 holds every sum of an addition, so that a processor without fused operations can do them, too.

    All terms are multiples of some power of two; their sum must stay below 2 ** 53 times that power.
    """
    terms = [float(term) for term in addition(left, right, target)]
    if not np.isfinite(terms).all():
        return False
    most = 255 * terms[0] + 255 * terms[1] + abs(terms[2])
    return most * max(term.as_integer_ratio()[1] for term in terms) < 2**53


def to_bytes(value: NDArray, low: int = 0, high: int = 255) -> Bytes:
    """float32 to uint8: rint, ties to even; within low and high; NaN to low."""
    rounded = np.rint(value.astype(np.float32))
    return np.clip(np.where(np.isnan(rounded), np.float32(low), rounded), low, high).astype(np.uint8)


def requantize(value: NDArray, quant: Quant, low: int = 0, high: int = 255) -> Bytes:
    """float32 in units of the scale, to uint8: rint, ties to even; + zero point; within low and high; NaN to low."""
    rounded = np.rint(value.astype(np.float32))
    bounded = np.clip(
        np.where(np.isnan(rounded), np.float32(-np.inf), rounded), low - quant.zero_point, high - quant.zero_point
    )
    return (bounded + quant.zero_point).astype(np.uint8)


def quantize(value: NDArray, quant: Quant) -> Bytes:
    """What Quantize computes, elementwise."""
    with np.errstate(all="ignore"):
        return requantize(value.astype(np.float32) / np.float32(quant.scale), quant)


def dequantize(value: Bytes, quant: Quant) -> NDArray[np.float32]:
    """What Dequantize computes, elementwise."""
    return (value.astype(np.int32) - quant.zero_point).astype(np.float32) * np.float32(quant.scale)


def quantized_fill(op: Gather, quant: Quant) -> int:
    """The uint8 that stands where a Gather of uint8 elements picks nothing: the zero point for the usual 0."""
    return int(quantize(np.array(op.fill, np.float32), quant))
