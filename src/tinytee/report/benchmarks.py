"""The table of what ``tinytee.bench`` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from tinytee.sizes import format_size

_RIVALS = {"onnxruntime": "ONNX Runtime", "onnxruntime_fp32": "ONNX Runtime fp32", "openvino": "OpenVINO"}


def bench_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """One line a row of ``tinytee.bench.measure_row``; columns for network and suite where rows name networks.

    The others are of one suite, which the title says, and fit 80 columns.
    """
    measured = [row for row in rows if "failure" not in row]
    named = any("network" in row for row in rows)
    rivals = [name for name in _RIVALS if any(name in row["rivals"] for row in measured)]
    table = Table(
        title=escape(title),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    spills = any(round(100 * row["spill_share"]) for row in measured)
    for heading in ("network", "suite") if named else ():
        table.add_column(heading)
    for heading in ("budget", "peak", "tinytee\nms", "cost\nmodel", "limit", "AEAD/\nspills" if spills else "AEAD"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in rivals:
        table.add_column(f"{_RIVALS[name]} ms".replace(" ", "\n"), justify="right", no_wrap=True)
        table.add_column("ratio", justify="right", style="bold", no_wrap=True)
    table.add_column("error", justify="right", no_wrap=True)
    for row in rows:
        head = [f"{row['network']} {row.get('precision', '')}".strip(), row["suite"]] if named else []
        head.append(format_size(row["budget_bytes"]))
        if "failure" in row:
            table.add_row(*head, "none")
            table.caption = (
                f"{table.caption or ''}\n{format_size(row['budget_bytes'])}: {escape(row['failure'])}".strip()
            )
            continue
        predicted = row["predicted_seconds"]
        line = [f"{row['measured_peak_bytes']:,}", _milliseconds(row["tinytee"])]
        line += [f"{1e3 * predicted:.3g}" if predicted else "", f"{1e3 * row['limit_seconds']:.3g}"]
        line.append(f"{row['aead_share']:.0%}" + (f"/{row['spill_share']:.0%}" if spills else ""))
        for name in rivals:
            times = row["rivals"].get(name)
            line += [_milliseconds(times), f"{times['ratio']:.2f}"] if times else ["", ""]
        table.add_row(*head, *line, f"{row['error']:.0e}")
    return table


def _milliseconds(times: Mapping[str, float]) -> str:
    """The median, and half the distance between the quartiles."""
    spread = (times["upper_quartile"] - times["lower_quartile"]) / 2
    digits = 2 if times["median"] < 1e-2 else 1
    return f"{1e3 * times['median']:.{digits}f}±{1e3 * spread:.{digits}f}"
