"""Measures networks at budgets of secure memory beside ONNX Runtime, and OpenVINO where installed, in turns.

python bench/zoo.py [NETWORK ...] [--budgets 1MiB,4MiB] [--suites aes-256-gcm,aegis-256x4] [--threads 1,2]
                    [--precisions fp32,int8,weights-fp16,weights-int8,weights-int4]
                    [--rounds 15] [--seconds 3] [--json FILE] [--keep]
                    [--quick | --smoke]

Rounds in which others' work slowed down the machine are measured again while there is time (tinytee.zoo.steady).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from harness import Rows, chosen_networks
from tinytee.api import code_weights, load_graph
from tinytee.bench import ONNX_RUNTIME, ONNX_RUNTIME_FP32, Bench, measure_row, prediction_errors, steady_probe
from tinytee.bundle import suites
from tinytee.report import bench_table
from tinytee.sizes import format_size, parse_size
from tinytee.zoo import LADDER, MIB, Network, reference_input

QUICK_NETWORKS = ("squeezenet", "mobilenet_v2", "efficientnet_lite0", "resnet50", "densenet121", "inception_v1")
QUICK_BUDGETS = (MIB, 2 * MIB, 4 * MIB, 64 * MIB)
SMOKE_NETWORKS = ("lenet5", "mobilenet_v1_025_128")
SMOKE_BUDGETS = (MIB,)
SUITES = ("aes-256-gcm", "aegis-256x4")
CASE = ("network", "precision", "threads", "suite", "budget_bytes")
TOLERANCE = {"fp32": 1e-4, "int8": 0.05}
"""Largest error of an output's range beside ONNX Runtime; coded weights differ from the model's own."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--budgets", help="comma-separated; default: the ladder, 512KiB to 64MiB")
    parser.add_argument("--suites", default=",".join(SUITES), help="comma-separated; those not available are left out")
    parser.add_argument("--threads", default="1", help="comma-separated")
    parser.add_argument("--precisions", default="fp32", help="comma-separated; weights-...: stored so")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one row's rounds; three rounds at least")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="rows of the JSON file that are not measured again stay")
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
    rows = Rows(options.json, CASE, keep=options.keep)
    probes = {threads: steady_probe(int(threads)) for threads in options.threads.split(",")}
    for network in chosen_networks(options.networks or names):
        for precision, threads in itertools.product(options.precisions.split(","), options.threads.split(",")):
            bench = make_bench(network, precision, int(threads))
            how = {"rounds": options.rounds, "most_seconds": options.seconds, "steady": probes[threads]}
            for suite, budget in itertools.product(chosen_suites, budgets):
                found = measure_row(bench, budget, suite=suite, **how)
                row = {"network": network.name, "precision": precision, **found}
                rows.add(row)
                print(_line(row), file=sys.stderr, flush=True)
    Console(width=None if sys.stdout.isatty() else 180).print(
        bench_table(rows.measured, f"wall time of a run, in turns, threads each: {options.threads}")
    )
    errors = prediction_errors(rows.measured)
    if errors:
        print(f"the cost model's median error is {statistics.median(errors):.0%}, its largest {max(errors):.0%}")
    good = all("failure" not in row and row["error"] <= TOLERANCE.get(row["precision"], 1.0) for row in rows.measured)
    return 0 if good else 1


def make_bench(network: Network, precision: str, threads: int) -> Bench:
    """A network of the zoo in float32, quantized to int8, or with its weights alone in fewer bits."""
    model, unquantized = network.build(), None
    if precision == "int8":
        from tinytee.zoo.quantized import quantized_network  # noqa: PLC0415

        model, unquantized = quantized_network(network.name), model
    graph = load_graph(model)
    if precision.startswith("weights-"):
        graph, _ = code_weights(graph, precision.removeprefix("weights-"))
    feed = {network.input_name: reference_input(network)}
    return Bench(model, graph, feed, threads=threads, unquantized=unquantized)


def _line(row: dict[str, Any]) -> str:
    head = f"{row['network']} {row['precision']} at {format_size(row['budget_bytes'])}, {row['suite']}"
    head += f", {row['threads']} threads: " if row["threads"] > 1 else ": "
    if "failure" in row:
        return head + row["failure"]
    ours, rival = row["tinytee"], row["rivals"][ONNX_RUNTIME]
    fp32 = row["rivals"].get(ONNX_RUNTIME_FP32)
    times = f"{1e3 * ours['median']:.1f} ms, {rival['ratio']:.2f} of ONNX Runtime's {1e3 * rival['median']:.1f} ms"
    if fp32:
        times += f", {fp32['ratio']:.2f} of its {1e3 * fp32['median']:.1f} ms in fp32"
    steady = f"{row['steady_rounds']} of {row['rounds']} rounds steady"
    return f"{head}{times}, error {row['error']:.0e}, compiled in {row['compile_seconds']:.1f} s, {steady}"


if __name__ == "__main__":
    sys.exit(main())
