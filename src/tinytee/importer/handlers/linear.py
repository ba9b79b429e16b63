"""Matrix products, with a constant side as convolutions, and sums of products over any axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from tinytee.importer import layout as lay
from tinytee.importer.builder import Builder, as_float, broadcast
from tinytee.importer.layout import Layout, Piece
from tinytee.importer.registry import Call, Result, handles
from tinytee.importer.values import Grid, Known, Refusal, Value
from tinytee.ir import graph as g
from tinytee.ir.check import MOST_KERNEL_ROWS


def linear(
    builder: Builder,
    value: Value,
    axis: int,
    matrix: NDArray,
    bias: NDArray | None = None,
    scale: NDArray | None = None,
) -> Value:
    """``value`` contracted along ``axis`` with ``matrix`` [extent of axis, outputs]; the axis becomes the outputs.

    ``scale`` [outputs]: of the integers that the matrix was made of.

    Where the axis fills whole groups of the layout (a flattened feature map), the kernel covers them, and the matrix
    is permuted instead of the tensor.
    """
    extent, outputs = matrix.shape
    if value.sample[axis] != extent:
        raise Refusal(f"a matrix of {extent} rows meets an axis of {value.sample[axis]}")
    pieces = value.layout.of_axis(axis)
    if not _fills_groups(value.layout, axis) or prod(p.extent for p in pieces) != extent:
        value = builder.with_channels(value, [axis])
        pieces = value.layout.of_axis(axis)
    if _is_one_wide_plane(value.layout, axis, outputs):
        value = builder.with_layout(value, lay.make(value.layout.x, (), value.layout.c))
    layout = value.layout
    chain = sorted(pieces, key=lambda piece: -piece.stride)
    cut = matrix.reshape([piece.extent for piece in chain] + [outputs])
    order = [len(chain)] + [chain.index(piece) for piece in pieces]
    kernel = [prod(p.extent for p in group if p.axis == axis) for group in layout.groups]
    weight = as_float(cut.transpose(order)).reshape(outputs, *kernel)
    kept = [[piece for piece in group if piece.axis != axis] for group in layout.groups]
    result = lay.make(kept[0], kept[1], [Piece(axis, outputs)])
    offset = np.zeros(outputs, np.float32) if bias is None else as_float(bias).reshape(outputs)
    tensor = builder.emit(g.Conv, (value.tensor,), result.shape, weight=weight, bias=offset, weight_scale=scale)
    shape = list(value.sample)
    shape[axis] = outputs
    return builder.value(tensor, shape, result)


Labels = tuple[str, ...]
"""A name for each axis."""

WIDE_PLANE = 64 * 1024
"""Elements of a y-plane that has become too large to be the only one."""


def _is_one_wide_plane(layout: Layout, axis: int, outputs: int) -> bool:
    """Whether the result would be a single y-plane, of pixels that could as well be y-planes, and large."""
    width, others = prod(p.extent for p in layout.x), {p.axis for p in layout.x}
    return not layout.y and axis not in others and width > 1 and width * outputs > WIDE_PLANE


def _fills_groups(layout: Layout, axis: int) -> bool:
    """Whether each of y, x and c is wholly of ``axis`` or free of it, and c is of it."""
    mixed = any(len({piece.axis == axis for piece in group}) > 1 for group in layout.groups)
    return not mixed and all(piece.axis == axis for piece in layout.c) and layout.shape.height <= MOST_KERNEL_ROWS


def matmul_sample_wise(call: Call) -> bool:
    left, right = call.any(0), call.any(1)
    if isinstance(left, Value) and isinstance(right, Known):
        return left.rank >= 2 and _shared(right, left.rank)
    if isinstance(left, Known) and isinstance(right, Value):
        return right.rank >= 3 and _shared(left, right.rank)
    return left.rank == right.rank >= 3 if isinstance(left, Value) and isinstance(right, Value) else True


def _shared(matrix: Known, rank: int) -> bool:
    """Whether all samples meet the same matrices."""
    return matrix.array.ndim < rank or (matrix.array.ndim == rank and (rank == 2 or matrix.array.shape[0] == 1))


@handles("MatMul", sample_wise=matmul_sample_wise)
def matmul(call: Call) -> Value:
    call.float_only(0, 1)
    builder, left, right = call.builder, call.any(0), call.any(1)
    if isinstance(left, Value) and isinstance(right, Value):
        if left.rank == right.rank >= 2 and left.sample[:-2] == right.sample[:-2]:
            return product(builder, left, right)
        return _broadcast_product(builder, left, right)
    if isinstance(right, Known):
        matrix = call.constant(1, "the right side")
        rank = matrix.ndim
        value = builder.pad_rank(call.value(0), max(rank, 1))
        if rank == 1:
            result = linear(builder, value, value.rank - 1, matrix[:, None])
            return builder.reshape(result, result.sample[:-1])
        result = stacked(builder, value, value.rank - 1, matrix, call.grid(1), rank - 1)
        return builder.reshape(result, (*result.sample[:-2], result.sample[-1])) if len(call.shape(0)) == 1 else result
    matrix = call.constant(0, "the left side")
    if matrix.ndim == 1:
        value = call.value(1)
        axis = max(value.rank - 2, 0)
        result = linear(builder, value, axis, matrix[:, None])
        return builder.reshape(result, [*result.sample[:axis], *result.sample[axis + 1 :]])
    value = call.value(1)
    if value.rank == 1:
        column = builder.reshape(value, (value.shape[0], 1))
        result = stacked(builder, builder.pad_rank(column, matrix.ndim), matrix.ndim - 2, matrix.swapaxes(-1, -2))
        return builder.reshape(result, result.sample[:-1])
    value = builder.pad_rank(value, matrix.ndim)
    return stacked(builder, value, value.rank - 2, matrix.swapaxes(-1, -2), call.grid(0), matrix.ndim - 2)


def _broadcast_product(builder: Builder, left: Value, right: Value) -> Value:
    """MatMul's of values whose leading axes are 1 on one side or missing, or of which one is a vector."""
    ends: tuple[Labels, Labels] = (("row", "depth")[-left.rank :], ("depth", "column")[: right.rank])
    leads = [side.sample[: -len(end)] for side, end in zip((left, right), ends, strict=True)]
    sides, operands = [], []
    for side, end, lead, other in zip((left, right), ends, leads, reversed(leads), strict=True):
        missing = len(lead) - len(other)
        partners = [1] * missing + list(other[max(-missing, 0) :])
        kept = [i for i, (mine, theirs) in enumerate(zip(lead, partners, strict=True)) if mine != 1 or mine == theirs]
        sides.append(builder.reshape(side, [*(lead[i] for i in kept), *side.sample[len(lead) :]]))
        operands.append((*(str(i - len(lead)) for i in kept), *end))
    places = sorted({label for labels in operands for label in labels if label[0] == "-"}, key=int)
    return contract(
        builder, sides, operands, (*places, *(end for end in ("row", "column") if end in (*ends[0], *ends[1])))
    )


