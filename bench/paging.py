"""What happens without tinytee: latency against secure memory, where the operating system pages an enclave.

python bench/paging.py [NETWORK ...] [--budgets 4MiB,128MiB] [--rounds 15] [--seconds 8] [--suite SUITE] [--json FILE]
                       [--keep] [--smoke]

For each size, in turns: ONNX Runtime unprotected; tinytee within that budget; and, in processes of their own whose
memory is an emulated enclave page cache of that size (bench/pager), ONNX Runtime and tinytee's engine layer by layer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import tinytee
from harness import Rows, chosen_networks
from pager.native import Pager, PagerError, build
from tinytee.api import compile_graph, load_graph
from tinytee.sizes import format_size, parse_size
from tinytee.zoo import MIB, Network, reference_input
from tinytee.zoo.rival import Rival, error_of_range

NETWORKS = ("vgg19", "resnet50", "mobilenet_v2", "alexnet")
BUDGETS = tuple(size * MIB for size in (4, 8, 16, 32, 64, 96, 128))
SMOKE_NETWORKS, SMOKE_BUDGETS = ("mobilenet_v1_025_128",), (MIB, 8 * MIB)
UNPROTECTED, TINYTEE = "unprotected", "tinytee"
PAGED = ("layerwise", "onnxruntime")
LEAST_ROUNDS = 2


class Worker:
    """A process that computes in an enclave page cache; see pager/worker.py."""

    def __init__(self, kind: str, network: str) -> None:
        here = Path(__file__).resolve().parent
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
        if kind == "onnxruntime":
            environment["LD_PRELOAD"] = str(build())
        command = [sys.executable, "-m", "pager.worker", kind, network]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.setup = self._answer()
        self.last: dict[str, float] = {}

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def run(self) -> float:
        """Seconds of one inference, as the process itself measures them."""
        self.last = self.ask("run")
        if self.last["foreign"] or self.last["failed_allocations"]:
            raise PagerError(f"more than one thread touched the region, or it is too small: {self.last}")
        return self.last["seconds"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PagerError(f"the process in the enclave page cache ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def sweep(network: Network, budgets: tuple[int, ...], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a budget."""
    workers: dict[str, Worker] = {}
    try:
        for kind in options.rivals:
            print(f"{network.name}: starting {kind} in the enclave page cache", file=sys.stderr, flush=True)
            workers[kind] = Worker(kind, network.name)
        model = network.build()
        rival, graph = Rival(model), load_graph(model)
        del model
        feed = {network.input_name: reference_input(network)}
        expected = rival.run(feed)[network.output_name]
        for budget in budgets:
            for worker in workers.values():
                worker.ask("resize", bytes=budget)
            key = os.urandom(32)
            bundle = compile_graph(graph, budget, key, suite=options.suite)
            with tinytee.Session(bundle, key=key) as session:
                calls: dict[str, Callable[[], float]] = {
                    UNPROTECTED: _timed(lambda: rival.run(feed)),
                    TINYTEE: _timed(lambda session=session: session.run(feed)),
                    **{kind: worker.run for kind, worker in workers.items()},
                }
                seconds = _in_turns(calls, options.rounds, options.seconds)
                error = error_of_range(session.run(feed)[network.output_name], expected)
                stats = session.stats
            row: dict[str, Any] = {"network": network.name, "budget_bytes": budget, "suite": stats.suite}
            row |= {"rounds": len(seconds[UNPROTECTED]), "isa": stats.isa}
            row["contenders"] = {name: _times(found, seconds[UNPROTECTED]) for name, found in seconds.items()}
            row["contenders"][TINYTEE] |= {"error": error, "peak_bytes": stats.peak_secure_memory_bytes}
            for kind, worker in workers.items():
                values = np.asarray(worker.ask("result")["values"], np.float32)
                counted = ("faults", "fresh", "loads", "evictions", "crypto_seconds", "serving_seconds")
                row["contenders"][kind] |= {
                    "error": error_of_range(values, expected.ravel()[: values.size]),
                    **{name: worker.last[name] for name in counted},
                    **{f"setup_{name}": worker.setup[name] for name in ("allocated_bytes", "resident_pages")},
                }
            yield row
    finally:
        for worker in workers.values():
            worker.close()


