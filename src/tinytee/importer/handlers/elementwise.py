"""Functions of one element, and elementwise operators on several tensors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from tinytee.importer.handlers.samples import first_only, pointwise
from tinytee.importer.registry import Call, Result, handles
from tinytee.importer.values import Known, Refusal, Value

_PLAIN = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Abs": "abs",
    "Neg": "neg",
    "Reciprocal": "reciprocal",
    "Erf": "erf",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sign": "sign",
    "HardSwish": "hard_swish",
    "Mish": "mish",
}
_WITH_ALPHA = {
    "LeakyRelu": ("leaky_relu", 0.01),
    "Elu": ("elu", 1.0),
    "Celu": ("celu", 1.0),
    "ThresholdedRelu": ("thresholded_relu", 1.0),
    "Swish": ("swish", 1.0),
}
_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "PRelu": "prelu"}
_CHAIN = {"Max": "max", "Min": "min", "Sum": "add", "Mean": "add"}
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


@handles(*_PLAIN, *_WITH_ALPHA, "Selu", "HardSigmoid", "Gelu", sample_wise=pointwise)
def function(call: Call) -> Value:
    call.float_only(0)
    value, op_type = call.value(), call.op_type
    if op_type in _PLAIN:
        return call.builder.unary(value, _PLAIN[op_type])
    if op_type in _WITH_ALPHA:
        kind, default = _WITH_ALPHA[op_type]
        return call.builder.unary(value, kind, call.float("alpha", default))
    if op_type == "Selu":
        return call.builder.unary(value, "selu", call.float("alpha", _SELU_ALPHA), call.float("gamma", _SELU_GAMMA))
    if op_type == "HardSigmoid":
        return call.builder.unary(value, "hard_sigmoid", call.float("alpha", 0.2), call.float("beta", 0.5))
    approximate = call.text("approximate", "none")
    call.forbid(approximate not in ("none", "tanh"), f"approximate = '{approximate}' is unknown")
    return call.builder.unary(value, "gelu" if approximate == "none" else "gelu_tanh")


@handles("Clip", sample_wise=first_only)
def clip(call: Call) -> Value:
    call.float_only(0, integers=True)
    if call.version < 11:
        largest = float(np.finfo(np.float32).max)
        low, high = call.float("min", -largest), call.float("max", largest)
        low = -np.inf if low == -largest else low
        high = np.inf if high == largest else high
    elif any(isinstance(bound, Value) for bound in call.inputs[1:]):
        return _clip_to_computed(call)
    else:
        low = float(call.constant(1, "the minimum").reshape(())) if call.has(1) else -np.inf
        high = float(call.constant(2, "the maximum").reshape(())) if call.has(2) else np.inf
    if low == -np.inf and high == np.inf:
        return call.value()
    if low == 0 and high == np.inf:
        return call.builder.unary(call.value(), "relu")
    return call.builder.unary(call.value(), "clip", low, high)


def _clip_to_computed(call: Call) -> Value:
    """To bounds one of which, at least, depends on the model's inputs."""
    value = call.value()
    for position, kind in ((1, "max"), (2, "min")):
        if call.has(position):
            value = call.builder.binary(kind, value, call.any(position))
    return value


@handles(*_BINARY, sample_wise=pointwise)
def binary(call: Call) -> Value:
    call.float_only(0, 1)
    return call.builder.binary(_BINARY[call.op_type], call.any(0), call.any(1))


@handles("Pow", sample_wise=pointwise)
def power(call: Call) -> Value:
    call.float_only(0)
    exponent = call.any(1)
    if isinstance(exponent, Known) and exponent.array.size == 1 and exponent.array.ndim <= len(call.shape(0)):
        value, alpha = call.value(), float(call.constant(1, "the exponent").reshape(()))
        if alpha == 1:
            return value
        if alpha == 2:
            return call.builder.binary("mul", value, value)
        kind = {0.5: "sqrt", -1.0: "reciprocal"}.get(alpha)
        return call.builder.unary(value, kind) if kind else call.builder.unary(value, "pow", alpha)
    if isinstance(call.any(0), Known) and not isinstance(exponent, Known):
        exponent = _as(exponent, np.dtype(np.float32))
    if isinstance(exponent, Known):
        exponent = Known(call.constant(1, "the exponent").astype(np.float32))
    elif exponent.dtype.kind not in "fiu":
        raise Refusal(f"an exponent of type {exponent.dtype} is not supported")
    return call.builder.binary("pow", call.any(0), exponent)


@handles(*_CHAIN, sample_wise=pointwise)
def chain(call: Call) -> Result:
    call.float_only(integers=call.op_type in ("Max", "Min"))
    result = call.any(0)
    rest = [call.any(position) for position in range(1, len(call.inputs))]
    for item in rest:
        if isinstance(result, Known) and isinstance(item, Known):
            result = call.builder.promote(result)
        result = call.builder.binary(_CHAIN[call.op_type], result, item, apart=call.op_type == "Sum")
    if call.op_type == "Mean" and rest:
        result = call.builder.binary("mul", result, Known(np.float32(1 / len(call.inputs)).reshape(())))
    return result


@handles("Identity", sample_wise=pointwise, bytewise=True)
def identity(call: Call) -> Result:
    return call.any(0)


@handles("Dropout", sample_wise=first_only)
def dropout(call: Call) -> list[Result | None]:
    if call.version >= 12 and call.has(2) and bool(call.constant(2, "training_mode").reshape(())):
        ratio = float(call.constant(1, "the ratio").reshape(())) if call.has(1) else 0.5
        call.forbid(ratio != 0, "training mode drops elements at random; export the model for inference")
    value = call.value()
    mask_type = np.dtype(bool) if call.version >= 10 else value.dtype
    mask = Known(np.ones(value.shape, mask_type)) if call.output_count > 1 and is_used(call.node, 1) else None
    return [value, mask]


def is_used(node: ir.Node, position: int) -> bool:
    """Whether anything reads this output of the node."""
    if position >= len(node.outputs):
        return False
    output = node.outputs[position]
    return bool(output.uses()) or output.is_graph_output()


@handles("Cast", "CastLike", sample_wise=first_only)
def cast(call: Call) -> Value:
    """Integers are carried as float32, so only casts that are exact or that truncate are possible."""
    if call.op_type == "CastLike":
        like = call.any(1)
        target = like.array.dtype if isinstance(like, Known) else like.dtype
    else:
        target = ir.DataType(call.int("to")).numpy()
    value = call.value()
    source = value.dtype
    if target == source:
        return value
    name = target.name
    if name == "bool":
        return call.builder.unary(value, "not_zero", dtype=target)
    if name in ("float32", "float64") and (source.kind in "iub" or name == "float64"):
        return _as(value, target)
    if source.name == "float64" and name == "float32":
        return _as(value, target)
    if name in ("int32", "int64"):
        return call.builder.unary(value, "trunc", dtype=target) if source.kind == "f" else _as(value, target)
    if source.kind == "b" and target.kind in "iu":
        return _as(value, target)
    raise Refusal(f"the cast from {source} to {name} is not supported")


def _as(value: Value, dtype: np.dtype) -> Value:
    return Value(value.tensor, value.shape, value.layout, dtype, value.batched)
