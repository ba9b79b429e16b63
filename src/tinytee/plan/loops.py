"""Instructions of one run, rolled into the core's loops.

Most steps of a segment differ from the one before only in how far each instruction goes. ``TT_INSTR_REPEAT`` says such
a stretch once, with what every time adds to each instruction's arg (``tinytee_program.h``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tinytee.bundle.abi import constants

MAX_LENGTH = 96
"""Longest loop that is looked for, in instructions."""

_ARG = constants.TT_INSTR_ARG_SHIFT
_MAX_TIMES = constants.TT_INSTR_MAX_ARG


def words(length: int) -> int:
    """32-bit words that a loop of so many instructions takes."""
    return 1 + length + (length + 1) // 2


def roll(instrs: Sequence[int]) -> list[int]:
    """The same instructions in fewer words: at every place the loop that saves most, or none, so that the whole is
    shortest (dynamic programming from the end)."""
    bits = np.array(instrs, np.uint32)
    count = len(bits)
    saved, lengths, times = (found.tolist() for found in _best_loops(bits))
    rest = [0] * (count + 1)
    loops = [False] * count
    for at in range(count - 1, -1, -1):
        rest[at] = rest[at + 1] + 1
        if saved[at] > 0:
            rolled = rest[at + lengths[at] * times[at]] + words(lengths[at])
            loops[at] = rolled < rest[at]
            rest[at] = min(rest[at], rolled)
    found: list[int] = []
    at = 0
    while at < count:
        if not loops[at]:
            found.append(int(bits[at]))
            at += 1
            continue
        length = lengths[at]
        found += _loop(bits[at : at + 2 * length], length, times[at])
        at += length * times[at]
    return found


def _best_loops(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every place: the words saved by the best loop that begins there (0: none), its length and its times."""
    count = len(bits)
    same = bits & ((1 << _ARG) - 1)
    args = (bits >> _ARG).astype(np.int64)
    loads = same & ((1 << constants.TT_INSTR_INDEX_SHIFT) - 1) == constants.TT_INSTR_LOAD
    saved, lengths, times = (np.zeros(count, np.int64) for _ in range(3))
    for length in range(1, min(MAX_LENGTH, count // 2) + 1):
        adds = args[length:] - args[:-length]
        alike = (same[length:] == same[:-length]) & (adds > 0) & ~loads[length:]
        if np.count_nonzero(alike) < length:  # not even twice
            continue
        steady = alike[:-length] & alike[length:] & (adds[length:] == adds[:-length])
        often = np.minimum(_run_lengths(alike, count) // length + 1, _run_lengths(steady, count) // length + 2)
        often = np.minimum(often, _MAX_TIMES)
        saves = often * length - words(length)
        better = saves > saved
        saved[better], lengths[better], times[better] = saves[better], length, often[better]
    return saved, lengths, times


def _run_lengths(holds: np.ndarray, count: int) -> np.ndarray:
    """At every one of so many places, how many in a row hold from there on."""
    places = np.arange(count)
    ends = np.where(np.append(holds, np.zeros(count - len(holds), bool)), count, places)
    return np.minimum.accumulate(ends[::-1])[::-1] - places


def _loop(twice: np.ndarray, length: int, times: int) -> Iterator[int]:
    """The words of a loop, from its first two times."""
    yield constants.TT_INSTR_REPEAT | length << constants.TT_INSTR_INDEX_SHIFT | times << _ARG
    yield from (int(bits) for bits in twice[:length])
    adds = [int(add) for add in (twice[length:] >> _ARG) - (twice[:length] >> _ARG)]
    adds += [0] * (length % 2)
    for low, high in zip(adds[::2], adds[1::2], strict=True):
        yield low | high << 16
