"""The order of everything: a partition and its layout, unrolled into the instructions of one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from tinytee.plan.layout import Layout
from tinytee.plan.network import Network, block_floor
from tinytee.plan.partition import Choice, chunk_bytes, opened_bytes, stream_blocks


@dataclass(frozen=True)
class LoadStep:
    """Opens a chunk of resident weights: bytes begin .. end of a segment's weights (segment -1: of the pinned ones)."""

    segment: int
    begin: int
    end: int


@dataclass(frozen=True)
class RunStep:
    """Advances an operator to so many units; streamed: its weights are fed meanwhile."""

    segment: int
    node: int
    units: int
    streamed: bool


@dataclass(frozen=True)
class RowStep:
    """Y-planes begin .. end of a tensor cross the boundary. port: of inputs and outputs."""

    kind: Literal["input", "output", "spill", "fetch"]
    segment: int
    tensor: int
    port: int
    begin: int
    end: int


Step = LoadStep | RunStep | RowStep


def resident_bytes(network: Network, choice: Choice, pinned: dict[int, int]) -> int:
    """Weights of a segment that are loaded whole at its start."""
    return sum(
        network.nodes[n].small_bytes + (0 if n in choice.weights.streamed else network.nodes[n].stream_bytes)
        for n in range(choice.segment.first, choice.segment.last + 1)
        if n not in pinned
    )


def stream_geometry(network: Network, choice: Choice, node: int) -> tuple[int, int, int]:
    """(panels a block, panel rows a block, blocks) of a node that the segment streams."""
    return stream_blocks(network, node, choice.weights.staging_bytes)


def piece_rows(network: Network, choice: Choice, node: int) -> int:
    """Rows of the pieces that a node that the segment streams is opened in as it is used; 0: its blocks are opened
    first."""
    return network.nodes[node].piece_rows if opened_bytes(network, node, choice.weights.staging_bytes) else 0


def _blocks(begin: int, end: int, rows: int) -> Iterator[tuple[int, int]]:
    for at in range(begin, end, rows):
        yield at, min(at + rows, end)


def unroll(network: Network, choices: list[Choice], layout: Layout) -> Iterator[Step]:
    """All steps of one run, in order; the pinned weights' loads (setup) come first, as segment -1."""
    chunk = chunk_bytes(network)
    for begin, end in _blocks(0, sum(network.nodes[n].weight_bytes for n in layout.pinned), chunk):
        yield LoadStep(-1, begin, end)
    spilled = frozenset(t for choice in choices for t in choice.spilled)
    for number, choice in enumerate(choices):
        for begin, end in _blocks(0, resident_bytes(network, choice, layout.pinned), chunk):
            yield LoadStep(number, begin, end)
        yield from _unroll_segment(network, number, choice, layout, spilled)


def _unroll_segment(
    network: Network, number: int, choice: Choice, layout: Layout, spilled: frozenset[int]
) -> Iterator[Step]:
    growth = layout.growths[number]
    segment = choice.segment
    incoming = [t for t, _ in segment.rings_in if t in spilled]
    outgoing = frozenset(t for t, _ in segment.rings_out if t in spilled)
    fetched = {t: growth.fetched(t) for t in incoming}

    def is_streamed(node: int) -> bool:
        return node in choice.weights.streamed and node not in layout.pinned

    for step in range(1, segment.steps + 1):
        for tensor in incoming:
            rows = fetched[tensor]
            for begin, end in _blocks(int(rows[step - 1]), int(rows[step]), network.tensors[tensor].block_rows):
                yield RowStep("fetch", number, tensor, -1, begin, end)
        for position in range(segment.first, segment.last + 1):
            node = network.nodes[position]
            frontier = growth.frontiers[position]
            done, units = int(frontier[step - 1]), int(frontier[step])
            if units == done:
                continue
            loop = network.loop_of.get(position)
            if loop is not None:
                first, last = loop
                turns = product(range(done, units), range(first, last + 1)) if position == first else ()
                yield from (RunStep(number, other, unit + 1, is_streamed(other)) for unit, other in turns)
            elif node.op is None:
                kind = "input" if node.output >= 0 else "output"
                tensor = node.output if node.output >= 0 else node.inputs[0]
                for begin, end in _blocks(done, units, network.tensors[tensor].block_rows):
                    yield RowStep(kind, number, tensor, node.port, begin, end)
            else:
                yield RunStep(number, position, units, is_streamed(position))
            if node.output in outgoing:
                info = network.tensors[node.output]
                rows = frontier if node.height == info.shape.height else frontier // node.height
                sealed = block_floor(rows[[step - 1, step]], info)
                for begin, end in _blocks(int(sealed[0]), int(sealed[1]), info.block_rows):
                    yield RowStep("spill", number, node.output, -1, begin, end)
