"""Quantized models: QuantizeLinear and DequantizeLinear as they are, and the fused forms (QLinearConv, ...) taken apart
into dequantization, the float32 operator and quantization, from which ``passes`` makes integer operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.importer.handlers import linear, movement, normalize, reduce, window
from tinytee.importer.handlers.samples import always, first_only, pointwise
from tinytee.importer.quantization import Parameters, dequantized, has_blocks, node_axis, parameters
from tinytee.importer.registry import Call, Result, handles
from tinytee.importer.values import Known, Refusal, Value

_MS = "com.microsoft"
_DYNAMIC = (
    "quantizes each input anew, at run time; quantize the model statically instead: 'tinytee compile --precision int8"
    " --calibrate FOLDER' on the float32 model, or onnxruntime.quantization.quantize_static"
)


def _parameters(call: Call, value: Result, scale: int, zero_point: int, axis: int, integers: bool) -> Parameters:
    """The parameters at two positions; ``integers``: ``value`` has their type."""
    found = call.any(scale)
    zero = call.any(zero_point) if call.has(zero_point) else None
    if isinstance(zero, Value):
        raise Refusal("its zero point depends on the model's inputs")
    shape = value.array.shape if isinstance(value, Known) else value.shape
    dtype = (value.array.dtype if isinstance(value, Known) else value.dtype) if integers else None
    return parameters(found if isinstance(found, Known) else None, zero, shape, axis, dtype)


def to_float(call: Call, position: int, scale: int, zero_point: int, axis: int = 1) -> Result:
    """The integers at ``position`` as the float32 that they stand for."""
    value = call.any(position)
    found = _parameters(call, value, scale, zero_point, axis, integers=True)
    if isinstance(value, Known):
        return dequantized(value.array, found)
    if found.quant is not None:
        return call.builder.dequantize(value, found.quant)
    builder, rank = call.builder, value.rank
    value = replace(builder.widen(value), dtype=np.dtype(np.float32))
    if found.zero_point.any():
        zeros = found.shaped(found.zero_point, rank).astype(np.float32)
        value = builder.binary("sub", value, Known(zeros))
    return builder.binary("mul", value, Known(found.shaped(found.scale, rank)))


def to_integers(call: Call, value: Value, scale: int, zero_point: int, axis: int = 1) -> Value:
    """A float32 value as integers of the zero point's type."""
    return _quantize(call, value, _parameters(call, value, scale, zero_point, axis, integers=False))


def _quantize(call: Call, value: Value, found: Parameters) -> Value:
    if value.dtype != np.float32:
        raise Refusal(f"quantizes {value.dtype}; only float32 is supported")
    builder, rank = call.builder, value.rank
    if found.quant is not None:
        return builder.quantize(value, found.quant, found.dtype)
    if found.dtype.name not in ("int8", "uint8", "int16", "uint16"):
        raise Refusal(f"activations of type {found.dtype} are not supported, only of 8 or 16 bits")
    steps = builder.unary(builder.binary("div", value, Known(found.shaped(found.scale, rank))), "round")
    if found.zero_point.any():
        zeros = found.shaped(found.zero_point, rank).astype(np.float32)
        steps = builder.binary("add", steps, Known(zeros))
    return builder.unary(steps, "clip", found.low, found.high, dtype=found.dtype)


@handles("QuantizeLinear", f"{_MS}:QuantizeLinear", sample_wise=first_only)
def quantize_linear(call: Call) -> Value:
    call.forbid(has_blocks(call.node), "scales for blocks are not supported, only one, or one a channel")
    value, axis = call.value(), node_axis(call.node)
    if not call.has(2) and call.int("output_dtype", 0):
        kind = call.int("output_dtype")
        call.forbid(kind not in (2, 3, 4, 5), "its output_dtype is not an integer of 8 or 16 bits")
        zero = np.zeros(call.shape(1), {2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16}[kind])
        return to_integers(replace(call, inputs=[*call.inputs[:2], Known(zero)]), value, 1, 2, axis)
    return to_integers(call, value, 1, 2, axis)


@handles("DequantizeLinear", f"{_MS}:DequantizeLinear", sample_wise=first_only, bytewise=True)
def dequantize_linear(call: Call) -> Result:
    call.forbid(has_blocks(call.node), "scales for blocks are not supported, only one, or one a channel")
    return to_float(call, 0, 1, 2, node_axis(call.node))


@handles("DynamicQuantizeLinear", sample_wise=always)
@handles(*(f"{_MS}:{name}" for name in ("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat")),
         sample_wise=always)  # fmt: skip
def dynamic(call: Call) -> Value:
    raise Refusal(_DYNAMIC)


@handles("ConvInteger", "MatMulInteger", sample_wise=always, bytewise=True)
def raw_integers(call: Call) -> Value:
    raise Refusal(
        "yields sums of 32 bits, as models do that are quantized dynamically; quantize the model statically instead:"
        " 'tinytee compile --precision int8 --calibrate FOLDER' on the float32 model"
    )


def _bias(call: Call, position: int, scales: tuple[int, int]) -> list[Result | None]:
    """The int32 bias, in units of the product of two scales."""
    if not call.has(position):
        return []
    product = np.ones((), np.float32)
    for scale in scales:
        product = product * call.constant(scale, "a scale").astype(np.float32)
    bias = call.constant(position, "the bias")
    call.forbid(bias.dtype != np.int32, f"its bias is {bias.dtype}, not int32")
    return [Known((bias.astype(np.float64) * product.reshape(-1)).astype(np.float32))]


