"""Segments: consecutive nodes that run together, rows flowing from one to the next.

A segment goes through ``steps`` steps. In each step every node advances, in order, to a frontier: so many of its units
are then done. The frontiers are *pulled* from the end: nodes whose output nothing in the segment reads advance evenly,
all others just as far as their readers need (``RowMap.needs``). So no y-plane is computed before it must be, and a
tensor needs slots for what lies between the oldest y-plane still to be read (``RowMap.frees``) and the newest:

    slots = max over steps s of  frontier[s] - min(frontier[s - 1], min over readers c of frees_c[frontier_c[s - 1]])

Example: a 3x3 convolution a (stride 1, padding 1) feeding a 3x3 convolution b, 8 y-planes each, one y-plane of b a
step. b's frontier is 1, 2, .., 8; it needs 2, 3, .., 8, 8 y-planes of a. Before step s b has done s - 1 units and
still reads from y-plane s - 2 on; so a's line buffer holds (s + 1) - (s - 2) = 3 y-planes, the kernel's height.

A loop (``scans``) is in one segment whole. In each step its nodes advance y-plane by y-plane together, all to the same
frontier: as far as what is read of any of them must be, and at least evenly. So a segment may take as many steps as a
loop has y-planes, and end in what reads the last of these: its own few units are then done as late as can be.

Frontiers depend only on what comes later in the segment. ``Growth`` uses that: it fixes the last node and the number of
steps and takes nodes in at the front one by one, each in time independent of the segment's length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinytee.ir.graph import Permute
from tinytee.plan.network import Network, block_ceil, block_floor, overwrites
from tinytee.plan.rowmap import Rows
from tinytee.plan.weights import aligned


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes first .. last (inclusive) in so many steps, and the memory of its line buffers.

    Attributes:
        internal_bytes: line buffers of tensors that live only inside.
        rings_in: for tensors that come in: bytes of the ring they would need if fetched row block by row block.
        rings_out: for tensors that go out: bytes of the ring they would need if spilled row block by row block.
        instructions: about how many instructions the steps take.
        far_bytes: of tensors inside whose line buffers are larger than a core's own cache.
    """

    first: int
    last: int
    steps: int
    internal_bytes: int
    rings_in: tuple[tuple[int, int], ...]
    rings_out: tuple[tuple[int, int], ...]
    instructions: int
    far_bytes: int


