"""Recurrences as the core has them: operators whose line buffers lead back to themselves.

The core knows no state. But it reads a y-plane wherever it lies, if only it was computed before; and so a state is a
line buffer that an operator reads one y-plane late: ``Delay``. The body of a Scan becomes ordinary operators over maps
as high as the scan, each state a Delay before them that reads what one of them writes. Such a *loop* goes y-plane by
y-plane: all its operators compute y-plane y before any computes y + 1 (``schedule``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from tinytee.ir.graph import Gather, Graph, Op, Scan, Shape

Loop = tuple[int, int]
"""First and last position of a loop's operators, or nodes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Delay(Gather):
    """out[y] = in[y - 1], and zeros for y = 0. What it reads is computed after it."""


def expand_scans(graph: Graph) -> Graph:
    """Replaces every Scan by its loop."""
    ops: list[Op] = []
    shapes = dict(graph.shapes)
    for op in graph.ops:
        ops += _loop_of(op, shapes) if isinstance(op, Scan) else [op]
    return replace(graph, ops=tuple(ops), shapes=shapes)


def _loop_of(scan: Scan, shapes: dict[str, Shape]) -> list[Op]:
    height = shapes[scan.output].height
    names = {name: f"{scan.output}:{name}" for name in scan.body_shapes} | {scan.result: scan.output}
    names |= dict(zip(scan.operands, scan.inputs, strict=True))
    shapes |= {names[name]: replace(shape, height=height) for name, shape in scan.body_shapes.items()}
    before = np.arange(-1, height - 1, dtype=np.int32)
    delays = [
        Delay(name=scan.name, inputs=(names[source],), output=names[state], rows=before)
        for state, source in scan.states
    ]
    body = [replace(op, inputs=tuple(names[n] for n in op.inputs), output=names[op.output]) for op in scan.body]
    return [*delays, *body]


def find_loops(reads: Iterable[tuple[int, int]]) -> list[Loop]:
    """The loops, in order: of every pair (reader, writer) of positions where the writer comes later, what lies between;
    those that overlap are one."""
    loops: list[Loop] = []
    for reader, writer in sorted(pair for pair in reads if pair[0] < pair[1]):
        if loops and reader <= loops[-1][1]:
            loops[-1] = (loops[-1][0], max(loops[-1][1], writer))
        else:
            loops.append((reader, writer))
    return loops


def loops_of(ops: Iterable[Op]) -> dict[int, Loop]:
    """The loop of every operator that is in one, by position."""
    placed = list(enumerate(ops))
    written = {op.output: position for position, op in placed}
    loops = find_loops((reader, written.get(name, -1)) for reader, op in placed for name in op.inputs)
    return {position: loop for loop in loops for position in range(loop[0], loop[1] + 1)}
