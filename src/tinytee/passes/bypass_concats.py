"""Takes channels that were joined, and are read apart again, from where they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Op, Shape
from tinytee.passes.rewrite import is_identity, producers


def bypass_concats(graph: Graph) -> Graph:
    """Slices of a Concat along channels become its operands, where nothing else reads it.

    A detector's heads join boxes and scores of each scale, then all scales in one list, of which they take boxes and
    scores: two lists do, each joined of the scales' own maps.
    """
    written, readers = producers(graph), graph.consumers()
    outputs = {port.tensor for port in graph.outputs}
    changed: dict[str, Op] = {}
    for op in graph.ops:
        if isinstance(op, g.Concat) and is_identity(op) and op.output not in outputs:
            found = [_apart(graph.ops[reader], op, written, graph.shapes) for reader in readers[op.output]]
            if None not in found:
                changed |= {other.output: other for other in found if other is not None}
    return graph.with_ops([changed.get(op.output, op) for op in graph.ops])


def _apart(reader: Op, joined: g.Concat, written: Mapping[str, Op], shapes: Mapping[str, Shape]) -> Op | None:
    """What takes the place of a slice of a Concat, and does not read it; None for any other reader."""
    run = _run_of_channels(reader)
    if run is None:
        return None
    parts = _operands(joined, run, shapes) if joined.axis == "c" else _of_scales(joined, run, written, shapes)
    if parts is None:
        return None
    return replace(joined, name=reader.name, inputs=parts, output=reader.output, activation=reader.activation)


def _of_scales(
    joined: g.Concat, run: range, written: Mapping[str, Op], shapes: Mapping[str, Shape]
) -> tuple[str, ...] | None:
    """The operands with just these channels of what a Concat along y joins, one of each."""
    channels = shapes[joined.output].channels
    if joined.axis != "y" or any(shapes[name].channels != channels for name in joined.inputs):
        return None
    found: list[str] = []
    for name in joined.inputs:
        source = written.get(name)
        own = _operands(source, run, shapes) if isinstance(source, g.Concat) and is_identity(source) else None
        if own is None or len(own) != 1:
            return None
        found.extend(own)
    return tuple(found)


def _run_of_channels(op: Op) -> range | None:
    """The channels that a slice of nothing else takes, if they lie side by side."""
    if not isinstance(op, g.Gather) or op.rows is not None or op.cols is not None or op.chans is None:
        return None
    first = int(op.chans[0])
    run = range(first, first + len(op.chans))
    return run if first >= 0 and np.array_equal(op.chans, run) else None


def _operands(joined: g.Concat, run: range, shapes: Mapping[str, Shape]) -> tuple[str, ...] | None:
    """The operands of a Concat along channels that make up just these."""
    found, at = [], 0
    for name in joined.inputs if joined.axis == "c" else ():
        end = at + shapes[name].channels
        if run.start <= at and end <= run.stop:
            found.append((name, at, end))
        at = end
    if not found or (found[0][1], found[-1][2]) != (run.start, run.stop):
        return None
    return tuple(name for name, _, _ in found)
