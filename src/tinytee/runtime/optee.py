"""The OP-TEE backends: the core as a trusted application, driven through the feeder (ports/optee/host)."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle import suites
from tinytee.bundle.abi import constants
from tinytee.bundle.container import Bundle
from tinytee.bundle.preamble import parse_preamble
from tinytee.bundle.sealing import nonce
from tinytee.errors import EngineError, TinyteeError
from tinytee.runtime import optee_machine, provisioning
from tinytee.runtime.optee_wire import Wire, ffi, numbers, record
from tinytee.runtime.stats import SessionStats
from tinytee.runtime.tensors import from_wire, to_wire

SUITES = ("chacha20-poly1305", "aes-256-gcm")

DEVELOPMENT = "OP-TEE in development mode: the normal world sees the model key; nothing is protected from it"


class OpteeBackend:
    """A session of the trusted application. Its manifest is the authenticated one.

    Inputs are sealed and outputs opened here; the normal world in between passes ciphertext on.

    Args:
        bundle: the bundle.
        key: its model key, sealed to the device; or the key itself, which tells the normal world everything and which
            only a trusted application takes that was built for development.
        machine: where to run it, held meanwhile; None: on this device, by the feeder installed on it.

    Raises:
        AuthenticationError: the key is not the bundle's key or is sealed to another device, or the bundle was changed.
        BundleError: the bundle is malformed.
        EngineError: there is no OP-TEE or no such machine, or the application refuses the bundle.
    """

    def __init__(
        self, bundle: Bundle, key: bytes | provisioning.SealedKey, machine: optee_machine.Machine | None = None
    ) -> None:
        self._link: _DeviceLink | _MachineLink | None = None
        if bundle.suite not in SUITES:
            raise EngineError(f"OP-TEE has no {bundle.suite}: compile with --suite {SUITES[0]}, or {SUITES[1]}")
        self._suite = bundle.suite
        self._runs = 0
        sealed = bundle.sealed()
        preamble_bytes = bundle.preamble.total_bytes
        io_key = secrets.token_bytes(constants.TT_KEY_BYTES)
        self._seal, self._open = suites.sealer(bundle.suite, io_key), suites.opener(bundle.suite, io_key)
        if isinstance(key, bytes):
            warnings.warn(DEVELOPMENT, RuntimeWarning, stacklevel=4)
        link = self._link = _DeviceLink() if machine is None else _MachineLink(machine)
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
        fed = _Rows([to_wire(*pair) for pair in zip(self.manifest.inputs, inputs, strict=True)])
        taken = _Rows(received)
        with link.lock:
            link.wire.send(numbers.TTF_RUN, link.number)
            while True:
                kind, data = link.wire.receive()
                if kind == numbers.TTF_DONE:
                    taken.check_complete()
                    for (spec, output), rows in zip(pairs, received, strict=True):
                        output.reshape(-1)[:] = from_wire(spec, rows)
                    self._stats = record("ttf_stats", data)
                    return
                want = record("tta_want", data)
                try:
                    if kind == numbers.TTF_INPUT_WANTED:
                        own = nonce(constants.TT_DOMAIN_INPUT, self._runs, fed.blocks)
                        sealed = self._seal(own, fed.take(want).tobytes(), b"")
                        link.wire.send(numbers.TTF_INPUT, link.number, sealed)
                    else:
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
            arena_kind="secure world",
            isa="neon",
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


class _MachineLink:
    """A session's place in a machine, which it holds."""

    def __init__(self, machine: optee_machine.Machine) -> None:
        self._machine = machine
        self.lock = machine.lock
        self.wire = Wire(machine.stream, machine.stream, machine.why)
        machine.hold()
        try:
            self.number = machine.take_session()
        except EngineError:
            machine.release()
            raise

    def give_up(self) -> None:
        """The feeder waits for something that it will not get: only the end of the machine frees it."""
        self._machine.off()

    def close(self) -> None:
        with self.lock:
            if self._machine.is_on:
                try:
                    self.wire.ask(numbers.TTF_CLOSE, self.number)
                except TinyteeError:
                    self._machine.off()
            self._machine.give_session(self.number)
        self._machine.release()


class _DeviceLink:
    """The feeder of this device as a child, over pipes."""

    number = 0

    def __init__(self) -> None:
        self.lock = threading.RLock()
        program = shutil.which("tinytee-feeder")
        if program is None:
            raise EngineError("tinytee-feeder is not installed here: build it with make -C ports/optee/host")
        self._process = subprocess.Popen([program, "--agent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        self.wire = Wire(self._process.stdout, self._process.stdin, lambda: "its own message says why")

    def give_up(self) -> None:
        self._process.kill()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()


@contextlib.contextmanager
def _held_machine(name: str) -> Iterator[optee_machine.Machine | None]:
    """The machine of a backend, None for this device."""
    if name == "optee":
        yield None
        return
    machine = optee_machine.shared_machine(optee_machine.chosen_build())
    try:
        yield machine
    finally:
        machine.release()


def open_backend(name: str, bundle: Bundle, key: bytes | provisioning.SealedKey) -> OpteeBackend:
    """A session of the backend "optee" or "optee-qemu"."""
    with _held_machine(name) as machine:
        return OpteeBackend(bundle, key, machine)


def device_key(backend: str = "optee") -> bytes:
    """The public key of this device, or of the machine in QEMU; its trusted application makes the pair at first use.

    What the normal world answers can be a lie: ask where it is trusted, as in the factory, or compare fingerprints.

    Args:
        backend: "optee" or "optee-qemu".

    Returns:
        32 bytes, X25519.

    Raises:
        EngineError: there is no OP-TEE, no such machine, or no secure storage.
        ValueError: there is no such backend.
    """
    if backend not in ("optee", "optee-qemu"):
        raise ValueError(f"a device's key is had from backend optee or optee-qemu, not '{backend}'")
    with _held_machine(backend) as machine:
        link = _DeviceLink() if machine is None else _MachineLink(machine)
        try:
            with link.lock:
                found = record("ttf_device", link.wire.ask(numbers.TTF_DEVICE, link.number))
            return bytes(found.identity.public_key)
        finally:
            link.close()
