"""Makes operators of the IR out of logical values, and the copies that bring them into order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.importer import layout as lay
from tinytee.importer.layout import Layout, Piece
from tinytee.importer.values import Known, NotSampleWise, Refusal, Value
from tinytee.ir import graph as g
from tinytee.ir import quantized as q
from tinytee.ir.graph import Activation, Op, Quant, Shape

_MOST_PERMUTE_DIMS = 6
_MOST_PLANES = 0xFFFF
"""Y-planes that an instruction counts (TT_INSTR_MAX_ARG)."""
FLOAT = np.dtype(np.float32)


class Builder:
    """The graph under construction. ``node`` is the name that new operators carry."""

    def __init__(self, batch: int | None) -> None:
        self.batch = batch
        self.ops: list[Op] = []
        self.shapes: dict[str, Shape] = {}
        self.quants: dict[str, Quant] = {}
        self.node = ""
        self._arranged: dict[tuple, str] = {}

    @property
    def batched(self) -> bool:
        return self.batch is not None

    def new_tensor(self, shape: Shape) -> str:
        name = f"t{len(self.shapes)}"
        self.shapes[name] = shape
        return name

    def emit(self, operator: type[Op], inputs: Sequence[str], shape: Shape, **attributes: Any) -> str:
        """Adds an operator; returns the tensor it writes. Operators that only move elements keep their quant."""
        output = self.new_tensor(shape)
        self.ops.append(operator(name=self.node, inputs=tuple(inputs), output=output, **attributes))
        if issubclass(operator, q.MOVING) and inputs[0] in self.quants:
            self.quants[output] = self.quants[inputs[0]]
        return output

    def emit_bytes(self, operator: type[Op], source: str, quant: Quant, **attributes: Any) -> str:
        """Adds an elementwise operator that writes uint8."""
        output = self.emit(operator, (source,), self.shapes[source], **attributes)
        self.quants[output] = quant
        return output

    def quantize(self, value: Value, quant: Quant, dtype: np.dtype) -> Value:
        """A float32 value as uint8; ``dtype`` is what the model calls it, int8 or uint8."""
        tensor = self.emit_bytes(q.Quantize, value.tensor, quant)
        return replace(value, tensor=tensor, dtype=dtype, source=None)

    def dequantize(self, value: Value, quant: Quant) -> Value:
        """An integer value, int8 or uint8, as the float32 that its elements stand for under ``quant``."""
        tensor, offset = value.tensor, 128 if value.dtype == np.int8 else 0
        if tensor not in self.quants:
            tensor = self.emit_bytes(q.Quantize, tensor, Quant(1.0, offset))
        if self.quants[tensor] != quant:
            tensor = self.emit_bytes(q.QLut, tensor, quant, table=np.arange(256, dtype=np.uint8))
        tensor = self.emit(q.Dequantize, (tensor,), self.shapes[tensor])
        return replace(value, tensor=tensor, dtype=FLOAT, source=None)

    def widen(self, value: Value) -> Value:
        """An integer value stored as uint8 as the same integers in float32."""
        if value.tensor not in self.quants:
            return value
        found = self.dequantize(value, Quant(1.0, 128 if value.dtype == np.int8 else 0))
        return replace(found, dtype=value.dtype)

    def meaning(self, value: Value, element: float) -> float:
        """What an integer of the model stands for as an element of ``value``; itself where that is float32."""
        quant = self.quants.get(value.tensor)
        if quant is None:
            return element
        offset = 128 if value.dtype == np.int8 else 0
        return float(np.float32(element + offset - quant.zero_point) * np.float32(quant.scale))

    def value(self, tensor: str, shape: Sequence[int], layout: Layout, dtype: np.dtype = FLOAT) -> Value:
        """A logical value over a tensor that this builder made. ``shape`` counts one sample."""
        if layout.shape != self.shapes[tensor]:
            raise AssertionError(f"{tensor}: {layout} is not {self.shapes[tensor]}")
        full = tuple(int(extent) for extent in shape)
        if self.batched:
            full = (self.batch or 0, *full[1:])
        return Value(tensor, full, layout, dtype, self.batched)

    def promote(self, known: Known) -> Value:
        """A compile-time array as a tensor of the graph."""
        array = np.asarray(known.array)
        if array.size == 0:
            raise Refusal("an empty constant is not supported")
        sample = self.sample_of(known) if self.batched else array
        layout = lay.row_major(sample.shape)
        stored = lay.place(as_float(sample), layout)
        tensor = self.emit(g.Constant, (), layout.shape, value=stored)
        return self.value(tensor, sample.shape, layout, array.dtype)

    def sample_of(self, known: Known) -> NDArray:
        """A compile-time array with its axis 0 cut to one sample, where all samples agree."""
        for array in (known.array, known.array if known.other is None else known.other):
            fits = array.ndim == known.array.ndim > 0 and array.shape[1:] == known.array.shape[1:]
            if not fits or (array is known.array and array.shape[0] != self.batch):
                raise NotSampleWise("a constant stands where samples do")
            if (array != known.array[:1]).any():
                raise NotSampleWise("a constant differs from sample to sample")
        return known.array[:1]

    def realise(self, value: Value, target: Layout, expand: bool = False) -> str:
        """The tensor that holds ``value`` in the layout ``target``: its own, or a copy.

        Axes of the target that the value has with extent 1 are broadcast: a whole group of them (y, x or c) is left
        at 1 for the operator to broadcast unless ``expand``; part of a group is repeated by the copy.
        """
        sample = value.sample
        runs: list[tuple[int, int]] = []
        extents: list[int] = []
        for group in target.groups:
            if not expand and all(sample[piece.axis] == 1 for piece in group):
                extents.append(1)
                continue
            for piece in group:
                found = [(piece.extent, 0)] if sample[piece.axis] == 1 else lay.locate(value.layout, piece)
                if found is None:
                    plain = self.to_row_major(value)
                    return self.realise(plain, target, expand)
                runs.extend(found)
            extents.append(prod(piece.extent for piece in group))
        return self._copy(value.tensor, lay.merge_runs(runs), Shape(*extents))

    def _copy(self, tensor: str, runs: list[tuple[int, int]], shape: Shape) -> str:
        source = self.shapes[tensor]
        dense = not runs or runs == [(source.elems, 1)]
        if dense and source.elems == shape.elems:
            if source == shape:
                return tensor
            runs = [(shape.elems, 1)]
            if source.row_elems % shape.row_elems == 0 and shape.height <= _MOST_PLANES:
                return self._once((tensor, shape), g.Concat, (tensor,), shape, axis="y")
        if len(runs) > _MOST_PERMUTE_DIMS:
            raise Refusal(
                f"the data movement has {len(runs)} independent axes; at most {_MOST_PERMUTE_DIMS} are allowed"
            )
        dims = tuple(extent for extent, _ in runs) or (1,)
        strides = tuple(stride for _, stride in runs) or (1,)
        return self._once((tensor, dims, strides, shape), g.Permute, (tensor,), shape, dims=dims, strides=strides)

    def _once(self, key: tuple, operator: type[Op], inputs: Sequence[str], shape: Shape, **attributes: Any) -> str:
        """Emits a copy; one that was made already serves again."""
        if key not in self._arranged:
            self._arranged[key] = self.emit(operator, inputs, shape, **attributes)
        return self._arranged[key]

    def to_row_major(self, value: Value) -> Value:
        """Copied, if need be, to the order of the logical axes."""
        layout = lay.row_major(value.sample)
        runs: list[tuple[int, int]] = []
        for piece in layout.pieces:
            found = lay.locate(value.layout, piece)
            if found is None:
                raise AssertionError(f"{piece} of a whole axis is not in {value.layout}")
            runs.extend(found)
        return replace(value, tensor=self._copy(value.tensor, lay.merge_runs(runs), layout.shape), layout=layout)

    def with_layout(self, value: Value, layout: Layout) -> Value:
        """The value in exactly this layout, which names all its axes longer than 1."""
        return replace(value, tensor=self.realise(value, layout, expand=True), layout=layout)

    def image(self, value: Value) -> Value:
        """(n, c, spatial...) with n = 1 as y, x, c."""
        if value.rank < 2:
            raise Refusal(f"expects (n, c, spatial...), got the shape {value.shape}")
        if value.sample[0] != 1:
            raise Refusal(
                f"runs on one sample at a time, but the leading axis of {value.shape} is not a plain batch axis in this"
                " model; export the model with a batch of 1"
            )
        return self.with_layout(value, lay.channels_last(value.sample))

    def with_channels(self, value: Value, axes: Sequence[int], ordered: bool = True) -> Value:
        """The value with exactly ``axes`` as c (in this order, or in any where not ``ordered``); y and x are free."""
        wanted = [Piece(axis, value.sample[axis]) for axis in axes]
        if not ordered:
            wanted = [piece for piece in value.layout.pieces if piece.axis in axes]
        layout = lay.make(c=wanted)
        if value.layout.c == layout.c:
            return value
        rest = [piece for piece in value.layout.pieces if piece.axis not in axes]
        target = lay.make(rest[:-1], rest[-1:], layout.c)
        if target.pieces == value.layout.pieces and len(rest) > 1:
            ny = len(value.layout.y)
            if ny < len(rest):
                target = lay.make(rest[:ny], rest[ny:], layout.c)
        return self.with_layout(value, target)

    def unary(
        self, value: Value, kind: str, alpha: float = 0.0, beta: float = 0.0, dtype: np.dtype | None = None
    ) -> Value:
        """An activation as an operator of its own; passes fuse it."""
        activation = Activation(kind, float(alpha), float(beta))  # type: ignore[arg-type]
        tensor = self.emit(g.Unary, (value.tensor,), self.shapes[value.tensor], activation=activation)
        return replace(value, tensor=tensor, dtype=dtype or value.dtype, source=None)

    def binary(self, kind: str, left: Value | Known, right: Value | Known, *, apart: bool = False) -> Value:
        """Elementwise with numpy's broadcasting, at least one side a Value; in the larger Value's layout."""
        values = [side for side in (left, right) if isinstance(side, Value)]
        arrays = [self.operand(side, values[0].rank) for side in (left, right) if isinstance(side, Known)]
        rank = max([v.rank for v in values] + [a.ndim for a in arrays])
        values = [self.pad_rank(value, rank) for value in values]
        arrays = [array.reshape([1] * (rank - array.ndim) + list(array.shape)) for array in arrays]
        shape = broadcast([v.sample for v in values] + [a.shape for a in arrays])
        layout = self.common_layout(values, shape)
        names = [self.realise(value, layout) for value in values]
        extents = [(s.height, s.width, s.channels) for s in (self.shapes[name] for name in names)]
        attributes: dict[str, object] = {}
        if arrays:
            constant = lay.place(as_float(arrays[0]), layout)
            attributes = {"constant": constant, "constant_first": isinstance(left, Known)}
            attributes["constant_quant"] = next(_quant_of(side) for side in (left, right) if isinstance(side, Known))
            extents.append(constant.shape)
        found = Shape(*(max(pair) for pair in zip(*extents, strict=True)))
        if found != layout.shape:
            names[0] = self.realise(values[0], layout, expand=True)
        tensor = self.emit(g.Binary, names, layout.shape, kind=kind, apart=apart, **attributes)
        return self.value(tensor, shape, layout, values[0].dtype)

    def operand(self, known: Known, rank: int) -> NDArray:
        """A constant operand beside a value of ``rank`` axes, without a sample axis of its own."""
        if known.other is not None and known.other.shape == known.array.shape:
            raise NotSampleWise("an operand depends on the batch size")
        if self.batched and known.array.ndim == rank and known.array.shape[0] != 1:
            return self.sample_of(known)
        return known.array

    def pad_rank(self, value: Value, rank: int) -> Value:
        """Leading axes of 1 added, as broadcasting does."""
        missing = rank - value.rank
        if missing <= 0:
            return value
        layout = value.layout.relabel({axis: axis + missing for axis in range(value.rank)})
        return replace(value, shape=(1,) * missing + value.shape, layout=layout, source=None)

    def common_layout(self, values: Sequence[Value], shape: Sequence[int]) -> Layout:
        """The layout of the largest value, with the axes it lacks added where y, x or c is free. Of values that lie in
        memory alike the one with most y-planes decides: the others have to have their rows divided only."""
        largest = max(values, key=lambda value: prod(value.sample))
        alike = [value for value in values if value.sample == largest.sample]
        alike = [value for value in alike if _in_order(value.layout) == _in_order(largest.layout)]
        largest = max(alike, key=lambda value: value.layout.shape.height)
        groups = [list(group) for group in largest.layout.groups]
        for axis in reversed(range(len(shape))):
            if shape[axis] > 1 and largest.sample[axis] == 1:
                free = next((i for i in (2, 1, 0) if not groups[i]), 0)
                groups[free].insert(0, Piece(axis, shape[axis]))
        return lay.make(*groups)

    def gather(self, value: Value, indices: Mapping[int, Sequence[int] | NDArray], fill: float = 0.0) -> Value:
        """Picks ``indices`` along logical axes (-1: ``fill``); other axes stay."""
        for axis in sorted(indices, reverse=True):
            value = self._gather_axis(value, axis, np.asarray(indices[axis], dtype=np.int64), fill)
        return value

    def _gather_axis(self, value: Value, axis: int, index: NDArray, fill: float) -> Value:
        extent = value.sample[axis]
        if len(index) == extent and (index == np.arange(extent)).all():
            return value
        shape = [*value.sample]
        shape[axis] = len(index)
        if min(shape) < 1:
            raise Refusal(f"the result is empty: {tuple(shape)}")
        whole = Piece(axis, extent)
        groups = [list(group) for group in value.layout.groups]
        if extent == 1:
            at = next((i for i in (2, 1, 0) if not groups[i]), 0)
            groups[at].insert(0, whole)
        elif not any(whole in group for group in groups):
            value = self.with_channels(value, [axis])
            groups = [list(group) for group in value.layout.groups]
        at = next(i for i, group in enumerate(groups) if whole in group)
        flat = np.zeros((), dtype=np.int64)
        missing = np.zeros((), dtype=bool)
        for piece in groups[at]:
            own = index if piece == whole else np.arange(piece.extent)
            flat = flat[..., None] * piece.extent + np.maximum(own, 0)
            missing = missing[..., None] | (own < 0)
        picked = np.where(missing, -1, flat).reshape(-1).astype(np.int32)
        groups[at] = [Piece(axis, len(index)) if piece == whole else piece for piece in groups[at]]
        layout = lay.make(*groups)
        attribute = ("rows", "cols", "chans")[at]
        tensor = self.emit(g.Gather, (value.tensor,), layout.shape, fill=fill, **{attribute: picked})
        return self.value(tensor, shape, layout, value.dtype)

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Values that agree in all axes but ``axis``, side by side."""
        if len(parts) == 1:
            return parts[0]
        if len({self.quants.get(part.tensor) for part in parts}) > 1:
            parts = [self.widen(part) for part in parts]
        total = sum(part.sample[axis] for part in parts)
        shape = [*parts[0].sample]
        shape[axis] = total
        first = max(parts, key=lambda part: prod(part.sample))
        groups = [list(group) for group in first.layout.groups]
        whole = Piece(axis, first.sample[axis])
        if whole.extent == 1:
            at = next((i for i in (2, 1, 0) if not groups[i]), 0)
            groups[at].insert(0, whole)
        at = next((i for i, group in enumerate(groups) if group and group[0] == whole), None)
        if at is None:
            rest = [piece for piece in first.layout.pieces if piece.axis != axis]
            # Rows and columns as one axis, a detector's places: each becomes a y-plane.
            is_list = total <= _MOST_PLANES and _runs_along(first.layout, axis) > 0
            parts = [run for part in parts for run in self._in_turn(part, axis)] if is_list else parts
            groups = [[whole], rest[:-1], rest[-1:]] if is_list else [rest[:-1], rest[-1:], [whole]]
            at = 0 if is_list else 2
        names = []
        for part in parts:
            own = [list(group) for group in groups]
            own[at][0] = Piece(axis, part.sample[axis])
            target = lay.make(*own)
            as_it_is = at == 0 and _in_order(part.layout) == _in_order(target) and _divides(target, part.layout)
            names.append(part.tensor if as_it_is else self.realise(part, target, expand=True))
        groups[at][0] = Piece(axis, total)
        layout = lay.make(*groups)
        tensor = self.emit(g.Concat, names, layout.shape, axis="yxc"[at])
        return self.value(tensor, shape, layout, parts[0].dtype)

    def _in_turn(self, part: Value, axis: int) -> list[Value]:
        """The value as runs along ``axis`` that have it outermost, where there are several: see ``_runs_along``."""
        count, before, after = _runs_along(part.layout, axis), part.sample[:axis], part.sample[axis + 1 :]
        if count < 2:
            return [part]
        each = part.sample[axis] // count
        split = self.reshape(part, [*before, count, each, *after])
        return [self.reshape(self.gather(split, {axis: [run]}), [*before, each, *after]) for run in range(count)]

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The same elements in logical order under another shape (of one sample)."""
        layout = lay.reshape(value.layout, value.sample, shape)
        if layout is None:
            value = self.to_row_major(value)
            layout = lay.reshape(value.layout, value.sample, shape)
        if layout is None:
            layout = lay.row_major(shape)
            tensor = self._copy(value.tensor, [(prod(shape), 1)], layout.shape)
            return self.value(tensor, shape, layout, value.dtype)
        return replace(self.value(value.tensor, shape, layout, value.dtype))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """Axes renamed; nothing moves."""
        layout = value.layout.relabel({axis: position for position, axis in enumerate(perm)})
        return replace(value, shape=tuple(value.shape[axis] for axis in perm), layout=layout, source=None)

    def affine(self, value: Value, axis: int, scale: NDArray, shift: NDArray) -> Value:
        """x * scale + shift, both over ``axis``."""
        value = self.with_channels(value, [axis])
        weight = as_float(scale).reshape(1, 1, -1)
        tensor = self.emit(
            g.DepthwiseConv, (value.tensor,), self.shapes[value.tensor], weight=weight, bias=as_float(shift).reshape(-1)
        )
        return replace(value, tensor=tensor, source=None)


def _in_order(layout: Layout) -> lay.Group:
    """The pieces in the order of the memory."""
    return lay.make(c=layout.pieces).c


def _runs_along(layout: Layout, axis: int) -> int:
    """How many runs ``axis`` consists of, one after another, that each have it outermost in memory.

    1 where all of it is so. Several where channels hold its outermost piece, as they hold the anchors of a detector's
    places. 0 otherwise.
    """
    outer = max(layout.of_axis(axis), key=lambda piece: piece.stride, default=None)
    if outer is None or _in_order(layout)[0] == Piece(axis, outer.extent * outer.stride):
        return 1
    others = lay.make(c=[piece for piece in layout.pieces if piece != outer]).c
    return outer.extent if others[:1] == (Piece(axis, outer.stride),) else 0


def _divides(layout: Layout, other: Layout) -> bool:
    """Whether each y-plane of ``other`` holds whole y-planes of ``layout``."""
    return other.shape.row_elems % layout.shape.row_elems == 0


def _quant_of(known: Known) -> Quant | None:
    """The quant of a constant that the model gives as 8-bit integers under one scale."""
    grid = known.grid
    if grid is None or grid.axis is not None or grid.dtype.name not in ("int8", "uint8"):
        return None
    return Quant(float(grid.scale[0]), int(grid.zero_point[0]) + (128 if grid.dtype == np.int8 else 0))


def as_float(array: NDArray) -> NDArray[np.float32]:
    """As the float32 that tensors carry; integers beyond 2**24 are refused, since they would be rounded."""
    if array.dtype.kind in "iu" and array.size and max(abs(int(array.min())), abs(int(array.max()))) > 2**24:
        raise Refusal("an integer constant beyond 2**24 does not fit the float32 that carries it")
    if array.dtype.kind not in "iufb":
        raise Refusal(f"constants of type {array.dtype} are not supported")
    return np.ascontiguousarray(array, dtype=np.float32)


def broadcast(shapes: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """numpy's rule, as a refusal where it fails."""
    try:
        return np.broadcast_shapes(*(tuple(shape) for shape in shapes))
    except ValueError:
        raise Refusal(f"the shapes {[tuple(shape) for shape in shapes]} do not broadcast") from None
