"""Counts instructions of inference inside OP-TEE's secure world, in QEMU with a clock that counts them.

    python bench/trustzone.py [--networks ...] [--rows ...] [--heaps ...] [--suites ...] [--precisions ...] [--smoke]
                              [--keep] [--json FILE]

QEMU's -icount makes the guest's clock advance by 1 ns for every instruction, whatever else this machine does: the
figures are the same at every run, but for the first one, which is not counted: in it the feeder learns what a run
wants, and makes more calls. They say how much is executed, not how fast a board executes it. A run is counted from
tt_start to the last output: calls into the secure world, the feeder's copies and the kernel's part included; the
client's sealing of inputs and opening of outputs, and the wire to it, are not. The rows:

    tinytee                        as compiled, at several heaps
    tinytee, pinned                all weights stay open in the arena, where they fit at all
    tinytee, BearSSL               ChaCha20-Poly1305 by BearSSL in place of nettle
    tinytee, --weights int8, fp16  weights stored smaller, decoded just before use; all else is float32
    layer by layer                 the same kernels, maps whole, a layer's weights opened in every run
    layer by layer, naive kernels  plain loops, too (bench/naive_kernels.c); weights resident where they fit
    normal world                   the same core in an ordinary process: all memory, weights in the clear

tinytee at 1 and 2 MiB and the normal world are also counted in int8 (tinytee.zoo.quantized, with
--short-sums).
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import tinytee
from harness import RESULTS, write_json
from tinytee import zoo
from tinytee.api import code_weights, load_graph
from tinytee.bundle import Bundle, Manifest, TensorSpec
from tinytee.bundle.sealing import Unsealed
from tinytee.ir.graph import Conv, DepthwiseConv, Graph
from tinytee.ir.quantized import QConv, QDepthwiseConv
from tinytee.plan import profile
from tinytee.plan.api import Plan, lower, make_plan
from tinytee.runtime.optee import OpteeBackend
from tinytee.runtime.optee_machine import HEAP_OVERHEAD_BYTES, Build, Machine
from tinytee.runtime.tensors import to_wire
from tinytee.sizes import parse_size
from tinytee.zoo.quantized import quantized_network

PROFILE = "raspberry-pi-3"
NETWORKS = ("tiny_darknet", "mobilenet_v1", "darknet_reference")
CHACHA, GCM = "chacha20-poly1305", "aes-256-gcm"
LARGEST = "12MiB"
"""Heap: about all the secure memory of the stock build."""

ROOT = Path(__file__).resolve().parents[1]
NAIVE = (ROOT / "bench" / "naive_kernels.c", ROOT / "core" / "kernels" / "i8.c")
UNLIMITED = 1 << 28


@dataclass(frozen=True)
class Row:
    """One measurement; instructions, calls and bytes of one run. ``failure``: why there is none."""

    how: str
    network: str
    heap: str
    suite: str
    precision: str = "fp32"
    arena_bytes: int = 0
    peak_bytes: int = 0
    instructions: int = 0
    multiplies: int = 0
    calls: int = 0
    streamed_bytes: int = 0
    spilled_bytes: int = 0
    failure: str = ""


def _plan(graph: Any, budget: int, suite: str, **options: Any) -> Plan:
    return make_plan(graph, budget, profile.load(PROFILE), suite=suite, **options)


@dataclass(frozen=True)
class Case:
    """What to measure: how it is planned, and what it runs in."""

    how: str
    heap: str
    suite: str = CHACHA
    precision: str = "fp32"
    plan: Callable[[Any, int, str], Plan] = _plan
    build: Callable[[str], Build] = Build
    weights: str = ""
    """As --weights says."""


def _layerwise(graph: Any, budget: int, suite: str) -> Plan:
    return _plan(graph, budget, suite, schedule="layerwise", pin=False)


def _pinned(graph: Any, budget: int, suite: str) -> Plan:
    """As tinytee does; refused where some weights would be opened in every run."""
    plan = _plan(graph, budget, suite)
    missing = sum(n.weight_bytes for i, n in enumerate(plan.network.nodes) if i not in plan.layout.pinned)
    if missing:
        raise tinytee.BudgetError(plan.peak_secure_memory_bytes + missing, budget)
    return plan


def _resident(graph: Any, budget: int, suite: str) -> Plan:
    """Layer by layer with all weights in the arena where they fit, else opened in every run."""
    try:
        return _plan(graph, budget, suite, schedule="layerwise")
    except tinytee.BudgetError:
        return _layerwise(graph, budget, suite)


def _naive(heap: str) -> Build:
    return Build(heap, kernels=NAIVE)


def _bearssl(heap: str) -> Build:
    return Build(heap, crypto="bearssl")


CASES = (
    *(Case("tinytee", heap) for heap in ("1MiB", "2MiB", "4MiB", "8MiB")),
    Case("tinytee, pinned", LARGEST, plan=_pinned),
    Case("tinytee, BearSSL", "2MiB", build=_bearssl),
    *(Case(f"tinytee, --weights {stored}", "2MiB", weights=stored) for stored in ("fp16", "int8")),
    Case("layer by layer", LARGEST, plan=_layerwise),
    Case("layer by layer", "2MiB", plan=_layerwise),
    Case("layer by layer", LARGEST, GCM, plan=_layerwise),
    Case("layer by layer, naive kernels", LARGEST, plan=_resident, build=_naive),
    *(Case("tinytee", heap, precision="int8") for heap in ("1MiB", "2MiB")),
)
NORMAL = "normal world"
PRECISIONS = ("fp32", "int8")


def _wrap(graph: Any, plan: Plan, suite: str, key: bytes) -> Bundle:
    lowered = lower(graph, plan)
    manifest = Manifest(
        inputs=tuple(TensorSpec.of(*port) for port in lowered.inputs),
        outputs=tuple(TensorSpec.of(*port) for port in lowered.outputs),
        budget_bytes=plan.budget_bytes,
        predicted_seconds=float(plan.predicted_seconds),
    )
    return Bundle(unsealed=Unsealed(lowered, manifest, suite, key), plan=plan)


def _inputs(network: zoo.Network) -> np.ndarray:
    given = zoo.reference_input(network)
    return np.ascontiguousarray(given[0].transpose(1, 2, 0), np.float32).reshape(-1)


def measure(case: Case, network: zoo.Network, graph: Any) -> Row:
    """Instructions of one run inside OP-TEE.

    Raises:
        BudgetError: it does not fit the heap.
    """
    key = secrets.token_bytes(32)
    count = multiplies(graph)
    if case.weights:
        graph = code_weights(graph, case.weights)[0]
    plan = case.plan(graph, parse_size(case.heap) - HEAP_OVERHEAD_BYTES, case.suite)
    bundle = _wrap(graph, plan, case.suite, key)
    with tinytee.Session(bundle, key=key) as here:
        expected = here.run({network.input_name: zoo.reference_input(network)})[network.output_name]
    found = np.zeros(expected.size, np.float32)
    with Machine(case.build(case.heap), count_instructions=True) as machine:
        session = OpteeBackend(bundle, key, machine)
        session.run([_inputs(network)], [found])
        before, calls = session.stats(), session.calls
        session.run([_inputs(network)], [found])
        after = session.stats()
        calls = session.calls - calls
        session.close()
    assert np.abs(found - expected.reshape(-1)).max() <= 2e-5 * np.ptp(expected), network.name
    return Row(
        how=case.how,
        network=network.name,
        heap=case.heap,
        suite=case.suite,
        precision=case.precision,
        arena_bytes=after.arena_bytes,
        peak_bytes=after.peak_secure_memory_bytes,
        instructions=round(1e9 * after.last_run_seconds),
        multiplies=count,
        calls=calls,
        streamed_bytes=after.chunk_bytes - before.chunk_bytes,
        spilled_bytes=after.spill_bytes - before.spill_bytes + after.fetch_bytes - before.fetch_bytes,
    )


def multiplies(graph: Graph) -> int:
    """Multiply-accumulates of a graph's convolutions, as direct ones."""
    pixels = {op.output: graph.shapes[op.output].height * graph.shapes[op.output].width for op in graph.ops}
    return sum(
        pixels[op.output] * op.weight.size
        for op in graph.ops
        if isinstance(op, Conv | DepthwiseConv | QConv | QDepthwiseConv)
    )


