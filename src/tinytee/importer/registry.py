"""The operators that the importer knows: small functions by ONNX operator type, and what they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tinytee.importer.builder import Builder
from tinytee.importer.values import Grid, Known, NotSampleWise, Refusal, Value

Result = Value | Known
Handler = Callable[["Call"], "Result | Sequence[Result | None]"]
SampleWise = Callable[["Call"], bool]
H = TypeVar("H", bound=Handler)

HANDLERS: dict[str, Handler] = {}
SAMPLE_WISE: dict[str, SampleWise] = {}


BYTEWISE: set[str] = set()
"""Operators whose handlers take values stored as uint8 as they are; for others such values are widened first."""


def key(node: ir.Node) -> str:
    """The name that a node's handler is registered under: its type, with its domain unless that is the default."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"


def handles(*op_types: str, sample_wise: SampleWise, bytewise: bool = False) -> Callable[[H], H]:
    """Registers a function for ``op_types``: names as ``key`` makes them.

    ``sample_wise`` says of a call whose values carry a sample axis whether the operator leaves it alone: output n
    depends on input n only, in the same way for every n. ``bytewise``: see ``BYTEWISE``.
    """

    def register(handler: H) -> H:
        if bytewise:
            BYTEWISE.update(op_types)
        for op_type in op_types:
            HANDLERS[op_type] = handler
            SAMPLE_WISE[op_type] = sample_wise
        return handler

    return register


@dataclass
class Call:
    """One node of the ONNX graph, its inputs resolved.

    Attributes:
        version: the opset of the default domain that the model imports.
        inputs: as the node lists them; None where omitted.
        output_count: outputs that the node names (omitted ones in between count).
        alias: the operator as which a handler is to take it, where that is another than the node's own.
    """

    node: ir.Node
    version: int
    inputs: list[Result | None]
    builder: Builder
    output_count: int
    alias: str = ""

    @property
    def op_type(self) -> str:
        return self.alias or self.node.op_type

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] is not None

    def any(self, position: int) -> Result:
        """The input, which must be there."""
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise Refusal(f"its input {position} is missing")
        return found

    def value(self, position: int = 0) -> Value:
        """The input as a tensor of the graph."""
        found = self.any(position)
        return self.builder.promote(found) if isinstance(found, Known) else found

    def shape(self, position: int = 0) -> tuple[int, ...]:
        found = self.any(position)
        return found.array.shape if isinstance(found, Known) else found.shape

    def constant(self, position: int, what: str) -> NDArray:
        """The input as an array, where it is an operand that must be known at compile time."""
        known = self._known(position, what)
        if known.other is not None:
            raise NotSampleWise(f"{what} depends on the batch size")
        return known.array

    def grid(self, position: int) -> Grid | None:
        """The integers that a constant input was made of."""
        found = self.inputs[position] if position < len(self.inputs) else None
        return found.grid if isinstance(found, Known) else None

    def sizes(self, position: int, what: str, axes: Sequence[int] | None = None) -> list[int]:
        """The input as a number for each of ``axes`` (default: all); only the sample axis' may be the batch size."""
        known = self._known(position, what)
        items = [int(item) for item in known.array.reshape(-1)]
        if known.other is not None:
            others = [int(item) for item in known.other.reshape(-1)]
            named = list(axes) if axes is not None else list(range(len(items)))
            if len(others) != len(items) or len(named) != len(items):
                raise NotSampleWise(f"{what} depends on the batch size")
            if any(one != two and axis != 0 for one, two, axis in zip(items, others, named, strict=True)):
                raise NotSampleWise(f"{what} depends on the batch size")
        return items

    def _known(self, position: int, what: str) -> Known:
        found = self.any(position)
        if isinstance(found, Known):
            return found
        bindable = (found.source,) if found.source else ()
        raise Refusal(f"{what} must be a constant, but depends on the model's inputs", bindable)

    def int(self, name: str, default: int | None = None) -> int:
        return int(self._attribute(name, default))  # type: ignore[call-overload]

    def float(self, name: str, default: float | None = None) -> float:
        return float(self._attribute(name, default))  # type: ignore[arg-type]

    def text(self, name: str, default: str) -> str:
        return str(self._attribute(name, default))

    def ints(self, name: str) -> list[int] | None:
        found = self.node.attributes.get(name)
        return None if found is None else [int(item) for item in found.value]

    def texts(self, name: str) -> list[str] | None:
        found = self.node.attributes.get(name)
        return None if found is None else [str(item) for item in found.value]

    def floats(self, name: str) -> list[float] | None:
        found = self.node.attributes.get(name)
        return None if found is None else [float(item) for item in found.value]

    def _attribute(self, name: str, default: object) -> object:
        found = self.node.attributes.get(name)
        if found is not None:
            return found.value
        if default is None:
            raise Refusal(f"its attribute '{name}' is missing")
        return default

    def forbid(self, condition: bool, reason: str) -> None:
        if condition:
            raise Refusal(reason)

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` counted from the front."""
        if not -rank <= axis < max(rank, 1):
            raise Refusal(f"axis {axis} is beyond a value of {rank} axes")
        return axis + rank if axis < 0 else axis

    def axes(self, position: int, rank: int) -> list[int] | None:
        """The ``axes``, an attribute in old opsets and an input in new ones; None where absent."""
        found = self.ints("axes")
        if found is None and self.has(position):
            found = [int(axis) for axis in self.constant(position, "axes").reshape(-1)]
        return None if found is None else [self.axis(axis, rank) for axis in found]

    def float_only(self, *positions: int, integers: bool = False) -> None:
        """Refuses arithmetic on anything but float32; ``integers`` are right where results are among the operands."""
        for position in positions or range(len(self.inputs)):
            found = self.inputs[position] if position < len(self.inputs) else None
            dtype = found.dtype if isinstance(found, Value) else found.array.dtype if found else None
            if dtype is not None and dtype != np.float32 and not (integers and dtype.kind in "iu"):
                raise Refusal(f"arithmetic on {dtype} is not supported, only on float32")
