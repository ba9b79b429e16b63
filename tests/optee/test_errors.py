"""What can be wrong with a device: one line each, which says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import tinytee
from tinytee.errors import EngineError
from tinytee.runtime.optee import OpteeBackend
from tinytee.runtime.optee_machine import SESSIONS, Build, Machine
from trusted.support import KEY, Compile

pytestmark = pytest.mark.filterwarnings("ignore:OP-TEE in development mode")

APPLICATION = "/usr/lib/optee_armtz/73899df4-862f-46f4-b802-39f47a9c3b58.ta"
IDENTITY = "tinytee-feeder --identity"


@contextlib.contextmanager
def broken(machine: Machine, how: str, repair: str) -> Iterator[None]:
    assert machine.shell(how)[0] == 0
    try:
        yield
    finally:
        assert machine.shell(repair)[0] == 0
        assert machine.shell(IDENTITY)[0] == 0


@pytest.mark.parametrize(
    ("how", "repair", "says"),
    [
        ("mv /dev/tee0 /dev/away", "mv /dev/away /dev/tee0", "there is no OP-TEE: /dev/tee0 is missing"),
        (
            "kill $(pidof tee-supplicant); sleep 1",
            "tee-supplicant -d /dev/teepriv0; sleep 1",
            "tee-supplicant does not run: start it",
        ),
        (
            f"mv {APPLICATION} /tmp/away",
            f"mv /tmp/away {APPLICATION}",
            "is not installed: put it into /lib/optee_armtz",
        ),
        (
            f"cp {APPLICATION} /tmp/away && printf X | dd of={APPLICATION} bs=1 seek=100 conv=notrunc",
            f"mv /tmp/away {APPLICATION}",
            "signed with a key that this OP-TEE does not know",
        ),
    ],
)
def test_what_is_missing(machine: Machine, how: str, repair: str, says: str) -> None:
    with broken(machine, how, repair):
        status, said = machine.shell(IDENTITY)
    lines = said.strip().splitlines()
    assert status == 1
    assert len(lines) == 1
    assert says in lines[0]


def test_too_little_secure_memory(machine: Machine, compile_network: Compile) -> None:
    """Sessions take heaps until there are no more."""
    bundle = compile_network("lenet5", "300KiB")
    opened: list[OpteeBackend] = []
    try:
        with pytest.raises(EngineError, match=r"not enough secure memory left .* build it with a smaller HEAP"):
            for _ in range(SESSIONS):
                opened.append(OpteeBackend(bundle, KEY, machine))
    finally:
        for session in opened:
            session.close()
    assert opened


def test_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match="apt-get install --no-install-recommends qemu-system-arm"):
        Machine()


@pytest.mark.parametrize("heap", ["13MiB", "100KiB", "x"])
def test_no_such_heap(heap: str) -> None:
    with pytest.raises(ValueError, match=f"256KiB to 12MiB, not {heap}"):
        Build(heap)


def test_no_such_build(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nettle or bearssl, not 'openssl'"):
        Build(crypto="openssl")
    monkeypatch.setenv("TINYTEE_OPTEE_HEAP", "1GiB")
    with pytest.raises(ValueError, match="256KiB to 12MiB"):
        tinytee.device_key("optee-qemu")
