"""A host that enters the enclave with calls that no loader makes. Before an application of OP-TEE's stands its kernel;
before an enclave stands nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tinytee.bundle.enclave import Image, constants
from tinytee.runtime import library, sgx
from tinytee.runtime.wire import ffi as wire
from tinytee.runtime.wire import numbers, record
from trusted.support import (
    BAD_PARAMETERS,
    BAD_STATE,
    COMMANDS,
    MEMREF_IN,
    MEMREF_INOUT,
    MEMREF_OUT,
    NONE,
    NOT_SUPPORTED,
    REPLY_BYTES,
    SUCCESS,
)

from . import prober
from .prober import CALL_BYTES, EXCEPTION, LEFT, LEFT_SOMETHING, Prober, call_bytes

OPEN, CLOSE, INVOKE = constants.TTE_OPEN_SESSION, constants.TTE_CLOSE_SESSION, constants.TTE_INVOKE
PAGE_FAULT = 14
NOWHERE = 2**64
"""The end of all addresses."""

MEMREFS = [(MEMREF_IN, MEMREF_OUT, MEMREF_OUT, NONE), (MEMREF_INOUT,) * 4]

Place = Callable[[Prober], tuple[int, int]]

PLACES: dict[str, Place] = {
    "start": lambda p: (p.base, 1),
    "inside": lambda p: (p.base + p.size // 2, 512),
    "nothing at all": lambda p: (p.base + 1, 0),
    "all": lambda p: (p.base, p.size),
    "end": lambda p: (p.base + p.size - 1, 1),
    "over the start": lambda p: (p.base - 8, 9),
    "over the end": lambda p: (p.base + p.size - 1, 4096),
    "around": lambda p: (p.base - 4096, p.size + 8192),
    "to the end of addresses": lambda p: (p.base + p.size, NOWHERE - p.base - p.size),
    "wrapping": lambda p: (NOWHERE - 8, 16),
    "wrapping into it": lambda p: (p.base + p.size, NOWHERE - p.size + 8),
    "wrapping round to itself": lambda p: (p.outside, NOWHERE - 1),
}
"""Addresses and lengths that are not, or not all, outside the enclave."""


@pytest.fixture(scope="module")
def image() -> Image:
    return sgx.build_image("256KiB", library.best_isa(), sgx.own_signing_key(), is_development=True)


@pytest.fixture(scope="module")
def image_file(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "small.enclave"
    path.write_bytes(image.data)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prober.build(tmp_path_factory.mktemp("prober"))


@pytest.fixture
def enclave(program: Path, image_file: Path) -> Iterator[Prober]:
    probed = Prober(program, image_file)
    yield probed
    probed.close()


@pytest.fixture
def session(enclave: Prober) -> Iterator[Prober]:
    """With a session that is open, and answers when the test is over."""
    assert enclave.call(OPEN).result == SUCCESS
    yield enclave
    assert identity_of(enclave)


def identity_of(enclave: Prober) -> bytes:
    at = enclave.outside + 4096
    types = COMMANDS[numbers.TTA_IDENTITY]
    slots = [(at, wire.sizeof("tta_identity")), (0, 0), (at + 1024, REPLY_BYTES)]
    assert enclave.call(INVOKE, numbers.TTA_IDENTITY, types, slots).result == SUCCESS
    return bytes(record("tta_identity", enclave.peek(at, wire.sizeof("tta_identity"))).public_key)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", [*COMMANDS, constants.TTE_REPORT, 1000])
def test_memrefs_into_the_enclave(session: Prober, command: int, place: str) -> None:
    """Refused before the application sees them, whatever the command and whichever the slot. Nothing changes."""
    before = session.insides()
    bad = PLACES[place](session)
    for types in (COMMANDS[command] if command in COMMANDS else MEMREFS[0], *MEMREFS):
        for slot in (i for i, kind in enumerate(types) if kind >= MEMREF_IN):
            slots = [(session.outside + 4096 * (i + 1), 512) for i in range(4)]
            slots[slot] = bad
            assert session.call(INVOKE, command, types, slots).result == BAD_PARAMETERS
    assert session.insides() == before


@pytest.mark.parametrize("operation", [OPEN, CLOSE])
def test_memrefs_into_the_enclave_with_other_operations(session: Prober, operation: int) -> None:
    before = session.insides()
    slots = [PLACES["start"](session)] * 4
    assert session.call(operation, 0, MEMREFS[1], slots).result == BAD_PARAMETERS
    assert session.insides() == before


def test_values_that_look_like_addresses(session: Prober) -> None:
    """Of a slot that is no memref nothing is an address; of one that is written, only what the call is for."""
    reply = session.outside + 4096
    types = COMMANDS[numbers.TTA_INFO]
    slots = [(session.base, session.size), (session.base, session.size), (reply, REPLY_BYTES), (session.base, 8)]
    made = session.call(INVOKE, numbers.TTA_INFO, types, slots)
    assert made.result == SUCCESS
    assert (made.slots[0].a, made.slots[0].b) == (256 * 1024, numbers.TTA_DEVELOPMENT)
    assert [(made.slots[i].a, made.slots[i].b) for i in (1, 2, 3)] == slots[1:]


def _records(enclave: Prober, image: Image) -> Iterator[int]:
    """Addresses of a call that is not, or not all, outside."""
    runs = prober.runs_of(image.data)
    yield from (enclave.base + run.offset for run in runs)
    yield from (enclave.base + run.offset + run.bytes - CALL_BYTES for run in runs)
    yield from (enclave.base - CALL_BYTES + 1, enclave.base - 8, enclave.base + enclave.size - 1)
    yield from (NOWHERE - CALL_BYTES, NOWHERE - 8, NOWHERE - 1)


def test_calls_in_the_enclave(session: Prober, image: Image) -> None:
    """Not read, not answered."""
    before = session.insides()
    for address in _records(session, image):
        assert session.enter(address) == LEFT, hex(address)
        assert session.insides() == before, hex(address)


@pytest.mark.parametrize("over", range(1, 8))
def test_calls_that_are_not_aligned(session: Prober, over: int) -> None:
    before = session.insides()
    call = call_bytes(CLOSE)
    session.poke(session.outside + over, call)
    assert session.enter(session.outside + over) == LEFT
    assert session.peek(session.outside + over, CALL_BYTES) == call
    assert session.insides() == before


def test_the_first_call_of_all_in_the_enclave(enclave: Prober) -> None:
    """The enclave starts itself with its first call, whatever that is."""
    assert enclave.enter(enclave.base) == LEFT
    assert enclave.call(OPEN).result == SUCCESS
    assert identity_of(enclave)


def test_memory_that_is_both_call_and_slots(session: Prober) -> None:
    """The call is read before anything is written, so that what is written over it is not believed."""
    types = COMMANDS[numbers.TTA_IDENTITY]
    at = session.outside
    slots = [(at, wire.sizeof("tta_identity")), (session.base, 0), (at + 8, REPLY_BYTES)]
    before = session.insides()
    session.poke(at, call_bytes(INVOKE, numbers.TTA_IDENTITY, types, slots))
    assert session.enter(at) == LEFT
    assert session.peek(at + 12, 4) == SUCCESS.to_bytes(4, "little")
    changed = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(session.insides(), np.uint8))
    assert 0 < len(changed) <= 64  # the challenge, and that there is one
    assert np.ptp(changed) <= 64


def test_without_a_session(enclave: Prober) -> None:
    for command in (*COMMANDS, constants.TTE_REPORT, 1000):
        assert enclave.call(INVOKE, command).result == BAD_STATE
    assert enclave.call(CLOSE).result == SUCCESS
    assert enclave.call(OPEN).result == SUCCESS
    assert enclave.call(CLOSE).result == SUCCESS
    assert enclave.call(INVOKE, numbers.TTA_INFO).result == BAD_STATE


def test_one_session_at_a_time(session: Prober) -> None:
    assert session.call(OPEN).result == BAD_STATE
    first = identity_of(session)
    assert session.call(CLOSE).result == SUCCESS
    assert session.call(OPEN).result == SUCCESS
    assert identity_of(session) == first


def test_sessions_take_nothing(enclave: Prober) -> None:
    for kind in (1, 2, 3, 4, 8, 15):
        assert enclave.call(OPEN, 0, (NONE, kind, NONE, NONE)).result == BAD_PARAMETERS
    assert enclave.call(INVOKE).result == BAD_STATE
    assert enclave.call(OPEN).result == SUCCESS


@pytest.mark.parametrize("operation", [3, 256, 2**31, 2**32 - 1])
def test_unknown_operations(session: Prober, operation: int) -> None:
    before = session.insides()
    assert session.call(operation).result == NOT_SUPPORTED
    assert session.insides() == before


def test_memory_that_is_not_there(enclave: Prober) -> None:
    """It costs the host its enclave, and not its life."""
    assert enclave.enter(4096) == EXCEPTION | PAGE_FAULT
    assert enclave.peek(enclave.outside, 1) == b"\0"


def test_a_call_within_a_call(image_file: Path, tmp_path: Path) -> None:
    """The enclave handles no exceptions and leaves at once. Vectors are the host's still, which the emulation minds."""
    nested = Prober(prober.build(tmp_path, is_nested=True), image_file)
    before = nested.insides(with_stack=True)
    opening = call_bytes(OPEN)
    nested.poke(nested.outside, opening)
    assert nested.enter(nested.outside) in (LEFT, LEFT_SOMETHING)
    assert nested.peek(nested.outside, CALL_BYTES) == opening
    assert nested.insides(with_stack=True) == before
    nested.close()


