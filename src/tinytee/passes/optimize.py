"""The order in which the passes run."""

from __future__ import annotations

from collections.abc import Callable

from tinytee.ir.graph import Graph
from tinytee.passes.bypass_concats import bypass_concats
from tinytee.passes.eliminate_dead import eliminate_dead
from tinytee.passes.fold_batchnorm import fold_batchnorm
from tinytee.passes.fold_scale_forward import fold_scale_forward
from tinytee.passes.fuse_activation import fuse_activation
from tinytee.passes.fuse_pointwise import fuse_pointwise
from tinytee.passes.fuse_quantized import fuse_quantized
from tinytee.passes.fuse_residual import fuse_residual
from tinytee.passes.hoist_scale import hoist_scale
from tinytee.passes.merge_concats import merge_concats
from tinytee.passes.merge_gathers import merge_gathers
from tinytee.passes.merge_pad import merge_pad
from tinytee.passes.merge_tables import merge_tables
from tinytee.passes.order_depth_first import order_depth_first
from tinytee.passes.permute_to_gather import permute_to_gather
from tinytee.passes.ports_carry_bytes import ports_carry_bytes
from tinytee.passes.remove_identity import remove_identity
from tinytee.passes.tabulate import tabulate

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    eliminate_dead,  # so that what nobody reads does not count as a reader
    remove_identity,  # so that neighbours meet
    fuse_pointwise,  # before scales are folded out of spelled-out activations
    eliminate_dead,
    permute_to_gather,  # before gathers merge
    merge_gathers,  # before padding is recognized: one Gather pads both axes
    bypass_concats,  # after slices of slices have become one
    remove_identity,  # a slice of a padding may cancel it, and a Concat have one operand left
    eliminate_dead,  # what nobody reads any more
    merge_concats,
    hoist_scale,
    fold_batchnorm,  # before activations, which would stand between
    fold_scale_forward,
    fuse_activation,  # before residuals, which take the activation along
    fuse_quantized,  # after activations, which become bounds; before residuals, which would stand between
    tabulate,
    eliminate_dead,  # tables that went into others
    merge_tables,
    merge_pad,  # after activations: what follows a relu is not negative
    fuse_residual,
    eliminate_dead,
    ports_carry_bytes,  # after everything that moves conversions or merges them
    order_depth_first,
)


def optimize(graph: Graph) -> Graph:
    """Runs every pass of ``PASSES`` once, in order; the function that the graph computes stays the same."""
    for rewrite in PASSES:
        graph = rewrite(graph)
    return graph