def _timed(call: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return run


def _in_turns(calls: dict[str, Callable[[], float]], rounds: int, most_seconds: float) -> dict[str, list[float]]:
    """Seconds of every call: one of each a round, after one that does not count."""
    begun = time.perf_counter()
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() - begun > most_seconds:
            break
        for name, call in calls.items():
            seconds[name].append(call())
    return seconds


def _times(seconds: list[float], unprotected: list[float]) -> dict[str, float]:
    return {
        "median": statistics.median(seconds),
        "best": min(seconds),
        "worst": max(seconds),
        "ratio": statistics.median(a / b for a, b in zip(seconds, unprotected, strict=True)),
    }


def measure_fault() -> dict[str, float]:
    """What one fault costs that seals a page and opens another: the best of three rounds, in seconds."""
    region_bytes = 32 * MIB
    rounds: list[dict[str, float]] = []
    with Pager(region_bytes, region_bytes // 8) as pager:
        pager.touch(region_bytes)
        for _ in range(3):
            before, seconds = pager.counters(), pager.touch(region_bytes)
            after = pager.counters()
            spent = {name: after[name] - before[name] for name in ("faults", "crypto_seconds", "serving_seconds")}
            faults = spent.pop("faults")
            rounds.append({"seconds": seconds / faults, **{name: value / faults for name, value in spent.items()}})
    return min(rounds, key=lambda found: found["seconds"]) | {"cycles_per_second": _clock_rate()}


def _clock_rate() -> float:
    """The processor's nominal clock, in Hz; 0 if it is not said."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((1e6 * float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")), 0.0)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="multiples of ONNX Runtime's unprotected latency")
    table.add_column("network")
    for title in ("secure memory", "unprotected ms", TINYTEE, *(f"{kind}, paged" for kind in PAGED), "faults of these"):
        table.add_column(title, justify="right")
    for row in rows:
        found = row["contenders"]
        ratios = [f"{found[name]['ratio']:.2f}" if name in found else "" for name in (TINYTEE, *PAGED)]
        faults = " / ".join(f"{found[name]['faults']:,}" for name in PAGED if name in found)
        base = f"{1e3 * found[UNPROTECTED]['median']:.1f}"
        table.add_row(row["network"], format_size(row["budget_bytes"]), base, *ratios, faults)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--budgets", help="comma-separated; default: 4MiB to 128MiB")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=8.0, help="of rounds for one size; two rounds at least")
    parser.add_argument("--suite", default="aes-256-gcm", help="tinytee's; the pager's is AES-256-GCM")
    parser.add_argument("--rivals", default=",".join(PAGED), help="which run in the enclave page cache")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="rows of the JSON file that are not measured again stay")
    parser.add_argument("--smoke", action="store_true", help="a small network at two sizes: seconds")
    options = parser.parse_args()
    options.rivals = options.rivals.split(",")
    names, budgets = (SMOKE_NETWORKS, SMOKE_BUDGETS) if options.smoke else (NETWORKS, BUDGETS)
    if options.budgets:
        budgets = tuple(parse_size(size) for size in options.budgets.split(","))

    rows = Rows(options.json, ("network", "budget_bytes"), keep=options.keep)
    try:
        fault = measure_fault()
        for network in chosen_networks(options.networks or names):
            for row in sweep(network, budgets, options):
                rows.add({**row, "fault": fault})
                ratios = {name: f"{found['ratio']:.2f}" for name, found in row["contenders"].items()}
                print(f"{network.name} at {format_size(row['budget_bytes'])}: {ratios}", file=sys.stderr, flush=True)
    except PagerError as error:
        print(f"paging: {error}", file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 140).print(_table(rows.measured))
    microseconds, cycles = 1e6 * fault["seconds"], fault["seconds"] * fault["cycles_per_second"]
    print(
        f"a fault that evicts and loads a page costs {microseconds:.1f} us, {cycles:,.0f} cycles at the nominal clock"
    )
    errors = [found.get("error", 0.0) for row in rows.measured for found in row["contenders"].values()]
    return 0 if max(errors) <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
