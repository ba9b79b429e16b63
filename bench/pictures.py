"""Pictures of what was measured, for docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tinytee.sizes import format_size

Rows = Sequence[Mapping[str, Any]]

_LINES = {
    "onnxruntime": ("ONNX Runtime, paged", "#b8502e", "s-"),
    "layerwise": ("tinytee's engine layer by layer, paged", "#c9a03a", "^-"),
    "tinytee": ("tinytee within the budget", "#2f6db0", "o-"),
}
_SHADES = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
_RATIO_TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500)
_GRID = "#e5e5e5"


def plot_paging(rows: Rows, path: Path) -> None:
    """Multiples of unprotected latency against secure memory, a panel a network; both axes logarithmic."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    columns = min(2, len(networks))
    lines = -(-len(networks) // columns)
    figure = _new_figure(5.6 * columns, 0.8 + 3.7 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[len(networks) :]:
        panel.set_visible(False)
    ratios = [found["ratio"] for row in rows for found in row["contenders"].values()]
    for panel, network in zip(panels, networks, strict=False):
        _draw_paging(panel, [row for row in rows if row["network"] == network], network)
        _ratio_axis(panel, ratios)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)


def _draw_paging(panel: Axes, rows: Rows, network: str) -> None:
    sizes = [row["budget_bytes"] for row in rows]
    panel.axhline(1, color="#555555", linewidth=1, linestyle="--", label="ONNX Runtime, unprotected")
    for name, (label, color, style) in _LINES.items():
        found = [(row["budget_bytes"], row["contenders"][name]["ratio"]) for row in rows if name in row["contenders"]]
        if found:
            panel.plot(*zip(*found, strict=True), style, color=color, label=label, markersize=5)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(sizes, [format_size(size).removesuffix(" MiB") for size in sizes])
    panel.set_title(network)
    panel.set_xlabel("secure memory (MiB)")
    panel.set_ylabel("multiple of unprotected latency")


def plot_zoo(rows: Rows, path: Path) -> None:
    """The ratio to ONNX Runtime's latency: a panel a suite, a group of bars a network, a bar a budget."""
    measured = [row for row in rows if "failure" not in row]
    suites, networks, budgets = (
        list(dict.fromkeys(row[key] for row in measured)) for key in ("suite", "network", "budget_bytes")
    )
    budgets.sort()
    figure = _new_figure(max(7.0, 1.5 + 0.13 * len(networks) * (len(budgets) + 2)), 1.0 + 3.0 * len(suites))
    panels = figure.subplots(len(suites), 1, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, suite in zip(panels, suites, strict=True):
        for position, budget in enumerate(budgets):
            found = [row for row in measured if (row["suite"], row["budget_bytes"]) == (suite, budget)]
            places = [networks.index(row["network"]) + (position + 1) / (len(budgets) + 1) - 0.5 for row in found]
            ratios = [row["rivals"]["onnxruntime"]["ratio"] for row in found]
            shade = _SHADES[position * (len(_SHADES) - 1) // max(1, len(budgets) - 1)]
            panel.bar(places, ratios, 0.9 / (len(budgets) + 1), color=shade, label=format_size(budget))
        panel.axhline(1, color="#555555", linewidth=1, linestyle="--")
        panel.set_ylabel("multiple of ONNX Runtime")
        panel.set_title(suite, fontsize=10)
        panel.set_xticks(range(len(networks)), networks, rotation=30, ha="right")
        _tidy(panel)
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=len(budgets), frameon=False, loc="outside upper center")
    _save(figure, path)


def plot_predictions(rows: Rows, path: Path) -> None:
    """Predicted against measured latency, a point a row; both axes logarithmic."""
    found = [row for row in rows if "failure" not in row and row["predicted_seconds"]]
    measured = [1e3 * row["tinytee"]["median"] for row in found]
    predicted = [1e3 * row["predicted_seconds"] for row in found]
    figure = _new_figure(5.2, 5)
    panel = figure.subplots()
    ends = (min(measured + predicted) * 0.8, max(measured + predicted) * 1.25)
    panel.fill_between(ends, [0.85 * end for end in ends], [1.15 * end for end in ends], color="#e8eef5", label="± 15%")
    panel.plot(ends, ends, color="#555555", linewidth=1, linestyle="--")
    panel.plot(measured, predicted, ".", color="#2f6db0")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(*ends)
    panel.set_ylim(*ends)
    panel.set_xlabel("measured (ms)")
    panel.set_ylabel("predicted (ms)")
    panel.legend(frameon=False)
    _tidy(panel)
    _save(figure, path)


def plot_kernels(rows: Rows, path: Path) -> None:
    """Each kernel's share of what one core can do at most."""
    figure = _new_figure(8, 1.0 + 0.22 * len(rows))
    panel = figure.subplots()
    colors = {"flops": "#2f6db0", "dots": "#4a9a62", "memory_read": "#b8502e", "cache_copy": "#c9a03a"}
    labels = {
        "flops": "of peak multiply-accumulates",
        "dots": "of peak int8 products",
        "memory_read": "of memory bandwidth",
        "cache_copy": "of copying in the cache",
    }
    for peak, color in colors.items():
        places = [place for place, row in enumerate(rows) if row["peak"] == peak]
        panel.barh(places, [100 * rows[place]["share"] for place in places], color=color, label=labels[peak])
    names = [f"{row['kernel']}  {'x'.join(map(str, row['shape']))}" for row in rows]
    panel.set_yticks(range(len(rows)), names, fontsize=7)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlim(0, max(100.0, *(105 * row["share"] for row in rows)))
    panel.axvline(100, color="#555555", linewidth=1, linestyle="--")
    panel.set_xlabel("percent")
    panel.legend(fontsize=8, frameon=False, loc="center right")
    _tidy(panel)
    _save(figure, path)


def _ratio_axis(panel: Axes, ratios: Sequence[float]) -> None:
    low, high = min([0.8, *ratios]) / 1.15, max([2.0, *ratios]) * 1.25
    ticks = [tick for tick in _RATIO_TICKS if low <= tick <= high]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_ylim(low, high)
    _tidy(panel)


def _tidy(panel: Axes) -> None:
    panel.grid(color=_GRID)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
