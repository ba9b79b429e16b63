"""Finds the least secure memory, in bytes, in which each network runs whole.

python bench/floors.py [NETWORK ...] [--precisions fp32,int8] [--json FILE] [--keep]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness import Rows, chosen_networks
from tinytee.api import load_graph
from tinytee.plan.api import least_budget
from tinytee.sizes import format_size
from tinytee.zoo.quantized import quantized_network


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--precisions", default="fp32", help="comma-separated: fp32, int8")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="rows of the JSON file that are not measured again stay")
    options = parser.parse_args()
    if unknown := set(options.precisions.split(",")) - {"fp32", "int8"}:
        parser.error(f"--precisions {', '.join(sorted(unknown))}: fp32, int8")

    found = Rows(options.json, ("network", "precision"), keep=options.keep)
    for network, precision in itertools.product(chosen_networks(options.networks), options.precisions.split(",")):
        graph = load_graph(network.build() if precision == "fp32" else quantized_network(network.name))
        start = time.perf_counter()
        floor = least_budget(graph)
        found.add(
            {
                "network": network.name,
                "precision": precision,
                "floor_bytes": floor,
                "required_bytes": network.floor_bytes,
                "seconds": time.perf_counter() - start,
                "source": network.source,
            }
        )
        print(f"{network.name} {precision}: {floor:,} bytes", file=sys.stderr, flush=True)
    rows = found.measured
    table = Table(title="least secure memory, everything included")
    for title in ("network", "precision"):
        table.add_column(title)
    for title in ("bytes", "", "required at most", "found in s"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row["network"],
            row["precision"],
            f"{row['floor_bytes']:,}",
            format_size(row["floor_bytes"]),
            format_size(row["required_bytes"]),
            f"{row['seconds']:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0 if all(row["floor_bytes"] <= row["required_bytes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
