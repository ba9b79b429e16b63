"""From a partition to memory: which buffers there are, how long each lives, where each lies.

A tensor may have several *instances*: one whole map that lives from its producer to its last reader, or, if it is
spilled, a ring in the producer's segment and one in each reader's. What convolutions compute for a concatenation along
channels may lie within its instance, and is then not copied (``Network.joined``).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tinytee.plan import arena
from tinytee.plan.arena import Buffer
from tinytee.plan.network import Network, overwrites
from tinytee.plan.partition import Choice, workspace_bytes
from tinytee.plan.segments import Growth
from tinytee.plan.weights import aligned


@dataclass(frozen=True)
class Instance:
    """A tensor's place: buffer number, capacity in y-planes, and whether it lies within that of the concatenation that
    it is joined to."""

    tensor: int
    buffer: int
    capacity: int
    is_joined: bool = False


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything lies, in bytes from the start of the data part of the arena.

    Attributes:
        buffers, offsets: all buffers; ``begin`` and ``end`` count segments.
        instances: all tensor instances.
        instance_of: (segment, tensor) to its instance.
        weight_places: (segment, node) to the buffer of its resident weights, and where in it they begin.
        staging_buffers: of each segment (-1 where it streams nothing).
        workspace_buffers: of each segment (-1 where it has none).
        pinned_buffers: node to the buffer of its pinned weights.
        peak_bytes: end of the highest buffer.
        growths: frontiers and capacities of each segment.
        joins: whole maps that others lie within, which are whole, too.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    instances: tuple[Instance, ...]
    instance_of: dict[tuple[int, int], int]
    weight_places: dict[tuple[int, int], tuple[int, int]]
    staging_buffers: tuple[int, ...]
    workspace_buffers: tuple[int, ...]
    pinned_buffers: dict[int, int]
    peak_bytes: int
    growths: tuple[Growth, ...]
    joins: frozenset[int]

    @cached_property
    def weights(self) -> dict[tuple[int, int], int]:
        """(segment, node) to the offset of its resident weights."""
        return {key: self.offsets[buffer] + at for key, (buffer, at) in self.weight_places.items()}

    @cached_property
    def staging(self) -> tuple[int, ...]:
        """Offset of each segment's staging place (-1 where it streams nothing)."""
        return self._offsets_of(self.staging_buffers)

    @cached_property
    def workspaces(self) -> tuple[int, ...]:
        """Offset of each segment's workspace (-1 where it has none)."""
        return self._offsets_of(self.workspace_buffers)

    @cached_property
    def pinned(self) -> dict[int, int]:
        """Node to the offset of its pinned weights."""
        return {node: self.offsets[buffer] for node, buffer in self.pinned_buffers.items()}

    def _offsets_of(self, buffers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.offsets[buffer] if buffer >= 0 else -1 for buffer in buffers)


def grow(network: Network, choice: Choice) -> Growth:
    growth = Growth(network, choice.segment.last, choice.segment.steps)
    while growth.first > choice.segment.first:
        growth.add()
    return growth


