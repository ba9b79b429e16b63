"""The core as a trusted application, in OP-TEE or in an enclave, driven through the feeder (ports/optee/host)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import subprocess
import threading
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle import suites
from tinytee.bundle.abi import constants
from tinytee.bundle.container import Bundle
from tinytee.bundle.preamble import parse_preamble
from tinytee.bundle.sealing import nonce
from tinytee.errors import EngineError, TinyteeError
from tinytee.runtime import provisioning
from tinytee.runtime.stats import SessionStats
from tinytee.runtime.tensors import from_wire, to_wire
from tinytee.runtime.wire import Wire, ffi, numbers, record

SUITES = ("chacha20-poly1305", "aes-256-gcm")

FEEDER_VARIABLE = "TINYTEE_FEEDER"
"""A command that runs the feeder, in place of this machine's own: "ssh board tinytee-feeder", say."""

_PIPE_BYTES = 1 << 20
_MESSAGE_BYTES = ffi.sizeof("ttf_message")

DEVELOPMENT = "{tee} in development mode: the normal world sees the model key; nothing is protected from it"


class Link(Protocol):
    """A session's place at a feeder.

    Attributes:
        lock: held from a request to the last of its answers.
        number: the session's.
        ahead_bytes: that it takes before it asks for them.
    """

    lock: Any
    wire: Any
    number: int
    ahead_bytes: int

    def give_up(self) -> None:
        """The feeder waits for something that it will not get."""

    def close(self) -> None:
        """Ends the session."""


@dataclass(frozen=True)
class Tee:
    """What sessions of a kind of TEE have in common.

    Attributes:
        name: for people.
        memory: what its secure memory is called, as SessionStats.arena_kind.
        isa: instruction set of the kernels.
        suites: that it has; the first is proposed.
    """

    name: str
    memory: str
    isa: str
    suites: tuple[str, ...] = SUITES