def product(builder: Builder, left: Value, right: Value) -> Value:
    """Of two values, both [..., rows, contracted] and [..., contracted, columns] with the same leading axes.

    One flows, its rows (or columns) as y-planes, and the other is the matrix, with leading axes as groups of channels.
    That is the right one, but where it is the larger and its columns are outermost in memory. The matrix is taken as it
    is stored, so that neither attention's keys nor its values move.
    """
    row, column = left.rank - 2, left.rank - 1
    if left.sample[column] != right.sample[row]:
        raise Refusal(f"the shapes {left.shape} and {right.shape} do not meet")
    if prod(left.sample) < prod(right.sample) and _outermost(right) == column:
        return _flowing(builder, right, column, left, row)
    return _flowing(builder, left, row, right, column)


def _outermost(value: Value) -> int:
    """Which of its last two axes a value has before the other in memory."""
    return next((piece.axis for piece in value.layout.pieces if piece.axis >= value.rank - 2), value.rank - 2)


def _flowing(builder: Builder, flows: Value, kept: int, matrix: Value, made: int) -> Value:
    """The product over the axes that are neither ``kept``, of the one that flows, nor ``made``, of the matrix."""
    rank, lead = flows.rank, list(range(flows.rank - 2))
    others = {rank - 2: rank - 1, rank - 1: rank - 2}
    outer = _outermost(matrix)
    x = builder.realise(flows, lay.by_axes(flows.sample, [kept], [], [*lead, others[kept]]), expand=True)
    stored = lay.by_axes(matrix.sample, [outer], [], [*lead, others[outer]])
    shape = list(flows.sample)
    shape[kept], shape[made] = flows.sample[kept], matrix.sample[made]
    layout = lay.by_axes(shape, [kept], [], [*lead, made])
    tensor = builder.emit(
        g.Product,
        (x, builder.realise(matrix, stored, expand=True)),
        layout.shape,
        groups=prod(flows.sample[:-2]),
        transposed=outer == made,
    )
    return builder.value(tensor, shape, layout)


