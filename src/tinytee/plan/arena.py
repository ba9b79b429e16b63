"""Places buffers in the arena: offsets such that no two buffers that live at the same time overlap."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEARCH_ROUNDS = 150
SEARCH_PATIENCE = 20
"""Rounds without a better placement after which the search goes on from the best."""


GRAIN_BYTES = 4096
"""Of what is told apart by who touched it."""

NOBODY = -1
"""In place of a thread: nobody, or nobody in particular."""

FOREIGN, COLD = 3, 7
"""Cost of a grain that another thread has touched last, and of one that no core's own cache holds any more."""

SETTLE_SHARES, SETTLE_TRIES, SETTLE_SLACK = (1.0, 0.95, 0.9, 0.8, 0.6), 8, 24
"""How ``settle`` varies what it holds fast, how often it tries for each, and how much more than the least a choice may
cost in all tries but the first."""


@dataclass(frozen=True)
class Buffer:
    """A piece of the arena that lives through stages begin .. end (inclusive). bytes is a multiple of 64."""

    name: str
    bytes: int
    begin: int
    end: int


def _meetings(buffers: Sequence[Buffer]) -> list[list[int]]:
    """For each buffer, the others that live at the same time as it does."""
    return [
        [other for other, b in enumerate(buffers) if other != at and b.begin <= a.end and a.begin <= b.end]
        for at, a in enumerate(buffers)
    ]


def _place_in_order(
    buffers: Sequence[Buffer], meetings: Sequence[Sequence[int]], order: Sequence[int]
) -> tuple[list[int], int]:
    """First fit: each buffer, in the order given, at the lowest offset that is free throughout its life."""
    offsets, ends = [-1] * len(buffers), [-1] * len(buffers)
    for at in order:
        count_bytes, offset = buffers[at].bytes, 0
        for low, high in sorted([(offsets[other], ends[other]) for other in meetings[at] if offsets[other] >= 0]):
            if offset + count_bytes <= low:
                break
            offset = max(offset, high)
        offsets[at], ends[at] = offset, offset + count_bytes
    return offsets, max(ends, default=0)


