"""Splits a network into segments: dynamic programming over cut points.

The state at a cut is which of the tensors live across it are *spilled* (sealed, in untrusted memory); the others are
whole in the arena. A transition is a segment together with the way its weights are held:

- resident: in the arena for the segment, opened once;
- streamed: fed block by block through a common staging place, once for each step.

The segments and their options do not depend on the budget, which only says which of them fit. So the least predicted
time never grows with the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from tinytee.plan import weights
from tinytee.plan.network import Network, overwrites
from tinytee.plan.profile import Profile
from tinytee.plan.segments import Growth, Segment, SegmentTable
from tinytee.plan.weights import aligned

STAGING_BYTES = (960 * 1024, 640 * 1024, 256 * 1024, 64 * 1024, 16 * 1024)
"""Sizes of the place that streamed weight blocks pass through, at most: it is as large as the largest block."""

BLOCK_BYTES = 640 * 1024
"""Of a thread's part of a block, at most, unless a panel is larger: a core's own cache is to hold the block, what it
was opened from and what is expected next."""

OPENED_BLOCK_BYTES = 16 << 20
"""Of a block of panels that are opened as they are used, about: what the compiler has in memory at a time."""

SMALLER_STAGING_BYTES = (160 * 1024, 96 * 1024, 32 * 1024, 8 * 1024, 4 * 1024, 2 * 1024)
"""More of them for integer networks, whose panels are not to be split, and which run in less memory."""

SMALL_TENSOR_ELEMS = 4 * 1024
"""Tensors up to this size are not worth spilling."""

CHUNK_BYTES, SHARED_CHUNK_BYTES = 256 * 1024, 1024 * 1024
"""Weights that stay resident are fed in chunks of at most this size; such that threads share of at most that, for they
wait for one another at each chunk's end."""

ALONE_SHARE = 0.5
"""Of what threads wait for one another at a chunk's end, that they do not where one opens it alone."""

ROUNDING = 1 + 1e-12
"""A bound that was summed up in another order may be larger than it is by so much."""


def chunk_bytes(network: Network) -> int:
    return CHUNK_BYTES if network.threads == 1 else SHARED_CHUNK_BYTES


@dataclass(frozen=True)
class WeightChoice:
    """How a segment holds its weights.

    Attributes:
        streamed: nodes whose convolution weights are streamed.
        staging_bytes: the place their blocks pass through (0 if none is streamed).
        resident_bytes: all other weights.
        kept_bytes: integer sums of a step, while panels are fed in parts.
        seconds: predicted time to open them, all steps together, and to read anew in each what no cache keeps.
    """

    streamed: tuple[int, ...]
    staging_bytes: int
    resident_bytes: int
    seconds: float
    kept_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.staging_bytes + self.resident_bytes + self.kept_bytes


@dataclass(frozen=True)
class Choice:
    """One segment of a partition, with the homes of the tensors around it."""

    segment: Segment
    weights: WeightChoice
    spilled: frozenset[int]
    seconds: float


@dataclass(frozen=True, eq=False)
class Partition:
    """The fastest for a budget, and for every smaller one of at least ``bytes``, the most that lives at once."""

    choices: list[Choice]
    bytes: int

    @cached_property
    def seconds(self) -> float:
        return sum(choice.seconds for choice in self.choices)


@dataclass(frozen=True)
class _Span:
    """What any budget has in common for the segments first .. last.

    Attributes:
        first: node.
        segments: with the seconds of their steps, whatever the states around them.
        both: tensors that live all through.
        held_bytes: of the tensors around and the workspace, if nothing is spilled.
        least_bytes: of these, if all is spilled that may be.
        overwritten: a tensor before and the one after that may be written over it, if neither is spilled.
        joined: likewise, tensors before and the ones after that they lie within.
        compute_seconds: of the nodes.
        far_seconds: of tensors written, if they are not spilled.
        fastest: way to hold the weights for a step, where it fits.
        least_seconds: what every way takes at least.
        opens_as_used: whether some weights may be opened as they are used.
    """

    first: int
    segments: list[tuple[Segment, float]]
    both: frozenset[int]
    held_bytes: int
    least_bytes: int
    overwritten: tuple[int, int] | None
    joined: tuple[tuple[int, int], ...]
    compute_seconds: float
    far_seconds: dict[int, float]
    fastest: WeightChoice
    least_seconds: float
    opens_as_used: bool


