"""Entropy coding of weight codes: streams of interleaved rANS that the core decodes without a secret address.

An int4 code is a symbol of 16; of an int8 code the high four bits are, and the low four are stored as they are. Symbols
of a weight share one alphabet, frequencies out of 2^12. They are coded in *streams* of some rows of a panel, eight
columns to a step, each with its own state (Duda, arXiv 1311.2540; interleaved after Giesen, arXiv 1402.3392).

A decoder finds the next word in a window that advances by ``rate`` words a step, whatever it has read, so the number
of words read must stay within ``TT_STREAM_WINDOW`` of what is due. Streams that are short enough keep to that; ``rate``
and ``base``, which give all streams of a weight the same size, hold for all of them. A weight for which no length does,
or which does not become smaller, is not entropy-coded.

The format is ``tt_op``'s, the decoder core/kernels/rans.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SYMBOLS = 16
LANES = 8
SCALE_BITS = 12
RATE_BITS = 12
WINDOW = 64
START = 1 << 16
"""Every state at the end of a stream, where the encoder begins."""

HEAD_BYTES = 4 * (LANES + 1)
MOST_SYMBOLS, LEAST_SYMBOLS = 16384, 512
"""Of a stream."""

_BATCH = 1 << 20
"""Symbols that are coded at once."""


@dataclass(frozen=True, eq=False)
class Alphabet:
    """frequencies: [16], out of 4096."""

    frequencies: NDArray[np.int64]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.frequencies) - self.frequencies

    @cached_property
    def bits(self) -> NDArray[np.float64]:
        """[16]: what a symbol takes; infinite for those that do not occur."""
        with np.errstate(divide="ignore"):
            return SCALE_BITS - np.log2(self.frequencies)

    def to_bytes(self) -> bytes:
        """As ``tt_op`` has it."""
        planes = (part >> shift & 0xFF for part in (self.starts, self.frequencies) for shift in (0, 8))
        return np.concatenate(list(planes)).astype(np.uint8).tobytes()


def fit_alphabet(counts: NDArray[np.int64]) -> Alphabet:
    """The frequencies that code symbols which occur so often in the fewest bits; at least 1 for those that occur."""
    occurs = counts > 0
    if not occurs.any():
        occurs, counts = np.arange(SYMBOLS) == 0, np.arange(SYMBOLS) == 0
    frequencies = np.where(occurs, np.maximum(1, np.rint(counts / counts.sum() * (1 << SCALE_BITS))), 0).astype(int)
    while (missing := (1 << SCALE_BITS) - int(frequencies.sum())) != 0:
        step = 1 if missing > 0 else -1
        possible = occurs & (frequencies + step >= 1)
        after = np.where(possible, frequencies + step, 1)
        cost = np.where(possible, counts * np.log2(np.maximum(frequencies, 1) / after), np.inf)
        frequencies[int(np.argmin(cost))] += step
    return Alphabet(frequencies)


@dataclass(frozen=True, eq=False)
class Coded:
    """Streams of one length: states [streams, 8] at the decoder's start, words read in each step [streams, steps], and
    the words of each."""

    states: NDArray[np.uint32]
    counts: NDArray[np.int64]
    words: tuple[NDArray[np.uint16], ...]


def encode(symbols: NDArray[np.uint8], alphabet: Alphabet) -> Coded:
    """Codes streams [streams, steps, 8] of symbols, each of which has a frequency."""
    size = max(1, _BATCH // max(1, symbols.shape[1] * LANES))
    parts = [_encode(symbols[at : at + size], alphabet) for at in range(0, len(symbols), size)]
    states, counts = (np.concatenate(found) for found in zip(*((p.states, p.counts) for p in parts), strict=True))
    return Coded(states, counts, tuple(words for part in parts for words in part.words))


def _encode(symbols: NDArray[np.uint8], alphabet: Alphabet) -> Coded:
    streams, steps, _ = symbols.shape
    frequencies, starts = alphabet.frequencies.astype(np.uint64), alphabet.starts.astype(np.uint64)
    states = np.full((streams, LANES), START, np.uint64)
    words = np.zeros((streams, steps, LANES), np.uint16)
    taken = np.zeros((streams, steps, LANES), bool)
    word_bits, scale_bits = np.uint64(16), np.uint64(SCALE_BITS)
    for step in reversed(range(steps)):
        frequency, start = frequencies[symbols[:, step]], starts[symbols[:, step]]
        full = states >= frequency << np.uint64(32 - SCALE_BITS)
        words[:, step], taken[:, step] = states & np.uint64(0xFFFF), full
        states = np.where(full, states >> word_bits, states)
        quotient = states // frequency
        states = (quotient << scale_bits) + (states - quotient * frequency) + start
    counts = taken.sum(axis=2)
    return Coded(states.astype(np.uint32), counts, tuple(words[i][taken[i]] for i in range(streams)))


@dataclass(frozen=True, eq=False)
class Streams:
    """A weight's streams.

    Attributes:
        panel: width of the panels that they are for.
        rows: of a panel in a stream; the last one of a panel has what is left.
        rate, base: words a step, times 2^12, and words beside.
        alphabet: of all.
        coded: [panel][stream]: states, and words.
    """

    panel: int
    rows: int
    rate: int
    base: int
    alphabet: Alphabet
    coded: tuple[tuple[tuple[NDArray[np.uint32], NDArray[np.uint16]], ...], ...]

    def words(self, rows: int) -> int:
        """Words of a stream of so many rows."""
        due = rows * self.panel // LANES * self.rate >> RATE_BITS
        return (max(due + self.base, WINDOW) + 1) // 2 * 2

    def lengths(self, rows: int) -> list[int]:
        """Rows of each stream of a panel's part that begins a stream."""
        return [self.rows] * (rows // self.rows) + ([rows % self.rows] if rows % self.rows else [])

    def head_bytes(self, rows: int) -> int:
        """Bytes of a stream of so many rows, without low bits."""
        return HEAD_BYTES + 2 * self.words(rows)

    def head(self, panel: int, row: int, rows: int) -> bytes:
        """The stream of a panel that begins with a row: states, place and words."""
        states, words = self.coded[panel][row // self.rows]
        place = self.words(rows) - len(words)
        padded = np.concatenate([np.zeros(place, "<u2"), words.astype("<u2")])
        return states.astype("<u4").tobytes() + np.array([place], "<u4").tobytes() + padded.tobytes()


def encode_panels(symbols: NDArray[np.uint8], group: int) -> Streams | None:
    """Codes the symbols of a weight's panels, [panels, rows, panel], in the longest streams that suit a decoder.

    group: rows that a stream has several times, or a part of. None: no length does.
    """
    panels, depth, panel = symbols.shape
    alphabet = fit_alphabet(np.bincount(symbols.ravel(), minlength=SYMBOLS))
    for rows in _lengths(depth, panel, group):
        whole = depth // rows
        ends = [(whole, symbols[:, : whole * rows]), (1, symbols[:, whole * rows :])]
        ends = [(count, part.reshape(panels * count, -1, LANES)) for count, part in ends if part.size]
        expected = [_left(_words(part, alphabet)) for _, part in ends]
        least, most = _bounds(expected, _rate(expected))
        if least > most:
            continue
        coded = [(count, encode(part, alphabet)) for count, part in ends]
        left = [_left(part.counts) for _, part in coded]
        rate = _rate(left)
        least, most = _bounds(left, rate)
        if least > most - 1:  # sizes are even
            continue
        streams = [(count, list(zip(part.states, part.words, strict=True))) for count, part in coded]
        of_panel = (
            tuple(found for count, each in streams for found in each[at * count : (at + 1) * count])
            for at in range(panels)
        )
        return Streams(panel, rows, rate, least, alphabet, tuple(of_panel))
    return None


def _words(symbols: NDArray[np.uint8], alphabet: Alphabet) -> NDArray[np.float32]:
    """About how many words [streams, steps] of symbols take: a state holds up to one of them back."""
    bits = (alphabet.bits / 16).astype(np.float32)
    found = np.zeros(symbols.shape[:2], np.float32)
    for lane in range(LANES):
        found += bits[symbols[..., lane]]
    return found


def _lengths(depth: int, panel: int, group: int) -> Iterator[int]:
    """Rows of a stream that are worth a try, from the most on."""
    groups = min(MOST_SYMBOLS // (panel * group), -(-depth // group))
    while groups:
        yield groups * group
        groups //= 2
    while group % 2 == 0 and group * panel > LEAST_SYMBOLS:
        group //= 2
        yield group


def _left(words: NDArray) -> NDArray:
    """Words [streams, steps + 1] that are left before each step, and at the end, of those that each step takes."""
    return np.pad(np.cumsum(words[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))


def _rate(left: list[NDArray]) -> int:
    """The mean words a step, times 2^12."""
    words, steps = sum(part[:, 0].sum() for part in left), sum(part[:, 1:].size for part in left)
    return int(np.ceil(words / steps * (1 << RATE_BITS)))


def _bounds(left: list[NDArray], rate: int) -> tuple[int, int]:
    """The least and the most ``base`` with which every window holds the words that its step may read."""
    least, most = 0.0, float(WINDOW)
    for part in left:
        due = np.arange(part.shape[1]) * rate >> RATE_BITS
        ahead = due[-1] - due
        least = max(least, float((part - ahead).max()))
        most = min(most, float(WINDOW - (ahead[:-1] - part[:, 1:]).max()))
    return int(np.ceil(least)), int(np.floor(most))