def place(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Offsets for all buffers, and the peak in bytes: the best of several first-fit orders, and of a search from there.

    First fit by decreasing size is the usual heuristic for this problem (dynamic storage allocation, which is NP-hard);
    long-lived first and in order of birth win where sizes are alike. The search takes the buffer that reaches highest
    and places it earlier, somewhere; it ends where no placement can be better.
    """
    count = range(len(buffers))
    keys = [
        lambda b: (-buffers[b].bytes, buffers[b].begin),
        lambda b: (buffers[b].begin - buffers[b].end, -buffers[b].bytes),
        lambda b: (-buffers[b].bytes * (buffers[b].end - buffers[b].begin + 1), buffers[b].begin),
        lambda b: (buffers[b].begin, -buffers[b].bytes),
    ]
    orders = [sorted(count, key=key) for key in keys]
    meetings = _meetings(buffers)
    tried = [(*_place_in_order(buffers, meetings, order), order) for order in orders]
    best = now = min(tried, key=lambda found: found[1])
    least, chance, in_vain = live_peak(buffers), random.Random(0), 0
    for _ in range(SEARCH_ROUNDS):
        if best[1] <= least:
            break
        offsets, _, order = now
        highest = max(count, key=lambda b: offsets[b] + buffers[b].bytes)
        at = order.index(highest)
        to = chance.randrange(at + 1)
        order = [*order[:to], highest, *order[to:at], *order[at + 1 :]]
        now = (*_place_in_order(buffers, meetings, order), order)
        in_vain += 1
        if now[1] < best[1]:
            best, in_vain = now, 0
        elif in_vain == SEARCH_PATIENCE:
            now, in_vain = best, 0
    return best[0], best[1]


def live_peak(buffers: Sequence[Buffer]) -> int:
    """The most bytes alive at any stage: no placement can do with less."""
    stages = {b.begin for b in buffers}
    return max((sum(b.bytes for b in buffers if b.begin <= s <= b.end) for s in stages), default=0)


@dataclass(frozen=True)
class Touched:
    """Which thread touches each grain of a buffer first, and which last (or NOBODY).

    Attributes:
        first, last: int8[ceil(bytes / GRAIN_BYTES)].
    """

    first: NDArray[np.int8]
    last: NDArray[np.int8]


class _Owners:
    """Who touched each grain of the arena last, and when: clocks count the bytes that a core touches."""

    def __init__(self, bytes_there: int, cache_bytes: int) -> None:
        self._cache_bytes = cache_bytes
        grains = -(-bytes_there // GRAIN_BYTES) + 1
        self._thread, self._clock = np.full(grains, NOBODY, np.int8), np.full(grains, -cache_bytes, np.int64)

    def cost(self, offset: int, touched: Touched, clock: int) -> int:
        """Of a buffer that lies there next."""
        place = slice(offset // GRAIN_BYTES, offset // GRAIN_BYTES + len(touched.first))
        cold = clock - self._clock[place] >= self._cache_bytes
        foreign = (self._thread[place] != touched.first) & (self._thread[place] != NOBODY) & (touched.first != NOBODY)
        return int(COLD * np.count_nonzero(cold) + FOREIGN * np.count_nonzero(foreign & ~cold))

    def take(self, offset: int, touched: Touched, clock: int) -> None:
        place = slice(offset // GRAIN_BYTES, offset // GRAIN_BYTES + len(touched.last))
        self._thread[place], self._clock[place] = touched.last, clock


class Settling:
    """One placement after another of the same buffers, the best of which is kept.

    Args:
        buffers, offsets: the first placement.
        touched: of each buffer.
        clocks: bytes that a core has touched when each stage begins, and when the last is over.
        cache_bytes: of a core's own cache.

    Attributes:
        best: offsets of the best placement so far.
        cost: of that.
    """

    def __init__(
        self,
        buffers: Sequence[Buffer],
        offsets: Sequence[int],
        touched: Sequence[Touched],
        clocks: Sequence[int],
        cache_bytes: int,
    ) -> None:
        self.buffers, self.touched, self.clocks, self.cache_bytes = buffers, touched, clocks, cache_bytes
        self.peak = max((offset + b.bytes for offset, b in zip(offsets, buffers, strict=True)), default=0)
        self._order = sorted(range(len(buffers)), key=lambda at: (buffers[at].begin, -buffers[at].bytes))
        self._meetings = _meetings(buffers)
        self.best = list(offsets)
        self.cost = math.inf
        self.attempt(offsets, random.Random(0), 0)

    def attempt(self, held: Sequence[int | None], chance: random.Random, slack: int) -> None:
        """Places the buffers that are not held in order of birth, each where it costs least, or almost; gives up where
        one has no place, or where that gets no better."""
        offsets, owners, cost = list(held), _Owners(self.peak, self.cache_bytes), 0
        for at in self._order:
            buffer, touched = self.buffers[at], self.touched[at]
            begin, end = self.clocks[buffer.begin], self.clocks[buffer.end + 1]
            offset = offsets[at]
            if offset is None:
                places = sorted((owners.cost(place, touched, begin), place) for place in self._places(at, offsets))
                if not places:
                    return
                most = places[0][0] + slack * chance.random()
                good = [place for each, place in places if each <= most]
                offset = chance.choice(good) if slack else good[0]
            cost += owners.cost(offset, touched, begin)
            if cost >= self.cost:
                return
            owners.take(offset, touched, end)
            offsets[at] = offset
        self.best, self.cost = [offset for offset in offsets if offset is not None], cost

    def _places(self, at: int, offsets: Sequence[int | None]) -> set[int]:
        """Where a buffer may lie: its middle, or an end, where another's is, for threads share maps evenly."""
        size, places = self.buffers[at].bytes, {0}
        for other, low in zip(self.buffers, offsets, strict=True):
            if low is not None:
                high = low + other.bytes
                places |= {(low + high - size) // 2 // 64 * 64, low, high - size, high, low - size}
        met = [(offsets[other], self.buffers[other].bytes) for other in self._meetings[at]]
        busy = [(low, low + count) for low, count in met if low is not None]
        return {
            place
            for place in places
            if 0 <= place <= self.peak - size and all(place >= high or low >= place + size for low, high in busy)
        }


def settle(settling: Settling) -> list[int]:
    """Other offsets for a placement, with no higher peak, so that threads mostly find in their cores' own caches what
    buffers take the place of: what a core writes has to come to its cache first, and to leave another's.

    Buffers are placed anew in order of birth, but for those that are there while the most lives, which hardly have
    another place. What "the most" is varies, and so do choices that cost about the same; the best of all is taken.
    """
    buffers, offsets = settling.buffers, list(settling.best)
    stages = range(max((b.end for b in buffers), default=-1) + 1)
    load = [sum(b.bytes for b in buffers if b.begin <= stage <= b.end) for stage in stages]
    for share in SETTLE_SHARES:
        is_held = [max(load[b.begin : b.end + 1]) >= share * settling.peak for b in buffers]
        held = [offset if holds else None for offset, holds in zip(offsets, is_held, strict=True)]
        for seed in range(SETTLE_TRIES):
            settling.attempt(held, random.Random(seed), SETTLE_SLACK if seed else 0)
    return settling.best
