"""Einstein sums of one or two operands, as transpositions around a product."""

from __future__ import annotations

from collections.abc import Sequence

from tinytee.importer.builder import Builder
from tinytee.importer.handlers.linear import Labels, contract
from tinytee.importer.handlers.reduce import reduce
from tinytee.importer.registry import Call, Result, handles
from tinytee.importer.values import Known, Value


def _labels(call: Call) -> tuple[list[Labels], Labels]:
    """Of the operands and of the result. Axes under an ellipsis have names of their place from the end: "-1", "-2"."""
    equation = call.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    call.forbid(len(terms) != len(call.inputs), f"equation '{equation}' has {len(terms)} operands")
    operands = [_term(call, equation, term, len(call.shape(i))) for i, term in enumerate(terms)]
    wide = max(operands, key=lambda labels: sum(label[0] == "-" for label in labels))
    hidden = tuple(label for label in wide if label[0] == "-")
    if arrow:
        before, dots, after = right.partition("...")
        return operands, (*before, *(hidden if dots else ()), *after)
    letters = "".join(terms).replace(".", "")
    return operands, (*hidden, *sorted(letter for letter in set(letters) if letters.count(letter) == 1))


def _term(call: Call, equation: str, term: str, rank: int) -> Labels:
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after)
    call.forbid(hidden < 0 or (hidden > 0 and not dots), f"equation '{equation}': '{term}' meets {rank} axes")
    labels = (*before, *(str(place - hidden) for place in range(hidden)), *after)
    call.forbid(len(set(labels)) < len(labels), f"equation '{equation}' takes a diagonal, which is not supported")
    return labels


def _sample_wise(call: Call) -> bool:
    """The sample axis comes first in all values and in the result, and constants do not have it."""
    operands, result = _labels(call)
    pairs = list(zip(operands, call.inputs, strict=True))
    first = {labels[0] if labels else "" for labels, item in pairs if isinstance(item, Value)}
    shared = any(label in first for labels, item in pairs if isinstance(item, Known) for label in labels)
    return not shared and len(first | {result[0] if result else ""}) == 1


@handles("Einsum", sample_wise=_sample_wise)
def einsum(call: Call) -> Value:
    call.float_only()
    operands, result = _labels(call)
    call.forbid(len(operands) > 2, "sums of more than two operands are not supported; export products of two")
    items = [
        Known(call.constant(position, "an operand")) if isinstance(item, Known) else call.value(position)
        for position, item in enumerate(call.inputs)
    ]
    for i, labels in enumerate(operands):
        others = {*result, *(operands[1 - i] if len(operands) > 1 else ())}
        items[i], operands[i] = _summed(
            call.builder, items[i], labels, [label for label in labels if label not in others]
        )
    if len(operands) == 1:
        (value,), (labels,) = items, operands
        assert isinstance(value, Value)
        return call.builder.transpose(value, [labels.index(label) for label in result])
    return contract(call.builder, items, operands, result)


def _summed(builder: Builder, item: Result, labels: Labels, away: Sequence[str]) -> tuple[Result, Labels]:
    """An operand without the axes that only it has."""
    if not away:
        return item, labels
    axes = [labels.index(label) for label in away]
    kept = tuple(label for label in labels if label not in away)
    if isinstance(item, Known):
        return Known(item.array.sum(axis=tuple(axes))), kept
    reduced = reduce(builder, item, axes, "sum")
    return builder.reshape(reduced, [n for axis, n in enumerate(reduced.sample) if axis not in axes]), kept
