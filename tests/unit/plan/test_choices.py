"""Comparisons and selections: exact on every instruction set, of numbers, infinities and what is no number."""

from __future__ import annotations

import numpy as np
import pytest

from tinytee.api import compile_graph
from tinytee.ir.graph import Binary, BinaryKind, Graph, Op, Port, Shape
from tinytee.ir.reference import evaluate
from tinytee.runtime.session import Session
from unit.plan.test_register_tiles import ISAS, KEY

KINDS: tuple[BinaryKind, ...] = ("less", "less_or_equal", "equal", "keep", "drop")
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan], np.float32)
SHAPE = Shape(3, 5, 37)


def numbers(seed: int, *shape: int) -> np.ndarray:
    return SPECIAL[np.random.default_rng(seed).integers(0, SPECIAL.size, shape)]


def network() -> Graph:
    """Every kind of a tensor with another, with one of a single pixel, and with constants of all forms."""
    extents = (SHAPE.height, SHAPE.width, SHAPE.channels)
    shapes = {"a": SHAPE, "b": SHAPE, "pixel": Shape(1, 1, SHAPE.channels)}
    inputs = tuple(
        Port(name, name, (s.height, s.width, s.channels), "float32", (0, 1, 2), False) for name, s in shapes.items()
    )
    constants = [
        numbers(i, *form) for i, form in enumerate([(1, 1, 1), (1, 1, SHAPE.channels), (1, SHAPE.width, 1), extents])
    ]
    ops: list[Op] = []
    for kind in KINDS:
        pairs = [(("a", "b"), {}), (("a", "pixel"), {}), (("pixel", "b"), {})]
        pairs += [(("a",), {"constant": c, "constant_first": first}) for c in constants for first in (False, True)]
        for names, constant in pairs:
            output = f"{kind}{len(ops)}"
            ops.append(Binary(name=output, inputs=names, output=output, kind=kind, **constant))
            shapes[output] = SHAPE
    outputs = tuple(Port(op.output, op.output, extents, "float32", (0, 1, 2), False) for op in ops)
    return Graph(inputs, outputs, shapes, tuple(ops))


def feeds() -> dict[str, np.ndarray]:
    extents = (SHAPE.height, SHAPE.width, SHAPE.channels)
    return {"a": numbers(7, *extents), "b": numbers(8, *extents), "pixel": numbers(9, 1, 1, SHAPE.channels)}


def agrees(found: dict[str, np.ndarray]) -> None:
    for name, wanted in evaluate(network(), feeds()).items():
        np.testing.assert_array_equal(found[name], wanted, err_msg=name)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("budget", [100 << 10, 1 << 20])
def test_comparisons_and_selections(isa: str | None, budget: int) -> None:
    with Session(compile_graph(network(), budget, KEY), key=KEY, isa=isa) as session:
        agrees(session.run(feeds()))


def test_the_reference_says_what_numpy_says() -> None:
    given, found = feeds(), evaluate(network(), feeds())
    a, b = given["a"], given["b"]
    for name, wanted in (("less0", a < b), ("less_or_equal11", a <= b), ("equal22", a == b)):
        np.testing.assert_array_equal(found[name], wanted)
    np.testing.assert_array_equal(found["keep33"], np.where(b != 0, a, 0))
    np.testing.assert_array_equal(found["drop44"], np.where(b == 0, a, 0))
