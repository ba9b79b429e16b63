"""Recognizes activations that a model spells out: x * sigmoid(x), GELU by erf or tanh, hard swish, Mish, ...

Any tree of elementwise operators with scalar constants that starts and ends in one tensor is a function of one
number. If it has no steps, it is compared with the known activations where they differ most: on a grid around 0 and at
large arguments, to a relative 2e-6, several times finer than the closest pair of them (gelu and gelu_tanh, 5e-4).
However an exporter writes the formula, it is found; a formula that is not one of them is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytee.ir import graph as g
from tinytee.ir.graph import Activation, Graph, Op
from tinytee.ir.reference import activate, evaluate_op
from tinytee.passes.rewrite import producers

_MOST_OPS = 12
_TOLERANCE = 2e-6
_STEPS = {"trunc", "thresholded_relu", "floor", "ceil", "round", "sign", "not_zero"}
_STEPS |= {"less", "less_or_equal", "equal", "keep", "drop"}
"""Kinds of operators of which a grid tells too little: they may step between its points."""
_GRID = np.concatenate(
    [
        np.linspace(-12, 12, 1201),
        np.outer([-1, 1], [15, 20, 30, 50, 100, 1e3]).reshape(-1),
    ]
)


@dataclass(frozen=True)
class Cone:
    """The operators between one tensor and another, in order."""

    source: str
    ops: tuple[Op, ...]


def fuse_pointwise(graph: Graph) -> Graph:
    """Every largest recognizable tree becomes one Unary; operators that only it read go with ``eliminate_dead``."""
    written = producers(graph)
    order = {op.output: index for index, op in enumerate(graph.ops)}
    changed: dict[str, Op] = {}
    covered: set[str] = set()
    for root in reversed(graph.ops):
        if root.output in covered or not isinstance(root, g.Binary):
            continue
        found: tuple[Cone, Activation] | None = None
        for cone in _cones(root, written, order):
            activation = recognize(cone)
            if activation is not None:
                found = (cone, activation)
        if found is not None:
            cone, activation = found
            changed[root.output] = g.Unary(
                name=root.name, inputs=(cone.source,), output=root.output, activation=activation
            )
            covered.update(op.output for op in cone.ops)
    return graph.with_ops([changed.get(op.output, op) for op in graph.ops])


def recognize(cone: Cone) -> Activation | None:
    """The activation that the operators compute together."""
    result = _run(cone, _GRID)
    scale = np.maximum(np.abs(result), 1)
    if not np.isfinite(result).all():
        return None
    for candidate in _candidates(cone):
        expected = activate(candidate, _GRID)
        if (np.abs(result - expected) <= _TOLERANCE * np.maximum(scale, np.abs(expected))).all():
            return candidate
    return None


def _candidates(cone: Cone) -> list[Activation]:
    found = [
        Activation(kind)
        for kind in ("gelu", "gelu_tanh", "hard_swish", "mish", "softplus", "softsign", "relu", "abs")  # type: ignore[arg-type]
    ]
    constants = {
        float(op.constant.reshape(-1)[0]) for op in cone.ops if isinstance(op, g.Binary) and op.constant is not None
    }
    found.extend(Activation("swish", alpha) for alpha in sorted({1.0} | {c for c in constants if 0 < c < 10}))
    found.extend(Activation("hard_sigmoid", alpha, beta) for alpha, beta in ((1 / 6, 0.5), (0.2, 0.5)))
    return found


def _cones(root: Op, written: dict[str, Op], order: dict[str, int]) -> list[Cone]:
    """Growing trees under ``root`` that hang from a single tensor."""
    found: list[Cone] = []
    ops: list[Op] = []
    frontier = {root.output}
    while len(ops) < _MOST_OPS:
        latest = max(frontier, key=lambda name: order.get(name, -1))
        op = written.get(latest)
        if op is None or not _is_scalar_function(op):
            break
        frontier.remove(latest)
        frontier.update(op.inputs)
        ops.append(op)
        if len(frontier) == 1 and len(ops) > 1:
            found.append(Cone(next(iter(frontier)), tuple(reversed(ops))))
    return found


def _is_scalar_function(op: Op) -> bool:
    if op.activation.kind in _STEPS:
        return False
    if isinstance(op, g.Unary):
        return True
    if not isinstance(op, g.Binary) or op.kind == "prelu" or op.kind in _STEPS:
        return False
    return op.constant is None or op.constant.size == 1


def _run(cone: Cone, x: NDArray) -> NDArray[np.float64]:
    """Values of the tree in float64, on a row of arguments."""
    shape = g.Shape(1, x.size, 1)
    tensors: dict[str, NDArray] = {cone.source: x.reshape(1, -1, 1)}
    for op in cone.ops:
        tensors[op.output] = evaluate_op(op, [tensors[name] for name in op.inputs], shape, np.float64)
    return tensors[cone.ops[-1].output].reshape(-1)
