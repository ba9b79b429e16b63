"""Comparisons, logic and selection. Truth values are carried as float32: 1 and 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.importer.builder import broadcast
from tinytee.importer.handlers.samples import pointwise
from tinytee.importer.registry import Call, Result, handles
from tinytee.importer.values import Known, Value

_COMPARISONS = {
    "Less": ("less", False),
    "LessOrEqual": ("less_or_equal", False),
    "Greater": ("less", True),
    "GreaterOrEqual": ("less_or_equal", True),
    "Equal": ("equal", False),
}
"""Each as a comparison that the graph has, and whether its operands change places."""

_LOGIC = {"And": "mul", "Or": "max", "Xor": "sub"}


def _truth(call: Call, value: Value) -> Value:
    sources = {item.source for item in call.inputs if isinstance(item, Value)}
    return replace(value, dtype=np.dtype(bool), source=sources.pop() if len(sources) == 1 else None)


def _number(number: float) -> Known:
    return Known(np.array(number, np.float32))


def _negated(call: Call, value: Value) -> Value:
    return _truth(call, call.builder.binary("sub", _number(1), value))


@handles(*_COMPARISONS, sample_wise=pointwise)
def comparison(call: Call) -> Value:
    kind, backwards = _COMPARISONS[call.op_type]
    left, right = (call.any(1), call.any(0)) if backwards else (call.any(0), call.any(1))
    return _truth(call, call.builder.binary(kind, left, right))


@handles(*_LOGIC, sample_wise=pointwise)
def logic(call: Call) -> Value:
    result = call.builder.binary(_LOGIC[call.op_type], call.any(0), call.any(1))
    return _truth(call, call.builder.unary(result, "abs") if call.op_type == "Xor" else result)


@handles("Not", sample_wise=pointwise)
def negation(call: Call) -> Value:
    return _negated(call, call.value())


@handles("IsNaN", sample_wise=pointwise)
def is_nan(call: Call) -> Value:
    """No number equals itself but those that are none."""
    return _negated(call, call.builder.binary("equal", call.value(), call.value()))


@handles("IsInf", sample_wise=pointwise)
def is_infinite(call: Call) -> Value:
    value, below, above = call.value(), call.int("detect_negative", 1), call.int("detect_positive", 1)
    if below and above:
        value = call.builder.unary(value, "abs")
    bound = np.inf if above else -np.inf if below else np.nan  # which nothing equals
    return _truth(call, call.builder.binary("equal", value, _number(bound)))


def _selects(call: Call) -> bool:
    """The samples' own axis stays where it is; or one side is taken whole, whatever its shape."""
    return _side(call) is not None or pointwise(call)


def _side(call: Call) -> int | None:
    """The input that a condition takes whole, where that is known."""
    condition = call.any(0)
    if not isinstance(condition, Known) or condition.array.any() != condition.array.all():
        return None
    return 1 if condition.array.all() else 2


@handles("Where", sample_wise=_selects)
def where(call: Call) -> Result:
    """What is not chosen may be infinite, so that it is left out, and not multiplied by 0."""
    builder, (yes, no) = call.builder, (call.any(1), call.any(2))
    shape = broadcast([call.shape(0), call.shape(1), call.shape(2)])
    dtype = yes.array.dtype if isinstance(yes, Known) else yes.dtype
    side = _side(call)
    if side is not None and call.shape(side) == shape:
        return call.any(side)
    condition = call.any(0)
    if isinstance(condition, Known):
        condition = Known(call.constant(0, "the condition").astype(np.float32))
    parts = []
    for kind, chosen in (("keep", yes), ("drop", no)):
        if isinstance(chosen, Known) and chosen.array.size == 1 and not chosen.array.any():
            continue
        if isinstance(chosen, Known) and isinstance(condition, Known):
            taken = condition.array != 0 if kind == "keep" else condition.array == 0
            parts.append(Known(np.where(taken, chosen.array, np.zeros((), chosen.array.dtype))))
        else:
            parts.append(builder.binary(kind, chosen, condition))
    if not parts:
        return Known(np.zeros(shape, dtype))
    result = parts[0] if len(parts) == 1 else builder.binary("add", *parts)
    if isinstance(result, Known):
        return Known(np.broadcast_to(result.array, shape))
    return builder.pad_rank(replace(result, dtype=dtype), len(shape))


def _above_the_matrix(call: Call) -> bool:
    return len(call.shape(0)) > 2


@handles("Trilu", sample_wise=_above_the_matrix)
def triangle(call: Call) -> Value:
    value = call.value()
    diagonal = int(call.constant(1, "the diagonal").reshape(())) if call.has(1) else 0
    kept = np.ones(value.shape[-2:], np.float32)
    kept = np.triu(kept, diagonal) if call.int("upper", 1) else np.tril(kept, diagonal)
    return call.builder.binary("keep", value, Known(kept))
