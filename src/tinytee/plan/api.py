"""The planner's face: a graph and a budget give a plan, a plan gives a program.

The time of a plan never grows with the budget. The partition's time is monotone in the memory that it may use, by
construction (``partition``); but buffers placed in the arena may need a little more than what lives at once, so
that a partition for e bytes can take more than e. The planner therefore looks at a fixed ladder of sizes e, takes
every rung whose partition *as placed* fits the budget, fills what is left with pinned weights, and keeps the
fastest. A larger budget admits the same rungs and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from tinytee.bundle.abi import constants
from tinytee.errors import BudgetError
from tinytee.ir.graph import Graph
from tinytee.plan import lower as lowering
from tinytee.plan.layout import Layout, lay_out
from tinytee.plan.lowered import Lowered
from tinytee.plan.network import Network, build
from tinytee.plan.partition import Choice, Partitioner
from tinytee.plan.profile import Profile
from tinytee.plan.profile import load as load_profile
from tinytee.plan.segments import SegmentTable
from tinytee.plan.weights import aligned

RUNGS_PER_OCTAVE = 16
COARSE_RUNGS = 8
"""Every so many rungs below the highest that fits, a partition is considered as well: it leaves more for pinning."""


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
    choices: list[Choice]
    layout: Layout
    seconds: float
    peak_bytes: int
    """Engine and program included."""


class Planner:
    """Plans one graph for any number of budgets; what is known of the graph is computed once.

    Args:
        graph: the network.
        profile: the device's constants.
        suite: AEAD suite by name; the profile's proposal if None.
        largest_budget_bytes: no budget will exceed it.
    """

    def __init__(self, graph: Graph, profile: Profile, suite: str | None, largest_budget_bytes: int) -> None:
        self.profile = profile
        self.suite = suite or profile.suite
        if self.suite not in profile.aead_bytes_per_second:
            known = ", ".join(profile.aead_bytes_per_second)
            raise ValueError(f"the profile {profile.name} knows no suite {self.suite!r}; it knows {known}")
        self.network = build(graph, profile, self.suite)
        self._largest = largest_budget_bytes
        self._table = SegmentTable(self.network, _rung_bytes(_rung_above(largest_budget_bytes)))
        self._partitioner = Partitioner(self.network, self._table, profile, self.suite)
        self._rungs: dict[int, _Placed | None] = {}

    def _rung(self, rung: int, progress: Callable[[float], None] | None = None) -> _Placed | None:
        """The best partition for a rung's size, placed; None where nothing fits it."""
        if rung not in self._rungs:
            choices = self._partitioner.partition(_rung_bytes(rung), progress)
            self._rungs[rung] = self._place(choices) if choices else None
        return self._rungs[rung]

    def _place(self, choices: list[Choice]) -> _Placed:
        layout = lay_out(self.network, choices)
        program = lowering.program_bytes(self.network, choices, layout)
        peak = aligned(constants.TT_ENGINE_BYTES + program) + layout.peak_bytes
        return _Placed(choices, layout, sum(c.seconds for c in choices), peak)

    def least_budget(self) -> int:
        """The least secure memory, in bytes, for which there is a plan.

        Raises:
            BudgetError: not even the largest budget would do.
        """
        high = _rung_above(self._largest)
        if self._rung(high) is None:
            raise BudgetError(2 * self._largest, self._largest)
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            if self._rung(middle) is None:
                low = middle
            else:
                high = middle
        placed = [self._rung(rung) for rung in range(high, high + RUNGS_PER_OCTAVE // 4)]
        return min(p.peak_bytes for p in placed if p is not None)

    def plan(self, budget_bytes: int, progress: Callable[[float], None] | None = None) -> Plan:
        """The fastest plan for a budget.

        Raises:
            BudgetError: there is none; says the least budget that would do.
        """
        best: tuple[float, _Placed, frozenset[int]] | None = None
        top = _rung_above(budget_bytes)
        highest = None
        for rung in range(top, 0, -1):
            on_grid = rung % COARSE_RUNGS == 0
            if highest is not None and not on_grid:
                continue
            placed = self._rung(rung, progress if highest is None else None)
            if placed is None:
                if highest is None and rung < top - RUNGS_PER_OCTAVE:
                    break
                if highest is not None:
                    break
                continue
            if placed.peak_bytes > budget_bytes:
                continue
            highest = rung if highest is None else highest
            pinned, saved = self._pin(placed, budget_bytes)
            if best is None or placed.seconds - saved < best[0]:
                best = (placed.seconds - saved, placed, pinned)
        if best is None:
            raise BudgetError(self._known_floor(budget_bytes), budget_bytes)
        seconds, placed, pinned = best
        return self._finish(placed, pinned, seconds, budget_bytes)

    def layerwise(self, budget_bytes: int) -> Plan:
        """Layer by layer, all weights pinned and every feature map whole: the baseline that memory planning is measured by.

        Raises:
            BudgetError: that takes more than the budget; says how much.
        """
        placed = self._place(self._partitioner.layerwise())
        pinned = frozenset(n for n, node in enumerate(self.network.nodes) if node.weight_bytes)
        opened = sum(self._partitioner.resident_choice(n, n).seconds for n in pinned)
        plan = self._finish(placed, pinned, placed.seconds - opened, budget_bytes)
        if plan.peak_secure_memory_bytes > budget_bytes:
            raise BudgetError(plan.peak_secure_memory_bytes, budget_bytes)
        return plan

    def _finish(self, placed: _Placed, pinned: frozenset[int], seconds: float, budget_bytes: int) -> Plan:
        layout = lay_out(self.network, placed.choices, pinned) if pinned else placed.layout
        lowered = lowering.lower(self.network, placed.choices, layout)
        return Plan(
            network=self.network,
            choices=placed.choices,
            layout=layout,
            budget_bytes=budget_bytes,
            peak_secure_memory_bytes=lowered.arena_bytes,
            predicted_seconds=seconds,
            suite=self.suite,
            profile=self.profile.name,
            _lowered=lowered,
        )

    def _known_floor(self, budget_bytes: int) -> int:
        larger = max(self._largest, budget_bytes)
        while True:
            larger *= 4
            planner = Planner(self.network.graph, self.profile, self.suite, larger)
            try:
                return planner.least_budget()
            except BudgetError:
                if larger > 1 << 32:
                    raise

    def _pin(self, placed: _Placed, budget_bytes: int) -> tuple[frozenset[int], float]:
        """Which nodes' weights to keep decrypted in what is left of the budget, and the time that saves a run."""
        left = budget_bytes - placed.peak_bytes
        rate = self.profile.aead_bytes_per_second[self.suite]
        worth: list[tuple[float, int]] = []
        for choice in placed.choices:
            for node in range(choice.segment.first, choice.segment.last + 1):
                if self.network.nodes[node].weight_bytes:
                    times = choice.segment.steps if node in choice.weights.streamed else 1
                    worth.append((-times, node))
        pinned, saved = set(), 0.0
        for times, node in sorted(worth):
            size = self.network.nodes[node].weight_bytes
            if size + 64 <= left:
                left -= size + 64
                pinned.add(node)
                saved += -times * size / rate
        return frozenset(pinned), saved


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
) -> Plan:
    """Plans a graph for a budget; see ``Planner``. progress is called with the fraction done.

    schedule: "layerwise" gives the baseline of ``Planner.layerwise`` instead of the fastest plan.
    """
    planner = Planner(graph, profile or load_profile(), suite, secure_memory_bytes)
    if schedule == "layerwise":
        return planner.layerwise(secure_memory_bytes)
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
