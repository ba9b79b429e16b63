"""A machine with OP-TEE for all tests of this folder, which one worker runs (see tests/conftest.py), and what
trusted.support asks for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinytee
from tinytee.runtime import optee_machine
from tinytee.runtime.optee import OpteeBackend
from tinytee.runtime.optee_machine import Build, Machine
from tinytee.runtime.provisioning import SealedKey
from tinytee.sizes import parse_size
from trusted.support import KEY, Feeder, Open, compile_model, compile_network, compiler  # noqa: F401


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Booted once; sessions of backend "optee-qemu" share it."""
    shared = optee_machine.shared_machine(optee_machine.chosen_build())
    yield shared
    shared.release()


@pytest.fixture(scope="session")
def profile_name() -> str:
    return "raspberry-pi-3"


@pytest.fixture(scope="session")
def backend_name(machine: Machine) -> str:
    del machine
    return "optee-qemu"


@pytest.fixture(scope="session")
def tolerance() -> float:
    """Another instruction set adds in another order."""
    return 1e-5


@pytest.fixture(scope="session")
def heap_bytes(machine: Machine) -> int:
    return parse_size(machine.build.heap)


@pytest.fixture(scope="session")
def heap_overhead_bytes() -> int:
    return optee_machine.HEAP_OVERHEAD_BYTES


@pytest.fixture(scope="session")
def open_session(machine: Machine) -> Open:
    return lambda bundle, key: OpteeBackend(bundle, key, machine)


@pytest.fixture(scope="session")
def sealed_key(backend_name: str) -> SealedKey:
    return tinytee.provision(KEY, tinytee.device_key(backend_name))


@pytest.fixture(scope="module")
def production() -> Iterator[Machine]:
    """A trusted application as for a device: no keys in the clear. BearSSL, its cryptography, seals in place."""
    with Machine(Build(crypto="bearssl", is_development=False)) as booted:
        yield booted


@pytest.fixture(scope="module")
def open_production(production: Machine) -> Open:
    return lambda bundle, key: OpteeBackend(bundle, key, production)


@pytest.fixture(scope="session")
def production_key(sealed_key: SealedKey) -> SealedKey:
    """The device is the same."""
    return sealed_key


class _MachineFeeder:
    """tinytee-feeder in the machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.folder: Path = machine.folder

    def run(self, *arguments: str) -> tuple[int, str]:
        return self._machine.shell(f"cd /host && {shlex.join(('tinytee-feeder', *arguments))}")


@pytest.fixture
def feeder(machine: Machine) -> Feeder:
    return _MachineFeeder(machine)
