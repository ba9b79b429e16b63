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


def _place_in_order(buffers: Sequence[Buffer], order: Sequence[int]) -> tuple[list[int], int]:
    """First fit: each buffer, in the order given, at the lowest offset that is free throughout its life."""
    offsets = [-1] * len(buffers)
    placed: list[int] = []
    peak = 0
    for at in order:
        buffer = buffers[at]
        taken = sorted(
            (offsets[p], offsets[p] + buffers[p].bytes)
            for p in placed
            if buffers[p].begin <= buffer.end and buffer.begin <= buffers[p].end
        )
        offset = 0
        for low, high in taken:
            if offset + buffer.bytes <= low:
                break
            offset = max(offset, high)
        offsets[at] = offset
        placed.append(at)
        peak = max(peak, offset + buffer.bytes)
    return offsets, peak


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
    tried = [(*_place_in_order(buffers, order), order) for order in orders]
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
        now = (*_place_in_order(buffers, order), order)
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
