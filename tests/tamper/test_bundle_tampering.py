"""Whatever is done to a bundle, a session refuses it: through Python, as the file's reader meets it."""

from __future__ import annotations

import numpy as np
import pytest

from tamper.programs import passthrough, passthrough_bundle
from tinytee import AuthenticationError, Bundle, BundleError, EngineError, Session
from tinytee.bundle.abi import constants as c
from tinytee.bundle.abi import ffi
from tinytee.bundle.preamble import HEADER_BYTES
from tinytee.runtime import library
from tinytee.runtime.process import ProcessBackend
from tinytee.runtime.session import Session as RuntimeSession

KEY = bytes(range(100, 132))
SUITES = ("aes-256-gcm", "chacha20-poly1305", "aegis-256x4")
SAMPLE = np.random.default_rng(1).standard_normal((1, 3, 7, 5)).astype(np.float32)
WRONG_KEY = "the key is not this bundle's key, or the bundle was changed"


def open_and_run(data: bytes, key: bytes = KEY) -> np.ndarray:
    with Session(Bundle.parse(data), key=key) as session:
        return session.run({"x": SAMPLE})["y"]


def refused(data: bytes) -> bool:
    try:
        open_and_run(data)
    except (AuthenticationError, BundleError):
        return True
    return False


def chunks_of(data: bytes) -> tuple[bytes, list[bytes]]:
    preamble = Bundle.parse(data).preamble
    pieces, at = [], preamble.total_bytes
    for count in preamble.sealed_bytes:
        pieces.append(data[at : at + count])
        at += count
    return data[: preamble.total_bytes], pieces


@pytest.fixture(scope="module", params=SUITES)
def sealed(request: pytest.FixtureRequest) -> bytes:
    return passthrough_bundle(KEY, request.param).to_bytes()


def test_untouched_it_runs(sealed: bytes) -> None:
    np.testing.assert_array_equal(open_and_run(sealed), SAMPLE)


def test_every_flipped_byte_is_refused(sealed: bytes) -> None:
    survivors = []
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1 << place % 8
        if not refused(bytes(changed)):
            survivors.append(place)
    assert not survivors


def test_every_truncation_is_refused(sealed: bytes) -> None:
    assert all(refused(sealed[:length]) for length in range(len(sealed)))


@pytest.mark.parametrize("tail", [b"\0", b"tinytee\0", bytes(272)])
def test_bytes_that_follow_are_refused(sealed: bytes, tail: bytes) -> None:
    with pytest.raises(BundleError, match="follow"):
        open_and_run(sealed + tail)


def test_a_bundle_after_a_bundle_is_refused(sealed: bytes) -> None:
    with pytest.raises(BundleError, match="follow"):
        open_and_run(sealed + sealed)


def test_swapped_chunks_are_refused(sealed: bytes) -> None:
    preamble, pieces = chunks_of(sealed)
    for first, second in ((1, 2), (2, 3), (1, 3)):
        swapped = list(pieces)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        with pytest.raises(AuthenticationError):
            open_and_run(preamble + b"".join(swapped))


def test_repeated_chunks_are_refused(sealed: bytes) -> None:
    preamble, pieces = chunks_of(sealed)
    for k in (1, 2):
        repeated = [*pieces[: k + 1], pieces[k], *pieces[k + 2 :]]
        with pytest.raises(AuthenticationError):
            open_and_run(preamble + b"".join(repeated))


def test_dropped_chunks_are_refused(sealed: bytes) -> None:
    """Also where the header's count and the table of lengths are made to agree."""
    preamble, pieces = chunks_of(sealed)
    for k in range(len(pieces)):
        rest = pieces[:k] + pieces[k + 1 :]
        with pytest.raises(BundleError, match="truncated"):
            open_and_run(preamble + b"".join(rest))
        header = ffi.new("tt_bundle_header *")
        ffi.buffer(header)[:] = preamble[:HEADER_BYTES]
        header.chunk_count -= 1
        entry = HEADER_BYTES + header.manifest_bytes + 4 * k
        agreed = bytes(ffi.buffer(header)) + preamble[HEADER_BYTES:entry] + preamble[entry + 4 :]
        with pytest.raises(AuthenticationError):
            open_and_run(agreed + b"".join(rest))