REPORT_TYPES = (MEMREF_IN, MEMREF_OUT, NONE, NONE)
TARGET_BYTES, REPORT_BYTES = constants.TTE_TARGETINFO_BYTES, constants.TTE_REPORT_BYTES


def report_for(enclave: Prober, target: bytes) -> bytes:
    at = enclave.outside + 32768
    enclave.poke(at, target)
    made = enclave.call(INVOKE, constants.TTE_REPORT, REPORT_TYPES, [(at, TARGET_BYTES), (at + 1024, 2048)])
    assert (made.result, made.slots[1].b) == (SUCCESS, REPORT_BYTES)
    return enclave.peek(at + 1024, REPORT_BYTES)


def test_report(session: Prober, image: Image) -> None:
    """Of this enclave, for its device's public key."""
    report = report_for(session, bytes(TARGET_BYTES))
    assert (report[64:96], report[128:160]) == (image.measurement, image.signer)
    assert report[320:384] == (identity_of(session) + b"tinytee device key").ljust(64, b"\0")


@pytest.mark.parametrize("over", range(8))
def test_memory_of_any_alignment(session: Prober, over: int) -> None:
    """Copied in words, but none beside what is given is changed, and what is read is what is there."""
    target_at, report_at, size = session.outside + 4096, session.outside + 8192, 64 + REPORT_BYTES + 64
    target = np.random.default_rng(0).bytes(TARGET_BYTES)
    reports = set()
    for to in range(8):
        session.poke(target_at, bytes(over) + target)
        session.poke(report_at, b"\xa5" * size)
        slots = [(target_at + over, TARGET_BYTES), (report_at + 64 + to, REPORT_BYTES)]
        assert session.call(INVOKE, constants.TTE_REPORT, REPORT_TYPES, slots).result == SUCCESS
        written = session.peek(report_at, size)
        reports.add(written[64 + to : 64 + to + REPORT_BYTES])
        assert written[: 64 + to] + written[64 + to + REPORT_BYTES :] == b"\xa5" * (size - REPORT_BYTES)
        reports.add(report_for(session, target))
    assert len(reports) == 1
    assert report_for(session, bytes(TARGET_BYTES)) not in reports