def contract(builder: Builder, items: Sequence[Result], operands: Sequence[Labels], result: Labels) -> Value:
    """Two operands, at least one of them a value, multiplied and summed over the axes that the result has not. Each has
    no axis that neither the other nor the result has. The first axis of a result by samples is the samples'."""
    (one, other), (mine, theirs) = items, operands
    if isinstance(one, Known):
        (one, other), (mine, theirs) = (other, one), (theirs, mine)
    assert isinstance(one, Value)
    extents = dict(zip(theirs, other.array.shape if isinstance(other, Known) else other.sample, strict=True))
    for label, extent in zip(mine, one.sample, strict=True):
        if extents.setdefault(label, extent) != extent:
            raise Refusal(f"axes of {extent} and {extents[label]} meet")
    lead = [label for label in result if label in mine]
    over = [label for label in mine if label not in result]
    columns = [label for label in result if label not in mine]

    def sizes(labels: Sequence[str]) -> list[int]:
        return [extents[label] for label in labels]

    def value(item: Value, labels: Labels, order: Sequence[str], shape: Sequence[int]) -> Value:
        return builder.reshape(builder.transpose(item, [labels.index(label) for label in order]), shape)

    depth, width = prod(sizes(over)), prod(sizes(columns))
    if isinstance(other, Known):
        made = _with_matrices(
            builder, value(one, mine, [*lead, *over], [*sizes(lead), depth]), other.array, theirs, lead, over, columns
        )
        order = [*lead, *columns]
    else:
        both, rows = [label for label in lead if label in theirs], [label for label in lead if label not in theirs]
        order = [*both, *rows, *columns]
        if not over and not rows and not columns:
            made = builder.binary("mul", value(one, mine, both, sizes(both)), value(other, theirs, both, sizes(both)))
        else:
            left = value(one, mine, [*both, *rows, *over], [*sizes(both), prod(sizes(rows)), depth])
            right = value(other, theirs, [*both, *over, *columns], [*sizes(both), depth, width])
            made = product(builder, left, right)
    made = builder.reshape(made, sizes(order))
    return builder.transpose(made, [order.index(label) for label in result])


def _with_matrices(
    builder: Builder,
    value: Value,
    array: NDArray,
    labels: Labels,
    lead: Sequence[str],
    over: Sequence[str],
    columns: Sequence[str],
) -> Value:
    """The product of a value [*lead, over] and a constant array, over the axes that are the value's last one together:
    [*lead, columns], with an axis of 1 between where the last of ``lead`` is the array's, too."""
    axes = [labels.index(label) for label in (*(label for label in lead if label in labels), *over, *columns)]
    extents = [array.shape[labels.index(label)] if label in labels else 1 for label in lead]
    array = array.transpose(axes)
    depth = value.sample[-1]
    if not over and not columns:
        return builder.binary("mul", value, Known(array.reshape([*extents, 1])))
    if lead and lead[-1] not in labels:
        extents = extents[:-1]
    else:
        value = builder.reshape(value, [*value.sample[:-1], 1, depth])
    return stacked(builder, value, value.rank - 1, array.reshape([*extents, depth, -1]))


