"""What the walk knows of every value of the ONNX graph, and how handlers refuse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytee.importer.layout import Layout


@dataclass(frozen=True)
class Value:
    """A value that depends on the model's inputs.

    Attributes:
        tensor: the tensor of the graph under construction that holds it.
        shape: logical shape; where ``batched``, axis 0 is the sample axis, and the tensor holds one sample.
        layout: how the logical axes lie in the tensor.
        dtype: the model's element type. The tensor is float32 whatever it is, unless the builder has a quant for it:
            then it is uint8, and what the model calls int8 has 128 added to it.
        source: the model's input of which this is the very value, or a truth that follows from it alone.
    """

    tensor: str
    shape: tuple[int, ...]
    layout: Layout
    dtype: np.dtype
    batched: bool
    source: str | None = None

    @property
    def sample(self) -> tuple[int, ...]:
        """Logical shape of what the tensor holds: the sample axis counts 1."""
        return (1, *self.shape[1:]) if self.batched else self.shape

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class Grid:
    """The integers that a float32 constant was made of: array = scale * (integers - zero_point).

    Attributes:
        scale: float32 [n].
        zero_point: int64 [n].
        axis: the axis of n elements; None where one scale serves the whole array (n = 1).
        dtype: of the integers.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int | None
    dtype: np.dtype

    def along(self, axis: int, extent: int) -> NDArray[np.float32] | None:
        """The scale of each of the ``extent`` elements along ``axis``; None where it varies along another axis."""
        if self.axis is None:
            return np.full(extent, self.scale[0], np.float32)
        return self.scale if self.axis == axis else None


@dataclass(frozen=True)
class Known:
    """A value known at compile time.

    ``other`` is set where the model leaves its batch size open and the value depends on it: it is the value at
    another batch size. Such a value may serve as a shape, never as an operand. ``grid`` is set where the model gives
    the value as integers (DequantizeLinear).
    """

    array: NDArray
    other: NDArray | None = None
    grid: Grid | None = None


class Poison:
    """The output of a node that was refused: what reads it is neither run nor reported."""


class Refusal(Exception):
    """A node asks for what is not supported.

    Attributes:
        bindable: inputs of the model that would have to be constants.
    """

    def __init__(self, reason: str, bindable: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.bindable = bindable


class NotSampleWise(Exception):
    """A node mixes samples along axis 0, so the graph cannot be cut into one run a sample."""
