"""Drives prober.c: an enclave, and a host that enters it as no loader would."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinytee.bundle.abi import record_bytes
from tinytee.bundle.enclave import READ, WRITE, constants, ffi

from .support import ROOT, runs_of

PEEK, POKE, ENTER = range(3)

LEFT, EXCEPTION, LEFT_SOMETHING = 0, 0x100, 0x200
"""What the enclave was left for: see ttx_processor."""

CALL_BYTES = ffi.sizeof("tte_call")

Slots = Sequence[tuple[int, int]]


def build(folder: Path, *, is_nested: bool = False) -> Path:
    """The program. is_nested: it enters as if into an interrupted call (rax = CSSA = 1)."""
    host, program = ROOT / "ports" / "sgx" / "host", folder / "prober"
    enter, entering = (host / "enter.S").read_text(encoding="utf-8"), "xor %eax, %eax\n  std\n"
    if is_nested:
        assert enter.count(entering) == 1
        enter = enter.replace(entering, "mov $1, %eax\n  std\n")
    (folder / "enter.S").write_text(enter, encoding="utf-8")
    sources = [ROOT / "tests" / "sgx" / "prober.c", host / "load.c", host / "emulated.c", folder / "enter.S"]
    command = ["gcc", "-std=c11", "-O1", "-I", host, "-I", host.parent / "include", *sources]
    subprocess.run([*command, "-lcrypto", "-lpthread", "-o", program], check=True)
    return program


def call_bytes(operation: int, command: int = 0, types: Sequence[int] = (0, 0, 0, 0), slots: Slots = ()) -> bytes:
    """A tte_call whose result is no result."""
    packed = sum(kind << 4 * i for i, kind in enumerate(types))
    fields = {"operation": operation, "command": command, "types": packed, "result": 0xDEADBEEF, "slots": list(slots)}
    return record_bytes(ffi.new("tte_call *", fields))


class Prober:
    """An image, loaded.

    Attributes:
        base, size: of the enclave.
        outside: address of 64 KiB that are not the enclave's. Calls are put at their start.
    """

    def __init__(self, program: Path, image: Path) -> None:
        self._process = subprocess.Popen([program, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._runs = runs_of(image.read_bytes())
        self.base, self.size, self.outside = struct.unpack("<3Q", self._read(24))

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        assert len(data) == size, "the prober is gone"
        return data

    def _ask(self, kind: int, address: int, size: int, data: bytes = b"") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(struct.pack("<3Q", kind, address, size) + data)
        self._process.stdin.flush()

    def peek(self, address: int, size: int) -> bytes:
        self._ask(PEEK, address, size)
        return self._read(size)

    def poke(self, address: int, data: bytes) -> None:
        self._ask(POKE, address, len(data), data)

    def enter(self, address: int) -> int:
        self._ask(ENTER, address, 0)
        return int.from_bytes(self._read(8), "little")

    def call(self, operation: int, command: int = 0, types: Sequence[int] = (0, 0, 0, 0), slots: Slots = ()) -> Any:
        """Makes a call that must come back. Returns its record."""
        self.poke(self.outside, call_bytes(operation, command, types, slots))
        assert self.enter(self.outside) == LEFT
        made = ffi.new("tte_call *")
        ffi.buffer(made)[:] = self.peek(self.outside, CALL_BYTES)
        return made

    def insides(self, *, with_stack: bool = False) -> bytes:
        """All that the enclave may write, but for its stack, on which every call leaves something."""
        skipped = None if with_stack else constants.TTE_STACK_BYTES
        written = [run for run in self._runs if run.secinfo_flags & (READ | WRITE) == READ | WRITE]
        return b"".join(self.peek(self.base + run.offset, run.bytes) for run in written if run.bytes != skipped)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait() == 0
