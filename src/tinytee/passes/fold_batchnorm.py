"""Folds a scale and shift per channel (batch normalization, above all) into the convolution before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import F64, fuse_pairs, is_identity, scale_shift


def fold_batchnorm(graph: Graph) -> Graph:
    """conv(x) * s + t becomes one convolution with weights * s and bias * s + t; so do two scales in a row."""
    return fuse_pairs(graph, _fuse)


def _fuse(first: Op, second: Op, graph: Graph) -> Op | None:
    shape = graph.shapes[second.output]
    if not is_identity(first) or graph.shapes[first.output] != shape:
        return None
    after = scale_shift(second, shape.channels)
    if after is None:
        return None
    scale, shift = after
    common = {"output": second.output, "activation": second.activation}
    if isinstance(first, g.Conv) and len(first.inputs) == 1:
        weight = (first.weight * scale[:, None, None, None]).astype(np.float32)
        bias, steps = (first.bias * scale + shift).astype(np.float32), _scaled(first.weight_scale, scale)
        return replace(first, weight=weight, bias=bias, weight_scale=steps, **common)
    if isinstance(first, g.DepthwiseConv):
        weight = (first.weight * scale).astype(np.float32)
        bias, steps = (first.bias * scale + shift).astype(np.float32), _scaled(first.weight_scale, scale)
        return replace(first, weight=weight, bias=bias, weight_scale=steps, **common)
    before = scale_shift(first, shape.channels)
    if before is None or graph.shapes[first.inputs[0]] != shape:
        return None
    return g.DepthwiseConv(
        name=first.name,
        inputs=first.inputs,
        weight=(before[0] * scale).astype(np.float32).reshape(1, 1, -1),
        bias=(before[1] * scale + shift).astype(np.float32),
        **common,
    )


def _scaled(weight_scale: g.Array | None, scale: F64) -> g.Array | None:
    """Scales of integer weights that are multiplied by ``scale``; a filter of zeros may keep its own."""
    if weight_scale is None:
        return None
    product = np.abs(weight_scale * scale).astype(np.float32)
    return np.where(product > 0, product, weight_scale)
