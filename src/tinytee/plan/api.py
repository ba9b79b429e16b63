"""The planner's face: a graph and a budget give a plan, a plan gives a program.

The time of a plan never grows with the budget. The partition's time is monotone in the memory that it may use, by
construction (``partition``); but buffers placed in the arena may need a little more than what lives at once, so
that a partition for e bytes can take more than e. The planner therefore looks at a fixed ladder of sizes e, takes
every rung whose partition *as placed* fits the budget, fills what is left with pinned weights, and keeps the
fastest. A larger budget admits the same rungs and more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from tinytee.bundle.abi import constants, ffi
from tinytee.errors import BudgetError, UnsupportedModelError
from tinytee.ir.graph import Graph
from tinytee.ir.quantized import QConv
from tinytee.plan import lower as lowering
from tinytee.plan import weights
from tinytee.plan.cost import least_seconds
from tinytee.plan.entropy import Entropy, code_entropy, is_entropy_coded, known_entropy
from tinytee.plan.layout import Layout, lay_out
from tinytee.plan.lowered import Lowered
from tinytee.plan.network import BLOCK_BYTES, Network, Way, build, choose_ways, expand
from tinytee.plan.owners import settled
from tinytee.plan.partition import ROUNDING, Choice, Partition, Partitioner
from tinytee.plan.profile import Profile
from tinytee.plan.profile import load as load_profile
from tinytee.plan.segments import SegmentTable

METHOD_BYTES = (0, 128 * 1024, 256 * 1024, 512 * 1024, 1024 * 1024, 1536 * 1024, 2624 * 1024)
"""Variants of a network: convolutions by Winograd's or Strassen's method if what that keeps in the arena, a panel and a
workspace, is at most so large (0: none)."""

LEAST_SHARE = 1.25
"""Each is considered from so many times as much memory on."""

SHARED_BLOCK_BYTES, SHARED_BLOCKS_FROM = 128 * 1024, 512 * 1024
"""Of row blocks, where threads share the sealing and opening of each: in variants that may keep so much."""

NARROW_MOST_BYTES = 1 << 20
"""Up to this budget, and where nothing else fits, integer networks have a variant whose panels are narrow."""

RUNGS_PER_OCTAVE = 16
COARSE_RUNGS = 8
"""Every so many rungs below the highest that fits, a partition is considered as well: it leaves more for pinning. Every
rung is for a network of at most FEW_NODES nodes, which is planned in no time, and where the program is fed in parts: a
partition for less memory may have fewer."""

BETWEEN_RUNGS_BYTES = 256
"""The least memory is sought between the rungs, so closely."""

FEW_NODES = 40

MANIFEST_BYTES = 1024
"""Of a bundle whose classes have no names: about so large."""


@dataclass(frozen=True)
class PlannedSegment:
    """A segment as a reader of the plan wants it: node names, steps, what is streamed and spilled."""

    first: int
    last: int
    nodes: tuple[str, ...]
    steps: int
    streamed: tuple[str, ...]
    spilled: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class PlannedBuffer:
    """A piece of the arena: offset and bytes; it lives through segments begin .. end (inclusive)."""

    name: str
    offset: int
    bytes: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Plan:
    """How a network runs in a budget.

    Attributes:
        network: the graph as planned.
        choices, layout: the partition and its placement.
        budget_bytes: the secure memory that was offered.
        peak_secure_memory_bytes: what a run uses, engine and program included.
        predicted_seconds: one sample, by the profile's cost model.
        suite: AEAD suite.
        profile: name of the device profile.
    """

    network: Network
    choices: list[Choice]
    layout: Layout
    budget_bytes: int
    peak_secure_memory_bytes: int
    predicted_seconds: float
    suite: str
    profile: str
    _lowered: Lowered = field(repr=False)

    @cached_property
    def segments(self) -> tuple[PlannedSegment, ...]:
        def name(node: int) -> str:
            info = self.network.nodes[node]
            if info.op is not None:
                return info.op.name or type(info.op).__name__
            ports = self.network.graph.inputs if info.output >= 0 else self.network.graph.outputs
            return ports[info.port].name

        return tuple(
            PlannedSegment(
                first=c.segment.first,
                last=c.segment.last,
                nodes=tuple(name(n) for n in range(c.segment.first, c.segment.last + 1)),
                steps=c.segment.steps,
                streamed=tuple(name(n) for n in c.weights.streamed if n not in self.layout.pinned),
                spilled=tuple(self.network.tensors[t].name for t in sorted(c.spilled)),
                seconds=c.seconds,
            )
            for c in self.choices
        )

    @cached_property
    def buffers(self) -> tuple[PlannedBuffer, ...]:
        data = self.peak_secure_memory_bytes - self.layout.peak_bytes
        fixed = PlannedBuffer("engine and program", 0, data, 0, len(self.choices) - 1)
        placed = zip(self.layout.buffers, self.layout.offsets, strict=True)
        return (fixed, *(PlannedBuffer(b.name, data + at, b.bytes, b.begin, b.end) for b, at in placed))

    @cached_property
    def entropy_coded(self) -> tuple[str, ...]:
        """Names of the operators whose weights are entropy-coded."""
        codings = ((op.name, weights.coding_of(op)) for op in self.network.graph.ops)
        return tuple(name for name, coding in codings if coding is not None and coding.streams is not None)

    def limit_seconds(self, opened_bytes: int, profile: Profile) -> float:
        """What no engine that opens so many bytes a run and computes as this plan does can be faster than: every
        multiplication at the peak rate of the device's vectors, every byte at that of its AEAD, nothing else."""
        shapes = self.network.graph.shapes
        computed = (
            least_seconds(node.op, shapes[node.op.output], profile, node.method)
            for node in self.network.nodes
            if node.op is not None
        )
        return sum(computed) + opened_bytes / profile.aead_bytes_per_second[self.suite]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "budget_bytes": self.budget_bytes,
            "peak_secure_memory_bytes": self.peak_secure_memory_bytes,
            "predicted_seconds": self.predicted_seconds,
            "suite": self.suite,
            "profile": self.profile,
            "pinned_bytes": sum(self.network.nodes[n].weight_bytes for n in self.layout.pinned),
            "segments": [vars(s) for s in self.segments],
            "buffers": [vars(b) for b in self.buffers],
        }