def _only_channels_first(call: Call) -> None:
    call.forbid(bool(call.int("channels_last", 0)), "channels_last = 1 is not supported; export with channels first")


@handles("QLinearConv", f"{_MS}:QLinearConv", sample_wise=first_only, bytewise=True)
def qlinear_conv(call: Call) -> Value:
    _only_channels_first(call)
    weight = to_float(call, 3, 4, 5, axis=0)
    inputs = [to_float(call, 0, 1, 2), weight, *_bias(call, 8, (1, 4))]
    return to_integers(call, window.conv(replace(call, inputs=inputs)), 6, 7)


def _matmul_call(call: Call) -> Call:
    """MatMul of what the integers stand for; scales of one side's rows or columns."""
    left = to_float(call, 0, 1, 2, axis=-2) if isinstance(call.any(0), Known) else call.any(0)
    right = to_float(call, 3, 4, 5, axis=-1) if isinstance(call.any(3), Known) else call.any(3)
    return replace(call, inputs=[left, right])


@handles("QLinearMatMul", sample_wise=lambda call: linear.matmul_sample_wise(_matmul_call(call)), bytewise=True)
def qlinear_matmul(call: Call) -> Value:
    inner = _matmul_call(call)
    sides = [
        to_float(call, 3 * side, 3 * side + 1, 3 * side + 2) if isinstance(found, Value) else found
        for side, found in enumerate(inner.inputs)
    ]
    return to_integers(call, linear.matmul(replace(call, inputs=sides)), 6, 7)


@handles(f"{_MS}:QGemm", sample_wise=first_only, bytewise=True)
def qgemm(call: Call) -> Value:
    weight = to_float(call, 3, 4, 5, axis=0 if call.int("transB", 0) else 1)
    bias = _bias(call, 6, (1, 4))
    if bias and isinstance(bias[0], Known):
        bias = [Known(bias[0].array * np.float32(call.float("alpha", 1.0)))]
    result = linear.gemm(replace(call, inputs=[to_float(call, 0, 1, 2), weight, *bias]))
    return to_integers(call, result, 7, 8) if call.has(7) else result


@handles(f"{_MS}:QLinearAdd", f"{_MS}:QLinearMul", sample_wise=pointwise, bytewise=True)
def qlinear_binary(call: Call) -> Value:
    sides = [to_float(call, 0, 1, 2), to_float(call, 3, 4, 5)]
    kind = "add" if call.op_type == "QLinearAdd" else "mul"
    return to_integers(call, call.builder.binary(kind, *sides), 6, 7)


def _concat_within(call: Call) -> bool:
    return call.axis(call.int("axis"), len(call.shape(2))) != 0


@handles(f"{_MS}:QLinearConcat", sample_wise=_concat_within, bytewise=True)
def qlinear_concat(call: Call) -> Value:
    parts: list[Result | None] = [to_float(call, at, at + 1, at + 2) for at in range(2, len(call.inputs), 3)]
    return to_integers(call, movement.concat(replace(call, inputs=parts)), 0, 1)


@handles(f"{_MS}:QLinearAveragePool", f"{_MS}:QLinearGlobalAveragePool", sample_wise=first_only, bytewise=True)
def qlinear_pool(call: Call) -> Value:
    _only_channels_first(call)
    inner = replace(call, inputs=[to_float(call, 0, 1, 2)], alias=call.op_type.removeprefix("QLinear"))
    result = window.pool(inner) if call.op_type == "QLinearAveragePool" else window.global_pool(inner)
    return to_integers(call, result, 3, 4)


@handles(f"{_MS}:QLinearSigmoid", f"{_MS}:QLinearLeakyRelu", sample_wise=first_only, bytewise=True)
def qlinear_function(call: Call) -> Value:
    value = _value(call)
    if call.op_type == "QLinearSigmoid":
        return to_integers(call, call.builder.unary(value, "sigmoid"), 3, 4)
    return to_integers(call, call.builder.unary(value, "leaky_relu", call.float("alpha", 0.01)), 3, 4)


def _value(call: Call) -> Value:
    found = to_float(call, 0, 1, 2)
    return call.builder.promote(found) if isinstance(found, Known) else found


def _softmax_call(call: Call) -> Call:
    return replace(call, alias="Softmax", version=call.int("opset", 13))


@handles(f"{_MS}:QLinearSoftmax", sample_wise=lambda call: normalize.along_last(_softmax_call(call)), bytewise=True)
def qlinear_softmax(call: Call) -> Value:
    return to_integers(call, normalize.softmax(replace(_softmax_call(call), inputs=[_value(call)])), 3, 4)


def _mean_call(call: Call) -> Call:
    return replace(call, inputs=call.inputs[:1], alias="ReduceMean")


@handles(
    f"{_MS}:QLinearReduceMean", sample_wise=lambda call: reduce.keeps_samples(_mean_call(call)), bytewise=True
)  # fmt: skip
def qlinear_mean(call: Call) -> Value:
    return to_integers(call, reduce.reduction(replace(_mean_call(call), inputs=[_value(call)])), 3, 4)