class _Builder:
    def __init__(
        self, network: Network, choices: list[Choice], growths: tuple[Growth, ...], joins: frozenset[int]
    ) -> None:
        self.network = network
        self.choices = choices
        self.joins = joins
        self.growths = growths
        self.segment_of = {n: s for s, c in enumerate(choices) for n in range(c.segment.first, c.segment.last + 1)}
        self.spilled = frozenset(t for c in choices for t in c.spilled)
        self.buffers: list[Buffer] = []
        self.instances: list[Instance] = []
        self.instance_of: dict[tuple[int, int], int] = {}

    def _add_instance(self, tensor: int, buffer: int, capacity: int, segments: list[int], joined: bool = False) -> None:
        for segment in segments:
            self.instance_of[segment, tensor] = len(self.instances)
        self.instances.append(Instance(tensor, buffer, capacity, joined))

    def _add_buffer(self, name: str, size: int, begin: int, end: int) -> int:
        self.buffers.append(Buffer(name, size, begin, end))
        return len(self.buffers) - 1

    def _readers(self, tensor: int) -> list[int]:
        info = self.network.tensors[tensor]
        return sorted({self.segment_of[n] for n in (info.producer, *info.consumers)})

    def _is_whole(self, tensor: int) -> bool:
        return len(self._readers(tensor)) > 1 and tensor not in self.spilled

    def _place_of(self, tensor: int) -> Buffer:
        """Of a whole tensor."""
        return self.buffers[self.instances[self.instance_of[self._readers(tensor)[0], tensor]].buffer]

    def parts_of(self, tensors: Container[int]) -> dict[int, list[int]]:
        """Of whole maps, the other whole ones that may lie within them."""
        found: dict[int, list[int]] = {}
        for part, (tensor, _) in self.network.joined.items():
            if tensor in tensors and self._is_whole(tensor) and self._is_whole(part):
                found.setdefault(tensor, []).append(part)
        return found

    def joins_for_nothing(self) -> frozenset[int]:
        """Tensors that others may lie within although they are there for longer then: what lives at once, in any
        segment, takes no more than the most that does without. Needs all buffers, and no joins yet."""
        load = np.zeros(len(self.choices), np.int64)
        for buffer in self.buffers:
            load[buffer.begin : buffer.end + 1] += buffer.bytes
        most, found = load.max(initial=0), set()
        for tensor, parts in self.parts_of(range(len(self.network.tensors))).items():
            whole, places = self._place_of(tensor), [self._place_of(part) for part in parts]
            then = load.copy()
            then[min(place.begin for place in places) : whole.begin] += whole.bytes
            for place in places:
                then[place.begin : place.end + 1] -= place.bytes
            if then.max() <= most:
                load = then
                found.add(tensor)
        return frozenset(found)

    def whole_tensors(self) -> None:
        """Tensors that cross a cut in the arena, and those within them; one that is overwritten shares its successor's
        buffer."""
        home: dict[int, int] = {}
        within = self.parts_of(self.joins)
        inside = {tensor for tensors in within.values() for tensor in tensors}
        order = sorted(range(len(self.network.tensors)), key=lambda t: self.network.tensors[t].producer)
        for tensor in order:
            segments = self._readers(tensor)
            if not self._is_whole(tensor) or tensor in inside:
                continue
            info = self.network.tensors[tensor]
            segment = self.choices[segments[0]].segment
            pair = overwrites(self.network, info.producer) if segment.first == segment.last else None
            if pair and pair[0] in home:
                buffer = home[pair[0]]
                old = self.buffers[buffer]
                self.buffers[buffer] = Buffer(f"{old.name}, {info.name}", old.bytes, old.begin, segments[-1])
            else:
                begin = min(self._readers(t)[0] for t in [tensor, *within.get(tensor, [])])
                buffer = self._add_buffer(info.name, info.whole_bytes, begin, segments[-1])
            home[tensor] = buffer
            self._add_instance(tensor, buffer, info.shape.height, segments)
            for part in within.get(tensor, []):
                self._add_instance(part, buffer, info.shape.height, self._readers(part), joined=True)

    def rings(self) -> None:
        """Tensors inside one segment, and those that are spilled. An overwritten one shares its successor's ring; a
        joined one lies within such a ring, or a whole map."""
        latest_first = sorted(enumerate(self.network.tensors), key=lambda found: -found[1].producer)
        rings: dict[int, int] = {}
        for tensor, info in latest_first:
            segments = self._readers(tensor)
            if self._is_whole(tensor):
                continue
            for segment in segments:
                growth = self.growths[segment]
                capacity, successor = growth.slots[tensor], growth.shared.get(tensor)
                if successor is not None and tensor in self.network.joined:
                    there = self.instances[self.instance_of[segment, successor]]
                    self._add_instance(tensor, there.buffer, there.capacity, segments, joined=True)
                    continue
                if successor is None:
                    size = aligned(capacity * info.row_bytes)
                    rings[tensor] = self._add_buffer(info.name, size, segment, segment)
                else:
                    rings[tensor] = rings[successor]
                    old = self.buffers[rings[tensor]]
                    self.buffers[rings[tensor]] = replace(old, name=f"{info.name}, {old.name}")
                self._add_instance(tensor, rings[tensor], capacity, [segment])

    def weights(self, pinned: frozenset[int]) -> tuple[dict[tuple[int, int], tuple[int, int]], list[int]]:
        """One buffer a segment for its resident weights, one for its staging place.

        Returns (segment, node) to (buffer, offset in it), and each segment's staging buffer (-1: none).
        """
        inside: dict[tuple[int, int], tuple[int, int]] = {}
        staging = []
        for number, choice in enumerate(self.choices):
            at, buffer = 0, len(self.buffers)
            for node in range(choice.segment.first, choice.segment.last + 1):
                info = self.network.nodes[node]
                if node not in pinned and info.weight_bytes:
                    inside[number, node] = (buffer, at)
                    at += info.small_bytes + (0 if node in choice.weights.streamed else info.stream_bytes)
            if at:
                self._add_buffer("weights", at, number, number)
            streamed = [n for n in choice.weights.streamed if n not in pinned]
            staging.append(
                self._add_buffer("staging", choice.weights.staging_bytes, number, number) if streamed else -1
            )
        return inside, staging

    def workspaces(self) -> list[int]:
        """Each segment's workspace buffer (-1: none)."""
        sizes = [
            max(workspace_bytes(self.network, c.segment.first, c.segment.last), c.weights.kept_bytes)
            for c in self.choices
        ]
        return [self._add_buffer("workspace", size, n, n) if size else -1 for n, size in enumerate(sizes)]


