"""The accuracy of an int8 network beside its float32 original: tables and a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from tinytee.report.pictures import check_picture, new_figure, save_figure

if TYPE_CHECKING:
    from tinytee.quantize import Accuracy, OutputAccuracy

WORST_LAYERS = 5
WORST_CHANNELS = 5
_MOST_BARS = 40


def accuracy_tables(found: Accuracy) -> list[Table]:
    """Outputs, and the layers with the most noise."""
    files = f" of {found.photographs} photographs" if found.photographs else ""
    outputs = Table(
        title=f"int8 beside float32, on {found.samples} pictures{files} that did not calibrate it"
        f" ({found.method}, {found.calibration_samples} pictures)",
        title_justify="left",
    )
    outputs.add_column("output")
    for heading in ("top-1 agreement", "cosine", "least cosine", "signal to noise"):
        outputs.add_column(heading, justify="right")
    for output in found.outputs:
        outputs.add_row(
            escape(output.name),
            "" if output.top1_agreement is None else f"{output.top1_agreement:.1%}",
            f"{output.cosine:.4f}",
            f"{output.least_cosine:.4f}",
            f"{output.snr_db:.1f} dB",
        )
    layers = Table(title="layers with the most noise, that of the layers before them included", title_justify="left")
    layers.add_column("node")
    layers.add_column("operator")
    layers.add_column("signal to noise", justify="right")
    for layer in found.layers[:WORST_LAYERS]:
        layers.add_row(escape(layer.node), layer.op_type, f"{layer.snr_db:.1f} dB")
    tables = [outputs, *(_margin_table(output) for output in found.outputs if output.by_margin)]
    tables += [_channel_table(output) for output in found.outputs if output.channels]
    return [*tables, layers] if found.layers else tables


def _margin_table(output: OutputAccuracy) -> Table:
    """Which disagreements matter: those where float32 itself was not in doubt."""
    table = Table(title=f"agreement by how sure float32 is: {escape(output.name)}", title_justify="left")
    table.add_column("second score behind the first by")
    table.add_column("pictures", justify="right")
    table.add_column("top-1 agreement", justify="right")
    for part in output.by_margin:
        last = part is output.by_margin[-1]
        table.add_row(
            f"{part.least:.0%} of it or more" if last else f"{part.least:.0%} to {part.most:.0%} of it",
            str(part.samples),
            "" if part.top1_agreement is None else f"{part.top1_agreement:.1%}",
        )
    return table


def _channel_table(output: OutputAccuracy) -> Table:
    """A detector's scores may be lost beside its boxes, and no figure of the whole says so."""
    table = Table(title=f"channels with the most noise: {escape(output.name)}", title_justify="left")
    for heading in ("channel", "largest in float32", "signal to noise"):
        table.add_column(heading, justify="right")
    for channel in output.channels[:WORST_CHANNELS]:
        table.add_row(str(channel.channel), f"{channel.largest:.3g}", f"{channel.snr_db:.1f} dB")
    return table


def plot_accuracy(found: Accuracy, path: str | os.PathLike[str]) -> None:
    """Draws the signal to noise of the worst layers.

    Args:
        found: an accuracy with layers.
        path: a .png, .svg or .pdf file to write.

    Raises:
        ValueError: the file's name has another ending, or matplotlib is not installed.
    """
    check_picture(path)
    worst = found.layers[:_MOST_BARS]
    figure = new_figure(9, 1.5 + 0.18 * len(worst))
    axes = figure.subplots()
    places = range(len(worst))
    axes.barh(places, [layer.snr_db for layer in worst], color="#4472a8")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_yticks(places, [f"{layer.node} ({layer.op_type})" for layer in worst], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("signal to noise against float32 (dB); more is better")
    axes.set_title(f"the {len(worst)} layers with the most noise")
    save_figure(figure, path)
