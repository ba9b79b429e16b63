"""Which operators leave the sample axis (axis 0 of a batched value) alone: predicates that handlers share."""

from __future__ import annotations

from tinytee.importer.registry import Call
from tinytee.importer.values import Known, Value


def pointwise(call: Call) -> bool:
    """Elementwise: every value carries the sample axis at the same place, and constants do not come before it."""
    ranks = {item.rank for item in call.inputs if isinstance(item, Value)}
    if len(ranks) != 1:
        return False
    rank = ranks.pop()
    return all(item.array.ndim <= rank for item in call.inputs if isinstance(item, Known))


def first_only(call: Call) -> bool:
    """The operator works within each sample of its first input; its other inputs are parameters."""
    return isinstance(call.inputs[0], Value)


def axis_is_not_first(default: int, old_default: int | None = None, since: int = 0):
    """The operator works along the attribute ``axis``, which must not be the sample axis."""

    def predicate(call: Call) -> bool:
        implied = default if old_default is None or call.version >= since else old_default
        rank = call.value(0).rank if isinstance(call.inputs[0], Value) else 0
        return rank > 0 and call.axis(call.int("axis", implied), rank) != 0

    return predicate


def always(call: Call) -> bool:
    """The handler itself, or the shape of its result, says."""
    return True
