"""The client of a device whose normal world lies."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import tinytee
from tamper.programs import passthrough_bundle
from tinytee.bundle import suites
from tinytee.bundle.sealing import nonce
from tinytee.errors import AuthenticationError, EngineError
from tinytee.runtime import optee, trusted
from tinytee.runtime.wire import ffi, numbers

KEY = bytes(range(32))
IO_KEY = bytes(reversed(range(32)))
PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
ROWS, ROW_ELEMS = 4, 8
BLOCK_BYTES = 2 * ROW_ELEMS * 4 + 16


def asks(kind: int, row: int, rows: int = 2, payload: bytes = b"", **fields: Any) -> tuple[int, bytes]:
    record = {"index": 0, "row": row, "rows": rows, "bytes": rows * ROW_ELEMS * 4 + 16, **fields}
    return kind, bytes(ffi.buffer(ffi.new("tta_want *", record))) + payload


def output(row: int, values: np.ndarray, run: int, block: int) -> tuple[int, bytes]:
    sealed = suites.sealer("chacha20-poly1305", IO_KEY)(nonce(3, run, block), values.tobytes(), b"")
    return asks(numbers.TTF_OUTPUT, row, payload=sealed)


DONE = (numbers.TTF_DONE, bytes(ffi.sizeof("ttf_stats")))


class LyingLink:
    """A feeder that plays what it was given."""

    number = 0
    ahead_bytes = 0

    def __init__(self, answers: list[tuple[int, bytes]]) -> None:
        self.lock = threading.RLock()
        self.wire = self
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self.gave_up = False
        self.given_before: list[int] = []

    def ask(self, kind: int, session: int, *parts: Any) -> bytes:
        if kind == numbers.TTF_DEVICE:
            return bytes(ffi.buffer(ffi.new("ttf_device *", {"identity": {"public_key": PUBLIC}})))
        return bytes(ffi.sizeof("ttf_stats"))

    def send(self, kind: int, session: int, *parts: Any) -> None:
        if kind == numbers.TTF_INPUT:
            self.sent.append(b"".join(parts))

    def receive(self) -> tuple[int, bytes]:
        kind, data = self.answers.pop(0)
        if kind == numbers.TTF_INPUT_WANTED:
            self.given_before.append(len(self.sent))
        return kind, data

    def give_up(self) -> None:
        self.gave_up = True

    def close(self) -> None:
        pass


def run(
    monkeypatch: pytest.MonkeyPatch, *runs: list[tuple[int, bytes]], ahead_bytes: int = 0
) -> tuple[LyingLink, np.ndarray]:
    """Runs with a feeder that answers so, one list a run."""
    link = LyingLink([answer for answers in runs for answer in answers])
    link.ahead_bytes = ahead_bytes
    monkeypatch.setattr(optee, "_connect", lambda machine: link)
    monkeypatch.setattr(trusted.secrets, "token_bytes", lambda count: IO_KEY)
    bundle = passthrough_bundle(KEY, "chacha20-poly1305")
    backend = optee.OpteeBackend(bundle, tinytee.provision(KEY, PUBLIC))
    found = np.zeros(ROWS * ROW_ELEMS, np.float32)
    for number in range(len(runs)):
        backend.run([np.full(ROWS * ROW_ELEMS, number, np.float32)], [found])
    return link, found


INPUTS = [asks(numbers.TTF_INPUT_WANTED, 0), asks(numbers.TTF_INPUT_WANTED, 2)]
VALUES = np.arange(2 * ROW_ELEMS, dtype=np.float32)


def test_nonces_are_the_client_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the normal world asks for, no two inputs are sealed under one."""
    answers = [[*INPUTS, output(0, VALUES, number, 0), output(2, VALUES, number, 1), DONE] for number in (1, 2)]
    link, found = run(monkeypatch, *answers)
    opened = suites.opener("chacha20-poly1305", IO_KEY)
    for number, sealed in enumerate(link.sent):
        plain = opened(nonce(2, 1 + number // 2, number % 2), sealed, b"")
        assert plain == np.full(2 * ROW_ELEMS, number // 2, np.float32).tobytes()
    assert len(set(link.sent)) == 4
    assert found.tolist() == [*VALUES, *VALUES]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([INPUTS[0], INPUTS[0]], EngineError),
        ([INPUTS[1]], EngineError),
        ([asks(numbers.TTF_INPUT_WANTED, 0, rows=0)], EngineError),
        ([asks(numbers.TTF_INPUT_WANTED, 0, index=1)], EngineError),
        ([asks(numbers.TTF_INPUT_WANTED, 0, bytes=16)], EngineError),
        ([asks(numbers.TTF_INPUT_WANTED, 2**31, bytes=BLOCK_BYTES)], EngineError),
        ([output(0, VALUES, 1, 0), DONE], EngineError),
        ([DONE], EngineError),
        ([output(0, VALUES, 1, 1)], AuthenticationError),
        ([output(0, VALUES, 2, 0)], AuthenticationError),
        ([output(0, VALUES, 1, 0), output(2, VALUES, 1, 0)], AuthenticationError),
    ],
)
def test_lies_end_the_run(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, bytes]], error: type[tinytee.TinyteeError]
) -> None:
    """Rows twice, out of turn or none; outputs missing, replayed within a run or from another."""
    with pytest.raises(error):
        run(monkeypatch, answers)


MESSAGE_BYTES = ffi.sizeof("ttf_message")


@pytest.mark.parametrize(
    ("room", "given"),
    [
        (0, [0, 1, 2, 3, 4, 5]),
        (BLOCK_BYTES + MESSAGE_BYTES, [0, 1, 3, 4, 5, 6]),
        (2 * (BLOCK_BYTES + MESSAGE_BYTES), [0, 1, 4, 4, 6, 6]),
    ],
)
def test_inputs_are_given_ahead(monkeypatch: pytest.MonkeyPatch, room: int, given: list[int]) -> None:
    """From the second run on, as much as there is room for; each is sealed once, under its own nonce."""
    answers = [[*INPUTS, output(0, VALUES, number, 0), output(2, VALUES, number, 1), DONE] for number in (1, 2, 3)]
    link, _ = run(monkeypatch, *answers, ahead_bytes=room)
    assert link.given_before == given
    opened = suites.opener("chacha20-poly1305", IO_KEY)
    for number, sealed in enumerate(link.sent):
        plain = opened(nonce(2, 1 + number // 2, number % 2), sealed, b"")
        assert plain == np.full(2 * ROW_ELEMS, number // 2, np.float32).tobytes()
    assert len(set(link.sent)) == 6


@pytest.mark.parametrize("asked", [[INPUTS[1]], [INPUTS[0], INPUTS[0]], [*INPUTS, INPUTS[0]], [DONE]])
def test_what_is_given_ahead_must_be_asked_for(monkeypatch: pytest.MonkeyPatch, asked: list[tuple[int, bytes]]) -> None:
    first = [*INPUTS, output(0, VALUES, 1, 0), output(2, VALUES, 1, 1), DONE]
    with pytest.raises(EngineError):
        run(monkeypatch, first, asked, ahead_bytes=10**6)