_Reached = tuple[float, frozenset[int], Choice | None, int]
"""The least time, the state before that it comes from, the segment from there, and the bytes that live in it."""

_Cut = list[frozenset[int]]
_States = dict[frozenset[int], _Reached]
_Table = list[_States]


def opened_bytes(network: Network, node: int, staging_bytes: int) -> int:
    """The place that the threads open a streamed convolution's pieces to as they use them; 0 where blocks are opened
    first, for that would be larger than the staging place."""
    info = network.nodes[node]
    if not info.piece_rows:
        return 0
    place = network.threads * weights.panel_bytes(info.op, info.panel, info.piece_rows)  # type: ignore[arg-type]
    return place if place <= staging_bytes else 0


def stream_blocks(network: Network, node: int, staging_bytes: int) -> tuple[int, int, int]:
    """Geometry of a streamed convolution: (panels a block, panel rows a block, blocks).

    Panels that are opened as they are used come in large blocks, if there is place for a piece of each thread's. Else,
    where weights are transformed as they are used, a thread's part of a block is a quarter of what a core's own cache
    holds, if that is a panel: another is for what they are transformed to. Threads share the panels of a block evenly.
    """
    info = network.nodes[node]
    op: Any = info.op
    panels, panel_bytes = weights.panel_count(op, info.panel), weights.panel_bytes(op, info.panel, info.depth)
    if opened_bytes(network, node, staging_bytes):
        threads = network.threads
        per_block = min(panels, max(1, OPENED_BLOCK_BYTES // panel_bytes // threads) * threads)
        return per_block, info.depth, -(-panels // per_block)
    per_block = min(panels, min(staging_bytes, network.threads * BLOCK_BYTES) // panel_bytes)
    if per_block == 0 and panel_bytes <= staging_bytes:
        per_block = 1
    if per_block:
        if info.method in weights.TOGETHER:
            per_block = min(per_block, network.threads * max(1, network.cache_bytes // 4 // panel_bytes))
        if per_block > network.threads:
            per_block -= per_block % network.threads
        return per_block, info.depth, -(-panels // per_block)
    rows = weights.split_rows(op, info.panel, staging_bytes)
    return 1, rows, panels * -(-info.depth // rows)


def workspace_bytes(network: Network, first: int, last: int) -> int:
    """The place that the nodes first .. last of a segment share for their workspaces."""
    return max(node.workspace_bytes for node in network.nodes[first : last + 1])


class Partitioner:
    """Finds the fastest partition of one network for any budget."""

    def __init__(self, network: Network, table: SegmentTable, profile: Profile, suite: str) -> None:
        self.network = network
        self.table = table
        self.profile = profile
        self.suite = suite
        self._stagings = STAGING_BYTES + (SMALLER_STAGING_BYTES if network.graph.quants else ())
        if network.threads > 1:  # whose panels may be large, and are shared evenly
            self._stagings = (network.threads * BLOCK_BYTES, *self._stagings)
        self._wait_seconds = min(profile.step_seconds, profile.chunk_seconds)
        """Of a chunk's time, where threads share its opening, what they wait for one another."""
        self._weights: dict[tuple[int, int, int], list[WeightChoice]] = {}
        self._streams: dict[tuple[int, int], tuple[float, float, int]] = {}
        self._spill_seconds = [
            profile.aead_seconds(suite, info.row_bytes * info.shape.height, info.blocks) for info in network.tensors
        ]
        self._far_seconds = [
            profile.far_seconds(info.whole_bytes) if info.whole_bytes > profile.cache_bytes else 0.0
            for info in network.tensors
        ]
        self._whole_bytes = [info.whole_bytes for info in network.tensors]
        self._node_seconds = list(accumulate((node.seconds for node in network.nodes), initial=0.0))
        self._step_seconds = list(accumulate((node.step_seconds for node in network.nodes), initial=0.0))
        far = (self._far_transform_seconds(n, node.stream_bytes) for n, node in enumerate(network.nodes))
        self._far_transforms = list(accumulate(far, initial=0.0))
        self._weight_bytes = list(accumulate((node.weight_bytes for node in network.nodes), initial=0))
        self._states = [self._spill_sets(cut) for cut in range(len(network.nodes) + 1)]
        self._spans: dict[tuple[int, int], _Span] = {}
        self._tables: dict[int, _Table] = {}
        """By budget: what it takes to get to each cut in each of its states."""

    def _spill_sets(self, cut: int) -> list[frozenset[int]]:
        """Which tensors may be spilled at a cut: every subset of few, or the largest ones of many."""
        tensors, window = self.network.tensors, self.profile.window_bytes
        large = [t for t in self.network.live[cut] if self._is_large(t)]
        large = [t for t in large if not window or tensors[t].row_bytes <= window]
        large.sort(key=lambda t: -self.network.tensors[t].whole_bytes)
        if len(large) <= 3:
            return [frozenset(t for bit, t in enumerate(large) if mask >> bit & 1) for mask in range(1 << len(large))]
        return [frozenset(large[:count]) for count in range(len(large) + 1)]

    def _is_large(self, tensor: int) -> bool:
        info = self.network.tensors[tensor]
        return info.whole_bytes > SMALL_TENSOR_ELEMS * info.elem_bytes

    def _total_bytes(self, first: int, last: int) -> int:
        """Of all weights of nodes first .. last."""
        return self._weight_bytes[last + 1] - self._weight_bytes[first]

    def resident_choice(self, first: int, last: int) -> WeightChoice:
        """All weights of nodes first .. last in the arena."""
        total = self._total_bytes(first, last)
        return WeightChoice((), 0, total, self._open_seconds(total))

    def _fastest_choice(self, first: int, last: int) -> WeightChoice:
        """The fastest way to hold the weights for a step, where it fits and caches keep them: all of them in the arena,
        or opened as they are used."""
        node, resident = self.network.nodes[first], self.resident_choice(first, last)
        place = opened_bytes(self.network, first, node.stream_bytes) if first == last else 0
        if not place:
            return resident
        opening, once, _ = self._stream_costs(first, place)
        seconds = self._open_seconds(node.small_bytes) + opening + once
        opened = WeightChoice((first,), aligned(place), node.small_bytes, seconds)
        return min(opened, resident, key=lambda choice: choice.seconds)

    def _again_seconds(self, resident_bytes: int, steps: int) -> float:
        """Time to read weights in the arena anew in every step after the first, where no cache keeps them."""
        if resident_bytes <= self.profile.cache_bytes:
            return 0.0
        return (steps - 1) * resident_bytes / self.profile.far_bytes_per_second

    def _far_transform_seconds(self, node: int, block_bytes: int) -> float:
        """Time that transforming weights takes longer where they are read from where no cache keeps them: as that is
        all that is done with them then, nothing hides it."""
        info = self.network.nodes[node]
        if info.method not in weights.TOGETHER or block_bytes <= self.profile.cache_bytes * self.network.threads:
            return 0.0
        return info.stream_bytes / self.profile.far_bytes_per_second

    def _open_seconds(self, count_bytes: int) -> float:
        chunks = -(-count_bytes // chunk_bytes(self.network))
        is_alone = self.network.threads > 1 and count_bytes <= weights.PIECE_BYTES
        saved = chunks * self._wait_seconds * ALONE_SHARE if is_alone else 0.0
        return self.profile.aead_seconds(self.suite, count_bytes, chunks) - saved

    def _stream_costs(self, node: int, staging_bytes: int) -> tuple[float, float, int]:
        """Seconds to stream a node's weights: in every step, and once (passes over the output of split panels, or over
        the input that Winograd's method transforms); and the bytes of a block."""
        key = (node, staging_bytes)
        if key not in self._streams:
            info = self.network.nodes[node]
            op: Any = info.op
            panels, rows, blocks = stream_blocks(self.network, node, staging_bytes)
            passes = -(-info.depth // rows) - 1
            if info.whole_panels and passes:
                return math.inf, math.inf, 0
            rate = self.profile.aead_bytes_per_second[self.suite]
            once = passes * self.network.tensors[info.output].shape.elems * self.profile.element_seconds
            if info.reading:
                count = weights.panel_count(op, info.panel)
                more = info.reading.passes(count, panels) - info.reading.passes(count, count)
                once += more * info.reading.seconds
            block = opened_bytes(self.network, node, staging_bytes)
            if block:
                each = info.stream_bytes / rate + blocks * self.profile.chunk_seconds - self._wait_seconds
            else:
                each = info.stream_bytes / rate + blocks * (self.profile.chunk_seconds + self.profile.step_seconds)
                block = panels * weights.panel_bytes(op, info.panel, rows)
            if info.method in weights.TOGETHER and panels % self.network.threads:
                each += (self.network.threads - 1) * info.step_seconds  # each transforms what the others do, too
            self._streams[key] = (each + self._far_transform_seconds(node, block), once, block)
        return self._streams[key]

    def _kept_bytes(self, node: int, block: int, steps: int) -> int:
        """Integer sums of a step that are kept while panels are fed in blocks of so many bytes; 0 for whole panels.
        A node alone in its segment takes even steps; of others it is not known here how far each goes."""
        info = self.network.nodes[node]
        if block >= weights.panel_bytes(info.op, info.panel, info.depth):  # type: ignore[arg-type]
            return 0
        return aligned(-(-info.height // steps) * info.kept_row_bytes)

    def streaming_choices(self, first: int, last: int, steps: int) -> list[WeightChoice]:
        """Ways to stream weights of nodes first .. last, the largest first; none larger and slower than another."""
        key = (first, last, steps)
        if key in self._weights:
            return self._weights[key]
        nodes, far, total = self.network.nodes, self._far_transform_seconds, self._total_bytes(first, last)
        by_size = [n for n in range(first, last + 1) if nodes[n].stream_bytes]
        by_size.sort(key=lambda n: -nodes[n].stream_bytes)
        found = []
        for staging in self._stagings:
            resident, extra, place, sums = total, 0.0, 0, 0
            for count, node in enumerate(by_size, start=1):
                resident -= nodes[node].stream_bytes
                each, once, block = self._stream_costs(node, staging)
                extra += self.network.runs(node, steps) * each + once
                place = max(place, aligned(block))
                sums = max(sums, self._kept_bytes(node, block, steps if first == last else 1))
                if sums > nodes[node].most_kept_bytes:
                    break
                seconds = self._open_seconds(resident) + extra + self._again_seconds(resident, steps)
                seconds += steps * sum(far(other, nodes[other].stream_bytes) for other in by_size[count:])
                if seconds == math.inf:
                    break
                found.append(WeightChoice(tuple(by_size[:count]), place, resident, seconds, sums))
        found.sort(key=lambda choice: (choice.seconds, choice.bytes))
        kept: list[WeightChoice] = []
        for choice in found:
            if not kept or choice.bytes < kept[-1].bytes:
                kept.append(choice)
        self._weights[key] = kept
        return kept

    def _least_again_seconds(self, total_bytes: int, room: int, steps: int) -> float:
        """Time in the steps after the first that every way takes to stream some of so many bytes, and hold the others
        in ``room``: what is held is read again, unless a cache keeps it, and what is not is opened again."""
        opening, cache = self.profile.aead_bytes_per_second[self.suite], self.profile.cache_bytes
        least = (total_bytes - min(room, cache, total_bytes)) / opening
        if room > cache:
            held = min(room, total_bytes)
            reading = max(opening, self.profile.far_bytes_per_second)
            least = min(least, (total_bytes - held) / opening + held / reading)
        return (steps - 1) * least

    def _hold_weights(self, segment: Segment, span: _Span, room: int, limit: float) -> WeightChoice | None:
        """The fastest way to hold a segment's weights in so many bytes, if it takes less than ``limit`` seconds."""
        whole, fastest = None, span.fastest
        if fastest.streamed and segment.steps == 1 and fastest.bytes <= room:
            return fastest if fastest.seconds < limit else None
        resident = self.resident_choice(segment.first, segment.last) if fastest.streamed else fastest
        if resident.bytes <= room:
            far = self._far_transforms[segment.last + 1] - self._far_transforms[segment.first]
            again = self._again_seconds(resident.bytes, segment.steps) + segment.steps * far
            if resident.seconds + again < limit:
                whole = replace(resident, seconds=resident.seconds + again) if again else resident
                limit = whole.seconds
        least = span.least_seconds + self._least_again_seconds(resident.bytes, room, segment.steps)
        if (whole is resident and not span.opens_as_used) or least > limit * ROUNDING:
            return whole
        for choice in self.streaming_choices(segment.first, segment.last, segment.steps):
            if choice.seconds >= limit:
                break
            if choice.bytes <= room:
                return choice
        return whole

    def _layers(self) -> Iterator[tuple[int, int]]:
        """First and last of the nodes that nothing divides."""
        first = 0
        for last in range(len(self.network.nodes)):
            if not self.network.is_within_loop(last + 1):
                yield first, last
                first = last + 1

    def layerwise(self) -> list[Choice]:
        """One node or loop a segment, in one step, maps and weights whole: how an engine without memory planning
        runs."""
        choices = []
        for first, last in self._layers():
            growth = Growth(self.network, last, 1)
            segment = growth.add()
            while segment.first > first:
                segment = growth.add()
            held = self.resident_choice(first, last)
            seconds = self._node_seconds[last + 1] - self._node_seconds[first] + held.seconds
            choices.append(Choice(segment, held, frozenset(), seconds))
        return choices

    def partition(self, budget_bytes: int, progress: Callable[[float], None] | None = None) -> Partition | None:
        """The fastest partition whose live tensors and weights fit the budget at all times, or None. Of equally fast
        ones it is always the same, whatever other budgets were asked for before."""
        count = len(self.network.nodes)
        above = self._tables.get(min((known for known in self._tables if known >= budget_bytes), default=-1))
        best: _Table = [{} for _ in range(count + 1)]
        best[0][frozenset()] = (0.0, frozenset(), None, 0)
        for last in range(count):
            if progress:
                progress(last / count)
            states = self._inherit(best, above, last + 1, budget_bytes) if above else self._states[last + 1]
            if not states:
                continue
            for first, segments in self.table.ending_at(last).items():
                if best[first]:
                    self._relax(budget_bytes, self._span(first, last, segments), best[first], best[last + 1], states)
        self._tables[budget_bytes] = best
        final = best[count].get(frozenset())
        if final is None:
            return None
        choices: list[Choice] = []
        at, state, most = count, frozenset(), 0
        while at > 0:
            _, previous, choice, memory = best[at][state]
            assert choice is not None
            choices.append(choice)
            at, state, most = choice.segment.first, previous, max(most, memory)
        return Partition(choices[::-1], most)

    def _inherit(self, best: _Table, above: _Table, cut: int, budget_bytes: int) -> _Cut:
        """Takes from a larger budget's table what stays the fastest: it fits, and what it comes from took no longer.
        Returns the cut's other states, of those that the larger budget reaches."""
        states = []
        for state in self._states[cut]:
            reached = above[cut].get(state)
            if reached is None:
                continue
            _, before, choice, memory = reached
            assert choice is not None
            first = choice.segment.first
            known = best[first].get(before)
            if memory <= budget_bytes and known and known[0] == above[first][before][0]:
                best[cut][state] = reached
            else:
                states.append(state)
        return states

    def _span(self, first: int, last: int, segments: list[Segment]) -> _Span:
        key = (first, last)
        if key not in self._spans:
            network = self.network
            before, after = set(network.live[first]), set(network.live[last + 1])
            live = before | after
            held_bytes = sum(self._whole_bytes[t] for t in live) + workspace_bytes(network, first, last)
            pair = overwrites(network, first) if first == last else None
            each_step = self._step_seconds[last + 1] - self._step_seconds[first]
            costs = [
                s.instructions * self.profile.step_seconds + s.steps * each_step + self.profile.far_seconds(s.far_bytes)
                for s in segments
            ]
            written = after - before
            joined = tuple((t, whole) for t, (whole, _) in network.joined.items() if t in before and whole in written)
            spared = frozenset().union(*self._states[first], *self._states[last + 1], pair[1:] if pair else ())
            spared = spared.union(t for t, _ in joined)
            fastest = self._fastest_choice(first, last)
            opening = self._total_bytes(first, last) / self.profile.aead_bytes_per_second[self.suite]
            opens_as_used = any(node.piece_rows for node in network.nodes[first : last + 1])
            self._spans[key] = _Span(
                first=first,
                segments=list(zip(segments, costs, strict=True)),
                both=frozenset(network.live[first]) & frozenset(network.live[last + 1]),
                held_bytes=held_bytes,
                least_bytes=held_bytes - sum(self._whole_bytes[t] for t in live & spared),
                overwritten=pair if pair and live.issuperset(pair) else None,
                joined=joined,
                compute_seconds=self._node_seconds[last + 1] - self._node_seconds[first],
                far_seconds={
                    t: self._far_seconds[t] for t in network.live[last + 1] if network.tensors[t].producer >= first
                },
                fastest=fastest,
                least_seconds=opening if opens_as_used else fastest.seconds,
                opens_as_used=opens_as_used,
            )
        return self._spans[key]

    def _relax(self, budget: int, span: _Span, states_in: _States, states_out: _States, states: _Cut) -> None:
        """Tries a span's segments between every state of its first cut and those given of its last."""
        whole, spill_seconds = self._whole_bytes, self._spill_seconds
        total_bytes = self._total_bytes(span.first, span.segments[0][0].last)
        least = math.inf
        for segment, cost in span.segments:
            room = budget - span.least_bytes - segment.internal_bytes
            if room >= 0:
                least = min(least, cost + self._least_again_seconds(total_bytes, room, segment.steps))
        if least == math.inf:
            return
        least += span.compute_seconds + span.least_seconds
        by_shared: dict[frozenset[int], _Cut] = {}
        """The states before, by what they spill of the tensors that live all through."""
        for before in self._states[span.first]:
            if before in states_in:
                by_shared.setdefault(before & span.both, []).append(before)
        for after in states:
            far_out = sum(cost for t, cost in span.far_seconds.items() if t not in after)
            for before in by_shared.get(after & span.both, ()):
                seconds_in = states_in[before][0]
                known = states_out.get(after)
                limit = known[0] if known else math.inf
                if seconds_in + far_out + least > limit * ROUNDING:
                    continue
                away = before | after
                fixed = span.held_bytes - sum(whole[t] for t in away)
                if span.overwritten and away.isdisjoint(span.overwritten):
                    fixed -= whole[span.overwritten[1]]
                fixed -= sum(whole[t] for t, around in span.joined if not away & {t, around})
                if fixed > budget:
                    continue
                start = seconds_in + span.compute_seconds + far_out
                for segment, cost in span.segments:
                    memory, seconds = fixed + segment.internal_bytes, start + cost
                    if memory > budget or seconds + span.least_seconds >= limit:
                        continue
                    for tensor, ring in segment.rings_in if before else ():
                        if tensor in before:
                            memory += ring
                            seconds += spill_seconds[tensor]
                    for tensor, ring in segment.rings_out if after else ():
                        if tensor in after:
                            memory += ring
                            seconds += spill_seconds[tensor]
                    if memory > budget or seconds + span.least_seconds >= limit:
                        continue
                    held_so = self._hold_weights(segment, span, budget - memory, limit - seconds)
                    if held_so is None:
                        continue
                    total = seconds + held_so.seconds
                    if total < limit:
                        limit = total
                        choice = Choice(segment, held_so, away, total - seconds_in)
                        states_out[after] = (total, before, choice, memory + held_so.bytes)
                    if held_so is span.fastest and not segment.far_bytes:  # more steps only add instructions
                        break