class Growth:
    """Grows a segment from its last node towards the front."""

    def __init__(self, network: Network, last: int, steps: int) -> None:
        self.network = network
        self.last = last
        self.steps = steps
        self.first = last + 1
        self.frontiers: dict[int, Rows] = {}
        self.slots: dict[int, int] = {}
        """For every tensor written or read inside: its ring's capacity in y-planes (whole height at most)."""
        self.shared: dict[int, int] = {}
        """Tensors inside that are overwritten or joined, to the one whose ring they are in: their rows are as many, as
        far."""
        self._needs: dict[int, Rows] = {}
        self._frees: dict[int, Rows] = {}
        self._rings_in: dict[int, int] = {}
        self._rings_out: dict[int, int] = {}
        self._internal = 0
        self._instructions = 0
        self._far_bytes = 0
        self._together = np.zeros(0, np.int64)
        """The frontier of the loop that is being taken in."""
        self._is_late = steps > network.nodes[last].height

    def add(self) -> Segment:
        """Takes in the node before the first and describes the segment as it is then."""
        network = self.network
        self.first -= 1
        node = network.nodes[self.first]
        loop = network.loop_of.get(self.first)
        if loop is None:
            frontier = self._frontier(node.output, node.height, node.op is None)
        else:
            frontier = self._loop_frontier(*loop)
        if isinstance(node.op, Permute):  # all at once, even if nothing is read of it: its maps are whole
            frontier = np.where(frontier > 0, node.height, 0)
            frontier[-1] = node.height
        wanted = frontier
        if node.output < 0:  # an output is taken in whole row blocks, the y-planes of which are made evenly
            frontier = block_floor(frontier, network.tensors[node.inputs[0]])
            wanted = np.where(frontier > np.append(0, frontier[:-1]), frontier, wanted)
        self.frontiers[self.first] = frontier
        self._instructions += int(frontier[-1] if loop else np.count_nonzero(frontier[1:] != frontier[:-1]))
        if node.output >= 0:
            self._close(node.output, frontier if node.height == network.tensors[node.output].shape.height else None)
        for tensor, row_map in zip(node.inputs, node.maps, strict=True):
            if network.tensors[tensor].producer > self.first:  # of a loop, closed already
                continue
            self._read(tensor, row_map.needs[wanted], row_map.frees[frontier[:-1]])
        return Segment(
            self.first,
            self.last,
            self.steps,
            self._internal,
            tuple(self._rings_in.items()),
            tuple(self._rings_out.items()),
            self._instructions,
            self._far_bytes,
        )

    def _frontier(self, output: int, height: int, is_input: bool) -> Rows:
        """Units done after each step (index 0: before the first)."""
        even = self._evenly(height)
        if output < 0:
            return even
        info = self.network.tensors[output]
        needs = self._needs.get(output)
        if needs is None:
            frontier = even
        elif height == info.shape.height:
            frontier = needs.copy()
            frontier[-1] = height if info.last_use > self.last else frontier[-1]
        else:  # a reduction: all of its input before its one y-plane
            frontier = np.where(needs > 0, height, 0)
            frontier[-1] = height
        if is_input:
            frontier = block_ceil(frontier, info)
            frontier[-1] = height
        return frontier

    def _evenly(self, height: int) -> Rows:
        """So many units over all steps: some in the first already, or, with a loop's steps, all by the last."""
        reached = np.arange(self.steps + 1) * height
        return reached // self.steps if self._is_late else -(-reached // self.steps)

    def _loop_frontier(self, first: int, last: int) -> Rows:
        """That of all nodes of a loop, which is found when the last of them comes in."""
        if self.first == last:
            network = self.network
            written = [network.nodes[node].output for node in range(first, last + 1)]
            read = [t for t in written if t in self._needs or network.tensors[t].last_use > self.last] or written[-1:]
            frontier = np.maximum.reduce([self._frontier(t, network.nodes[last].height, False) for t in read])
            self._together = np.maximum(frontier, self._evenly(int(frontier[-1])))
        return self._together

    def _close(self, tensor: int, frontier: Rows | None) -> None:
        """A tensor's producer is in: its line buffer is settled. frontier None: a reduction's single y-plane."""
        info = self.network.tensors[tensor]
        self._rings_in.pop(tensor, None)
        if frontier is None:
            slots = 1
        else:
            frees = self._frees.get(tensor)
            lowest = frontier[:-1] if frees is None else np.minimum(frees, frontier[:-1])
            for delay in [c for c in info.consumers if c < info.producer]:
                lowest = np.minimum(lowest, self.network.nodes[delay].maps[0].frees[frontier[:-1]])
            if info.last_use > self.last:  # spilled row blocks leave only when they are whole
                lowest = np.minimum(lowest, block_floor(frontier[:-1], info))
            slots = max(1, int((frontier[1:] - lowest).max()))
        successor = self._successor(tensor, frontier)
        if successor is not None:
            self.shared[tensor], self.slots[tensor] = successor, self.slots[successor]
            return
        blocked = info.last_use > self.last or self.network.nodes[info.producer].op is None
        blocked = blocked or any(self.network.nodes[c].op is None for c in info.consumers)
        self.slots[tensor] = self._capacity(tensor, slots, blocked)
        ring = aligned(self.slots[tensor] * info.row_bytes)
        if info.last_use > self.last:
            self._rings_out[tensor] = ring
        else:
            self._internal += ring
            self._far_bytes += info.whole_bytes if ring > self.network.cache_bytes else 0

    def _successor(self, tensor: int, frontier: Rows | None) -> int | None:
        """The tensor that is written over this one, step by step, where its only reader may do so and both live inside;
        or the one that it is joined to (``Network.joined``), if that goes as far in every step.

        Whatever the reader's readers still want lies in slots that the ring has for them; every other slot is free when
        a step begins, for rows of this tensor that the same step replaces."""
        info = self.network.tensors[tensor]
        if frontier is None or len(info.consumers) != 1 or info.last_use > self.last:
            return None
        if tensor in self.network.joined:
            return self.network.joined[tensor][0] if np.array_equal(frontier, self.frontiers[info.last_use]) else None
        pair = overwrites(self.network, info.last_use)
        if pair is None or pair[0] != tensor or self.network.tensors[pair[1]].last_use > self.last:
            return None
        return pair[1] if np.array_equal(frontier, self.frontiers[info.last_use]) else None

    def _read(self, tensor: int, needs: Rows, frees: Rows) -> None:
        """A node inside reads a tensor whose producer is not in yet."""
        had = self._needs.get(tensor)
        self._needs[tensor] = needs if had is None else np.maximum(had, needs)
        self._frees[tensor] = frees if had is None else np.minimum(self._frees[tensor], frees)
        info = self.network.tensors[tensor]
        fetched = block_ceil(self._needs[tensor], info)
        lowest = np.minimum(self._frees[tensor], fetched[:-1])
        self.slots[tensor] = self._capacity(tensor, max(1, int((fetched[1:] - lowest).max())), True)
        self._rings_in[tensor] = aligned(self.slots[tensor] * info.row_bytes)

    def fetched(self, tensor: int) -> Rows:
        """Y-planes of an incoming tensor that must be back after each step (index 0: before the first)."""
        return block_ceil(self._needs[tensor], self.network.tensors[tensor])

    def _capacity(self, tensor: int, slots: int, blocked: bool) -> int:
        """Slots, in whole row blocks where such blocks must lie side by side; the whole height at most."""
        info = self.network.tensors[tensor]
        if blocked:
            slots = -(-slots // info.block_rows) * info.block_rows
        return min(max(slots, 1), info.shape.height)


def step_counts(height: int) -> list[int]:
    """Numbers of steps worth trying for a node of so many units: all at once, then 1, 2, 4, ... units a step."""
    counts = {1}
    rows = 1
    while rows < height:
        counts.add(-(-height // rows))
        rows *= 2
    return sorted(counts)


class SegmentTable:
    """Every segment that fits some budget, by last node; shared by all plans of a network.

    one_step: only segments of one node in one step, whose maps lie whole in the arena: layer by layer.
    """

    MAX_NODES = 32

    def __init__(self, network: Network, budget_bytes: int, *, one_step: bool = False) -> None:
        self.network = network
        self.budget_bytes = budget_bytes
        self.one_step = one_step
        self._by_last: dict[int, dict[int, list[Segment]]] = {}

    def ending_at(self, last: int) -> dict[int, list[Segment]]:
        """Segments whose last node is ``last``, by first node, fewest steps first."""
        if self.network.is_within_loop(last + 1):
            return {}
        if last not in self._by_last:
            found: dict[int, list[Segment]] = {}
            fewest = self._cut_before(last + 1, self.MAX_NODES)
            for steps in [1] if self.one_step else self._step_counts(fewest, last):
                growth = Growth(self.network, last, steps)
                while growth.first > (fewest if steps > 1 else self._cut_before(last + 1, 1)):
                    segment = growth.add()
                    if segment.internal_bytes > self.budget_bytes:
                        break
                    if not self.network.is_within_loop(segment.first):
                        found.setdefault(segment.first, []).append(segment)
            self._by_last[last] = found
        return self._by_last[last]

    def _cut_before(self, cut: int, count: int) -> int:
        """The cut that so many nodes are before another, at most; a loop counts as one."""
        while cut > 0 and count > 0:
            cut -= 1
            count -= not self.network.is_within_loop(cut)
        return cut

    def _step_counts(self, first: int, last: int) -> list[int]:
        """Those of the last node, and of the loops from ``first`` on."""
        nodes, loop_of = self.network.nodes, self.network.loop_of
        heights = {nodes[node].height for node in (last, *(n for n in range(first, last) if n in loop_of))}
        return sorted({count for height in heights for count in step_counts(height)})
