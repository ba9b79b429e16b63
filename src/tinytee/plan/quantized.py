"""Integer operators as the core has them.

The core takes a mean over a map as float32 and rounds it in an operator of its own: ``split_means`` makes two of one.
Everything else here is how the weights of ``ir.quantized`` lie in memory (see ``tt_op`` in tinytee_program.h).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tinytee.errors import UnsupportedModelError
from tinytee.ir.graph import Graph, Op, Quant
from tinytee.ir.lanes import LANE_BOUND, Stretch, lane_sums
from tinytee.ir.quantized import QConv, QDepthwiseConv, QReduce, Quantize, mean_factor

MOST_STRETCHES = 256
"""TTI_I8_RUNS in core/core.h: stretches of k that one output y-plane may have."""

KEPT_BYTES = 8192
"""Sums of a convolution whose map has at most so many bytes of them may be kept, so that its k can be fed in parts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ScaledMean(QReduce):
    """Mean over y and x of what uint8 stands for, in units of another scale: float32(sum (x - zero)) * factor."""

    factor: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantize(Quantize):
    """float32 in units of the output's scale to uint8."""


CONSTANT_ROWS = 3
"""Rows of a panel that the constants of a FedConv are as long as."""

FED_CONSTANT_BYTES = 2048
"""Constants longer than that come with the panels where every byte counts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FedConv(QConv):
    """A convolution whose constants come before the rows of each panel, so that they need not lie in the arena at once.

    zero_point: of its input.
    """

    zero_point: int


def feed_constants(graph: Graph) -> Graph:
    """Replaces convolutions with many output channels by ones that are fed their constants."""

    def fed(op: Op) -> Op:
        if not isinstance(op, QConv) or 4 * CONSTANT_ROWS * len(op.weight) <= FED_CONSTANT_BYTES:
            return op
        quant = graph.quants.get(op.inputs[0])
        return FedConv(**vars(op), zero_point=zero_point_of(quant))

    return replace(graph, ops=tuple(fed(op) for op in graph.ops))


def split_means(graph: Graph) -> Graph:
    """Replaces every mean over a map by a ScaledMean and a Requantize."""
    ops: list[Op] = []
    shapes = dict(graph.shapes)
    for op in graph.ops:
        if type(op) is not QReduce:
            ops.append(op)
            continue
        mean, source = f"{op.output}:mean", graph.shapes[op.inputs[0]]
        shapes[mean] = graph.shapes[op.output]
        quants = graph.quants[op.inputs[0]], graph.quants[op.output]
        factor = float(mean_factor(*quants, source.height * source.width))
        ops.append(ScaledMean(name=op.name, inputs=op.inputs, output=mean, factor=factor))
        ops.append(Requantize(name=op.name, inputs=(mean,), output=op.output))
    return replace(graph, ops=tuple(ops), shapes=shapes)


def conv_rows(op: QConv) -> int:
    """Rows of a weight panel, of four k each."""
    stretch = Stretch.of(op.weight.shape, op.groups, op.dilations[1])
    return stretch.count * stretch.rows


def pack_weights(op: QConv, panel: int, first: int, last: int) -> NDArray[np.int8]:
    """Panels first .. last of the weights: [panels, rows, panel, 4], filled with zeros; constants apart."""
    stretch, channels = Stretch.of(op.weight.shape, op.groups, op.dilations[1]), op.weight.shape[0] // op.groups
    per_group = -(-channels // panel)
    kernels = op.weight.reshape(op.groups, channels, stretch.count, stretch.length)
    packed = np.zeros((last - first, panel, stretch.count, stretch.rows * 4), np.int8)
    for at in range(first, last):
        group, n = at // per_group, at % per_group * panel
        part = kernels[group, n : n + panel]
        packed[at - first, : len(part), :, : stretch.length] = part
    rows = packed.reshape(last - first, panel, stretch.count * stretch.rows, 4)
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3))


def products_in_16_bits(op: QConv) -> int:
    """How many products of a channel add up in 16 bits, whatever the inputs: 1, 2 or 4. Found once: a planner asks for
    every plan that it considers."""
    if op not in _products:
        most = {count: lane_sums(op.weight, op.groups, op.dilations[1], count).max() for count in (2, 4)}
        _products[op] = max((count for count in most if most[count] <= LANE_BOUND), default=1)
    return _products[op]


_products: WeakKeyDictionary[QConv, int] = WeakKeyDictionary()


def pack_constants(op: QConv, panel: int, zero_point: int) -> NDArray[np.int32]:
    """Of each panel: biases for inputs as they are, biases for inputs less 128, multipliers: [panels, 3, panel]."""
    channels = op.weight.shape[0] // op.groups
    sums = op.weight.reshape(len(op.weight), -1).sum(axis=1, dtype=np.int64)
    constants = np.zeros((3, op.groups, -(-channels // panel) * panel), np.int32)
    bias = op.bias - zero_point * sums
    for row, values in enumerate((_wrapped(bias), _wrapped(bias + 128 * sums), _bits(op.multiplier))):
        constants[row, :, :channels] = values.reshape(op.groups, channels)
    return np.ascontiguousarray(constants.reshape(3, -1, panel).transpose(1, 0, 2))


def fed_constants(op: FedConv, panel: int) -> NDArray[np.int32]:
    """``pack_constants``, found once: every block of the weights comes with some of them."""
    if op not in _fed or _fed[op].shape[2] != panel:
        _fed[op] = pack_constants(op, panel, op.zero_point)
    return _fed[op]


_fed: WeakKeyDictionary[FedConv, NDArray[np.int32]] = WeakKeyDictionary()


def pack_depthwise(op: QDepthwiseConv, zero_point: int) -> list[NDArray]:
    """Weights by four kernel rows, [ceil(kernel_y / 4), kernel_x, channels, 4], and [biases, multipliers]."""
    kernel_y, kernel_x, channels = op.weight.shape
    filled = np.zeros((-(-kernel_y // 4) * 4, kernel_x, channels), np.int8)
    filled[:kernel_y] = op.weight
    packed = filled.reshape(-1, 4, kernel_x, channels).transpose(0, 2, 3, 1)
    bias = op.bias - zero_point * op.weight.reshape(-1, channels).sum(axis=0, dtype=np.int64)
    return [np.ascontiguousarray(packed), np.stack([_wrapped(bias), _bits(op.multiplier)])]


def _wrapped(values: NDArray[np.int64]) -> NDArray[np.int32]:
    """Modulo 2 ** 32: only the whole sum must fit."""
    return values.astype(np.uint32).view(np.int32)


def _bits(values: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.ascontiguousarray(values, np.float32).view(np.int32)


def check(graph: Graph) -> None:
    """Refuses what the core cannot run, though the graph is good.

    Raises:
        UnsupportedModelError: a grouped or dilated convolution has too many kernel elements.
    """
    for op in graph.ops:
        if isinstance(op, QConv) and Stretch.of(op.weight.shape, op.groups, op.dilations[1]).count > MOST_STRETCHES:
            _, kernel_y, kernel_x, _ = op.weight.shape
            raise UnsupportedModelError(
                f"{op.name}: an int8 convolution with groups or dilation has a kernel of at most {MOST_STRETCHES}"
                f" elements, not {kernel_y} x {kernel_x}; leave it in float32 when quantizing (--keep-float NODE)"
            )


def zero_point_of(quant: Quant | None) -> int:
    return quant.zero_point if quant else 0
