"""OP-TEE: the trusted application on this device, or in a machine in QEMU."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from tinytee.bundle.container import Bundle
from tinytee.errors import EngineError, TinyteeError
from tinytee.runtime import optee_machine
from tinytee.runtime.provisioning import SealedKey
from tinytee.runtime.trusted import Link, ProgramLink, Tee, TrustedBackend, chosen_feeder, read_device
from tinytee.runtime.wire import Wire, numbers

OPTEE = Tee("OP-TEE", "secure world", "neon")


class OpteeBackend(TrustedBackend):
    """A session in OP-TEE.

    Args:
        bundle, key: see :class:`TrustedBackend`.
        machine: where to run it, held meanwhile; None: on this device, by the feeder installed on it.
    """

    def __init__(self, bundle: Bundle, key: bytes | SealedKey, machine: optee_machine.Machine | None = None) -> None:
        super().__init__(bundle, key, OPTEE, lambda: _connect(machine))


class _MachineLink:
    """A session's place in a machine, which it holds."""

    ahead_bytes = 0

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


def _connect(machine: optee_machine.Machine | None) -> Link:
    if machine is not None:
        return _MachineLink(machine)
    if command := chosen_feeder():
        return ProgramLink(command)
    program = shutil.which("tinytee-feeder")
    if program is None:
        raise EngineError("tinytee-feeder is not installed here: build it with make -C ports/optee/host")
    return ProgramLink([program])


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


def open_backend(name: str, bundle: Bundle, key: bytes | SealedKey) -> OpteeBackend:
    """A session of the backend "optee" or "optee-qemu"."""
    with _held_machine(name) as machine:
        return OpteeBackend(bundle, key, machine)


def device_key(name: str) -> bytes:
    """The public key of the device behind that backend."""
    with _held_machine(name) as machine:
        return read_device(_connect(machine))
