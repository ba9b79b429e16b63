"""Measures networks at budgets of secure memory beside ONNX Runtime, and OpenVINO where installed, in turns.

python bench/zoo.py [NETWORK ...] [--budgets 1MiB,4MiB] [--suites aes-256-gcm,aegis-256x4] [--threads 1,2]
                    [--rounds 15] [--seconds 3] [--json FILE] [--quick | --smoke]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import chosen_networks, write_json
from tinytee.api import load_graph
from tinytee.bench import ONNX_RUNTIME, Bench, measure_row, prediction_errors
from tinytee.bundle import suites
from tinytee.report import bench_table
from tinytee.sizes import format_size, parse_size
from tinytee.zoo import LADDER, MIB, Network, reference_input

QUICK_NETWORKS = ("squeezenet", "mobilenet_v2", "efficientnet_lite0", "resnet50", "densenet121", "inception_v1")
QUICK_BUDGETS = (MIB, 2 * MIB, 4 * MIB, 64 * MIB)
SMOKE_NETWORKS = ("lenet5", "mobilenet_v1_025_128")
SMOKE_BUDGETS = (MIB,)
SUITES = ("aes-256-gcm", "aegis-256x4")
TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--budgets", help="comma-separated; default: the ladder, 512KiB to 64MiB")
    parser.add_argument("--suites", default=",".join(SUITES), help="comma-separated; those not available are left out")
    parser.add_argument("--threads", default="1", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one row's rounds; three rounds at least")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="some networks at four budgets: three minutes")
    parser.add_argument("--smoke", action="store_true", help="two small networks at one budget: seconds")
    options = parser.parse_args()

    names, budgets = (), LADDER
    if options.quick:
        names, budgets = QUICK_NETWORKS, QUICK_BUDGETS
    if options.smoke:
        names, budgets = SMOKE_NETWORKS, SMOKE_BUDGETS
    if options.budgets:
        budgets = tuple(parse_size(size) for size in options.budgets.split(","))
    chosen_suites = [suite for suite in options.suites.split(",") if suites.is_available(suite)]
    rows: list[dict[str, Any]] = []
    for network in chosen_networks(options.networks or names):
        for threads in map(int, options.threads.split(",")):
            for row in measure_network(network, budgets, chosen_suites, threads, options.rounds, options.seconds):
                rows.append(row)
                print(_line(row), file=sys.stderr, flush=True)
                if options.json:
                    write_json(options.json, rows)
    Console(width=None if sys.stdout.isatty() else 180).print(
        bench_table(rows, f"wall time of a run, in turns, threads each: {options.threads}")
    )
    errors = prediction_errors(rows)
    if errors:
        print(f"the cost model's median error is {statistics.median(errors):.0%}, its largest {max(errors):.0%}")
    return 0 if all("failure" not in row and row["error"] <= TOLERANCE for row in rows) else 1


def measure_network(
    network: Network, budgets: Sequence[int], suite_names: Sequence[str], threads: int, rounds: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """One row a suite and budget; what fails says why under 'failure'."""
    model = network.build()
    bench = Bench(model, load_graph(model), {network.input_name: reference_input(network)}, threads=threads)
    del model
    for suite in suite_names:
        for budget in budgets:
            row = measure_row(bench, budget, suite=suite, rounds=rounds, most_seconds=seconds)
            yield {"network": network.name, **row}


def _line(row: dict[str, Any]) -> str:
    head = f"{row['network']} at {format_size(row['budget_bytes'])}, {row['suite']}, {row['threads']} threads: "
    if "failure" in row:
        return head + row["failure"]
    ours, rival = row["tinytee"], row["rivals"][ONNX_RUNTIME]
    times = f"{1e3 * ours['median']:.1f} ms, {rival['ratio']:.2f} of ONNX Runtime's {1e3 * rival['median']:.1f} ms"
    return f"{head}{times}, error {row['error']:.0e}, compiled in {row['compile_seconds']:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
