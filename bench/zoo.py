"""Measures every network at every budget of the ladder beside ONNX Runtime; both on one thread, in turns.

python bench/zoo.py [NETWORK ...] [--budgets 1MiB,4MiB] [--rounds 9] [--json FILE] [--quick]
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

import tinytee
from harness import chosen_networks, write_json
from tinytee.api import compile_graph, load_graph
from tinytee.sizes import format_size, parse_size
from tinytee.zoo import LADDER, MIB, Network, reference_input
from tinytee.zoo.rival import Rival, error_of_range, measure_side_by_side

QUICK_NETWORKS = ("lenet5", "squeezenet", "mobilenet_v2", "efficientnet_lite0")
QUICK_BUDGETS = (MIB, 8 * MIB)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--budgets", help="comma-separated; default: the ladder, 512KiB to 64MiB")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few networks at two budgets")
    options = parser.parse_args()

    networks = chosen_networks(options.networks or (QUICK_NETWORKS if options.quick else ()))
    budgets = QUICK_BUDGETS if options.quick else LADDER
    if options.budgets:
        budgets = tuple(parse_size(size) for size in options.budgets.split(","))
    rows = []
    for network in networks:
        for row in measure_network(network, budgets, options.rounds):
            rows.append(row)
            print(_line(row), file=sys.stderr, flush=True)
            if options.json:
                write_json(options.json, rows)
    Console(width=None if sys.stdout.isatty() else 140).print(_table(rows))
    return 0 if all("failure" not in row and row["error"] <= 1e-4 for row in rows) else 1


def measure_network(network: Network, budgets: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """One row a budget; what fails says why under 'failure'."""
    model = network.build()
    rival = Rival(model)
    start = time.perf_counter()
    graph = load_graph(model)
    import_seconds = time.perf_counter() - start
    del model
    feed = {network.input_name: reference_input(network)}
    expected = rival.run(feed)[network.output_name]

    def measure(budget: int) -> dict[str, Any]:
        key = secrets.token_bytes(32)
        start = time.perf_counter()
        bundle = compile_graph(graph, budget, key)
        compile_seconds = time.perf_counter() - start
        with tinytee.Session(bundle, key=key) as session:
            found = session.run(feed)[network.output_name]
            seconds = measure_side_by_side(
                {"tinytee": lambda: session.run(feed), "rival": lambda: rival.run(feed)}, rounds=rounds
            )
            stats = session.stats
        return {
            "import_seconds": import_seconds,
            "compile_seconds": compile_seconds,
            "peak_bytes": bundle.peak_secure_memory_bytes,
            "measured_peak_bytes": stats.peak_secure_memory_bytes,
            "touched_bytes": stats.touched_bytes,
            "predicted_seconds": bundle.manifest.predicted_seconds,
            "tinytee_seconds": median(seconds["tinytee"]),
            "tinytee_best_seconds": min(seconds["tinytee"]),
            "rival_seconds": median(seconds["rival"]),
            "rival_best_seconds": min(seconds["rival"]),
            "ratio": median(a / b for a, b in zip(seconds["tinytee"], seconds["rival"], strict=True)),
            "error": error_of_range(found, expected),
            "rounds": rounds,
            "isa": stats.isa,
            "suite": stats.suite,
            "chunk_bytes_per_run": stats.chunk_bytes // stats.runs,
            "spill_bytes_per_run": stats.spill_bytes // stats.runs,
            "aead_share": stats.aead_seconds / stats.run_seconds,
        }

    rows: list[dict[str, Any]] = []
    for budget in budgets:
        row: dict[str, Any] = {"network": network.name, "budget_bytes": budget}
        try:
            row |= measure(budget)
        except tinytee.TinyteeError as error:
            row["failure"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    head = f"{row['network']} at {format_size(row['budget_bytes'])}: "
    if "failure" in row:
        return head + row["failure"]
    ours, theirs = row["tinytee_seconds"] * 1e3, row["rival_seconds"] * 1e3
    times = f"{ours:.1f} ms, {row['ratio']:.2f} of ONNX Runtime's {theirs:.1f} ms"
    return f"{head}{times}, error {row['error']:.1e}, compiled in {row['compile_seconds']:.1f} s"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="medians of runs taken in turns, one thread each")
    table.add_column("network")
    for title in ("budget", "peak", "tinytee ms", "predicted ms", "ONNX Runtime ms", "ratio", "error"):
        table.add_column(title, justify="right")
    for row in rows:
        head = [row["network"], format_size(row["budget_bytes"])]
        if "failure" in row:
            table.add_row(*head, row["failure"])
            continue
        predicted = row["predicted_seconds"]
        table.add_row(
            *head,
            f"{row['measured_peak_bytes']:,}",
            f"{row['tinytee_seconds'] * 1e3:.1f}",
            f"{predicted * 1e3:.1f}" if predicted else "",
            f"{row['rival_seconds'] * 1e3:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['error']:.1e}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
