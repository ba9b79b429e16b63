"""Finds the least secure memory, in bytes, in which each network runs whole.

python bench/floors.py [NETWORK ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import chosen_networks, write_json
from tinytee.api import load_graph
from tinytee.plan.api import least_budget
from tinytee.sizes import format_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for network in chosen_networks(options.networks):
        graph = load_graph(network.build())
        start = time.perf_counter()
        floor = least_budget(graph)
        rows.append(
            {
                "network": network.name,
                "floor_bytes": floor,
                "required_bytes": network.floor_bytes,
                "seconds": time.perf_counter() - start,
                "source": network.source,
            }
        )
        print(f"{network.name}: {floor:,} bytes", file=sys.stderr, flush=True)
    table = Table(title="least secure memory, everything included")
    table.add_column("network")
    for title in ("bytes", "", "required at most", "found in s"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['floor_bytes']:,}",
            format_size(row["floor_bytes"]),
            format_size(row["required_bytes"]),
            f"{row['seconds']:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.json:
        write_json(options.json, rows)
    return 0 if all(row["floor_bytes"] <= row["required_bytes"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
