"""Processors whose kernels this one runs: AArch64's under QEMU's user mode, and those of AVX-512 in terms of AVX2."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinytee.bundle import TensorSpec
from tinytee.ir.graph import Graph
from tinytee.plan import profile
from tinytee.plan.api import Planner, lower
from tinytee.plan.entropy import Entropy
from tinytee.runtime.tensors import from_core, from_wire, to_core, to_wire

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Machine:
    """An instruction set of kernels, and what it takes to run it.

    Attributes:
        isa: its name.
        planned_for: the device profile of the plans.
        target: CMake's options for run_program.
        prefix: the command that runs that.
    """

    isa: str
    planned_for: str
    target: tuple[str, ...]
    prefix: tuple[str, ...]

    @property
    def profile(self) -> profile.Profile:
        return profile.load(self.planned_for)


_AARCH64 = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc")

MACHINES = {
    machine.isa: machine
    for machine in (
        Machine("neon", "raspberry-pi-3", _AARCH64, ("qemu-aarch64", "-cpu", "cortex-a53")),
        Machine("neondot", "raspberry-pi-3", _AARCH64, ("qemu-aarch64", "-cpu", "max")),
        Machine("avx512", "x86-64-avx512", (), ()),
        Machine("avx512vnni", "x86-64-avx512", (), ()),
    )
}


@functools.cache
def _runner(target: tuple[str, ...]) -> Path:
    """Where run_program is, built anew if it is not the sources'; 'make test' installs compiler and emulator."""
    build = ROOT / "build" / ("aarch64" if target else "emulated")
    cmake = Path(sys.executable).parent / "cmake"
    configure = [cmake, "-S", ROOT, "-B", build, *target, "-DTINYTEE_RUNNER=ON"]
    runner = build / "run_program"
    for command in (configure, [cmake, "--build", build, "-j2"]):
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            runner.unlink(missing_ok=True)
            break
    return runner


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
    planner = Planner(graph, machine.profile, None, budget, entropy)
    lowered = lower(graph, planner.plan(budget))
    ins, outs = ([TensorSpec.of(*port) for port in ports] for ports in (lowered.inputs, lowered.outputs))
    fed = [to_wire(spec, to_core(spec, inputs[spec.name], 0)).tobytes() for spec in ins]
    taken = [spec.wire_bytes for spec in outs]
    path = folder / f"program-{os.getpid()}"
    path.write_bytes(lowered.in_plaintext(fed, taken))
    runner = _runner(machine.target)
    assert runner.exists(), f"{runner} could not be built; the compiler's messages are above"
    command = [*machine.prefix, runner, isa or machine.isa, path]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = {}
    for spec, end, count in zip(outs, np.cumsum(taken), taken, strict=True):
        part = np.frombuffer(done.stdout[end - count : end], spec.wire_dtype)
        found[spec.name] = from_core(spec, from_wire(spec, part).reshape(1, -1))
    return found
