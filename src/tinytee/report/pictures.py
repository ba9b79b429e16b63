"""Pictures, drawn by matplotlib: secure memory over the schedule, and time against budget."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytee.sizes import format_size

if TYPE_CHECKING:
    from tinytee.plan.api import Plan

_SHADES = ("#f2f2f0", "#ffffff")
_KINDS = {
    "engine": "#6b6b6b",
    "weights": "#c9803a",
    "input": "#3f8f5b",
    "output": "#8a4f9e",
    "activation": "#4472a8",
}
_MOST_LABELS = 60


def _new_axes(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("pictures need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    kind = Path(path).suffix.removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"{os.fspath(path)}: pictures are .png, .svg or .pdf files")
    figure.savefig(path, dpi=150, format=kind)


def plot_memory(plan: Plan | None, path: str | os.PathLike[str]) -> None:
    """Draws every buffer as a rectangle, arena offset against the schedule's steps, with the segments shaded.

    Args:
        plan: of a freshly compiled bundle.
        path: a .png, .svg or .pdf file.

    Raises:
        ValueError: there is no plan, matplotlib is not installed, or the file's kind is unknown.
        OSError: the file cannot be written.
    """
    if plan is None:
        raise ValueError("only a freshly compiled bundle has a plan to draw")
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    figure, axes = _new_axes(13, 7)
    last_step = max((buffer.end for buffer in plan.buffers), default=1)
    top = max(plan.peak_secure_memory_bytes, getattr(plan, "budget_bytes", 0))
    for position, segment in enumerate(plan.segments):
        axes.axvspan(segment.begin, segment.end, color=_SHADES[position % 2], zorder=0)
    labelled = sorted(plan.buffers, key=lambda b: -(b.bytes * (b.end - b.begin)))[:_MOST_LABELS]
    for buffer in plan.buffers:
        place = (buffer.begin, buffer.offset / 1024)
        color = _KINDS.get(_kind(buffer), _KINDS["activation"])
        axes.add_patch(
            Rectangle(
                place,
                buffer.end - buffer.begin,
                buffer.bytes / 1024,
                facecolor=color,
                alpha=0.75,
                edgecolor="white",
                lw=0.4,
            )
        )
    axes.set_xlim(0, last_step)
    axes.set_ylim(0, top / 1024 * 1.06)
    _label(figure, axes, labelled)
    budget = getattr(plan, "budget_bytes", None)
    if budget:
        axes.axhline(budget / 1024, color="#b03030", lw=1.4)
        axes.text(last_step, budget / 1024, f"budget {format_size(budget)} ", color="#b03030", ha="right", va="bottom")
    peak = plan.peak_secure_memory_bytes
    axes.axhline(peak / 1024, color="#303030", lw=1, ls="--")
    axes.text(0, peak / 1024, f" peak {peak:,} bytes", color="#303030", ha="left", va="bottom")
    axes.set_xlabel("step of the schedule (shading: segments)")
    axes.set_ylabel("offset in secure memory (KiB)")
    shown = {_kind(buffer) for buffer in plan.buffers}
    patches = [Rectangle((0, 0), 1, 1, fc=_KINDS[kind], alpha=0.75, label=kind) for kind in _KINDS if kind in shown]
    axes.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=len(_KINDS), frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, path)


def _kind(buffer: Any) -> str:
    return str(getattr(buffer, "kind", "activation"))


def _label(figure: Any, axes: Any, buffers: Sequence[Any]) -> None:
    """Names the buffers whose rectangle has room for the name."""
    figure.canvas.draw()
    pixels = axes.transData.transform
    for buffer in buffers:
        left, bottom = pixels((buffer.begin, buffer.offset / 1024))
        right, top = pixels((buffer.end, (buffer.offset + buffer.bytes) / 1024))
        size = 7.0
        needed_width, needed_height = 0.62 * size * figure.dpi / 72 * len(buffer.name), 1.3 * size * figure.dpi / 72
        upright = right - left < needed_width and top - bottom >= needed_width
        if min(right - left, top - bottom) < needed_height or max(right - left, top - bottom) < needed_width:
            continue
        middle = ((buffer.begin + buffer.end) / 2, (buffer.offset + buffer.bytes / 2) / 1024)
        axes.text(
            *middle, buffer.name, fontsize=size, ha="center", va="center", rotation=90 if upright else 0, color="white"
        )


def plot_sweep(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draws predicted time against budget.

    Args:
        rows: each with "budget_bytes" and "predicted_seconds" or, where the network does not fit, "needed_bytes".
        path: a .png, .svg or .pdf file.
        title: above the picture.

    Raises:
        ValueError: matplotlib is not installed, or the file's kind is unknown.
        OSError: the file cannot be written.
    """
    figure, axes = _new_axes(8, 5)
    fits = [row for row in rows if "predicted_seconds" in row]
    budgets = [row["budget_bytes"] for row in fits]
    axes.plot(budgets, [1e3 * row["predicted_seconds"] for row in fits], "o-", color="#4472a8")
    refused = [row["budget_bytes"] for row in rows if "needed_bytes" in row]
    if refused:
        axes.axvspan(min(refused), max(row["needed_bytes"] for row in rows if "needed_bytes" in row), color="#f3dcdc")
        axes.text(min(refused), 0, " does not fit", color="#b03030", va="bottom")
    axes.set_xscale("log", base=2)
    ticks = [row["budget_bytes"] for row in rows]
    axes.set_xticks(ticks, [format_size(size) for size in ticks], rotation=30)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("secure memory")
    axes.set_ylabel("predicted time of a run (ms)")
    axes.set_title(title)
    axes.grid(color="#e5e5e5")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _save(figure, path)
