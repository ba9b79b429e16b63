"""Matrix products of two maps as the core has them: convolutions whose weights are a map.

The core's convolutions read their weights wherever a program says; that these were loaded is nothing they depend on. So
one of the maps is first put in the order of weights, panel by panel (``tt_op``), by operators that only move elements.
It then lies in the arena whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tinytee.ir.graph import Conv, Gather, Graph, Op, Permute, Product, Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class MapConv(Op):
    """A convolution of 1 x 1 in groups, of ``depth`` input channels and so many ``outputs`` each.

    inputs: x, and the panels [panels of all groups, depth, panel].
    """

    groups: int
    depth: int
    outputs: int
    panel: int

    @cached_property
    def with_weights(self) -> Conv:
        """The same with weights that are known: as fast."""
        return _conv(self, self.groups, self.depth, self.outputs)


def _conv(op: Op, groups: int, depth: int, outputs: int) -> Conv:
    weight = np.broadcast_to(np.zeros((), np.float32), (groups * outputs, 1, 1, depth))
    bias = np.zeros(groups * outputs, np.float32)
    return Conv(
        name=op.name,
        inputs=op.inputs[:1],
        output=op.output,
        activation=op.activation,
        weight=weight,
        bias=bias,
        groups=groups,
    )


def expand_products(graph: Graph, choose_panel: Callable[[Conv, Shape], int]) -> Graph:
    """Replaces every Product by what packs its matrix, and a MapConv.

    choose_panel: the panel width for a convolution of that output.
    """
    ops: list[Op] = []
    shapes = dict(graph.shapes)
    for op in graph.ops:
        ops += _packed(op, shapes, choose_panel) if isinstance(op, Product) else [op]
    return replace(graph, ops=tuple(ops), shapes=shapes)


def _packed(op: Product, shapes: dict[str, Shape], choose_panel: Callable[[Conv, Shape], int]) -> list[Op]:
    matrix, groups, out = op.inputs[1], op.groups, shapes[op.output]
    depth, outputs = shapes[op.inputs[0]].channels // groups, out.channels // groups
    panel = choose_panel(_conv(op, groups, depth, outputs), out)
    padded = -(-outputs // panel) * panel
    ops: list[Op] = []
    if padded > outputs:
        ops.append(_padding(op, outputs, padded))
        rows, channels = (padded, groups * depth) if op.transposed else (depth, groups * padded)
        matrix = ops[-1].output
        shapes[matrix] = Shape(rows, 1, channels)
    dims = (groups, padded // panel, depth, panel)
    if op.transposed:
        strides = (depth, panel * groups * depth, 1, groups * depth)
    else:
        strides = (padded, panel, groups * padded, 1)
    panels = f"{op.output}:panels"
    shapes[panels] = Shape(groups * padded // panel, depth, panel)
    ops.append(Permute(name=op.name, inputs=(matrix,), output=panels, dims=dims, strides=strides))
    ops.append(
        MapConv(
            name=op.name,
            inputs=(op.inputs[0], panels),
            output=op.output,
            activation=op.activation,
            groups=groups,
            depth=depth,
            outputs=outputs,
            panel=panel,
        )
    )
    return ops


def _padding(op: Product, outputs: int, padded: int) -> Gather:
    """Zeros behind each group's outputs, up to whole panels."""
    inside = np.arange(padded) < outputs
    at = np.where(inside, np.arange(padded), -1).astype(np.int32)
    where = {"name": op.name, "inputs": (op.inputs[1],), "output": f"{op.output}:padded"}
    if op.transposed:
        return Gather(**where, rows=at)
    groups = np.arange(op.groups, dtype=np.int32)[:, None] * outputs + at
    return Gather(**where, chans=np.where(inside, groups, -1).astype(np.int32).reshape(-1))
