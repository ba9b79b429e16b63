"""A normal world that lies: the trusted application refuses, does not panic, and keeps answering."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinytee
from tinytee.bundle import suites
from tinytee.bundle.abi import constants
from tinytee.bundle.sealing import nonce
from tinytee.errors import AuthenticationError, EngineError
from tinytee.runtime.trusted import TrustedBackend
from tinytee.runtime.wire import ffi, numbers, record
from trusted.support import (
    BAD_PARAMETERS,
    BAD_STATE,
    COMMANDS,
    KEY,
    MEMREF_IN,
    MEMREF_INOUT,
    MEMREF_OUT,
    NONE,
    NOT_SUPPORTED,
    REPLY_BYTES,
    SHORT_BUFFER,
    SUCCESS,
    VALUE_IN,
    VALUE_INOUT,
    VALUE_OUT,
    Compile,
    Open,
    answer_here,
    check_close,
    feed_of,
    invoke,
    run,
    slots_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* in development mode")

READY, WANT_CHUNK, WANT_INPUT, WANT_FETCH, GIVE_SPILL, GIVE_OUTPUT = range(6)


@pytest.fixture
def bundle(compile_network: Compile) -> tinytee.Bundle:
    return compile_network("lenet5", "300KiB")


Check = Callable[[TrustedBackend], None]


@pytest.fixture
def check(bundle: tinytee.Bundle, tolerance: float) -> Check:
    """Runs a session of the bundle, which must answer as it does in a process."""
    feed = feed_of("lenet5")
    expected = answer_here(bundle, feed)
    return lambda session: check_close(run(session, feed), expected, tolerance)


@pytest.fixture
def backend(open_session: Open, bundle: tinytee.Bundle, check: Check) -> Iterator[TrustedBackend]:
    """A session that has run once, and must run as well when the test is over."""
    session = open_session(bundle, KEY)
    check(session)
    yield session
    check(session)
    session.close()


def with_shared(types: tuple[int, ...]) -> tuple[int, ...] | None:
    """The types of a command that exchanges items, with memory that they may point into."""
    return (*types[:3], MEMREF_IN) if types == COMMANDS[numbers.TTA_EXCHANGE] else None


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_parameter_types(backend: TrustedBackend, command: int) -> None:
    right = COMMANDS[command]
    for slot in range(4):
        for wrong in {NONE, VALUE_IN, VALUE_OUT, VALUE_INOUT, MEMREF_IN, MEMREF_OUT, MEMREF_INOUT} - {right[slot]}:
            types = (*right[:slot], wrong, *right[slot + 1 :])
            if types != with_shared(right):
                assert invoke(backend, command, types, slots_of(types)) == BAD_PARAMETERS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("size", [0, 1, REPLY_BYTES - 1])
def test_replies_need_room(backend: TrustedBackend, command: int, size: int) -> None:
    types = COMMANDS[command]
    for there in (0, 1):
        slots = slots_of(types)
        slots[2] = (size, there)
        assert invoke(backend, command, types, slots) == BAD_PARAMETERS


@pytest.mark.parametrize("command", COMMANDS)
def test_null_memory_with_a_length(backend: TrustedBackend, command: int) -> None:
    types = COMMANDS[command]
    slots = slots_of(types, 4096, there=0)
    assert invoke(backend, command, types, slots) == BAD_PARAMETERS


def test_unknown_commands(backend: TrustedBackend) -> None:
    for command in (len(COMMANDS), 1000, 0xFFFFFFFF):
        for types in COMMANDS.values():
            assert invoke(backend, command, types, slots_of(types)) == NOT_SUPPORTED


def _item(event: int, index: int, row: int, rows: int, size: int, sealed: bytes | None = None) -> bytes:
    want = ffi.new("tta_want *", (event, index, row, rows, size))
    return bytes(ffi.buffer(want)) + (b"\xa5" * size if sealed is None else sealed)


INPUT_BYTES = 32 * 32 * 4 + 16
INPUT = _item(WANT_INPUT, 0, 0, 32, INPUT_BYTES)
"""LeNet-5 wants this first in a run, but for what is sealed."""


def _exchange(session: TrustedBackend, command: int, items: bytes, room: int = 0) -> tuple[int, Any]:
    """The call's result, and its reply if it succeeded."""
    slots = [(len(items), int(bool(items))), (room, int(room > 0)), (REPLY_BYTES, 1), (0, 0)]
    result, written = session.invoke(command, COMMANDS[command], slots, items)
    if result.result != SUCCESS:
        return int(result.result), None
    return SUCCESS, record("tta_reply", written[result.slots[1][0] :])


