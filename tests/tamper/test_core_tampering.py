"""Whatever a hostile host feeds, through the C interface: the core ends the session and wipes its arena."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag

from tamper.driver import Core, CoreError, core_on
from tamper.programs import CHUNK_BYTES, passthrough, passthrough_bundle
from tinytee.bundle import Bundle
from tinytee.bundle.abi import constants as c
from tinytee.bundle.preamble import HEADER_BYTES
from tinytee.ir.graph import Shape

KEY = bytes(range(7, 39))
GENERATOR = np.random.default_rng(3)
FIRST, SECOND = GENERATOR.standard_normal((2, 7, 5, 3)).astype(np.float32)
LARGE = Shape(7, 60, 32)
LARGE_FIRST = GENERATOR.standard_normal((7, 60, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return passthrough_bundle(KEY)


@pytest.fixture
def core(bundle: Bundle) -> Iterator[Core]:
    with core_on(bundle, KEY) as opened:
        yield opened


def refuses(core: Core, sample: np.ndarray | None = FIRST, status: int = c.TT_ERROR_AUTHENTICATION) -> None:
    """Opens (unless it is open) and runs; expects the status, a wiped arena, and that the error sticks."""
    with pytest.raises(CoreError) as raised:
        if not core.engine:
            core.open()
        assert sample is not None
        core.run(sample)
    assert raised.value.status == status
    stays_dead(core, status)


def stays_dead(core: Core, status: int) -> None:
    assert core.is_wiped()
    if not core.engine:
        return
    for call in (core.poll, lambda: core.feed(b"x" * 16), lambda: core.take(16), lambda: core.run(FIRST)):
        with pytest.raises(CoreError) as again:
            call()
        assert again.value.status == status
    assert core.library.tt_peak_bytes(core.engine) == 0
    assert core.is_wiped()


def tamper_when(core: Core, event: int, index: int, change: Any) -> None:
    core.tamper = lambda want, sealed: change(sealed) if (want.event, want.index) == (event, index) else sealed


def flip(place: int) -> Any:
    def change(sealed: bytes) -> bytes:
        changed = bytearray(sealed)
        changed[place] ^= 0x40
        return bytes(changed)

    return change


def test_honestly_fed_it_runs(core: Core) -> None:
    core.open()
    for sample in (FIRST, SECOND, FIRST):
        np.testing.assert_array_equal(core.run(sample), sample)
    assert core.library.tt_peak_bytes(core.engine) == core.bundle.peak_secure_memory_bytes
    weights = bytes([1]) * CHUNK_BYTES
    assert weights in core.arena()
    assert FIRST.tobytes() in core.arena()
    core.library.tt_close(core.engine)
    core.engine = None
    assert not any(core.arena())


@pytest.mark.parametrize("chunk", [0, 1, 2, 3])
@pytest.mark.parametrize("place", [0, 100, -17, -16, -1])
def test_a_flipped_byte_of_a_chunk(core: Core, chunk: int, place: int) -> None:
    tamper_when(core, c.TT_WANT_CHUNK, chunk, flip(place))
    refuses(core)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_another_chunk_of_the_bundle(core: Core, chunk: int) -> None:
    """Swapped or repeated."""
    for other in (1, 2, 3):
        if other != chunk:
            with core_on(core.bundle, KEY) as fresh:
                tamper_when(fresh, c.TT_WANT_CHUNK, chunk, lambda _, k=other: core.chunk(k))
                refuses(fresh)


@pytest.mark.parametrize("chunk", [0, 1, 2, 3])
def test_another_bundles_chunk(core: Core, chunk: int) -> None:
    with core_on(passthrough_bundle(KEY), KEY) as other:
        tamper_when(core, c.TT_WANT_CHUNK, chunk, lambda _: other.chunk(chunk))
        refuses(core)


@pytest.mark.parametrize("chunk", [0, 1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, -1])
def test_a_truncated_chunk(core: Core, chunk: int, length: int) -> None:
    tamper_when(core, c.TT_WANT_CHUNK, chunk, lambda sealed: sealed[:length])
    with pytest.raises(CoreError) as raised:
        core.open()
        core.run(FIRST)
    assert raised.value.status in (c.TT_ERROR_AUTHENTICATION, c.TT_ERROR_STATE)
    stays_dead(core, raised.value.status)


@pytest.mark.parametrize("chunk", [0, 1, 2, 3])
def test_a_chunk_with_a_tail(core: Core, chunk: int) -> None:
    tamper_when(core, c.TT_WANT_CHUNK, chunk, lambda sealed: sealed + b"\0")
    with pytest.raises(CoreError) as raised:
        core.open()
        core.run(FIRST)
    stays_dead(core, raised.value.status)


def test_every_flipped_byte_of_the_preamble(bundle: Bundle) -> None:
    preamble = bytes(bundle.sealed()[: bundle.preamble.total_bytes])
    for place in range(len(preamble)):
        with core_on(bundle, KEY) as core:
            with pytest.raises(CoreError) as raised:
                core.open(flip(place)(preamble))
            assert raised.value.status in (
                c.TT_ERROR_AUTHENTICATION,
                c.TT_ERROR_BUNDLE,
                c.TT_ERROR_ARENA,
                c.TT_ERROR_PORT,
            ), place
            if place >= HEADER_BYTES:
                assert raised.value.status in (c.TT_ERROR_AUTHENTICATION, c.TT_ERROR_BUNDLE), place
            assert core.is_wiped()


def test_every_truncated_preamble(bundle: Bundle) -> None:
    preamble = bytes(bundle.sealed()[: bundle.preamble.total_bytes])
    for length in range(len(preamble)):
        with core_on(bundle, KEY) as core:
            with pytest.raises(CoreError):
                core.open(preamble[:length])
            assert core.is_wiped()


def test_a_wrong_key(bundle: Bundle) -> None:
    with core_on(bundle, bytes(32)) as core:
        refuses(core)


def test_a_changed_spill(core: Core) -> None:
    tamper_when(core, c.TT_WANT_FETCH, 1, flip(5))
    refuses(core)


def test_another_spill_of_the_run(core: Core) -> None:
    tamper_when(core, c.TT_WANT_FETCH, 1, lambda _: core.spills[0])
    refuses(core)


def test_a_stale_spill(core: Core) -> None:
    """A spill of the run before, of the same place, even of the same plaintext."""
    core.open()
    core.run(FIRST)
    stale = dict(core.spills)
    core.tamper = lambda want, sealed: stale[want.index] if want.event == c.TT_WANT_FETCH else sealed
    refuses(core, FIRST)


def test_spills_of_one_plaintext_differ(core: Core) -> None:
    core.open()
    core.run(FIRST)
    before = dict(core.spills)
    core.run(FIRST)
    assert all(core.spills[k] != before[k] for k in before)
    assert all(FIRST.tobytes()[:48] not in sealed for sealed in before.values())


def test_pieces_of_a_spill() -> None:
    """For two threads: each is authenticated, bound to its place and to the run."""
    bundle = passthrough_bundle(KEY, lowered=passthrough(workers=2))
    with core_on(bundle, KEY) as core:
        core.open()
        for sample in (FIRST, SECOND, FIRST):
            np.testing.assert_array_equal(core.run(sample), sample)
        stale = core.spills[1]
        tamper_when(core, c.TT_WANT_FETCH, 1, lambda sealed: stale[:128] + sealed[128:])
        refuses(core)
    for change in (flip(0), flip(127), flip(128), flip(-1), lambda sealed: sealed[128:] + sealed[:128]):
        with core_on(bundle, KEY) as core:
            tamper_when(core, c.TT_WANT_FETCH, 1, change)
            refuses(core)


@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_input(core: Core, place: int) -> None:
    tamper_when(core, c.TT_WANT_INPUT, 0, flip(place))
    refuses(core)


def test_a_replayed_input(core: Core) -> None:
    """Rows that the client sealed for the run before, or for other rows of this run."""
    fed: list[bytes] = []
    core.tamper = lambda want, sealed: (fed.append(sealed) or sealed) if want.event == c.TT_WANT_INPUT else sealed
    core.open()
    core.run(FIRST)
    tamper_when(core, c.TT_WANT_INPUT, 0, lambda _: fed[0])
    refuses(core)
    with core_on(core.bundle, KEY) as other:
        other.open()
        begun: list[bytes] = []
        other.tamper = lambda want, sealed: (
            (begun.append(sealed) or begun[0]) if want.event == c.TT_WANT_INPUT else sealed
        )
        refuses(other)


@pytest.fixture(scope="module")
def shared_bundle() -> Bundle:
    return passthrough_bundle(KEY, lowered=passthrough(LARGE, rows=5, workers=2))


def test_pieces_of_an_input(shared_bundle: Bundle) -> None:
    """For two threads, of five y-planes three and two; the last two alone are too few to divide."""
    wanted: list[tuple[int, int, int]] = []
    with core_on(shared_bundle, KEY, threads=2) as core:
        core.tamper = lambda want, sealed: (
            (wanted.append((want.rows, want.piece_rows, want.bytes)) or sealed)
            if want.event == c.TT_WANT_INPUT
            else sealed
        )
        core.open()
        for sample in (LARGE_FIRST, -LARGE_FIRST):
            np.testing.assert_array_equal(core.run(sample), sample)
    tag, row = c.TT_TAG_BYTES, LARGE.row_elems * 4
    assert wanted == 2 * [(5, 3, 5 * row + 2 * tag), (2, 2, 2 * row + tag)]


def test_a_port_of_one_thread_wants_an_input_whole(shared_bundle: Bundle) -> None:
    with core_on(shared_bundle, KEY) as core:
        core.tamper = lambda want, sealed: sealed if want.piece_rows in (0, want.rows) else b""
        core.open()
        np.testing.assert_array_equal(core.run(LARGE_FIRST), LARGE_FIRST)


FIRST_PIECE = 3 * LARGE.row_elems * 4 + c.TT_TAG_BYTES


@pytest.mark.parametrize(
    "change",
    [
        flip(0),
        flip(FIRST_PIECE - 1),
        flip(FIRST_PIECE),
        flip(-1),
        lambda sealed: sealed[FIRST_PIECE:] + sealed[:FIRST_PIECE],
        lambda sealed: sealed[:FIRST_PIECE] + sealed[: len(sealed) - FIRST_PIECE],
        lambda sealed: sealed[:-1],
    ],
)
def test_a_changed_piece_of_an_input(shared_bundle: Bundle, change: Callable[[bytes], bytes]) -> None:
    with core_on(shared_bundle, KEY, threads=2) as core:
        tamper_when(core, c.TT_WANT_INPUT, 0, change)
        refuses(core, LARGE_FIRST)


def test_a_changed_output_is_the_clients_to_refuse(core: Core) -> None:
    core.open()
    taken: list[tuple[bytes, bytes]] = []
    core.watch = lambda want, sealed: taken.append((bytes(want.nonce)[:12], sealed))
    core.run(FIRST)
    nonce, sealed = taken[-1]
    core._client.decrypt(nonce, sealed, None)
    for place in range(len(sealed)):
        with pytest.raises(InvalidTag):
            core._client.decrypt(nonce, flip(place)(sealed), None)


def test_nonces_never_repeat(core: Core) -> None:
    nonces: list[bytes] = []
    core.open()
    for sample in (FIRST, SECOND):
        core._check(core.library.tt_start(core.engine))
        result = np.zeros_like(sample)
        while (want := core.poll()).event != c.TT_READY:
            if want.event in (c.TT_WANT_INPUT, c.TT_GIVE_OUTPUT):
                nonces.append(bytes(want.nonce))
            core.serve(want, sample, result)
    assert len(nonces) == len(set(nonces)) > 4


@pytest.mark.parametrize(
    "misuse", ["start twice", "feed at rest", "take at rest", "take what is to be fed", "start early"]
)
def test_calls_out_of_turn(core: Core, misuse: str) -> None:
    if misuse == "start early":
        core.tamper = lambda want, sealed: sealed
        with core_on(core.bundle, KEY) as early:
            early._pump = lambda sample: FIRST  # type: ignore[method-assign]
            early.open()
            with pytest.raises(CoreError) as raised:
                early._check(early.library.tt_start(early.engine))
            assert raised.value.status == c.TT_ERROR_STATE
            assert early.is_wiped()
        return
    core.open()
    with pytest.raises(CoreError) as raised:
        if misuse in ("start twice", "take what is to be fed"):
            core._check(core.library.tt_start(core.engine))
        if misuse == "start twice":
            core._check(core.library.tt_start(core.engine))
        elif misuse == "feed at rest":
            core.feed(core.chunk(1))
        else:
            core.take(core.poll().bytes or 16)
    assert raised.value.status == c.TT_ERROR_STATE
    stays_dead(core, c.TT_ERROR_STATE)