@dataclass(frozen=True, eq=False)
class _Placed:
    network: Network
    choices: list[Choice]
    layout: Layout
    seconds: float
    peak_bytes: int
    """Engine and program included."""
    in_parts: bool = False
    """Whether a run is fed the program part by part."""


@dataclass(frozen=True, eq=False)
class _Best:
    variant: _Variant
    placed: _Placed
    pinned: frozenset[int]
    seconds: float

    def segment_seconds(self, first: int, last: int) -> float:
        """Of the segment of these nodes; infinite if it has none."""
        alike = (c.seconds for c in self.placed.choices if (c.segment.first, c.segment.last) == (first, last))
        return next(alike, math.inf)


class _Variant:
    """One way to compute the network's convolutions, planned for any number of budgets."""

    def __init__(self, network: Network, profile: Profile, suite: str, table: SegmentTable) -> None:
        self.network, self.profile, self.suite = network, profile, suite
        self.stored: Graph | None = None
        """The graph with its weights as they are stored, how its convolutions are computed, and the size of blocks."""
        self.ways: dict[str, Way] = {}
        self.block_bytes = BLOCK_BYTES
        self.partitioner = Partitioner(network, table, profile, suite)
        self._arithmetic = sum(node.seconds for node in network.nodes)
        self._weight_bytes = sum(node.weight_bytes for node in network.nodes)
        self._open_rate = profile.aead_bytes_per_second[suite]
        self._found: list[tuple[int, int, Partition | None]] = []
        """Partitions: the sizes of which each is the fastest; None: those for which there is none."""
        self._placed: dict[Partition, _Placed] = {}
        self._in_parts: dict[_Placed, _Placed] = {}

    def _partition(self, size_bytes: int, progress: Callable[[float], None] | None = None) -> Partition | None:
        """The fastest one for so many bytes; None where nothing fits them."""
        for least, most, known in self._found:
            if least <= size_bytes <= most:
                return known
        found = self.partitioner.partition(size_bytes, progress)
        self._found.append((found.bytes if found else 0, size_bytes, found))
        return found

    def placed(self, size_bytes: int) -> _Placed | None:
        """The fastest partition for so many bytes, placed; None where nothing fits them."""
        found = self._partition(size_bytes)
        return self._place(found) if found else None

    def _place(self, found: Partition) -> _Placed:
        if found not in self._placed:
            self._placed[found] = self.place(found.choices)
        return self._placed[found]

    def place(self, choices: list[Choice]) -> _Placed:
        layout = lay_out(self.network, choices)
        peak = _session_bytes(lowering.lower(self.network, choices, layout))
        return _Placed(self.network, choices, layout, sum(c.seconds for c in choices), peak)

    def in_parts(self, placed: _Placed) -> _Placed:
        """The same with its program in parts, fed when their turn comes; they are checked about as fast as opened."""
        if placed not in self._in_parts:
            lowered = lowering.lower(self.network, placed.choices, placed.layout, in_parts=True)
            fed = self.profile.aead_seconds(self.suite, sum(lowered.part_bytes), len(lowered.part_bytes))
            self._in_parts[placed] = replace(
                placed, seconds=placed.seconds + fed, peak_bytes=_session_bytes(lowered), in_parts=True
            )
        return self._in_parts[placed]

    def _fitting(self, placed: _Placed, budget_bytes: int) -> _Placed | None:
        """With its program whole, or else in parts; None where neither fits."""
        if placed.peak_bytes <= budget_bytes:
            return placed
        if placed.layout.peak_bytes + constants.TT_ENGINE_BYTES >= budget_bytes:
            return None
        parted = self.in_parts(placed)
        return parted if parted.peak_bytes <= budget_bytes else None

    def least_seconds(self, budget_bytes: int) -> float:
        """What no plan of it is faster than: all arithmetic, and opening once what a budget cannot hold decrypted."""
        return self._arithmetic + max(0, self._weight_bytes - budget_bytes) / self._open_rate

    def best(self, budget_bytes: int, progress: Callable[[float], None] | None = None) -> _Best | None:
        """The fastest partition that fits as placed, and what to pin in the rest."""
        best: _Best | None = None
        top = _rung_above(budget_bytes)
        for rung in range(top, 0, -1):
            is_coarse = rung % COARSE_RUNGS == 0 or len(self.network.nodes) <= FEW_NODES
            if best is not None and not is_coarse and not best.placed.in_parts:
                continue
            found = self._partition(_rung_bytes(rung), progress if best is None else None)
            if found is None:
                if best is not None or rung < top - RUNGS_PER_OCTAVE:
                    break
                continue
            if best is not None and found.seconds - self._most_saved(found, budget_bytes) >= best.seconds:
                continue
            placed = self._fitting(self._place(found), budget_bytes)
            if placed is None:
                continue
            filled = self.fill(placed, budget_bytes)
            if best is None or filled.seconds < best.seconds:
                best = filled
        return best

    def least(self, largest_bytes: int) -> _Placed | None:
        """The partition for at most so many bytes that takes least as placed; None where nothing fits them."""
        low, high = 0, _rung_above(largest_bytes)
        if self._partition(_rung_bytes(high)) is None:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            if self._partition(_rung_bytes(middle)) is None:
                low = middle
            else:
                high = middle
        placed = [self.placed(_rung_bytes(rung)) for rung in range(high, high + RUNGS_PER_OCTAVE // 4)]
        too_few, enough = _rung_bytes(high - 1), _rung_bytes(high)
        while enough - too_few > BETWEEN_RUNGS_BYTES:
            middle = (too_few + enough) // 2
            between = self.placed(middle)
            if between:
                enough = middle
                placed.append(between)
            else:
                too_few = middle
        found = [p for p in placed if p is not None]
        least = min([*found, *map(self.in_parts, found)], key=lambda p: p.peak_bytes)
        # A small network's maps may take more and its program less: then a plan fits where this one does not.
        while len(self.network.nodes) <= FEW_NODES and (fitting := self.best(least.peak_bytes - 1)):
            least = fitting.placed
        return least

    def least_known_seconds(self, budget_bytes: int) -> float:
        """What every partition for less memory than those known takes at least, with as much pinned as there may be."""
        known = [found for _, _, found in self._found if found]
        least = min(known, key=lambda found: found.bytes, default=None)
        return least.seconds - self._most_saved(least, budget_bytes + least.bytes) if least else 0.0

    def _worth_pinning(self, choices: list[Choice]) -> list[tuple[float, int]]:
        """Seconds that a run does not spend on a node's weights if they are pinned, and the node, the most for a byte
        first: those that are opened in every step, and those of nodes alone in a segment, which needs no chunk then."""
        size = {n: node.weight_bytes for n, node in enumerate(self.network.nodes) if node.weight_bytes}
        worth = [
            (self._opening_seconds(choice, node), node)
            for choice in choices
            for node in range(choice.segment.first, choice.segment.last + 1)
            if node in size
        ]
        return sorted(worth, key=lambda pair: (-pair[0] / size[pair[1]], pair[1]))

    def _opening_seconds(self, choice: Choice, node: int) -> float:
        """What a run spends on opening the weights of one node of a segment."""
        segment, streamed = choice.segment, choice.weights.streamed
        if segment.first == segment.last:
            return (choice.weights if streamed else self.partitioner.resident_choice(node, node)).seconds
        times = self.network.runs(node, segment.steps) if node in streamed else 1
        return times * self.network.nodes[node].weight_bytes / self._open_rate

    def fill(self, placed: _Placed, budget_bytes: int) -> _Best:
        """With weights that stay decrypted in what is left of the budget."""
        left = budget_bytes - placed.peak_bytes
        pinned, saved = set(), 0.0
        for seconds, node in self._worth_pinning(placed.choices):
            size = self.network.nodes[node].weight_bytes
            if size + 64 <= left:
                left -= size + 64
                pinned.add(node)
                saved += seconds
        return _Best(self, placed, frozenset(pinned), placed.seconds - saved)

    def _most_saved(self, found: Partition, budget_bytes: int) -> float:
        """What pinning saves at most if the partition is placed as closely as can be, and weights could be divided."""
        left, saved = max(0, budget_bytes - found.bytes), 0.0
        for seconds, node in self._worth_pinning(found.choices):
            size = self.network.nodes[node].weight_bytes
            share = min(size, left)
            left -= share
            saved += seconds * share / size
        return saved


class Planner:
    """Plans one graph for any number of budgets; what is known of the graph is computed once.

    Args:
        graph: the network.
        profile: the device's constants.
        suite: AEAD suite by name; the profile's proposal if None.
        largest_budget_bytes: no budget will exceed it.
        entropy: whether int8 and int4 codes are entropy-coded: where that is faster, or wherever it is smaller.
    """

    def __init__(
        self, graph: Graph, profile: Profile, suite: str | None, largest_budget_bytes: int, entropy: Entropy = "auto"
    ) -> None:
        self.profile = profile
        self.suite = suite or profile.suite
        if self.suite not in profile.aead_bytes_per_second:
            known = ", ".join(profile.aead_bytes_per_second)
            raise ValueError(f"the profile {profile.name} knows no suite {self.suite!r}; it knows {known}")
        self._graph = graph = expand(graph, profile, self.suite)
        self._largest = largest_budget_bytes
        self._entropy: Entropy = entropy
        self._tables: dict[Hashable, SegmentTable] = {}
        self._variants: list[tuple[int, _Variant]] = []
        """With the least budget at which each is considered. Coded weights cost time in every step, and are for
        direct convolutions only: a network that has them is also planned as if it had not."""
        for stored, methods in self._stored(graph, known_entropy(entropy)):
            for method_bytes in methods:
                ways = choose_ways(stored, profile, self.suite, method_bytes)
                least_bytes = int(LEAST_SHARE * method_bytes)
                shares = profile.threads > 1 and method_bytes >= SHARED_BLOCKS_FROM
                block_bytes = SHARED_BLOCK_BYTES if shares else BLOCK_BYTES
                if least_bytes <= largest_budget_bytes and not self._is_known(stored, ways, block_bytes):
                    self._variants.append((least_bytes, self._computing(stored, ways, block_bytes)))
        self._narrow: _Variant | None = None
        if any(isinstance(op, QConv) for op in graph.ops):
            network = build(weights.without_codes(graph), profile, self.suite, narrow=True)
            self._narrow = self._variant(network)

    def _is_known(self, stored: Graph, ways: dict[str, Way], block_bytes: int) -> bool:
        known = (variant for _, variant in self._variants if variant.stored is stored)
        return any((variant.ways, variant.block_bytes) == (ways, block_bytes) for variant in known)

    def _computing(self, stored: Graph, ways: dict[str, Way], block_bytes: int) -> _Variant:
        graph = weights.without_codes(stored, ways)
        variant = self._variant(build(graph, self.profile, self.suite, ways, block_bytes=block_bytes))
        variant.stored, variant.ways, variant.block_bytes = stored, ways, block_bytes
        return variant

    def _mixed(self, best: _Best, others: list[_Best]) -> _Variant | None:
        """The best of some variants, but each segment's convolutions computed as in the one that has the same segment
        and takes least time there; None if that is one of them."""
        stored = best.variant.stored
        if stored is None:
            return None
        alike = [best, *(other for other in others if other.variant.stored is stored)]
        ways: dict[str, Way] = {}
        for choice in best.placed.choices:
            first, last = choice.segment.first, choice.segment.last
            fastest = min(alike, key=lambda one: one.segment_seconds(first, last)).variant.ways
            outputs = (node.op.output for node in best.placed.network.nodes[first : last + 1] if node.op)
            ways |= {output: fastest[output] for output in outputs if output in fastest}
        block_bytes = best.variant.block_bytes
        return None if self._is_known(stored, ways, block_bytes) else self._computing(stored, ways, block_bytes)

    def _variant(self, network: Network) -> _Variant:
        """Networks whose maps lie in memory alike, however they convolve, have the same segments."""
        maps = tuple((t.shape, t.elem_bytes, t.pad_left, t.pad_right, t.block_bytes) for t in network.tensors)
        geometry = (maps, tuple((node.inputs, node.output, node.height) for node in network.nodes))
        if geometry not in self._tables:
            self._tables[geometry] = SegmentTable(network, _rung_bytes(_rung_above(self._largest)))
        return _Variant(network, self.profile, self.suite, self._tables[geometry])

    def _stored(self, graph: Graph, entropy: Entropy) -> list[tuple[Graph, tuple[int, ...]]]:
        """Ways to store the weights, and which of METHOD_BYTES to consider with each. Entropy coding costs more
        time still: a network is planned without it, too, unless it is asked for."""
        if not any(weights.coding_of(op) for op in graph.ops):
            return [(graph, METHOD_BYTES)]
        denser = code_entropy(graph, self.profile, self.suite, entropy)
        if entropy == "always" and is_entropy_coded(denser):
            return [(denser, (0,))]
        found = [graph, weights.without_codes(graph)] + ([denser] if is_entropy_coded(denser) else [])
        return [(stored, METHOD_BYTES) for stored in found]

    def least_budget(self) -> int:
        """The least secure memory, in bytes, for which there is a plan.

        Raises:
            BudgetError: not even the largest budget would do.
        """
        if self._least is None:
            raise BudgetError(2 * self._largest, self._largest)
        return self._least[0].peak_bytes

    @property
    def _least_variants(self) -> list[_Variant]:
        """Those that take least memory."""
        return [variant for variant in (self._variants[0][1], self._narrow) if variant]

    @cached_property
    def _least(self) -> tuple[_Placed, _Variant] | None:
        """What takes least memory, if the largest budget is enough for it."""
        found = [(placed, variant) for variant in self._least_variants if (placed := variant.least(self._largest))]
        return min(found, key=lambda pair: pair[0].peak_bytes, default=None)

    def plan(self, budget_bytes: int, progress: Callable[[float], None] | None = None) -> Plan:
        """The fastest plan for a budget.

        Raises:
            BudgetError: there is none; says the least budget that would do.
        """
        variants = [variant for least, variant in self._variants if budget_bytes >= least]
        if self._narrow and budget_bytes <= NARROW_MOST_BYTES:
            variants.append(self._narrow)
        least_seconds = [variant.least_seconds(budget_bytes) for variant in variants]
        best, chosen = None, 0  # of equally fast ones the first
        fastest: list[_Best] = []
        for done, number in enumerate(sorted(range(len(variants)), key=least_seconds.__getitem__)):
            if best is not None and least_seconds[number] > best.seconds * ROUNDING:
                break
            found = variants[number].best(budget_bytes, _share(progress, done, len(variants) + 1))
            if found is not None:
                fastest.append(found)
                if best is None or (found.seconds, number) < (best.seconds, chosen):
                    best, chosen = found, number
        if best is not None and (mixed := self._mixed(best, fastest)):
            found = mixed.best(budget_bytes, _share(progress, len(variants), len(variants) + 1))
            best = found if found is not None and found.seconds < best.seconds else best
        if best is None and self._narrow not in (None, *variants):
            best = self._narrow.best(budget_bytes, progress)
        if best is None or (best.placed.in_parts and self._least_may_take(budget_bytes) < best.seconds):
            best = min(
                (b for b in (best, self._least_filled(budget_bytes)) if b), key=lambda b: b.seconds, default=None
            )
        if best is None:
            raise BudgetError(
                self._least[0].peak_bytes if self._least else self._known_floor(budget_bytes), budget_bytes
            )
        return self._finish(best, budget_bytes)

    def _least_may_take(self, budget_bytes: int) -> float:
        """Seconds that what takes least memory takes at least. It lies between rungs, and may have fewer parts."""
        return min(variant.least_known_seconds(budget_bytes) for variant in self._least_variants)

    def _least_filled(self, budget_bytes: int) -> _Best | None:
        """What takes least memory, and pinned weights in what is left; None if it does not fit."""
        if self._least is None:
            return None
        placed, variant = self._least
        return variant.fill(placed, budget_bytes) if placed.peak_bytes <= budget_bytes else None

    def layerwise(self, budget_bytes: int, *, pin: bool = True) -> Plan:
        """Layer by layer, every feature map whole while it is read or written: what memory planning is measured by.

        Args:
            budget_bytes: secure memory.
            pin: keep all weights decrypted from one run to the next, and all maps in the arena. Otherwise a layer's
                weights are opened in every run, and what does not fit is spilled, or streamed in blocks.

        Raises:
            BudgetError: that takes more than the budget; says how much.
        """
        direct = self._variants[0][1]
        if not pin:
            return self._layerwise_unpinned(budget_bytes, direct)
        placed = direct.place(direct.partitioner.layerwise())
        pinned = frozenset(n for n, node in enumerate(direct.network.nodes) if node.weight_bytes)
        opened = sum(direct.partitioner.resident_choice(n, n).seconds for n in pinned)
        plan = self._finish(_Best(direct, placed, pinned, placed.seconds - opened), budget_bytes)
        if plan.peak_secure_memory_bytes > budget_bytes:
            raise BudgetError(plan.peak_secure_memory_bytes, budget_bytes)
        return plan

    def _layers(self, direct: _Variant, rung: int) -> _Variant:
        table = SegmentTable(direct.network, _rung_bytes(rung), one_step=True)
        return _Variant(direct.network, self.profile, self.suite, table)

    def _layerwise_unpinned(self, budget_bytes: int, direct: _Variant) -> Plan:
        top = _rung_above(budget_bytes)
        layers = self._layers(direct, top)
        for rung in range(top, 0, -1):
            placed = layers.placed(_rung_bytes(rung))
            if placed is None:
                break
            if placed.peak_bytes <= budget_bytes:
                return self._finish(_Best(layers, placed, frozenset(), placed.seconds), budget_bytes)
        while (placed := layers.placed(_rung_bytes(top))) is None or placed.peak_bytes <= budget_bytes:
            top += 1
            layers = self._layers(direct, top)
        raise BudgetError(placed.peak_bytes, budget_bytes)

    def _finish(self, best: _Best, budget_bytes: int) -> Plan:
        placed = best.placed
        layout = placed.layout
        if best.pinned:
            layout = lay_out(placed.network, placed.choices, best.pinned, unpinned=placed.layout)
        layout = settled(placed.network, placed.choices, layout)
        lowered = lowering.lower(placed.network, placed.choices, layout, in_parts=placed.in_parts)
        _check_window(lowered, self.profile)
        return Plan(
            network=placed.network,
            choices=placed.choices,
            layout=layout,
            budget_bytes=budget_bytes,
            peak_secure_memory_bytes=lowered.arena_bytes,
            predicted_seconds=best.seconds,
            suite=self.suite,
            profile=self.profile.name,
            _lowered=lowered,
        )

    def _known_floor(self, budget_bytes: int) -> int:
        larger = max(self._largest, budget_bytes)
        while True:
            larger *= 4
            planner = Planner(self._graph, self.profile, self.suite, larger, self._entropy)
            try:
                return planner.least_budget()
            except BudgetError:
                if larger > 1 << 32:
                    raise


def _check_window(lowered: Lowered, profile: Profile) -> None:
    """Refuses inputs and outputs of which not even a y-plane crosses the boundary at once. (Such tensors are not
    spilled, and weights are fed in small chunks.)"""
    for port, shape, quant in (*lowered.inputs, *lowered.outputs):
        needed = (1 if quant else 4) * shape.row_elems + constants.TT_TAG_BYTES
        if profile.window_bytes and needed > profile.window_bytes:
            raise UnsupportedModelError(
                f"a y-plane of '{port.name}' has {needed:,} bytes, and on {profile.name} at most"
                f" {profile.window_bytes:,} cross the boundary at once: give it more and shorter y-planes"
            )


def _session_bytes(lowered: Lowered) -> int:
    """Secure memory that a session takes: the program's, or what the core reads the bundle's preamble in."""
    table = ffi.sizeof("tt_bundle_header") + 4 * (len(lowered.chunk_bytes) + 1)
    key = constants.TT_KEY_BYTES + constants.TT_TAG_BYTES
    return max(lowered.arena_bytes, constants.TT_ENGINE_BYTES + table + MANIFEST_BYTES + key)


def _share(progress: Callable[[float], None] | None, number: int, count: int) -> Callable[[float], None] | None:
    """Progress of one of several equal parts."""
    return None if progress is None else lambda fraction: progress((number + fraction) / count)


def _rung_bytes(rung: int) -> int:
    return int(2 ** (rung / RUNGS_PER_OCTAVE)) * 1024


def _rung_above(count_bytes: int) -> int:
    rung = 1
    while _rung_bytes(rung) < count_bytes:
        rung += 1
    return rung


def make_plan(
    graph: Graph,
    secure_memory_bytes: int,
    profile: Profile | None = None,
    *,
    suite: str | None = None,
    progress: Callable[[float], None] | None = None,
    schedule: Literal["fused", "layerwise"] = "fused",
    pin: bool = True,
    entropy: Entropy = "auto",
) -> Plan:
    """Plans a graph for a budget; see ``Planner``. progress is called with the fraction done.

    schedule: "layerwise" gives the baseline of ``Planner.layerwise``, pinned or not, instead of the fastest plan.
    """
    planner = Planner(graph, profile or load_profile(), suite, secure_memory_bytes, entropy)
    if schedule == "layerwise":
        return planner.layerwise(secure_memory_bytes, pin=pin)
    return planner.plan(secure_memory_bytes, progress)


def least_budget(graph: Graph, profile: Profile | None = None, suite: str | None = None) -> int:
    """The least secure memory, in bytes, that the graph can run in."""
    largest = 1 << 20
    while True:
        try:
            return Planner(graph, profile or load_profile(), suite, largest).least_budget()
        except BudgetError:
            if largest > 1 << 32:
                raise
            largest *= 4


def lower(graph: Graph, plan: Plan) -> Lowered:
    """The program of a plan and its chunks."""
    del graph
    return plan._lowered
