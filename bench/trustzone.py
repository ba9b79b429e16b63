"""Counts instructions of inference inside OP-TEE's secure world, in QEMU with a clock that counts them.

    python bench/trustzone.py [--how tinytee|layerwise] [--networks ...] [--heaps ...] [--suites ...] [--json FILE]

QEMU's -icount makes the guest's clock advance by 1 ns for every instruction, whatever else this machine does: the
figures are the same at every run, but for the first one, which is not counted. They say how much is executed, not how
fast a board executes it. A run is counted from tt_start to the last output: calls into the secure world, the feeder's
copies and the kernel's part included; the client's sealing of inputs and opening of outputs, and the wire to it, are
not.
"""

from __future__ import annotations

import argparse
import json
import platform
import secrets
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

import tinytee
from tinytee import zoo
from tinytee.api import load_graph
from tinytee.bundle import Bundle, Manifest, TensorSpec
from tinytee.bundle.sealing import Unsealed
from tinytee.plan import profile
from tinytee.plan.api import Planner, _Best, lower
from tinytee.runtime.optee import OpteeBackend
from tinytee.runtime.optee_machine import HEAP_OVERHEAD_BYTES, Build, Machine

PROFILE = "raspberry-pi-3"
NETWORKS = ("mobilenet_v1", "tiny_darknet", "darknet_reference")
HEAPS = ("1MiB", "2MiB", "4MiB", "8MiB")
SUITES = ("chacha20-poly1305", "aes-256-gcm")


@dataclass(frozen=True)
class Row:
    """One measurement; instructions and bytes of one run."""

    how: str
    network: str
    heap: str
    suite: str
    arena_bytes: int
    instructions: int
    calls: int
    streamed_bytes: int
    spilled_bytes: int
    bundle_bytes: int


def compile_fused(model: onnx.ModelProto, budget: int, key: bytes, suite: str) -> Bundle:
    """As tinytee does."""
    return tinytee.compile(model, budget, key, profile=profile.load(PROFILE), suite=suite)


def compile_layerwise(model: onnx.ModelProto, budget: int, key: bytes, suite: str) -> Bundle:
    """Layer by layer: a layer's input, output and weights lie whole in the arena, and weights are opened in every run.
    The same kernels run it."""
    graph = load_graph(model)
    planner = Planner(graph, profile.load(PROFILE), suite, budget)
    variant = planner._variants[0][1]
    placed = variant.place(variant.partitioner.layerwise())
    plan = planner._finish(_Best(placed, frozenset(), placed.seconds), budget)
    if plan.peak_secure_memory_bytes > budget:
        raise tinytee.BudgetError(plan.peak_secure_memory_bytes, budget)
    lowered = lower(graph, plan)
    manifest = Manifest(
        inputs=tuple(TensorSpec.of(port, shape) for port, shape in lowered.inputs),
        outputs=tuple(TensorSpec.of(port, shape) for port, shape in lowered.outputs),
        budget_bytes=budget,
        predicted_seconds=float(plan.predicted_seconds),
    )
    return Bundle(unsealed=Unsealed(lowered, manifest, suite, key), plan=plan)


COMPILERS = {"tinytee": compile_fused, "layerwise": compile_layerwise}


def measure(how: str, name: str, heap: str, suite: str) -> Row:
    """Instructions of one run of a network of the zoo.

    Raises:
        BudgetError: it does not fit the heap.
    """
    network, key = zoo.NETWORKS[name], secrets.token_bytes(32)
    budget = int(heap.removesuffix("MiB")) * 2**20 - HEAP_OVERHEAD_BYTES
    bundle = COMPILERS[how](network.build(), budget, key, suite)
    given = zoo.reference_input(network)
    with tinytee.Session(bundle, key=key) as here:
        expected = here.run({network.input_name: given})[network.output_name]
        spec = here.manifest.inputs[0]
    rows = np.ascontiguousarray(given[0].transpose(1, 2, 0), np.float32).reshape(-1)
    assert rows.size == spec.elems
    found = np.zeros(expected.size, np.float32)
    with Machine(Build(heap), count_instructions=True) as machine:
        session = OpteeBackend(bundle, key, machine)
        session.run([rows], [found])
        before, calls = session.stats(), session.calls
        session.run([rows], [found])
        after = session.stats()
        calls = session.calls - calls
        session.close()
    assert np.abs(found - expected.reshape(-1)).max() <= 1e-5 * np.ptp(expected), name
    return Row(
        how=how,
        network=name,
        heap=heap,
        suite=suite,
        arena_bytes=after.arena_bytes,
        instructions=round(1e9 * after.last_run_seconds),
        calls=calls,
        streamed_bytes=after.chunk_bytes - before.chunk_bytes,
        spilled_bytes=after.spill_bytes - before.spill_bytes + after.fetch_bytes - before.fetch_bytes,
        bundle_bytes=len(bundle.sealed()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts instructions of inference inside OP-TEE.")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--heaps", default=",".join(HEAPS))
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--how", default="tinytee", choices=list(COMPILERS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    print("how | network | heap | suite | arena, bytes | 10^6 instructions | calls | streamed, bytes | spilled, bytes")
    rows = []
    for name in chosen.networks.split(","):
        for suite in chosen.suites.split(","):
            for heap in chosen.heaps.split(","):
                try:
                    row = measure(chosen.how, name, heap, suite)
                except tinytee.BudgetError as error:
                    print(f"{chosen.how} | {name} | {heap} | {suite} | {error}")
                    continue
                rows.append(row)
                words = [
                    chosen.how,
                    name,
                    heap,
                    suite,
                    f"{row.arena_bytes:,}",
                    f"{row.instructions / 1e6:,.1f}",
                    f"{row.calls}",
                ]
                print(" | ".join([*words, f"{row.streamed_bytes:,}", f"{row.spilled_bytes:,}"]), flush=True)
    if chosen.json:
        machine = {"system": platform.platform(), "python": sys.version.split()[0]}
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