def lay_out(
    network: Network,
    choices: list[Choice],
    pinned: frozenset[int] = frozenset(),
    unpinned: Layout | None = None,
) -> Layout:
    """Places a partition's tensors and weights; pinned nodes' weights lie apart, above everything else.

    The peak is at least what lives at once, and at most a few per cent more (see ``arena.place``). Given the layout of
    the same without pinned weights, all that is not pinned takes at most as much as it does there. Whole maps that
    could lie within others, which are then there for longer, do so unless that takes more memory.
    """
    if unpinned is not None:
        return _lay_out(network, choices, unpinned.growths, pinned, unpinned, unpinned.joins)[0]
    growths = tuple(grow(network, choice) for choice in choices)
    layout, joins = _lay_out(network, choices, growths, pinned, None, frozenset())
    if not joins:
        return layout
    joined, _ = _lay_out(network, choices, growths, pinned, None, joins)
    return joined if joined.peak_bytes <= layout.peak_bytes else layout


def _lay_out(
    network: Network,
    choices: list[Choice],
    growths: tuple[Growth, ...],
    pinned: frozenset[int],
    unpinned: Layout | None,
    joins: frozenset[int],
) -> tuple[Layout, frozenset[int]]:
    """A layout with these joins; without any, those that there could be."""
    builder = _Builder(network, choices, growths, joins)
    builder.whole_tensors()
    builder.rings()
    tensor_buffers = len(builder.buffers)
    inside, staging = builder.weights(pinned)
    workspaces = builder.workspaces()
    possible = frozenset() if joins else builder.joins_for_nothing()
    offsets, peak = arena.place(builder.buffers)
    if unpinned is not None and peak > unpinned.peak_bytes:  # smaller buffers, by chance less closely
        places = list(zip(unpinned.buffers, unpinned.offsets, strict=True))
        known = {(buffer.name, buffer.begin): offset for buffer, offset in places[tensor_buffers:]}
        offsets = list(unpinned.offsets[:tensor_buffers])
        offsets += [known[buffer.name, buffer.begin] for buffer in builder.buffers[tensor_buffers:]]
        peak = unpinned.peak_bytes
    buffers, above = list(builder.buffers), {}
    for node in sorted(pinned):
        above[node] = len(buffers)
        buffers.append(Buffer("pinned weights", network.nodes[node].weight_bytes, 0, len(choices) - 1))
        offsets.append(peak)
        peak += network.nodes[node].weight_bytes
    layout = Layout(
        buffers=tuple(buffers),
        offsets=tuple(offsets),
        instances=tuple(builder.instances),
        instance_of=builder.instance_of,
        weight_places=inside,
        staging_buffers=tuple(staging),
        workspace_buffers=tuple(workspaces),
        pinned_buffers=above,
        peak_bytes=peak,
        growths=growths,
        joins=joins,
    )
    return layout, possible
