"""Writes docs/results.md from what bench/zoo.py and bench/floors.py measured (bench/results/*.json).

python bench/report.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from harness import RESULTS
from tinytee.sizes import format_size

RESULTS_PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"


def main() -> int:
    sections = [
        "# Results",
        "Written by `bench/report.py` from the files in `bench/results/`, which `make bench` measures anew.",
    ]
    floors, zoo = _load("floors.json"), _load("zoo.json")
    if not floors and not zoo:
        print("nothing measured yet: run make bench", file=sys.stderr)
        return 1
    if floors:
        sections += _floors_section(floors)
    if zoo:
        sections += _latency_section(zoo)
    RESULTS_PAGE.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS_PAGE}")
    return 0


def _load(name: str) -> dict[str, Any] | None:
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _machine_line(measured: dict[str, Any]) -> str:
    return "Measured on: " + ", ".join(f"{key} {value}" for key, value in measured["machine"].items()) + "."


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _floors_section(measured: dict[str, Any]) -> list[str]:
    rows = [
        [row["network"], f"{row['floor_bytes']:,}", format_size(row["required_bytes"]), row["source"]]
        for row in measured["rows"]
    ]
    return [
        "## The least secure memory",
        "Everything counts: engine, program, weights, activations, staging, input and output.",
        _table(["network", "least bytes", "goal", "topology and weights"], rows),
    ]


def _latency_section(measured: dict[str, Any]) -> list[str]:
    rows = []
    for row in measured["rows"]:
        head = [row["network"], format_size(row["budget_bytes"])]
        if "failure" in row:
            rows.append([*head, row["failure"], *[""] * 6])
            continue
        rows.append(
            [
                *head,
                f"{row['measured_peak_bytes']:,}",
                f"{row['peak_bytes']:,}",
                f"{row['tinytee_seconds'] * 1e3:.1f}",
                f"{row['predicted_seconds'] * 1e3:.1f}",
                f"{row['rival_seconds'] * 1e3:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['error']:.0e}",
            ]
        )
    header = ["network", "budget", "peak, measured", "peak, compiler's", "tinytee ms", "predicted ms"]
    header += ["ONNX Runtime ms", "ratio", "error"]
    rounds = sorted({row["rounds"] for row in measured["rows"] if "rounds" in row})
    return [
        "## Latency",
        f"Medians of {' or '.join(map(str, rounds))} runs of each, taken in turns on one thread; the ratio is the"
        " median of the ratios of neighbouring runs. ONNX Runtime is unprotected and has all the memory it wants. Peaks"
        " are bytes of secure memory; the error is the largest one, as a fraction of the output's range.",
        _machine_line(measured),
        _table(header, rows),
    ]


if __name__ == "__main__":
    sys.exit(main())
