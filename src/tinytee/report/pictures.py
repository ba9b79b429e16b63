"""Pictures, drawn by matplotlib: secure memory over the schedule, and time against budget."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytee.sizes import format_size

if TYPE_CHECKING:
    from tinytee.plan.api import Plan, PlannedBuffer

_SHADES = ("#f0f0ee", "#ffffff")
_FEATURE_MAPS = ("feature maps", "#4472a8")
_KINDS = {
    "engine and program": ("engine and program", "#6b6b6b"),
    "weights": ("weights of a segment", "#c9803a"),
    "staging": ("streamed weights", "#b8502e"),
    "pinned": ("pinned weights", "#8c6d31"),
}
_MOST_LABELS = 120
_LABEL_POINTS = 6.5


def new_figure(width: float, height: float) -> Any:
    """A matplotlib Figure of so many inches.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("pictures need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_picture(path: str | os.PathLike[str]) -> str:
    """The kind of picture that a file's name asks for.

    Raises:
        ValueError: it is none that can be drawn.
    """
    kind = Path(path).suffix.removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"{os.fspath(path)}: pictures are .png, .svg or .pdf files")
    return kind


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes a .png, .svg or .pdf file."""
    figure.savefig(path, dpi=150, format=check_picture(path))


def plot_memory(plan: Plan | None, path: str | os.PathLike[str]) -> None:
    """Draws every buffer as a rectangle, arena offset against the segments that it lives through.

    Above it stands each segment's predicted time.

    Args:
        plan: of a freshly compiled bundle.
        path: a .png, .svg or .pdf file.

    Raises:
        ValueError: there is no plan, matplotlib is not installed, or the file's kind is unknown.
        OSError: the file cannot be written.
    """
    if plan is None:
        raise ValueError("only a freshly compiled bundle has a plan to draw")
    figure = new_figure(13, 8)
    times, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 6))
    count = len(plan.segments)
    for position in range(count):
        for panel in (times, axes):
            panel.axvspan(position, position + 1, color=_SHADES[position % 2], zorder=0)
    times.bar([n + 0.5 for n in range(count)], [1e3 * s.seconds for s in plan.segments], width=0.9, color="#7a7a7a")
    times.set_ylabel("predicted (ms)")
    times.set_title(
        f"{plan.predicted_seconds * 1e3:.1f} ms a run, predicted for {plan.profile}, {plan.suite}", fontsize=10
    )
    _draw_buffers(figure, axes, plan)
    axes.set_xticks([n + 0.5 for n in range(count)], [str(n) for n in range(count)], fontsize=8 if count < 40 else 5)
    axes.set_xlabel("segment")
    axes.set_ylabel("offset in secure memory (KiB)")
    for panel in (times, axes):
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    save_figure(figure, path)


def _kind(buffer: PlannedBuffer) -> tuple[str, str]:
    return next((kind for name, kind in _KINDS.items() if buffer.name.startswith(name)), _FEATURE_MAPS)


def _draw_buffers(figure: Any, axes: Any, plan: Plan) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    count, budget, peak = len(plan.segments), plan.budget_bytes, plan.peak_secure_memory_bytes
    for buffer in plan.buffers:
        place, extent = (buffer.begin, buffer.offset / 1024), (buffer.end + 1 - buffer.begin, buffer.bytes / 1024)
        axes.add_patch(Rectangle(place, *extent, facecolor=_kind(buffer)[1], alpha=0.78, edgecolor="white", lw=0.5))
    shows_budget = budget <= 4 * peak
    axes.set_xlim(0, count)
    axes.set_ylim(0, (budget if shows_budget else peak) / 1024 * 1.07)
    _label_buffers(figure, axes, plan.buffers)
    above = max(peak, budget if shows_budget else 0) / 1024
    axes.axhline(peak / 1024, color="#303030", lw=1, ls="--")
    axes.text(0, above, f" - - peak: {peak:,} bytes", color="#303030", ha="left", va="bottom")
    if shows_budget:
        axes.axhline(budget / 1024, color="#b03030", lw=1.4)
        axes.text(count, above, f"budget: {format_size(budget)} ", color="#b03030", ha="right", va="bottom")
    shown = dict.fromkeys(_kind(buffer) for buffer in plan.buffers)
    patches = [Rectangle((0, 0), 1, 1, facecolor=color, alpha=0.78, label=label) for label, color in shown]
    axes.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=len(patches), frameon=False)


def _label_buffers(figure: Any, axes: Any, buffers: Sequence[PlannedBuffer]) -> None:
    """Names the buffers whose rectangle has room for the name, or for its begin."""
    figure.canvas.draw()
    pixels = axes.transData.transform
    point = figure.dpi / 72
    letter, line = 0.62 * _LABEL_POINTS * point, 1.25 * _LABEL_POINTS * point
    for buffer in sorted(buffers, key=lambda b: -b.bytes * (b.end + 1 - b.begin))[:_MOST_LABELS]:
        left, bottom = pixels((buffer.begin, buffer.offset / 1024))
        right, top = pixels((buffer.end + 1, (buffer.offset + buffer.bytes) / 1024))
        width, height = right - left, top - bottom
        upright = width < letter * min(len(buffer.name), 12) and height > width
        room, across = (height, width) if upright else (width, height)
        letters = int(room / letter)
        if across < line or letters < 4:
            continue
        name = buffer.name if len(buffer.name) <= letters else buffer.name[: letters - 2] + ".."
        middle = ((buffer.begin + buffer.end + 1) / 2, (buffer.offset + buffer.bytes / 2) / 1024)
        turn = 90 if upright else 0
        axes.text(*middle, name, fontsize=_LABEL_POINTS, ha="center", va="center", rotation=turn, color="white")


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
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
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
    save_figure(figure, path)