@pytest.mark.parametrize(
    ("types", "target_bytes", "report_bytes"),
    [
        ((MEMREF_IN, MEMREF_INOUT, NONE, NONE), TARGET_BYTES, REPORT_BYTES),
        ((MEMREF_IN, MEMREF_OUT, NONE, MEMREF_IN), TARGET_BYTES, REPORT_BYTES),
        (REPORT_TYPES, TARGET_BYTES - 1, REPORT_BYTES),
        (REPORT_TYPES, TARGET_BYTES + 1, REPORT_BYTES),
        (REPORT_TYPES, TARGET_BYTES, REPORT_BYTES - 1),
    ],
)
def test_reports_want_room(session: Prober, types: tuple[int, ...], target_bytes: int, report_bytes: int) -> None:
    at = session.outside + 4096
    slots = [(at, target_bytes), (at + 1024, report_bytes)]
    assert session.call(INVOKE, constants.TTE_REPORT, types, slots).result == BAD_PARAMETERS
    for i in (0, 1):
        null = [(0, size) if slot == i else (address, size) for slot, (address, size) in enumerate(slots)]
        assert session.call(INVOKE, constants.TTE_REPORT, types, null).result == BAD_PARAMETERS
    assert session.peek(at + 1024, REPORT_BYTES) == bytes(REPORT_BYTES)
