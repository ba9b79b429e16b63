"""Runs programs with one set of secrets after another under QEMU, and compares what they executed and touched."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from emulated.machine import ROOT, STACK_BYTES, Machine, runner, stack_bytes

SEEDS = range(6)
"""Of run_program's secrets: as they are, all zeros, all ones, and three of any bytes, which as floats are of any size,
and some no numbers."""


@functools.cache
def _tracer(emulator: str) -> Path:
    """The plugin, built for an emulator; QEMU 9 raised the least version of plugins to 2."""
    told = subprocess.run([emulator, "--version"], capture_output=True, check=True, text=True).stdout
    version = int(re.findall(r"version (\d+)", told)[0])
    built = ROOT / "build" / "tracer.so"
    command = ["cc", "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-fvisibility=hidden", f"-DTRACER_API={2 if version >= 9 else 1}", "-o", str(built)]
    subprocess.run([*command, str(Path(__file__).with_name("tracer.c"))], check=True)
    return built


def trace(machine: Machine, program: Path, seed: int, leak: str | None = None) -> dict[str, str]:
    """Of each function that ran: how many instructions, and a digest of their and their data's addresses."""
    emulator, *options = machine.prefix
    seen = program.with_suffix(".trace")
    command = [emulator, *options, "-plugin", f"{_tracer(emulator)},out={seen}", str(runner(machine)), machine.isa]
    command += [str(program), str(seed), *([leak] if leak else [])]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert stack_bytes(done.stderr.decode()) <= STACK_BYTES
    return dict(line.split(" ", 1) for line in seen.read_text().splitlines())


def differences(machine: Machine, contents: Sequence[bytes], folder: Path, leak: str | None = None) -> list[str]:
    """What functions did not do the same with all secrets.

    contents: programs that differ in nothing but their secrets; of one alone run_program replaces these. leak: what is
    to be done wrong.
    """
    program = folder / "program"
    seen = []
    for content in contents:
        program.write_bytes(content)
        seen += [trace(machine, program, seed, leak) for seed in (SEEDS if len(contents) == 1 else (0,))]
    first = seen[0]
    assert "tt_feed" in first
    names = sorted(set().union(*seen))
    return [
        f"{name}: {first.get(name)} and, with other secrets, {other.get(name)}"
        for name in names
        for other in seen
        if first.get(name) != other.get(name)
    ]