class TrustedBackend:
    """A session of the trusted application. Its manifest is the authenticated one.

    Inputs are sealed and outputs opened here; the normal world in between passes ciphertext on.

    Args:
        bundle: the bundle.
        key: its model key, sealed to the device; or the key itself, which tells the normal world everything and which
            only a trusted application takes that was built for development.
        tee: which one.
        connect: makes the link.

    Raises:
        AuthenticationError: the key is not the bundle's key or is sealed to another device, or the bundle was changed.
        BundleError: the bundle is malformed.
        EngineError: there is no such TEE here, or the application refuses the bundle.
    """

    def __init__(
        self, bundle: Bundle, key: bytes | provisioning.SealedKey, tee: Tee, connect: Callable[[], Link]
    ) -> None:
        self._link: Link | None = None
        self._tee = tee
        if bundle.suite not in tee.suites:
            known = f"{', '.join(tee.suites[:-1])}, or {tee.suites[-1]}"
            raise EngineError(f"{tee.name} has no {bundle.suite}: compile with --suite {known}")
        self._suite = bundle.suite
        self._runs = 0
        self._wanted: list[bytes] = []
        sealed = bundle.sealed()
        preamble_bytes = bundle.preamble.total_bytes
        io_key = secrets.token_bytes(constants.TT_KEY_BYTES)
        self._seal, self._open = suites.sealer(bundle.suite, io_key), suites.opener(bundle.suite, io_key)
        if isinstance(key, bytes):
            warnings.warn(DEVELOPMENT.format(tee=tee.name), RuntimeWarning, stacklevel=5)
        link = self._link = connect()
        try:
            with link.lock:
                # What is authenticated there must be what is read here.
                preamble = bytes(sealed[:preamble_bytes])
                device = record("ttf_device", link.wire.ask(numbers.TTF_DEVICE, link.number))
                if isinstance(key, bytes):
                    keys = key + io_key
                else:
                    keys = provisioning.make_opening(key, device.identity, preamble, io_key)
                link.wire.ask(numbers.TTF_PUT, link.number, preamble, sealed[preamble_bytes:])
                stats = link.wire.ask(numbers.TTF_OPEN, link.number, keys)
        except BaseException:
            self.close()
            raise
        self._stats = record("ttf_stats", stats)
        self.manifest = parse_preamble(preamble, len(sealed)).manifest

    def run(self, inputs: Sequence[NDArray[np.float32]], outputs: Sequence[NDArray[np.float32]]) -> None:
        """Runs one sample.

        Args:
            inputs: one array an input, [height, width, channels], of any strides.
            outputs: one array an output, C-contiguous, of as many elements, written.

        Raises:
            TinyteeError: the run failed; the session is dead.
        """
        link = self._link
        if link is None:
            raise EngineError("the session is closed; open the bundle again")
        self._runs += 1
        pairs = list(zip(self.manifest.outputs, outputs, strict=True))
        received = [np.empty(output.size, spec.wire_dtype) for spec, output in pairs]
        given = _Rows([to_wire(*pair) for pair in zip(self.manifest.inputs, inputs, strict=True)])
        fed = _Inputs(link, given, self._seal, self._runs, self._wanted)
        taken = _Rows(received)
        with link.lock:
            link.wire.send(numbers.TTF_RUN, link.number)
            fed.give_ahead()
            while True:
                kind, data = link.wire.receive()
                if kind == numbers.TTF_DONE:
                    taken.check_complete()
                    self._wanted = fed.asked
                    for (spec, output), rows in zip(pairs, received, strict=True):
                        output.reshape(-1)[:] = from_wire(spec, rows)
                    self._stats = record("ttf_stats", data)
                    return
                try:
                    if kind == numbers.TTF_INPUT_WANTED:
                        fed.give(bytes(data))
                    else:
                        want = record("tta_want", data)
                        own = nonce(constants.TT_DOMAIN_OUTPUT, self._runs, taken.blocks)
                        plain = self._open(own, bytes(data[ffi.sizeof("tta_want") :]), b"")
                        rows = taken.take(want)
                        rows[:] = np.frombuffer(plain, rows.dtype)
                except TinyteeError:
                    link.give_up()
                    raise

    def stats(self) -> SessionStats:
        found = self._stats
        same = ("arena_bytes", "runs", "chunks", "chunk_bytes", "inputs", "input_bytes", "outputs", "output_bytes")
        same += ("spills", "spill_bytes", "fetches", "fetch_bytes", "spill_memory_bytes")
        return SessionStats(
            peak_secure_memory_bytes=found.peak_bytes,
            touched_bytes=0,
            arena_kind=self._tee.memory,
            isa=self._tee.isa,
            suite=self._suite,
            open_seconds=1e-9 * found.open_nanoseconds,
            run_seconds=1e-9 * found.run_nanoseconds,
            last_run_seconds=1e-9 * found.last_run_nanoseconds,
            aead_seconds=0.0,
            **{name: int(getattr(found, name)) for name in same},
        )

    @property
    def calls(self) -> int:
        """Calls into the trusted application since the session was opened."""
        return int(self._stats.calls)

    def invoke(
        self, command: int, types: Sequence[int], slots: Sequence[tuple[int, int]], data: bytes = b""
    ) -> tuple[Any, bytes]:
        """Makes a call as a hostile normal world might; see ttf_invocation. For tests.

        Returns:
            A ttf_result, and what was written to memrefs.
        """
        link = self._link
        assert link is not None
        call = {"command": command, "types": sum(kind << 4 * i for i, kind in enumerate(types)), "slots": list(slots)}
        with link.lock:
            made = ffi.buffer(ffi.new("ttf_invocation *", call))
            answer = link.wire.ask(numbers.TTF_INVOKE, link.number, bytes(made), data)
            return record("ttf_result", answer), bytes(answer[ffi.sizeof("ttf_result") :])

    def close(self) -> None:
        """Ends the trusted application's session, which wipes it; permitted more than once."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


class _Rows:
    """The y-planes of a run's inputs or outputs, as the core asks for them: each tensor's from the first to the last.

    The normal world passes the asking on, and may lie. Nonces are therefore counted here: two blocks of rows are never
    sealed under one, nor is an old block of outputs opened.

    Attributes:
        blocks: how many have been taken.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.blocks = 0
        self._flat = [array.reshape(-1) for array in arrays]
        self._done = [0] * len(arrays)

    def take(self, want: Any) -> NDArray[Any]:
        """The elements of the y-planes wanted.

        Raises:
            EngineError: there are no such rows, or it is not their turn.
        """
        if want.index >= len(self._flat):
            raise EngineError("the feeder asks for rows that there are not")
        flat = self._flat[want.index]
        count = (want.bytes - constants.TT_TAG_BYTES) // flat.itemsize
        if want.rows == 0 or count <= 0 or count % want.rows:
            raise EngineError("the feeder asks for rows that there are not")
        first = count // want.rows * want.row
        if first + count > flat.size or first != self._done[want.index]:
            raise EngineError("the feeder asks for rows that there are not, or out of turn")
        self._done[want.index] = first + count
        self.blocks += 1
        return flat[first : first + count]

    def check_complete(self) -> None:
        """Raises EngineError if rows are missing."""
        if any(done != flat.size for done, flat in zip(self._done, self._flat, strict=True)):
            raise EngineError("the feeder ends a run before all of its outputs are there")