def stacked(
    builder: Builder, value: Value, axis: int, matrices: NDArray, grid: Grid | None = None, outputs_axis: int = 0
) -> Value:
    """``linear`` with a matrix [..., extent of axis, outputs] for each leading index: a convolution in groups.

    ``value`` has at least as many axes as ``matrices``; ``axis`` is one of its last two. ``grid`` holds the integers
    that the matrices were made of, ``outputs_axis`` says which of its axes is the outputs'.
    """
    extent, outputs = matrices.shape[-2:]
    scale = None if grid is None else grid.along(outputs_axis, outputs)
    lead = (1,) * (value.rank - matrices.ndim) + matrices.shape[:-2]
    stacks = [position for position, count in enumerate(lead) if count > 1]
    if not stacks:
        return linear(builder, value, axis, matrices.reshape(extent, outputs), scale=scale)
    if value.sample[axis] != extent:
        raise Refusal(f"matrices of {extent} rows meet an axis of {value.sample[axis]}")
    full = broadcast([value.sample, (*lead, 1, 1)])
    if full != value.sample:
        layout = builder.common_layout([value], full)
        value = builder.value(builder.realise(value, layout, expand=True), full, layout)
    value = builder.with_channels(value, [*stacks, axis])
    groups = prod(lead)
    weight = as_float(matrices.reshape(groups, extent, outputs).swapaxes(1, 2)).reshape(groups * outputs, 1, 1, extent)
    channels = [Piece(position, lead[position]) for position in stacks] + [Piece(axis, outputs)]
    result = lay.make(value.layout.y, value.layout.x, channels)
    bias = np.zeros(groups * outputs, np.float32)
    scale = None if scale is None else np.tile(scale, groups)
    tensor = builder.emit(
        g.Conv, (value.tensor,), result.shape, weight=weight, bias=bias, groups=groups, weight_scale=scale
    )
    shape = list(full)
    shape[axis] = outputs
    return builder.value(tensor, shape, result)


def _gemm_sample_wise(call: Call) -> bool:
    third = call.inputs[2] if call.has(2) else None
    fits = third is None or (third.rank == 2 if isinstance(third, Value) else True)
    return isinstance(call.any(0), Value) and isinstance(call.any(1), Known) and not call.int("transA", 0) and fits


@handles("Gemm", sample_wise=_gemm_sample_wise)
def gemm(call: Call) -> Value:
    call.float_only()
    builder = call.builder
    left = call.any(0)
    alpha, beta = call.float("alpha", 1.0), call.float("beta", 1.0)
    trans_a, trans_b = bool(call.int("transA", 0)), bool(call.int("transB", 0))
    if isinstance(left, Value):
        matrix = call.constant(1, "the matrix B")
        matrix = matrix.T if trans_b else matrix
        value = builder.transpose(left, (1, 0)) if trans_a else left
        axis, outputs = 1, matrix.shape[1]
    else:
        matrix = call.constant(0, "the matrix A")
        matrix = matrix if trans_a else matrix.T
        value = call.value(1)
        value = builder.transpose(value, (1, 0)) if trans_b else value
        axis, outputs = 0, matrix.shape[1]
    grid = call.grid(1 if isinstance(left, Value) else 0)
    flipped = trans_b if isinstance(left, Value) else not trans_a
    scale = None if grid is None else grid.along(0 if flipped else 1, outputs)
    if alpha != 1:
        matrix = matrix * np.float32(alpha)
        scale = None if scale is None or alpha <= 0 else scale * np.float32(alpha)
    offset = call.inputs[2] if call.has(2) and beta != 0 else None
    if isinstance(offset, Known):
        array = call.builder.operand(offset, 2) * np.float32(beta)
        array = array.reshape([1] * (2 - array.ndim) + list(array.shape))
        if array.shape[1 - axis] == 1:
            return linear(builder, value, axis, matrix, np.broadcast_to(array.reshape(-1), (outputs,)), scale)
        offset = Known(array)
    elif offset is not None and beta != 1:
        offset = builder.binary("mul", offset, Known(np.float32(beta).reshape(())))
    result = linear(builder, value, axis, matrix, scale=scale)
    return result if offset is None else builder.binary("add", result, offset)
