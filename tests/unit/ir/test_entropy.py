"""Streams of symbols: what is coded is decoded, within the window that a decoder looks through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinytee.bundle.abi import constants
from tinytee.ir import entropy
from tinytee.ir.entropy import Alphabet, Streams, encode_panels, fit_alphabet

rngs = st.integers(0, 1 << 32).map(np.random.default_rng)


@st.composite
def sources(draw: st.DrawFn) -> NDArray[np.float64]:
    """Probabilities of symbols: even, steep, or but one."""
    rng = draw(rngs)
    weights = rng.random(16) ** draw(st.sampled_from([0.0, 1.0, 4.0, 20.0, 300.0]))
    weights[rng.random(16) < draw(st.sampled_from([0.0, 0.5, 0.95]))] = 0
    weights[rng.integers(16)] += 1e-300
    return weights / weights.sum()


def decode(streams: Streams, panel: int, row: int, rows: int) -> NDArray[np.uint8]:
    """[rows, panel] of a stream as it is stored, word by word, as core/include/tinytee_program.h says."""
    data, alphabet = streams.head(panel, row, rows), np.frombuffer(streams.alphabet.to_bytes(), np.uint8).astype(int)
    starts, frequencies = alphabet[:16] + 256 * alphabet[16:32], alphabet[32:48] + 256 * alphabet[48:]
    states, place = [int(s) for s in np.frombuffer(data[:32], "<u4")], int(np.frombuffer(data[32:36], "<u4")[0])
    words = np.frombuffer(data[36:], "<u2")
    found = np.zeros((rows * streams.panel // 8, 8), np.uint8)
    for step in range(len(found)):
        window = min(step * streams.rate >> 12, len(words) - 64)
        for lane in range(8):
            slot = states[lane] & 4095
            symbol = int(np.flatnonzero(starts <= slot)[-1])
            found[step, lane] = symbol
            states[lane] = int(frequencies[symbol]) * (states[lane] >> 12) + slot - int(starts[symbol])
            if states[lane] < 1 << 16:
                assert 0 <= place - window < 64
                states[lane] = states[lane] << 16 | int(words[place])
                place += 1
    assert states == [1 << 16] * 8
    assert place == len(words)
    return found.reshape(rows, streams.panel)


@settings(max_examples=60, deadline=None)
@given(sources(), rngs, st.integers(1, 3), st.integers(1, 150), st.sampled_from([8, 16]), st.sampled_from([2, 32, 128]))
def test_what_is_coded_is_decoded(
    source: NDArray[np.float64], rng: np.random.Generator, panels: int, depth: int, panel: int, group: int
) -> None:
    symbols = rng.choice(16, (panels, depth, panel), p=source).astype(np.uint8)
    streams = encode_panels(symbols, group)
    assert streams is not None
    for at in range(panels):
        for row in range(0, depth, streams.rows):
            last = min(row + streams.rows, depth)
            assert len(streams.head(at, row, last - row)) == streams.head_bytes(last - row)
            np.testing.assert_array_equal(decode(streams, at, row, last - row), symbols[at, row:last])


def test_one_symbol_takes_no_words() -> None:
    streams = encode_panels(np.full((1, 64, 16), 8, np.uint8), 32)
    assert streams is not None
    assert streams.rate == 0
    assert streams.words(64) == constants.TT_STREAM_WINDOW


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1 << 40), min_size=16, max_size=16))
def test_alphabets_are_whole(counts: list[int]) -> None:
    alphabet = fit_alphabet(np.array(counts))
    frequencies = alphabet.frequencies
    assert frequencies.sum() == 4096
    assert all(frequency > 0 for frequency, count in zip(frequencies, counts, strict=True) if count)
    if any(counts):
        assert all(frequency == 0 for frequency, count in zip(frequencies, counts, strict=True) if not count)


def test_streams_take_little_more_than_their_entropy() -> None:
    rng = np.random.default_rng(1)
    source = np.array([0.8] + [0.2 / 15] * 15)
    symbols = rng.choice(16, (8, 512, 16), p=source).astype(np.uint8)
    streams = encode_panels(symbols, 32)
    assert streams is not None
    taken = 8 * 8 * sum(map(streams.head_bytes, [streams.rows] * (512 // streams.rows)))
    entropy_bits = symbols.size * -(source * np.log2(source)).sum()
    assert 1.0 < taken / entropy_bits < 1.12


def test_what_no_window_follows_is_not_coded() -> None:
    """Half of each row's groups are all alike, half even: no cadence is both."""
    symbols = np.zeros((2, 4096, 16), np.uint8)
    symbols[1] = np.random.default_rng(0).integers(0, 16, (4096, 16))
    assert encode_panels(symbols, 2048) is None


@pytest.mark.parametrize("name", ["TT_STREAM_WINDOW", "TT_STREAM_RATE_BITS", "TT_ALPHABET_BYTES"])
def test_the_format_is_the_core_s(name: str) -> None:
    own = {
        "TT_STREAM_WINDOW": entropy.WINDOW,
        "TT_STREAM_RATE_BITS": entropy.RATE_BITS,
        "TT_ALPHABET_BYTES": len(Alphabet(np.full(16, 256)).to_bytes()),
    }
    assert own[name] == getattr(constants, name)
