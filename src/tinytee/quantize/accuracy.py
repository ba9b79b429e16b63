"""What quantization costs: outputs and layers of the int8 model beside those of the float32 one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tinytee.quantize.engine import Feed, open_session, run

Progress = Callable[[str, float], None]
_DEQUANTIZED = "_DequantizeLinear_Output"
_LAYER_PICTURES = 8
MARGINS = (0.0, 0.1, 0.5, 1e9)
"""Bounds of the margins that agreement is told apart by."""
NO_NOISE_DB = 120.0
"""Stands for results that do not differ at all."""


@dataclass(frozen=True)
class MarginAgreement:
    """Agreement on samples whose second score in float32 lies behind the first by some share of it.

    Attributes:
        least, most: of that share, (first - second) / |first|; from ``least`` on, below ``most``.
        samples: how many there were.
        top1_agreement: how often the largest element is the same, 0 to 1; None without samples.
    """

    least: float
    most: float
    samples: int
    top1_agreement: float | None


@dataclass(frozen=True)
class ChannelAccuracy:
    """One channel of an output: a class's map, or a coordinate of all of a detector's boxes.

    Attributes:
        channel: its index.
        largest: magnitude in float32.
        snr_db: its signal to noise over all samples, in decibels.
    """

    channel: int
    largest: float
    snr_db: float


@dataclass(frozen=True)
class OutputAccuracy:
    """One output of the model.

    Attributes:
        top1_agreement: how often its largest element is the same, 0 to 1; None where it is no list of scores.
        by_margin: the same, told apart by how near float32's largest two scores are; empty where there are none.
        cosine, least_cosine: similarity of a sample's elements, its mean and its least.
        snr_db: signal to noise over all samples, in decibels.
        channels: worst first; empty where it is no map. What is small beside others does not show in the figures above.
    """

    name: str
    top1_agreement: float | None
    cosine: float
    least_cosine: float
    snr_db: float
    by_margin: tuple[MarginAgreement, ...] = ()
    channels: tuple[ChannelAccuracy, ...] = ()


@dataclass(frozen=True)
class LayerAccuracy:
    """The result of one node, with the noise of all nodes before it: its signal to noise in decibels."""

    node: str
    op_type: str
    snr_db: float


@dataclass(frozen=True)
class Accuracy:
    """An int8 model beside its float32 one, on samples that did not calibrate it.

    Attributes:
        samples: how many there were.
        calibration_samples: how many calibrated.
        photographs, calibration_photographs: files that both were made of; 0 where they were given as arrays.
        method: of calibration.
        kept_float: nodes that stay in float32.
        agrees: whether leaving nodes in float32 made the calibration samples' results agree; None where none were
            chosen by harm.
        outputs: in the model's order.
        layers: worst first.
    """

    samples: int
    calibration_samples: int
    method: str
    outputs: tuple[OutputAccuracy, ...]
    layers: tuple[LayerAccuracy, ...] = ()
    kept_float: tuple[str, ...] = ()
    agrees: bool | None = None
    photographs: int = 0
    calibration_photographs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


@dataclass
class _Tally:
    """Sums over samples."""

    signal: float = 0.0
    noise: float = 0.0
    cosines: list[float] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)

    def add(self, expected: NDArray, found: NDArray) -> None:
        wanted, got = (array.reshape(-1).astype(np.float64) for array in (expected, found))
        self.signal += float(wanted @ wanted)
        self.noise += float((wanted - got) @ (wanted - got))
        length = float(np.linalg.norm(wanted) * np.linalg.norm(got))
        self.cosines.append(float(wanted @ got) / length if length else float(not (wanted - got).any()))
        self.same.append(bool(wanted.argmax() == got.argmax()))
        if wanted.size > 1:
            second, first = np.partition(wanted, -2)[-2:]
            self.margins.append(float((first - second) / max(abs(first), 1e-30)))

    def by_margin(self) -> tuple[MarginAgreement, ...]:
        margins, same = np.array(self.margins), np.array(self.same)
        found = []
        for least, most in pairwise(MARGINS):
            chosen = same[(margins >= least) & (margins < most)]
            found.append(MarginAgreement(least, most, len(chosen), float(chosen.mean()) if len(chosen) else None))
        return tuple(found)

    @property
    def snr_db(self) -> float:
        return _decibels(self.signal, self.noise)


@dataclass
class _ChannelTally:
    """Sums over samples, channel by channel."""

    signal: NDArray | float = 0.0
    noise: NDArray | float = 0.0
    largest: NDArray | float = 0.0

    def add(self, expected: NDArray, found: NDArray) -> None:
        """Of maps, whose channels are the second axis, and of lists, where they are the shorter axis."""
        at = 2 if expected.ndim == 3 and expected.shape[2] < expected.shape[1] else 1
        wanted, got = (np.moveaxis(a, at, 0).reshape(a.shape[at], -1).astype(np.float64) for a in (expected, found))
        self.signal = self.signal + np.square(wanted).sum(axis=1)
        self.noise = self.noise + np.square(wanted - got).sum(axis=1)
        self.largest = np.maximum(self.largest, np.abs(wanted).max(axis=1))

    def channels(self) -> tuple[ChannelAccuracy, ...]:
        sums = zip(*(np.atleast_1d(sums) for sums in (self.largest, self.signal, self.noise)), strict=True)
        found = [
            ChannelAccuracy(channel, float(largest), _decibels(float(signal), float(noise)))
            for channel, (largest, signal, noise) in enumerate(sums)
        ]
        return tuple(sorted(found, key=lambda channel: channel.snr_db))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return NO_NOISE_DB
    return min(NO_NOISE_DB, float(10 * np.log10(max(signal, 1e-30) / noise)))


def measure_outputs(
    floating: onnx.ModelProto,
    quantized: onnx.ModelProto,
    samples: Sequence[Feed],
    told: Callable[[float], None] | None = None,
) -> tuple[OutputAccuracy, ...]:
    """Runs both models on every sample; samples have a leading axis of 1.

    told: hears the fraction that is done.
    """
    names = [value.name for value in floating.graph.output]
    sessions = open_session(floating), open_session(quantized)
    tallies = {name: _Tally() for name in names}
    by_channel = {name: _ChannelTally() for name in names}
    ranked = dict.fromkeys(names, False)
    for position, sample in enumerate(samples):
        results = [run(session, names, sample) for session in sessions]
        for name, expected, found in zip(names, *results, strict=True):
            tallies[name].add(expected, found)
            ranked[name] = expected.size > 1 and max(expected.shape) == expected.size
            if expected.ndim > 2 and not ranked[name]:
                by_channel[name].add(expected, found)
        if told is not None:
            told((position + 1) / len(samples))
    return tuple(
        OutputAccuracy(
            name=name,
            top1_agreement=float(np.mean(tally.same)) if ranked[name] else None,
            cosine=float(np.mean(tally.cosines)),
            least_cosine=float(np.min(tally.cosines)),
            snr_db=tally.snr_db,
            by_margin=tally.by_margin() if ranked[name] else (),
            channels=by_channel[name].channels() if np.ndim(by_channel[name].signal) else (),
        )
        for name, tally in tallies.items()
    )


def measure_layers(
    floating: onnx.ModelProto, quantized: onnx.ModelProto, samples: Sequence[Feed]
) -> tuple[LayerAccuracy, ...]:
    """Signal to noise of every quantized result, on a few of the samples; worst first."""
    known = {name for node in quantized.graph.node for name in node.output}
    nodes = {node.output[0]: node for node in floating.graph.node if f"{node.output[0]}{_DEQUANTIZED}" in known}
    if not nodes:
        return ()
    names = list(nodes)
    twins = [f"{name}{_DEQUANTIZED}" for name in names]
    sessions = open_session(floating, names), open_session(quantized, twins)
    tallies = {name: _Tally() for name in names}
    step = max(1, len(samples) // _LAYER_PICTURES)
    for sample in samples[::step][:_LAYER_PICTURES]:
        expected, found = run(sessions[0], names, sample), run(sessions[1], twins, sample)
        for name, wanted, got in zip(names, expected, found, strict=True):
            tallies[name].add(wanted, got)
    layers = [LayerAccuracy(nodes[name].name, nodes[name].op_type, tallies[name].snr_db) for name in names]
    return tuple(sorted(layers, key=lambda layer: layer.snr_db))