def test_exchanging_when_nothing_is_wanted(backend: TrustedBackend) -> None:
    """Ready: nothing may be fed or taken. The engine stays as it is."""
    for event in range(8):
        for items in (b"", _item(event, 0, 0, 0, 0), _item(event, 0, 0, 32, INPUT_BYTES)):
            assert _exchange(backend, numbers.TTA_EXCHANGE, items, 4096) == (BAD_STATE, None)


def test_items_that_are_not_wanted(open_session: Open, bundle: tinytee.Bundle) -> None:
    """Lengths that lie, and items for something else: refused, and the same input is wanted as before."""
    session = open_session(bundle, KEY)
    result, begun = _exchange(session, numbers.TTA_START, b"")
    assert (result, begun.status, begun.fed, begun.given, begun.want.event) == (SUCCESS, 0, 0, 0, WANT_INPUT)
    head = ffi.sizeof("tta_want")
    for size in (0, 1, head - 1, head, head + 1, head + INPUT_BYTES - 1):
        assert _exchange(session, numbers.TTA_EXCHANGE, INPUT[:size]) == (BAD_PARAMETERS, None)
    wrong = [(event, 0, 0, 32, INPUT_BYTES) for event in range(8) if event != WANT_INPUT]
    wrong += [(WANT_INPUT, 1, 0, 32, INPUT_BYTES), (WANT_INPUT, 0, 1, 32, INPUT_BYTES)]
    wrong += [(WANT_INPUT, 0, 0, 31, INPUT_BYTES)]
    wrong += [(WANT_INPUT, 0, 0, 32, size) for size in (0, 16, INPUT_BYTES - 1, INPUT_BYTES + 1, 2**31, 2**32 - 1)]
    for fields in wrong:
        assert _exchange(session, numbers.TTA_EXCHANGE, _item(*fields, bytes(INPUT_BYTES))) == (BAD_STATE, None)
    for slot in (0, 1):
        slots = [(head, 1), (head, 1), (REPLY_BYTES, 1), (0, 0)]
        slots[slot] = (1 << 20, 0)
        assert invoke(session, numbers.TTA_EXCHANGE, COMMANDS[numbers.TTA_EXCHANGE], slots) == BAD_PARAMETERS
    assert _exchange(session, numbers.TTA_START, INPUT) == (BAD_STATE, None)
    session.close()


def test_a_run_begins_whatever_comes_with_it(open_session: Open, bundle: tinytee.Bundle) -> None:
    """An item that is not the one wanted is left alone by TTA_START, too."""
    session = open_session(bundle, KEY)
    result, begun = _exchange(session, numbers.TTA_START, _item(WANT_INPUT, 0, 0, 31, INPUT_BYTES))
    assert (result, begun.status, begun.fed, begun.want.event) == (SUCCESS, 0, 0, WANT_INPUT)
    session.close()


@pytest.mark.parametrize("command", ["TTA_START", "TTA_EXCHANGE"])
def test_forged_input_ends_the_engine_not_the_application(
    open_session: Open, bundle: tinytee.Bundle, command: str
) -> None:
    """Nothing that follows the forged item is looked at, and nothing is given."""
    session = open_session(bundle, KEY)
    if command == "TTA_EXCHANGE":
        assert _exchange(session, numbers.TTA_START, b"")[0] == SUCCESS
    result, said = _exchange(session, getattr(numbers, command), 2 * INPUT, 4096)
    assert (result, said.status, said.fed, said.given) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION, 1, 0)
    assert _exchange(session, numbers.TTA_EXCHANGE, INPUT, 4096) == (BAD_STATE, None)
    assert _exchange(session, numbers.TTA_START, b"") == (BAD_STATE, None)
    session.close()


def _open_engine(session: TrustedBackend, bundle: tinytee.Bundle) -> bytes:
    """Opens the bundle by hand, as far as its first chunk. Returns the I/O key."""
    io_key = secrets.token_bytes(32)
    opened, preamble = numbers.TTA_OPEN, bytes(bundle.sealed()[: bundle.preamble.total_bytes])
    slots = [(len(preamble), 1), (64, 1), (REPLY_BYTES, 1), (0, 0)]
    assert session.invoke(opened, COMMANDS[opened], slots, preamble + KEY + io_key)[0].result == SUCCESS
    return io_key


