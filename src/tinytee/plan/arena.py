"""Places buffers in the arena: offsets such that no two buffers that live at the same time overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
    """Offsets for all buffers, and the peak in bytes: the best of several first-fit orders.

    First fit by decreasing size is the usual heuristic for this problem (dynamic storage allocation, which is NP-hard);
    long-lived first and in order of birth win where sizes are alike.
    """
    count = range(len(buffers))
    keys = [
        lambda b: (-buffers[b].bytes, buffers[b].begin),
        lambda b: (buffers[b].begin - buffers[b].end, -buffers[b].bytes),
        lambda b: (-buffers[b].bytes * (buffers[b].end - buffers[b].begin + 1), buffers[b].begin),
        lambda b: (buffers[b].begin, -buffers[b].bytes),
    ]
    return min((_place_in_order(buffers, sorted(count, key=key)) for key in keys), key=lambda found: found[1])


def live_peak(buffers: Sequence[Buffer]) -> int:
    """The most bytes alive at any stage: no placement can do with less."""
    stages = {b.begin for b in buffers}
    return max((sum(b.bytes for b in buffers if b.begin <= s <= b.end) for s in stages), default=0)
