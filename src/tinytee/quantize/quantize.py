"""A float32 model to an int8 one: calibrated, corrected, and compared with what it was made of."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tinytee.errors import TinyteeError
from tinytee.quantize import sensitivity
from tinytee.quantize.accuracy import Accuracy, OutputAccuracy, Progress, measure_layers, measure_outputs
from tinytee.quantize.engine import Feed, onnxruntime, open_session, run
from tinytee.quantize.lanes import limit_lane_sums
from tinytee.quantize.prepare import prepare
from tinytee.quantize.refine import (
    after_results,
    correct_biases,
    keep_results_float,
    merge_activations,
    weighted_inputs,
)
from tinytee.quantize.rounding import round_weights

METHODS = ("minmax", "percentile", "entropy")
"""How calibration chooses ranges: see ONNX Runtime's documentation."""
ROUNDINGS = ("output", "nearest")
"""How weights become integers: for the nearest results of their layer (``rounding``), or each to the nearest."""
AUTO = "auto"
"""Given as a node to keep in float32: chooses the nodes that harm most."""
PERCENTILE = 99.999
WANTED_AGREEMENT, WANTED_COSINE = 0.98, 0.995
NEARLY_DB = 1.0
"""Where outputs do not agree in the end, signal to noise that more nodes in float32 have to be worth."""
_LARGEST_SHARE = 2
"""At most every second node with weights is left in float32 unasked."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """An int8 model (QDQ: uint8 activations, int8 weights for each channel), and what it costs."""

    model: onnx.ModelProto
    accuracy: Accuracy


def quantize(
    model: onnx.ModelProto,
    calibration: Sequence[Feed],
    held_out: Sequence[Feed] = (),
    *,
    method: str = "minmax",
    rounding: str = "output",
    keep_float: Sequence[str] = (),
    short_sums: bool = False,
    progress: Progress | None = None,
) -> Quantized:
    """Quantizes a model statically.

    Args:
        model: float32.
        calibration: inputs by name, which decide the ranges of activations; one sample each.
        held_out: inputs that the accuracy is measured on.
        method: one of ``METHODS``.
        rounding: one of ``ROUNDINGS``; "nearest" is faster and less accurate.
        keep_float: names of nodes that stay in float32; "auto" adds those that harm the outputs most, as many as it
            takes to agree with the float32 model on the calibration samples.
        short_sums: whether to coarsen channels so that sums of four products fit 16 bits: see ``limit_lane_sums``.
        progress: told what is being done, and which fraction of it is.

    Raises:
        TinyteeError: ONNX Runtime is missing or does not take the model; the model is quantized already.
        ValueError: no samples, an unknown method, rounding or node.
    """
    if not calibration:
        raise ValueError("calibration needs at least one sample")
    if method not in METHODS:
        raise ValueError(f"there is no calibration method '{method}'; there are {', '.join(METHODS)}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"there is no rounding '{rounding}'; there are {', '.join(ROUNDINGS)}")
    tell = progress or (lambda what, fraction: None)
    tell("folding constants", 0.0)
    floating = prepare(model)
    kept = [name for name in keep_float if name != AUTO]
    _check_nodes(floating, kept)
    means = _channel_means(floating, calibration, lambda fraction: tell("averaging activations", fraction))

    def attempt(excluded: Sequence[str]) -> onnx.ModelProto:
        left = sorted({*excluded, *after_results(floating)})
        found = _quantize_static(floating, calibration, method, left, lambda f: tell("calibrating", f))
        found = keep_results_float(merge_activations(found), floating)
        if short_sums:
            found = limit_lane_sums(found, floating)
        if rounding == "output":
            found = round_weights(found, floating, calibration, lambda f: tell("rounding weights", f))
            if short_sums:  # channels whose sums have grown again are rounded to nearest
                found = limit_lane_sums(found, floating)
        return correct_biases(found, floating, means)

    quantized, agrees = attempt(kept), None
    if AUTO in keep_float:
        quantized, kept, agrees = _spare(floating, quantized, calibration, kept, attempt, tell)
    outputs = measure_outputs(floating, quantized, held_out, lambda f: tell("comparing", f)) if held_out else ()
    accuracy = Accuracy(
        samples=len(held_out),
        calibration_samples=len(calibration),
        method=method,
        outputs=outputs,
        layers=measure_layers(floating, quantized, held_out) if held_out else (),
        kept_float=tuple(kept),
        agrees=agrees,
    )
    return Quantized(quantized, accuracy)


def _check_nodes(model: onnx.ModelProto, names: Sequence[str]) -> None:
    known = [node.name for node in model.graph.node]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3) or known[:3]
            raise ValueError(f"--keep-float: the model has no node '{name}'; near are {', '.join(map(repr, near))}")


def _agrees(outputs: Sequence[OutputAccuracy]) -> bool:
    return all(
        output.cosine >= WANTED_COSINE and (output.top1_agreement is None or output.top1_agreement >= WANTED_AGREEMENT)
        for output in outputs
    )


def _spare(
    floating: onnx.ModelProto,
    quantized: onnx.ModelProto,
    samples: Sequence[Feed],
    kept: Sequence[str],
    attempt: Callable[[Sequence[str]], onnx.ModelProto],
    tell: Progress,
) -> tuple[onnx.ModelProto, list[str], bool]:
    """Leaves more and more nodes in float32, at most half, until the outputs agree; whether they do in the end.

    If they never do, as few nodes as bring the outputs nearly as far as all that were tried.
    """
    ranked: list[str] = []
    tried: list[tuple[onnx.ModelProto, list[str], float]] = []
    chosen, count = list(kept), 0
    while True:
        if count:
            chosen = sensitivity.with_writers(floating, [*kept, *ranked[:count]])
            quantized = attempt(chosen)
        outputs = measure_outputs(floating, quantized, samples, lambda f: tell("comparing", f))
        if _agrees(outputs):
            return quantized, chosen, True
        tried.append((quantized, chosen, min(output.snr_db for output in outputs)))
        if not ranked:
            ranked = sensitivity.rank(floating, quantized, samples, lambda f: tell("ranking layers", f))
        if count * _LARGEST_SHARE >= len(ranked):
            break
        count = max(1, min(2 * count, -(-len(ranked) // _LARGEST_SHARE)))
    best = max(snr_db for *_, snr_db in tried)
    return *next((model, names) for model, names, snr_db in tried if snr_db >= best - NEARLY_DB), False


def _channel_means(
    floating: onnx.ModelProto, samples: Sequence[Feed], told: Callable[[float], None]
) -> dict[str, NDArray]:
    """Mean of each channel of what convolutions and Gemms read."""
    fed = {value.name for value in floating.graph.input}
    names = sorted(set(weighted_inputs(floating).values()))
    inner = [name for name in names if name not in fed]
    session = open_session(floating, inner)
    total: dict[str, NDArray] = {}
    for position, sample in enumerate(samples):
        found = dict(zip(inner, run(session, inner, sample), strict=True)) | {n: sample[n] for n in names if n in fed}
        for name, array in found.items():
            mean = array.mean(axis=tuple(axis for axis in range(array.ndim) if axis != 1), dtype=np.float64)
            total[name] = total.get(name, 0) + mean / len(samples)
        told((position + 1) / len(samples))
    return total


def _quantize_static(
    floating: onnx.ModelProto,
    samples: Sequence[Feed],
    method: str,
    excluded: Sequence[str],
    told: Callable[[float], None],
) -> onnx.ModelProto:
    onnxruntime()
    from onnxruntime import quantization as tool  # noqa: PLC0415

    class Reader(tool.CalibrationDataReader):
        def __init__(self) -> None:
            self.position = 0

        def get_next(self) -> Any:
            told(self.position / len(samples))
            self.position += 1
            return dict(samples[self.position - 1]) if self.position <= len(samples) else None

    methods = {
        "minmax": tool.CalibrationMethod.MinMax,
        "percentile": tool.CalibrationMethod.Percentile,
        "entropy": tool.CalibrationMethod.Entropy,
    }
    with tempfile.TemporaryDirectory() as folder, _silence():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(floating, source)
        try:
            tool.quantize_static(
                source,
                target,
                Reader(),
                quant_format=tool.QuantFormat.QDQ,
                per_channel=True,
                activation_type=tool.QuantType.QUInt8,
                weight_type=tool.QuantType.QInt8,
                nodes_to_exclude=list(excluded),
                calibrate_method=methods[method],
                extra_options={"CalibPercentile": PERCENTILE, "ForceQuantizeNoInputCheck": True},
            )
        except Exception as error:  # whatever the tool raises
            raise TinyteeError(f"ONNX Runtime's quantizer does not take the model: {error}") from error
        return onnx.load(target)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What the tool prints and logs is not for our users."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