def _chunks(bundle: tinytee.Bundle) -> list[tuple[int, int]]:
    """Where each chunk lies in the bundle, and its length."""
    sizes = bundle.preamble.sealed_bytes
    return [(bundle.preamble.total_bytes + sum(sizes[:index]), size) for index, size in enumerate(sizes)]


def _sealed_zeros(bundle: tinytee.Bundle, io_key: bytes) -> bytes:
    """LeNet-5's input for the first run: all zeros."""
    image = np.zeros(32 * 32, np.float32).tobytes()
    return suites.sealer(bundle.suite, io_key)(nonce(constants.TT_DOMAIN_INPUT, 1, 0), image, b"")


def _check_zeros(bundle: tinytee.Bundle, io_key: bytes, sealed: bytes, tolerance: float) -> None:
    """That this is the answer to them."""
    plain = suites.opener(bundle.suite, io_key)(nonce(constants.TT_DOMAIN_OUTPUT, 1, 0), sealed, b"")
    expected = answer_here(bundle, {"input": np.zeros((1, 1, 32, 32), np.float32)})
    check_close(np.frombuffer(plain, np.float32), expected, tolerance)


def _in_place(event: int, index: int, row: int, rows: int, size: int, place: int) -> bytes:
    return _item(event | numbers.TTA_IN_PLACE, index, row, rows, size, place.to_bytes(8, "little"))


def _exchange_in_place(
    session: TrustedBackend, command: int, items: bytes, shared: bytes, room: int = 0
) -> tuple[int, Any, bytes]:
    """As _exchange, with memory that items point into. Returns what was written, too."""
    types = with_shared(COMMANDS[command])
    assert types is not None
    slots = [(len(items), 1), (room, int(room > 0)), (REPLY_BYTES, 1), (len(shared), int(bool(shared)))]
    result, written = session.invoke(command, types, slots, items + shared)
    if result.result != SUCCESS:
        return int(result.result), None, b""
    given = result.slots[1][0]
    return SUCCESS, record("tta_reply", written[given:]), bytes(written[:given])


def test_items_in_place(open_session: Open, bundle: tinytee.Bundle, tolerance: float) -> None:
    """Chunks where they lie in the bundle, and an input behind other bytes."""
    session = open_session(bundle, KEY)
    io_key = _open_engine(session, bundle)
    chunks = [_in_place(WANT_CHUNK, index, 0, 0, size, at) for index, (at, size) in enumerate(_chunks(bundle))]
    result, said, _ = _exchange_in_place(session, numbers.TTA_EXCHANGE, b"".join(chunks), bytes(bundle.sealed()))
    assert (result, said.status, said.want.event, said.fed) == (SUCCESS, 0, READY, len(chunks))
    item, shared = _in_place(WANT_INPUT, 0, 0, 32, INPUT_BYTES, 3), b"abc" + _sealed_zeros(bundle, io_key)
    result, said, given = _exchange_in_place(session, numbers.TTA_START, item, shared, 4096)
    assert (result, said.status, said.fed, said.given) == (SUCCESS, 0, 1, 1)
    _check_zeros(bundle, io_key, given, tolerance)
    session.close()


def test_items_that_are_not_in_their_place(open_session: Open, bundle: tinytee.Bundle) -> None:
    """Beyond the memory that was given, or without any: refused, and the same chunk is wanted as before."""
    session = open_session(bundle, KEY)
    _open_engine(session, bundle)
    sealed, (at, size), exchange = bytes(bundle.sealed()), _chunks(bundle)[0], numbers.TTA_EXCHANGE
    for place in (len(sealed) - size + 1, len(sealed), len(sealed) + 1, 2**32, 2**63, 2**64 - size, 2**64 - 1):
        item = _in_place(WANT_CHUNK, 0, 0, 0, size, place)
        assert _exchange_in_place(session, exchange, item, sealed)[0] == BAD_PARAMETERS
    right = _in_place(WANT_CHUNK, 0, 0, 0, size, at)
    for cut in (1, 4, 8):
        assert _exchange_in_place(session, exchange, right[:-cut], sealed)[0] == BAD_PARAMETERS
    assert _exchange_in_place(session, exchange, right, b"")[0] == BAD_PARAMETERS
    assert _exchange_in_place(session, exchange, right, sealed[: at + size - 1])[0] == BAD_PARAMETERS
    assert _exchange(session, exchange, right) == (BAD_PARAMETERS, None)  # and none at all
    slots = [(len(right), 1), (0, 0), (REPLY_BYTES, 1), (len(sealed), 0)]
    assert session.invoke(exchange, with_shared(COMMANDS[exchange]) or (), slots, right)[0].result == BAD_PARAMETERS
    wrong = _in_place(WANT_CHUNK, 1, 0, 0, size, at)
    assert _exchange_in_place(session, exchange, wrong, sealed)[0] == BAD_STATE
    result, said, _ = _exchange_in_place(session, exchange, right, sealed)
    assert (result, said.status, said.fed) == (SUCCESS, 0, 1)
    session.close()