def test_another_bundles_chunk_is_refused(sealed: bytes) -> None:
    """The same network, compiled again with the same key."""
    again = passthrough_bundle(KEY, Bundle.parse(sealed).suite).to_bytes()
    preamble, pieces = chunks_of(sealed)
    _, others = chunks_of(again)
    for k in range(len(pieces)):
        with pytest.raises(AuthenticationError):
            open_and_run(preamble + b"".join([*pieces[:k], others[k], *pieces[k + 1 :]]))
    with pytest.raises(AuthenticationError):
        open_and_run(chunks_of(again)[0] + b"".join(pieces))


def test_another_manifest_is_refused(sealed: bytes) -> None:
    changed = sealed.replace(b'"name":"x"', b'"name":"z"')
    assert changed != sealed
    with pytest.raises(AuthenticationError):
        Session(Bundle.parse(changed), key=KEY)


@pytest.mark.parametrize("bit", range(0, 256, 17))
def test_a_wrong_key_is_one_plain_line(sealed: bytes, bit: int) -> None:
    key = bytearray(KEY)
    key[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AuthenticationError) as raised:
        open_and_run(sealed, bytes(key))
    assert str(raised.value) == WRONG_KEY


def test_another_suite_is_refused(sealed: bytes) -> None:
    suite = Bundle.parse(sealed).preamble
    for number in (1, 2, 3):
        changed = sealed[:12] + bytes([number]) + sealed[13:]
        if changed != sealed:
            assert refused(changed), suite


def test_what_changes_after_opening_is_refused_and_wiped() -> None:
    """The owner of untrusted memory changes a chunk between two runs of an open session."""
    data = bytearray(passthrough_bundle(KEY).to_bytes())
    session = RuntimeSession(Bundle.parse(data), key=KEY)
    np.testing.assert_array_equal(session.run({"x": SAMPLE})["y"], SAMPLE)
    backend = session._backend
    assert isinstance(backend, ProcessBackend)
    arena = library.load().tth_session_arena(backend._session)
    held = bytes(ffi.buffer(arena.memory, arena.bytes))
    assert SAMPLE.transpose(0, 2, 3, 1).tobytes() in held
    data[-1] ^= 1
    inputs = [SAMPLE[0].transpose(1, 2, 0)]
    for _ in range(2):  # the first error sticks
        with pytest.raises(AuthenticationError, match="key is not"):
            backend.run(inputs, [np.zeros(SAMPLE.size, np.float32)])
        assert not any(bytes(ffi.buffer(arena.memory, arena.bytes)))
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": SAMPLE})


def test_a_failed_run_closes_the_session() -> None:
    data = bytearray(passthrough_bundle(KEY).to_bytes())
    session = Session(Bundle.parse(data), key=KEY)
    data[-1] ^= 1
    with pytest.raises(AuthenticationError):
        session.run({"x": SAMPLE})
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": SAMPLE})


def test_a_program_that_the_core_refuses_is_an_engine_error() -> None:
    """Sealed with the right key, so authentic, but out of bounds."""
    lowered = passthrough()
    program = bytearray(lowered.program)
    place = ffi.offsetof("tt_program", "data_offset")
    program[place : place + 4] = (c.TT_ENGINE_BYTES - 64).to_bytes(4, "little")
    broken = type(lowered)(**{**vars(lowered), "program": bytes(program)})
    with pytest.raises(EngineError, match="refuses the bundle's program"):
        Session(passthrough_bundle(KEY, lowered=broken), key=KEY)
