"""Processors whose kernels this one runs: AArch64's under QEMU's user mode, and those of AVX-512 in terms of AVX2. And
its own, as programs without a cipher."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinytee.bundle import TensorSpec
from tinytee.ir.graph import Graph
from tinytee.plan import profile
from tinytee.plan.api import Planner, least_budget, lower
from tinytee.plan.entropy import Entropy
from tinytee.plan.lowered import Lowered
from tinytee.runtime.tensors import from_core, from_wire, to_core, to_wire

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Machine:
    """An instruction set of kernels, and what it takes to run it.

    Attributes:
        isa: its name.
        planned_for: the device profile of the plans.
        target: CMake's options for run_program; None: the library's own build has it.
        prefix: the command that runs that.
    """

    isa: str
    planned_for: str
    target: tuple[str, ...] | None
    prefix: tuple[str, ...]

    @property
    def profile(self) -> profile.Profile:
        return profile.load(self.planned_for)


_AARCH64 = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc")

EMULATED = ()
"""The target of those whose instructions are in terms of others: the compiler does not optimize them."""

MACHINES = {
    machine.isa: machine
    for machine in (
        Machine("neon", "raspberry-pi-3", _AARCH64, ("qemu-aarch64", "-cpu", "cortex-a53")),
        Machine("neondot", "raspberry-pi-3", _AARCH64, ("qemu-aarch64", "-cpu", "max")),
        Machine("avx512", "x86-64-avx512", EMULATED, ()),
        Machine("avx512vnni", "x86-64-avx512", EMULATED, ()),
    )
}


OWN = tuple(Machine(isa, "x86-64-avx2", None, ()) for isa in ("portable", "avx2"))
"""Kernels of this processor, as libtinytee.so has them; not those of AVX-512, which Valgrind does not know."""

STACK_BYTES = 16 * 1024
"""What the core may use of it, at most (tinytee.h)."""


@functools.cache
def _build(target: tuple[str, ...] | None) -> Path:
    cmake = Path(sys.executable).parent / "cmake"
    build = ROOT / "build"
    if target is not None:
        build /= "aarch64" if target else "emulated"
        configure = [cmake, "-S", ROOT, "-B", build, *target, "-DTINYTEE_RUNNER=ON"]
        subprocess.run(configure, check=False, stdout=subprocess.DEVNULL)
    runner = build / "run_program"
    command = [cmake, "--build", build, "-j2", "--target", runner.name]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        runner.unlink(missing_ok=True)
    return runner


def runner(machine: Machine) -> Path:
    """Where run_program is, built anew if it is not the sources'; 'make test' installs compiler and emulator."""
    built = _build(machine.target)
    assert built.exists(), f"{built} could not be built; the compiler's messages are above"
    return built


def lowered_for(machine: Machine, graph: Graph, budget: int, entropy: Entropy = "auto") -> Lowered:
    planner = Planner(graph, machine.profile, None, budget, entropy)
    return lower(graph, planner.plan(budget))


def budget_of(machine: Machine, graph: Graph, share: float) -> int:
    """From the least that the tests give to one at which everything fits."""
    low = max(8192, least_budget(graph, machine.profile))
    return int(low * ((4 * low + (1 << 20)) / low) ** share)


def program(lowered: Lowered, inputs: dict[str, np.ndarray]) -> tuple[bytes, list[TensorSpec]]:
    """A program and all that it is fed, as run_program reads them; and the outputs that it writes."""
    ins, outs = ([TensorSpec.of(*port) for port in ports] for ports in (lowered.inputs, lowered.outputs))
    fed = [to_wire(spec, to_core(spec, inputs[spec.name], 0)).tobytes() for spec in ins]
    return lowered.in_plaintext(fed, [spec.wire_bytes for spec in outs]), outs


def stack_bytes(said: str) -> int:
    """What the core has used of the stack, by run_program's word."""
    return int(re.findall(r"^(\d+) bytes of stack$", said, re.MULTILINE)[0])


def run(
    machine: Machine,
    graph: Graph,
    budget: int,
    inputs: dict[str, np.ndarray],
    folder: Path,
    entropy: Entropy = "auto",
    isa: str | None = None,
) -> dict[str, np.ndarray]:
    """The outputs of a graph planned for a budget, as the machine computes them, or its portable kernels."""
    content, outs = program(lowered_for(machine, graph, budget, entropy), inputs)
    path = folder / f"program-{os.getpid()}"
    path.write_bytes(content)
    command = [*machine.prefix, runner(machine), isa or machine.isa, path]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    if machine.target != EMULATED:
        assert stack_bytes(done.stderr.decode()) <= STACK_BYTES
    found, begin = {}, 0
    for spec in outs:
        part = np.frombuffer(done.stdout[begin : begin + spec.wire_bytes], spec.wire_dtype)
        found[spec.name] = from_core(spec, from_wire(spec, part).reshape(1, -1))
        begin += spec.wire_bytes
    return found
