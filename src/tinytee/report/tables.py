"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from tinytee.bundle import Bundle, Manifest, Preprocessing
from tinytee.sizes import format_size

if TYPE_CHECKING:
    from tinytee.plan.api import Plan


def _facts(title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def bundle_table(bundle: Bundle, title: str) -> Table:
    """What anyone may know of a bundle."""
    preamble, manifest = bundle.preamble, bundle.manifest
    table = _facts(f"{title} (unauthenticated: only its key can tell whether this is true)")
    for heading, tensors in (("input", manifest.inputs), ("output", manifest.outputs)):
        for tensor in tensors:
            table.add_row(heading, escape(str(tensor)))
    table.add_row("secure memory", f"{bundle.peak_secure_memory_bytes:,} bytes, all included")
    table.add_row("compiled for", f"{manifest.budget_bytes:,} bytes")
    if manifest.predicted_seconds is not None:
        table.add_row("predicted", f"{1e3 * manifest.predicted_seconds:.2f} ms a run")
    if manifest.preprocessing is not None:
        table.add_row("images", escape(describe_preprocessing(manifest.preprocessing)))
    if manifest.class_names:
        table.add_row(
            "class names", f"{len(manifest.class_names):,}: {escape(', '.join(manifest.class_names[:5]))}, ..."
        )
    if manifest.integer_operators + manifest.float_operators:
        table.add_row("operators", _operators(manifest))
    table.add_row("suite", bundle.suite)
    table.add_row("program", f"{preamble.sealed_bytes[0]:,} bytes, sealed")
    table.add_row(
        "weights", f"{sum(preamble.sealed_bytes[1:]):,} bytes, sealed, in {len(preamble.sealed_bytes) - 1:,} chunks"
    )
    if manifest.entropy_coded:
        table.add_row("", f"{manifest.entropy_coded:,} operators' weights entropy-coded")
    table.add_row("bundle", f"{preamble.bundle_bytes:,} bytes, id {preamble.bundle_id.hex()}")
    table.add_row("made by", escape(manifest.producer))
    return table


def _operators(manifest: Manifest) -> str:
    kinds = ((manifest.integer_operators, "in integers"), (manifest.float_operators, "in float32"))
    return ", ".join(f"{count:,} {how}" for count, how in kinds if count)


def describe_preprocessing(how: Preprocessing) -> str:
    """Preprocessing in one line."""
    fit = "stretched" if how.resize == "exact" else f"shorter side fitted, centre {how.crop:.0%}"
    mean, scale = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.scale))
    size = f"{how.size[0]}x{how.size[1]}"
    return f"{size}, {fit}, {how.interpolation}; ({how.channels} - {mean}) / {scale}; {how.layout}"


def stats_table(stats: Any) -> Table:
    """What a session measured (a SessionStats)."""
    table = _facts("measured")
    for name, value in asdict(stats).items():
        text = (
            f"{1e3 * value:.3f} ms" if name.endswith("_seconds") else f"{value:,}" if isinstance(value, int) else value
        )
        table.add_row(name.removesuffix("_seconds").replace("_", " "), text)
    return table


def outputs_table(outputs: Mapping[str, NDArray[Any]]) -> Table:
    """Shape and range of every output."""
    table = Table("output", "shape", "dtype", "smallest", "mean", "largest", title="outputs", title_justify="left")
    for name, array in outputs.items():
        numbers = array.astype(np.float64)
        figures = (
            [f"{value:.6g}" for value in (numbers.min(), numbers.mean(), numbers.max())] if array.size else [""] * 3
        )
        table.add_row(escape(name), str(list(array.shape)), array.dtype.name, *figures)
    return table


def top_table(best: Sequence[Mapping[str, Any]]) -> Table:
    """A sample's largest channels."""
    table = Table("", "class", "value")
    for entry in best:
        table.add_row(str(entry["index"]), escape(entry["name"]), f"{entry['value']:.4f}")
    return table


def verify_table(rows: Sequence[Mapping[str, Any]], tolerance: float) -> Table:
    """Errors against the reference, by output."""
    table = Table(
        "output", "range", "largest error", "of range", "", title="against ONNX Runtime", title_justify="left"
    )
    for row in rows:
        agrees = "ok" if row["finite"] else "the same, none finite"
        verdict = agrees if row["within_tolerance"] else f"above {tolerance:g}"
        figures = (f"{row[name]:.3g}" for name in ("range", "max_error", "relative_error"))
        table.add_row(escape(row["name"]), *figures, verdict)
    return table


def plan_table(plan: Plan) -> Table:
    """A plan's segments, and its figures in the title."""
    used, budget = plan.peak_secure_memory_bytes, plan.budget_bytes
    title = (
        f"{used:,} of {budget:,} bytes of secure memory, all included;"
        f" predicted {1e3 * plan.predicted_seconds:.2f} ms a run ({plan.profile}, {plan.suite})"
    )
    table = Table(
        "", "operators", "steps", "memory", "predicted", "streamed", "spilled", title=title, title_justify="left"
    )
    for column in (0, 2, 3, 4):
        table.columns[column].justify = "right"
    for number, segment in enumerate(plan.segments):
        memory = sum(b.bytes for b in plan.buffers if b.begin <= number <= b.end)
        names = (segment.nodes, segment.streamed, segment.spilled)
        nodes, streamed, spilled = (escape(_shorten(found)) for found in names)
        table.add_row(
            str(number), nodes, str(segment.steps), f"{memory:,}", f"{1e3 * segment.seconds:.3f} ms", streamed, spilled
        )
    return table


def _shorten(names: Sequence[str]) -> str:
    """All names, or the first and the last of many."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} .. {names[-1]} ({len(names)})"


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Predicted time by budget; rows as ``plot_sweep`` takes them."""
    table = Table("secure memory", "used", "predicted", title="budget against time", title_justify="left")
    for row in rows:
        if "needed_bytes" in row:
            table.add_row(format_size(row["budget_bytes"]), "", f"does not fit; needs {row['needed_bytes']:,} bytes")
        else:
            used, seconds = row["peak_secure_memory_bytes"], row["predicted_seconds"]
            table.add_row(format_size(row["budget_bytes"]), f"{used:,}", f"{1e3 * seconds:.2f} ms")
    return table
