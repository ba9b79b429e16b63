"""Folds a scale and shift per channel into the convolution that follows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import fuse_pairs, is_identity, scale_shift


def fold_scale_forward(graph: Graph) -> Graph:
    """conv(x * s + t) becomes one convolution, unless zero padding would meet a shift: padding is not shifted."""
    return fuse_pairs(graph, _fuse)


def _fuse(first: Op, second: Op, graph: Graph) -> Op | None:
    if not isinstance(second, (g.Conv, g.DepthwiseConv)) or not is_identity(first) or len(first.inputs) != 1:
        return None
    shape = graph.shapes[first.output]
    found = scale_shift(first, shape.channels)
    if found is None or graph.shapes[first.inputs[0]] != shape:
        return None
    scale, shift = found
    if any(second.pads) and shift.any():
        return None
    weight = second.weight.astype(np.float64)
    inputs = (first.inputs[0], *second.inputs[1:])
    if isinstance(second, g.DepthwiseConv):
        bias = second.bias + weight.sum(axis=(0, 1)) * shift
        scaled = weight * scale
    else:
        per_group = scale.reshape(second.groups, -1), shift.reshape(second.groups, -1)
        cut = weight.reshape(second.groups, -1, *weight.shape[1:])
        bias = second.bias + np.einsum("goyxc,gc->go", cut, per_group[1]).reshape(-1)
        scaled = (cut * per_group[0][:, None, None, None, :]).reshape(weight.shape)
    return replace(
        second, inputs=inputs, weight=scaled.astype(np.float32), bias=bias.astype(np.float32), weight_scale=None
    )