def test_outputs_need_room(open_session: Open, bundle: tinytee.Bundle, tolerance: float) -> None:
    """An output for which there is too little room is not sealed: it is given, once, when there is."""
    session = open_session(bundle, KEY)
    io_key = _open_engine(session, bundle)
    sealed, chunks = bundle.sealed(), b""
    for index, (at, size) in enumerate(_chunks(bundle)):
        chunks += _item(WANT_CHUNK, index, 0, 0, size, bytes(sealed[at : at + size]))
    result, said = _exchange(session, numbers.TTA_EXCHANGE, chunks)
    assert (result, said.status, said.want.event) == (SUCCESS, 0, READY)
    item = _item(WANT_INPUT, 0, 0, 32, INPUT_BYTES, _sealed_zeros(bundle, io_key))
    result, said = _exchange(session, numbers.TTA_START, item, 15)
    assert (result, said.status, said.fed, said.given, said.want.event) == (SUCCESS, 0, 1, 0, GIVE_OUTPUT)
    exchange, size = numbers.TTA_EXCHANGE, said.want.bytes
    for room in (0, 1, size - 1):
        slots = [(0, 0), (room, int(room > 0)), (REPLY_BYTES, 1), (0, 0)]
        answer = session.invoke(exchange, COMMANDS[exchange], slots)[0]
        assert (answer.result, answer.slots[1][0]) == (SHORT_BUFFER, size)
    slots = [(0, 0), (4096, 1), (REPLY_BYTES, 1), (0, 0)]
    answer, written = session.invoke(exchange, COMMANDS[exchange], slots)
    assert (answer.result, answer.slots[1][0]) == (SUCCESS, size)
    _check_zeros(bundle, io_key, bytes(written[:size]), tolerance)
    assert _exchange(session, exchange, b"", 4096) == (BAD_STATE, None)
    session.close()


def test_calls_carry_what_fits(open_session: Open, compile_network: Compile, tolerance: float) -> None:
    """From the second run on, spills and their fetches included; results stay what they are."""
    tight = compile_network("mobilenet_v1_025_128", "140KiB")
    feed = feed_of("mobilenet_v1_025_128")
    expected = answer_here(tight, feed)
    session = open_session(tight, KEY)
    calls, chunks = [session.calls], []
    for _ in range(3):
        check_close(run(session, feed), expected, tolerance)
        calls.append(session.calls)
        chunks.append(session.stats().chunk_bytes)
    first, second, third = np.diff(calls)
    assert third == second < first / 2
    assert session.stats().spills > 0
    assert chunks[2] - chunks[1] == chunks[1] - chunks[0]
    session.close()


@pytest.mark.parametrize("arena_bytes", [0, 1, 1023, 1024, 2**21, 2**22, 2**31, 2**32 - 1])
def test_hostile_preamble(open_session: Open, bundle: tinytee.Bundle, arena_bytes: int) -> None:
    changed = bytearray(bundle.to_bytes())
    changed[28:32] = arena_bytes.to_bytes(4, "little")
    preamble = bytes(changed[: bundle.preamble.total_bytes])
    session = open_session(bundle, KEY)
    types = COMMANDS[numbers.TTA_OPEN]
    for cut in (len(preamble), len(preamble) - 1, 80, 79, 1):
        slots = [(cut, 1), (64, 1), (REPLY_BYTES, 1), (0, 0)]
        result, _ = session.invoke(numbers.TTA_OPEN, types, slots, preamble[:cut] + KEY + bytes(32))
        assert result.result == (SUCCESS if cut >= 80 else BAD_PARAMETERS)
    session.close()


def _random_slot(rng: np.random.Generator, kind: int) -> tuple[int, int]:
    if kind < MEMREF_IN:
        return int(rng.integers(0, 8)), 0
    return int(rng.choice([0, 1, 15, 16, 63, 64, 80, 4112, 70000])), int(rng.integers(0, 4) > 0)


