"""Splits a network into segments: dynamic programming over cut points.

The state at a cut is which of the tensors live across it are *spilled* (sealed, in untrusted memory); the others are
whole in the arena. A transition is a segment together with the way its weights are held:

- resident: in the arena for the segment, opened once;
- streamed: fed block by block through a common staging place, once for each step.

The segments and their options do not depend on the budget, which only says which of them fit. So the least predicted time
never grows with the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinytee.ir.graph import Binary, Conv, DepthwiseConv, LayerNorm, Unary
from tinytee.plan.network import Network
from tinytee.plan.profile import Profile
from tinytee.plan.segments import Segment, SegmentTable
from tinytee.plan.weights import aligned

STAGING_BYTES = (256 * 1024, 64 * 1024, 16 * 1024)
"""Sizes of the place that streamed weight blocks pass through."""

SMALL_TENSOR_BYTES = 16 * 1024
"""Tensors up to this size are not worth spilling."""

CHUNK_BYTES = 256 * 1024
"""Weights that stay resident are fed in chunks of at most this size."""


@dataclass(frozen=True)
class WeightChoice:
    """How a segment holds its weights.

    Attributes:
        streamed: nodes whose convolution weights are streamed.
        staging_bytes: the place their blocks pass through (0 if none is streamed).
        resident_bytes: all other weights.
        seconds: predicted time to open them, all steps together.
    """

    streamed: tuple[int, ...]
    staging_bytes: int
    resident_bytes: int
    seconds: float

    @property
    def bytes(self) -> int:
        return self.staging_bytes + self.resident_bytes


@dataclass(frozen=True)
class Choice:
    """One segment of a partition, with the homes of the tensors around it."""

    segment: Segment
    weights: WeightChoice
    spilled: frozenset[int]
    seconds: float


def stream_blocks(network: Network, node: int, staging_bytes: int) -> tuple[int, int, int]:
    """Geometry of a streamed convolution: (panels a block, panel rows a block, blocks)."""
    info = network.nodes[node]
    depth = int(info.op.weight[0].size)  # type: ignore[union-attr]
    panels = info.stream_bytes // (depth * info.panel * 4)
    per_block = min(panels, staging_bytes // (depth * info.panel * 4))
    if per_block:
        return per_block, depth, -(-panels // per_block)
    rows = max(1, staging_bytes // (info.panel * 4))
    return 1, rows, panels * -(-depth // rows)


def overwrites(network: Network, node: int) -> tuple[int, int] | None:
    """(operand, output) where a node that runs alone may write its output over an operand that dies with it.

    Its y-plane y must depend on no other y-plane of that operand, and both must have the same slots.
    """
    info = network.nodes[node]
    op = info.op
    if isinstance(op, Conv):
        candidates = info.inputs[1:]
    elif isinstance(op, Unary | Binary | LayerNorm):
        candidates = info.inputs
    elif isinstance(op, DepthwiseConv) and op.weight.shape[:2] == (1, 1) and op.strides == (1, 1):
        candidates = info.inputs
    else:
        return None
    output = network.tensors[info.output]
    for tensor in candidates:
        operand = network.tensors[tensor]
        same = (operand.shape, operand.pad_left, operand.pad_right) == (output.shape, output.pad_left, output.pad_right)
        if same and operand.last_use == node and info.inputs.count(tensor) == 1:
            return tensor, info.output
    return None


class Partitioner:
    """Finds the fastest partition of one network for any budget."""

    def __init__(self, network: Network, table: SegmentTable, profile: Profile, suite: str) -> None:
        self.network = network
        self.table = table
        self.profile = profile
        self.suite = suite
        self._weights: dict[tuple[int, int, int], list[WeightChoice]] = {}
        self._spill_seconds = [
            profile.aead_seconds(suite, info.row_bytes * info.shape.height, info.blocks) for info in network.tensors
        ]
        self._node_seconds = [0.0]
        for node in network.nodes:
            self._node_seconds.append(self._node_seconds[-1] + node.seconds)
        self._states = [self._spill_sets(cut) for cut in range(len(network.nodes) + 1)]

    def _spill_sets(self, cut: int) -> list[frozenset[int]]:
        """Which tensors may be spilled at a cut: every subset of few, or the largest ones of many."""
        large = [t for t in self.network.live[cut] if self.network.tensors[t].whole_bytes > SMALL_TENSOR_BYTES]
        large.sort(key=lambda t: -self.network.tensors[t].whole_bytes)
        if len(large) <= 3:
            return [
                frozenset(t for bit, t in enumerate(large) if mask >> bit & 1) for mask in range(1 << len(large))
            ]
        return [frozenset(large[:count]) for count in range(len(large) + 1)]

    def weight_choices(self, first: int, last: int, steps: int) -> list[WeightChoice]:
        """Ways to hold the weights of nodes first .. last, fastest first; none both larger and slower than another."""
        key = (first, last, steps)
        if key in self._weights:
            return self._weights[key]
        nodes = self.network.nodes
        total = sum(nodes[n].weight_bytes for n in range(first, last + 1))
        by_size = sorted((n for n in range(first, last + 1) if nodes[n].stream_bytes), key=lambda n: -nodes[n].stream_bytes)
        chunk = self.profile.chunk_seconds
        rate = self.profile.aead_bytes_per_second[self.suite]
        found = [WeightChoice((), 0, total, total / rate + -(-total // CHUNK_BYTES) * chunk)]
        for staging in STAGING_BYTES:
            resident, extra = total, 0.0
            for count, node in enumerate(by_size, start=1):
                resident -= nodes[node].stream_bytes
                size = max(staging, nodes[node].panel * 4 * 16)
                _, rows, blocks = stream_blocks(self.network, node, size)
                depth = int(nodes[node].op.weight[0].size)  # type: ignore[union-attr]
                passes = -(-depth // rows) - 1
                out = self.network.tensors[nodes[node].output].shape
                extra += steps * (nodes[node].stream_bytes / rate + blocks * (chunk + self.profile.step_seconds))
                extra += passes * out.elems * self.profile.element_seconds
                place = min(size, nodes[by_size[0]].stream_bytes)
                seconds = resident / rate + -(-resident // CHUNK_BYTES) * chunk + extra
                found.append(WeightChoice(tuple(by_size[:count]), aligned(place), resident, seconds))
        found.sort(key=lambda choice: (choice.seconds, choice.bytes))
        kept: list[WeightChoice] = []
        for choice in found:
            if not kept or choice.bytes < kept[-1].bytes:
                kept.append(choice)
        self._weights[key] = kept
        return kept

    def partition(self, budget_bytes: int, progress: Callable[[float], None] | None = None) -> list[Choice] | None:
        """The fastest partition whose live tensors and weights fit the budget at all times, or None."""
        network = self.network
        count = len(network.nodes)
        best: list[dict[frozenset[int], tuple[float, frozenset[int], Choice | None]]] = [{} for _ in range(count + 1)]
        best[0][frozenset()] = (0.0, frozenset(), None)
        whole = [info.whole_bytes for info in network.tensors]
        for last in range(count):
            if progress:
                progress(last / count)
            cut_out = last + 1
            out_live = network.live[cut_out]
            for first, segments in self.table.ending_at(last).items():
                if not best[first]:
                    continue
                self._relax(budget_bytes, first, last, segments, best[first], best[cut_out], whole, out_live)
        final = best[count].get(frozenset())
        if final is None:
            return None
        choices: list[Choice] = []
        at, state = count, frozenset()
        while at > 0:
            _, previous, choice = best[at][state]
            assert choice is not None
            choices.append(choice)
            at, state = choice.segment.first, previous
        return choices[::-1]

    def _relax(self, budget, first, last, segments, states_in, states_out, whole, out_live) -> None:  # noqa: ANN001
        """Tries every segment first .. last between every pair of states of its cuts."""
        network = self.network
        in_live = network.live[first]
        held = set(in_live) | set(out_live)
        both = frozenset(in_live) & frozenset(out_live)
        held_bytes = sum(whole[t] for t in held)
        pair = overwrites(network, first) if first == last else None
        compute = self._node_seconds[last + 1] - self._node_seconds[first]
        for after in self._states[last + 1]:
            for before, (seconds_in, _, _) in states_in.items():
                if before & both != after & both:
                    continue
                away = before | after
                fixed = held_bytes - sum(whole[t] for t in away & held)
                if pair and away.isdisjoint(pair) and held.issuperset(pair):
                    fixed -= whole[pair[1]]
                if fixed > budget:
                    continue
                known = states_out.get(after)
                limit = known[0] if known else float("inf")
                start = seconds_in + compute
                if start >= limit:
                    continue
                for segment in segments:
                    memory = fixed + segment.internal_bytes
                    seconds = start + segment.instructions * self.profile.step_seconds
                    for tensor, ring in segment.rings_in:
                        if tensor in before:
                            memory += ring
                            seconds += self._spill_seconds[tensor]
                    for tensor, ring in segment.rings_out:
                        if tensor in after:
                            memory += ring
                            seconds += self._spill_seconds[tensor]
                    if memory > budget or seconds >= limit:
                        continue
                    for choice in self.weight_choices(first, last, segment.steps):
                        if memory + choice.bytes <= budget:
                            total = seconds + choice.seconds
                            if total < limit:
                                limit = total
                                picked = Choice(segment, choice, away, total - seconds_in)
                                states_out[after] = (total, before, picked)
                            break