def build_runner(folder: Path = ROOT / "build" / "aarch64") -> Path:
    """run_program for AArch64 (tests/emulated)."""
    cmake = Path(sys.executable).parent / "cmake"
    target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
    target += ["-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DTINYTEE_RUNNER=ON"]
    tool = str(cmake) if cmake.exists() else "cmake"
    subprocess.run([tool, "-S", ROOT, "-B", folder, *target], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([tool, "--build", folder, "-j2"], check=True, stdout=subprocess.DEVNULL)
    return folder / "run_program"


def run_outside(
    machine: Machine, runner: Path, plan: Plan, graph: Any, inputs: Sequence[NDArray[np.float32]]
) -> tuple[int, bytes]:
    """Runs a plan in the machine's normal world, weights in the clear: instructions of the second run, and outputs."""
    lowered = lower(graph, plan)
    ins, outs = ([TensorSpec.of(*port) for port in ports] for ports in (lowered.inputs, lowered.outputs))
    fed = [to_wire(spec, array).tobytes() for spec, array in zip(ins, inputs, strict=True)]
    (machine.folder / "program").write_bytes(lowered.in_plaintext(fed, [spec.wire_bytes for spec in outs]))
    (machine.folder / "run_program").write_bytes(runner.read_bytes())
    command = (
        "cp /host/run_program /tmp/ && chmod +x /tmp/run_program && /tmp/run_program neon /host/program >/host/out"
    )
    status, said = machine.shell(command)
    if status:
        raise RuntimeError(said)
    return int(said.split()[-1]), (machine.folder / "out").read_bytes()


def measure_outside(network: zoo.Network, precision: str, graph: Any, runner: Path) -> Row:
    """The same core in the normal world, with all the memory it wants."""
    plan = _plan(graph, UNLIMITED, CHACHA)
    with Machine(Build(LARGEST), count_instructions=True) as machine:
        instructions, _ = run_outside(machine, runner, plan, graph, [_inputs(network)])
    peak = plan.peak_secure_memory_bytes
    return Row(NORMAL, network.name, "", "none", precision, peak, peak, instructions, multiplies(graph))


@dataclass(frozen=True)
class Wanted:
    """Which measurements to make."""

    networks: list[str]
    rows: list[str]
    heaps: list[str]
    suites: list[str]
    precisions: list[str]
    smoke: bool

    def includes(self, case: Case, precision: str) -> bool:
        if case.precision != precision or (self.smoke and (case.heap, case.suite) != ("2MiB", CHACHA)):
            return False
        return case.how in self.rows and case.heap in self.heaps and case.suite in self.suites


def measure_all(wanted: Wanted) -> Iterator[Row]:
    """Measures one after the other."""
    runner = build_runner() if NORMAL in wanted.rows else None
    for name in wanted.networks:
        network = zoo.NETWORKS[name]
        for precision in wanted.precisions:
            model: onnx.ModelProto = (
                quantized_network(name, short_sums=True) if precision == "int8" else network.build()
            )
            graph = load_graph(model)
            if runner is not None:
                yield measure_outside(network, precision, graph, runner)
            for case in CASES:
                if not wanted.includes(case, precision):
                    continue
                try:
                    yield measure(case, network, graph)
                except tinytee.BudgetError as error:
                    failure = f"does not fit: needs {error.needed_bytes:,} bytes"
                    yield Row(case.how, name, case.heap, case.suite, precision, failure=failure)


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[field] for field in ("network", "precision", "how", "heap", "suite"))


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last measurement of each kind, by network, precision and case."""
    cases = [(NORMAL, "", "none"), *((case.how, case.heap, case.suite) for case in CASES)]
    latest = {_key(row): row for row in rows}
    return sorted(
        latest.values(),
        key=lambda row: (
            NETWORKS.index(row["network"]) if row["network"] in NETWORKS else len(NETWORKS),
            row["network"],
            PRECISIONS.index(row["precision"]),
            cases.index((row["how"], row["heap"], row["suite"])),
        ),
    )


def main() -> None:
    every = [NORMAL, *dict.fromkeys(case.how for case in CASES)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--rows", default=";".join(every), help="between semicolons")
    parser.add_argument("--heaps", default=",".join(dict.fromkeys(case.heap for case in CASES)))
    parser.add_argument("--suites", default=f"{CHACHA},{GCM}")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--smoke", action="store_true", help="only at 2 MiB, to see that it works")
    parser.add_argument("--keep", action="store_true", help="keep the file's other rows")
    parser.add_argument("--json", type=Path, default=RESULTS / "trustzone.json")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    found: list[dict[str, Any]] = []
    if chosen.keep and chosen.json.exists():
        found = json.loads(chosen.json.read_text(encoding="utf-8"))["rows"]
    print("how | network | precision | heap | suite | arena | 10^6 instructions | calls | streamed | spilled")
    lists = [chosen.heaps, chosen.suites, chosen.precisions]
    heaps, suites, precisions = (words.split(",") for words in lists)
    wanted = Wanted(chosen.networks.split(","), chosen.rows.split(";"), heaps, suites, precisions, chosen.smoke)
    for row in measure_all(wanted):
        found.append(asdict(row))
        words = [row.how, row.network, row.precision, row.heap, row.suite, f"{row.arena_bytes:,}"]
        words += [f"{row.instructions / 1e6:,.1f}", str(row.calls), f"{row.streamed_bytes:,}", f"{row.spilled_bytes:,}"]
        print(" | ".join([*words, row.failure]), flush=True)
        write_json(chosen.json, ordered(found))


if __name__ == "__main__":
    main()
