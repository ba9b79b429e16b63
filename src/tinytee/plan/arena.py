"""Places buffers in the arena: offsets such that no two buffers that live at the same time overlap."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SEARCH_ROUNDS = 150
SEARCH_PATIENCE = 20
"""Rounds without a better placement after which the search goes on from the best."""


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