class _Inputs:
    """A run's inputs on their way to the feeder: as it asks, or ahead of that, since it asks for the same in every run.

    Args:
        rows: of the inputs.
        seal: the client's, with the I/O key.
        run: its number, which nonces carry.
        wanted: what was asked for in the last run, as it came.

    Attributes:
        asked: what is asked for in this one.
    """

    def __init__(self, link: Link, rows: _Rows, seal: Any, run: int, wanted: Sequence[bytes]) -> None:
        self.asked: list[bytes] = []
        self._link, self._rows, self._seal, self._run = link, rows, seal, run
        self._foreseen = deque(wanted)
        self._ahead: deque[tuple[bytes, int]] = deque()
        self._room = link.ahead_bytes

    def give_ahead(self) -> None:
        """Gives what will be asked for, as much as the feeder's stream takes without anybody reading it."""
        while self._foreseen:
            want = record("tta_want", self._foreseen[0])
            size = want.bytes + _MESSAGE_BYTES
            if size > self._room:
                return
            self._ahead.append((self._foreseen.popleft(), size))
            self._room -= size
            self._send(want)

    def give(self, asked: bytes) -> None:
        """Answers the feeder.

        Raises:
            EngineError: it asks for rows that there are not, that it is not the turn of, or other ones than before.
        """
        self.asked.append(asked)
        if not self._ahead:
            self._foreseen.clear()
            self._send(record("tta_want", asked))
            return
        foreseen, size = self._ahead.popleft()
        if asked != foreseen:
            raise EngineError("the feeder asks for other rows than in the last run")
        self._room += size
        self.give_ahead()

    def _send(self, want: Any) -> None:
        own = nonce(constants.TT_DOMAIN_INPUT, self._run, self._rows.blocks)
        sealed = self._seal(own, self._rows.take(want).tobytes(), b"")
        self._link.wire.send(numbers.TTF_INPUT, self._link.number, sealed)


class ProgramLink:
    """A feeder as a child, over pipes.

    Args:
        command: the program and its arguments.
        environment: besides this process' own.
    """

    number = 0

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.lock = threading.RLock()
        try:
            self._process = subprocess.Popen(
                [*command, "--agent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            raise EngineError(f"the feeder cannot be run: {error}") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self.ahead_bytes = _widen(self._process.stdin.fileno())
        self.wire = Wire(self._process.stdout, self._process.stdin, lambda: "its own message says why")

    def give_up(self) -> None:
        self._process.kill()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()


def chosen_feeder() -> list[str]:
    """The feeder's command that the environment asks for, in words; empty for this machine's own.

    Raises:
        ValueError: its quotes do not match.
    """
    said = os.environ.get(FEEDER_VARIABLE, "")
    try:
        return shlex.split(said)
    except ValueError as error:
        raise ValueError(f"{FEEDER_VARIABLE}={said}: {error}") from None


def _widen(pipe: int) -> int:
    """Gives a pipe as much room as an ordinary user may; returns how much it has."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)


def read_device(link: Link) -> bytes:
    """The public key of the device at the other end of a link, which is closed."""
    try:
        with link.lock:
            found = record("ttf_device", link.wire.ask(numbers.TTF_DEVICE, link.number))
        return bytes(found.identity.public_key)
    finally:
        link.close()