def test_random_calls(open_session: Open, bundle: tinytee.Bundle) -> None:
    rng = np.random.default_rng(0)
    session = open_session(bundle, KEY)
    known = {SUCCESS, BAD_PARAMETERS, BAD_STATE, NOT_SUPPORTED, SHORT_BUFFER}
    for _ in range(300):
        command = int(rng.integers(0, 6))
        types = COMMANDS.get(command, COMMANDS[numbers.TTA_EXCHANGE])
        if rng.random() < 0.2:
            types = tuple(int(kind) for kind in rng.choice([0, 1, 2, 3, 5, 6, 7], 4))
        slots = [(int(rng.choice([0, 1, 15, 16, 63, 64, 80, 4112, 70000])), int(rng.integers(0, 4) > 0)) for _ in types]
        slots = [
            (int(rng.integers(0, 8)), 0) if kind < MEMREF_IN else slot for kind, slot in zip(types, slots, strict=True)
        ]
        assert invoke(session, command, types, slots) in known
    session.close()


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_changed_bundle(open_session: Open, bundle: tinytee.Bundle, place: float) -> None:
    changed = bytearray(bundle.to_bytes())
    first = bundle.preamble.total_bytes
    changed[first + int(place * (len(changed) - first))] ^= 1
    with pytest.raises(AuthenticationError):
        open_session(tinytee.Bundle.parse(changed), KEY)


def test_changed_chunk_of_a_run(backend_name: str, compile_network: Compile) -> None:
    """A chunk that is only fed while the network runs."""
    changed = bytearray(compile_network("squeezenet", "1MiB").to_bytes())
    changed[-100] ^= 1
    with tinytee.Session(tinytee.Bundle.parse(changed), key=KEY, backend=backend_name) as session:
        with pytest.raises(AuthenticationError):
            session.run(feed_of("squeezenet"))
        with pytest.raises(EngineError, match="closed"):
            session.run(feed_of("squeezenet"))


def test_wrong_key(backend_name: str, bundle: tinytee.Bundle) -> None:
    with pytest.raises(AuthenticationError, match="the key is not"):
        tinytee.Session(bundle, key=bytes(32), backend=backend_name)


def test_bundle_larger_than_the_heap(backend_name: str, heap_bytes: int, compile_network: Compile) -> None:
    large = compile_network("squeezenet", "8MiB")
    assert large.peak_secure_memory_bytes > heap_bytes
    with pytest.raises(EngineError, match=f"needs {large.peak_secure_memory_bytes} bytes.*heap of {heap_bytes} bytes"):
        tinytee.Session(large, key=KEY, backend=backend_name)


@pytest.mark.parametrize(("is_larger", "error"), [(False, AuthenticationError), (True, EngineError)])
def test_largest_arena(
    open_session: Open,
    bundle: tinytee.Bundle,
    heap_bytes: int,
    heap_overhead_bytes: int,
    is_larger: bool,
    error: type[tinytee.TinyteeError],
) -> None:
    """An arena of the heap but for its overhead is made (and the forged header then refused); a larger one is not."""
    changed = bytearray(bundle.to_bytes())
    changed[28:32] = (heap_bytes - (0 if is_larger else heap_overhead_bytes)).to_bytes(4, "little")
    with pytest.raises(error):
        open_session(tinytee.Bundle.parse(changed), KEY)


def test_suite_that_is_not_there(backend_name: str, compile_network: Compile) -> None:
    both = "(chacha20-poly1305, or aes-256-gcm|aes-256-gcm, or chacha20-poly1305)$"
    with pytest.raises(EngineError, match=f"has no aegis-256x4: compile with --suite {both}"):
        tinytee.Session(compile_network("lenet5", "300KiB", "aegis-256x4"), key=KEY, backend=backend_name)


def test_closed_midway_and_reopened(open_session: Open, bundle: tinytee.Bundle, check: Check) -> None:
    start = COMMANDS[numbers.TTA_START]
    for _ in range(3):
        session = open_session(bundle, KEY)
        assert invoke(session, numbers.TTA_START, start, slots_of(start)) == SUCCESS
        session.close()
    session = open_session(bundle, KEY)
    check(session)
    session.close()


def test_two_sessions_at_once(
    open_session: Open, bundle: tinytee.Bundle, check: Check, compile_network: Compile, tolerance: float
) -> None:
    other = compile_network("mobilenet_v1_025_128", "300KiB")
    feed = feed_of("mobilenet_v1_025_128")
    expected = answer_here(other, feed)
    one, two = open_session(bundle, KEY), open_session(other, KEY)
    for _ in range(2):
        check(one)
        check_close(run(two, feed), expected, tolerance)
    two.close()
    check(one)
    one.close()
