"""Which thread touches what, in a run that several threads share.

Operators are shared by y-planes, the first ones to the first thread, or by panels (core/ops/conv.c); a thread that has
done its share takes some of another's, which is not known here. Where a thread writes what another core's cache holds,
it waits for that: a layout is settled (``arena.settle``) so that this is seldom so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

import numpy as np

from tinytee.ir.graph import Conv, Permute, Reduce
from tinytee.ir.quantized import QReduce
from tinytee.plan import weights
from tinytee.plan.arena import GRAIN_BYTES, NOBODY, Settling, Touched, settle
from tinytee.plan.layout import Layout
from tinytee.plan.network import Network
from tinytee.plan.partition import Choice, opened_bytes
from tinytee.plan.schedule import RowStep, RunStep, stream_geometry, unroll

UNTOUCHED = -2


class _Trace:
    """Follows a run, and notes who touches each buffer's grains."""

    def __init__(self, network: Network, choices: list[Choice], layout: Layout) -> None:
        self.network = network
        self.choices = choices
        self.layout = layout
        shape = [-(-buffer.bytes // GRAIN_BYTES) for buffer in layout.buffers]
        self.touched = [
            Touched(np.full(grains, UNTOUCHED, np.int8), np.full(grains, UNTOUCHED, np.int8)) for grains in shape
        ]
        self._row_bytes = [0] * len(layout.buffers)
        """Of the y-planes of a buffer's map: the largest one's, if others lie within."""
        for instance in layout.instances:
            row_bytes = network.tensors[instance.tensor].row_bytes
            self._row_bytes[instance.buffer] = max(self._row_bytes[instance.buffer], row_bytes)
        self._done: dict[int, int] = {}

    def follow(self) -> list[Touched]:
        for segment, choice in enumerate(self.choices):
            for node in choice.weights.streamed:
                buffer, place = self.layout.staging_buffers[segment], self._own_place(choice, node)
                for thread in self._even() if buffer >= 0 and place else ():
                    self._touch(buffer, thread * place, (thread + 1) * place, thread)
        for step in unroll(self.network, self.choices, self.layout):
            if isinstance(step, RunStep):
                self._run(step)
            elif isinstance(step, RowStep) and step.kind in ("input", "fetch"):
                self._rows(step.segment, step.tensor, step.begin, step.end, self._even())
        for touched in self.touched:
            for grains in (touched.first, touched.last):
                grains[grains == UNTOUCHED] = NOBODY
        return self.touched

    def _even(self) -> tuple[int, ...]:
        return tuple(range(self.network.threads))

    def _own_place(self, choice: Choice, node: int) -> int:
        """Bytes of a thread's own staging place; 0: they share it."""
        return opened_bytes(self.network, node, choice.weights.staging_bytes) // self.network.threads

    def _run(self, step: RunStep) -> None:
        node = self.network.nodes[step.node]
        done, units = self._done.get(step.node, 0), step.units
        self._done[step.node] = units
        threads = self._sharing(step, units - done)
        for tensor, row_map in zip(node.inputs, node.maps, strict=True):
            read_from = int(row_map.needs[done]) if done else 0
            self._rows(step.segment, tensor, read_from, int(row_map.needs[units]), threads)
        if node.height == self.network.tensors[node.output].shape.height:
            self._rows(step.segment, node.output, done, units, threads)
        else:  # a reduction
            self._rows(step.segment, node.output, 0, 1, threads)

    def _sharing(self, step: RunStep, rows: int) -> tuple[int, ...]:
        """The threads that share the y-planes of a step of an operator, evenly; (NOBODY,) if they share panels."""
        node = self.network.nodes[step.node]
        if isinstance(node.op, Permute | Reduce | QReduce):
            return (0,)
        if isinstance(node.op, weights.AnyConv) and not self._is_by_rows(step, node.op, rows):
            return (NOBODY,)
        return self._even()

    def _is_by_rows(self, step: RunStep, op: weights.AnyConv, rows: int) -> bool:
        """As ``tti_by_rows`` has it; convolutions by Strassen's method, or by Winograd's together, are not."""
        network, node = self.network, self.network.nodes[step.node]
        if node.method == "strassen" or node.method in weights.TOGETHER:
            return False
        before, after = network.tensors[node.inputs[0]].shape, network.tensors[node.output].shape
        elems = rows * (op.strides[0] * before.width * before.channels + after.width * after.channels)
        panels, own = weights.panel_count(op, node.panel), node.method == "direct" and isinstance(op, Conv)
        if step.streamed:
            choice = self.choices[step.segment]
            own = own and self._own_place(choice, step.node) > 0
            panels = stream_geometry(network, choice, step.node)[0]
        return elems > panels * node.panel * node.depth // (2 if own else 1)

    def _rows(self, segment: int, tensor: int, begin: int, end: int, threads: tuple[int, ...]) -> None:
        """Y-planes begin .. end of a tensor, which so many threads share evenly."""
        instance = self.layout.instances[self.layout.instance_of[segment, tensor]]
        row_bytes = self._row_bytes[instance.buffer]
        for at, thread in enumerate(threads):
            low, high = (begin + (end - begin) * part // len(threads) for part in (at, at + 1))
            for first, last in _stretches(low, high, instance.capacity):
                self._touch(instance.buffer, first * row_bytes, last * row_bytes, thread)

    def _touch(self, buffer: int, begin: int, end: int, thread: int) -> None:
        grains = slice(begin // GRAIN_BYTES, max(end // GRAIN_BYTES, begin // GRAIN_BYTES + 1))
        first = self.touched[buffer].first[grains]
        first[first == UNTOUCHED] = thread
        self.touched[buffer].last[grains] = thread


def _stretches(begin: int, end: int, capacity: int) -> Iterable[tuple[int, int]]:
    """Y-planes begin .. end in a ring of so many slots: the slots that they take, in one stretch or two."""
    begin = max(begin, end - capacity)
    while begin < end:
        slot = begin % capacity
        count = min(end - begin, capacity - slot)
        yield slot, slot + count
        begin += count


def touched(network: Network, choices: list[Choice], layout: Layout) -> list[Touched]:
    """Which thread touches what of each buffer."""
    return _Trace(network, choices, layout).follow()


def _touched_bytes(network: Network, choice: Choice) -> int:
    """That a core touches in a segment: its share of maps, and weights."""
    nodes = network.nodes[choice.segment.first : choice.segment.last + 1]
    maps = sum(network.tensors[node.output].whole_bytes for node in nodes if node.output >= 0)
    return maps // network.threads + sum(node.weight_bytes for node in nodes)


def settled(network: Network, choices: list[Choice], layout: Layout) -> Layout:
    """A layout whose buffers, the pinned weights' apart, lie where threads mostly find what is their own."""
    if network.threads == 1:
        return layout
    found = touched(network, choices, layout)
    movable = len(layout.buffers) - len(layout.pinned_buffers)
    buffers, offsets = layout.buffers[:movable], layout.offsets[:movable]
    clocks = list(accumulate((_touched_bytes(network, choice) for choice in choices), initial=0))
    settling = Settling(buffers, offsets, found[:movable], clocks, network.cache_bytes)
    return replace(layout, offsets=(*settle(settling), *layout.offsets[movable:]))
