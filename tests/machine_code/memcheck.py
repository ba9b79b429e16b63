"""Runs programs under Valgrind's memcheck, to which weights and inputs are undefined: it follows every bit that depends
on them, and complains of each branch and each address that does (as Langley's ctgrind made it do for ciphers)."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from emulated.machine import STACK_BYTES, Machine, runner, stack_bytes

SUPPRESSIONS = Path(__file__).with_name("memcheck.supp")
COMPLAINT = re.compile(r"^==\d+== (.*(?:uninitialised|Invalid).*)\n((?:==\d+==    (?:at|by) .*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Findings:
    """What memcheck saw.

    Attributes:
        complaints: kind and place of each, empty if no branch and no address depends on a secret.
        secret_bytes: bytes of all outputs that depend on secrets.
        output_bytes: of all outputs.
    """

    complaints: list[str]
    secret_bytes: int
    output_bytes: int


def check(machine: Machine, program: bytes, folder: Path, leak: str | None = None) -> Findings:
    """Runs a program (emulated.machine.program) with a machine's kernels. leak: what run_program is to do wrong."""
    path = folder / "program"
    path.write_bytes(program)
    command = ["valgrind", "--quiet", f"--suppressions={SUPPRESSIONS}", "--error-limit=no", str(runner(machine))]
    command += [machine.isa, str(path), *(["0", leak] if leak else [])]
    done = subprocess.run(command, capture_output=True, check=False)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert stack_bytes(said) <= STACK_BYTES
    counts = re.findall(r"^(\d+) of (\d+) bytes are secret$", said, re.MULTILINE)
    assert counts, f"{runner(machine)} was built without valgrind/memcheck.h: {said}"
    complaints = [" ".join(f"{kind} {where}".split()) for kind, where in COMPLAINT.findall(said)]
    assert bool(complaints) == ("==" in said), said
    return Findings(complaints, *(sum(map(int, column)) for column in zip(*counts, strict=True)))
