"""Applies an activation where the value is computed."""

from __future__ import annotations

from dataclasses import replace

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op
from tinytee.passes.rewrite import fuse_pairs, is_identity

_HOSTS = (g.Conv, g.DepthwiseConv, g.Binary)


def fuse_activation(graph: Graph) -> Graph:
    """A Unary moves into the convolution or elementwise operator that writes its input, if nothing else reads it."""

    def fuse(first: Op, second: Op, _: Graph) -> Op | None:
        if not isinstance(second, g.Unary) or not isinstance(first, _HOSTS) or not is_identity(first):
            return None
        return replace(first, activation=second.activation, output=second.output)

    return fuse_pairs(graph, fuse)
