"""What each kernel reaches inside the engine, beside what one core of this machine can do at most.

python bench/kernels.py [--json FILE] [--smoke]

A kernel's time is the difference between a chain of equal operators and one of them (tinytee.plan.measure), so
input, output and calls cancel out; weights stay decrypted. Operations are those of a direct convolution, also where the
engine needs fewer (Winograd). The engine chooses line buffers and steps as it always does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from compiled import build_library, load_library
from decoders import decoder_rows, ratio_table, ratios
from harness import write_json
from tinytee.api import measuring_runner
from tinytee.bundle import suites
from tinytee.ir.graph import (
    Activation,
    Binary,
    Conv,
    DepthwiseConv,
    Gather,
    LayerNorm,
    Lrn,
    Op,
    Pool,
    Shape,
    Softmax,
    Unary,
)
from tinytee.ir.quantized import QBinary, QLut, QPool
from tinytee.plan.measure import Bench, Runner, quantized_add, quantized_conv, quantized_depthwise
from tinytee.plan.profile import for_isa
from tinytee.runtime import library
from tinytee.sizes import MAX_BYTES

Make = Callable[[str, str], Op]
CACHE_BYTES = 128 << 10
"""What is copied to find the cache's bandwidth: it stays in a second-level cache, as line buffers do."""
MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class Peaks:
    """One core's, measured: operations and bytes a second."""

    flops: float
    dots: float
    memory_read: float
    cache_copy: float


@dataclass(frozen=True)
class Case:
    """A kernel at one shape. ``operations`` (two a multiply-accumulate) or ``bytes`` are what it is judged by.

    Attributes:
        peak: field of Peaks that it is held against.
        bytes: read and written, weights included where they are most of it.
        quantized: whether it works on uint8.
    """

    name: str
    shape: Shape
    make: Make
    peak: str
    operations: float = 0.0
    bytes: float = 0.0
    quantized: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smoke", action="store_true", help="three kernels")
    options = parser.parse_args()

    isa = library.best_isa()
    peaks, bench = measure_peaks(), Bench(_pinning(measuring_runner(for_isa(isa))), "aes-256-gcm")
    rows: list[dict[str, Any]] = []
    for case in cases()[:: 8 if options.smoke else 1]:
        seconds = (bench.each_quantized if case.quantized else bench.each)(case.shape, case.make)
        work, limit = case.operations or case.bytes, getattr(peaks, case.peak)
        rate = work / seconds if seconds else 0.0
        row = {"kernel": case.name, "shape": list(asdict(case.shape).values()), "seconds": seconds, "rate": rate}
        rows.append(row | {"unit": _unit(case), "peak": case.peak, "share": rate / limit})
    for suite in suites.NUMBERS:
        if suites.is_available(suite):
            rate = bench.opening(suite)
            row = {"kernel": f"opening, {suite}", "shape": [], "seconds": 0.0, "rate": rate, "unit": "GB/s"}
            rows.append(row | {"peak": "memory_read", "share": rate / peaks.memory_read})
    rows += decoder_rows(isa, peaks.cache_copy)
    for row in rows:
        row["peaks"] = asdict(peaks)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_table(rows, peaks))
    if not options.smoke:
        rows[-1]["entropy_ratios"] = list(ratios())
        console.print(ratio_table(rows[-1]["entropy_ratios"]))
    if options.json:
        write_json(options.json, rows)
    return 0


def measure_peaks() -> Peaks:
    """Of one core, with a C program compiled for it.

    Raises:
        NativeError: there is no C compiler.
    """
    here = Path(__file__).resolve().parent
    built = build_library("libpeak.so", [here / "peak.c"], [here / "peak.h"], ["-O3", "-march=native"])
    peak = load_library(built, here / "peak.h")[1]
    return Peaks(
        peak.peak_flops(), peak.peak_dots(), peak.peak_read(MEMORY_BYTES, 1), peak.peak_copy(CACHE_BYTES, 2000)
    )


def _pinning(run: Runner) -> Runner:
    """The same with all weights pinned, unless so little memory is offered that they cannot be."""
    return lambda graph, suite, budget: run(graph, suite, budget if budget < 2 << 20 else MAX_BYTES // 4)


def cases() -> list[Case]:
    """Every kernel that keeps a feature map's shape, at shapes that networks have."""
    found = [
        _conv(kernel, height, channels)
        for kernel, height, channels in (
            (3, 224, 32), (3, 112, 64), (3, 56, 64), (3, 56, 128), (3, 28, 256), (3, 14, 512), (3, 7, 512),
            (1, 56, 64), (1, 28, 256), (1, 14, 512), (1, 7, 1024), (5, 28, 64), (7, 56, 32),
        )
    ]  # fmt: skip
    found.append(_conv(3, 28, 256, groups=8))
    found += [_depthwise(*shape) for shape in ((3, 112, 32), (3, 56, 144), (3, 14, 576), (5, 28, 240), (5, 14, 672))]
    found.append(_connected(2048))
    found += [_pool(kind, 112, 64) for kind in ("max", "average")]
    found += [_unary(kind, 112, 128) for kind in ("relu", "hard_swish", "sigmoid", "tanh", "gelu")]
    found += [_add(112, 128), _shuffle(28, 240), _softmax(256, 1024), _layer_norm(256, 768), _lrn(27, 96)]
    return found + _quantized_cases()


def _quantized_cases() -> list[Case]:
    """Kernels on uint8, at such shapes."""
    found = []
    for kernel, height, channels in (
        (3, 56, 64), (3, 28, 128), (3, 14, 256), (3, 7, 512), (1, 56, 64), (1, 28, 256), (1, 14, 512), (1, 7, 1024),
    ):  # fmt: skip
        operations = 2 * height * height * channels * channels * kernel * kernel
        shape, make = Shape(height, height, channels), quantized_conv(kernel, channels)
        found.append(Case(f"int8 conv {kernel} x {kernel}", shape, make, "dots", operations, quantized=True))
    for kernel, height, channels in ((3, 112, 32), (3, 56, 144), (3, 14, 576), (5, 28, 240), (5, 14, 672)):
        operations = 2 * height * height * channels * kernel * kernel
        shape, make = Shape(height, height, channels), quantized_depthwise(kernel, channels)
        found.append(Case(f"int8 depthwise {kernel} x {kernel}", shape, make, "dots", operations, quantized=True))
    features = 2048
    make = quantized_conv(1, features)
    found.append(
        Case("int8 fully connected", Shape(1, 1, features), make, "memory_read", bytes=features**2, quantized=True)
    )
    table = np.arange(256, dtype=np.uint8)
    elementwise = {
        "add a constant": quantized_add,
        "add": lambda source, target: QBinary(name=target, inputs=(source, source), output=target, kind="add"),
        "lookup": _op(QLut, table=table),
        "max pooling 3 x 3": _op(QPool, kind="max", kernel=(3, 3), pads=(1, 1, 1, 1)),
        "average pooling 3 x 3": _op(QPool, kind="average", kernel=(3, 3), pads=(1, 1, 1, 1)),
    }
    shape = Shape(112, 112, 64)
    for name, make in elementwise.items():
        found.append(Case(f"int8 {name}", shape, make, "cache_copy", bytes=2 * shape.elems, quantized=True))
    return found


def _unit(case: Case) -> str:
    return "GB/s" if not case.operations else "GOP/s" if case.quantized else "GFLOP/s"


def _zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.float32)


def _map_bytes(shape: Shape) -> int:
    return 2 * 4 * shape.height * shape.width * shape.channels


def _op(operator: type[Op], /, **attributes: Any) -> Make:
    return lambda source, target: operator(name=target, inputs=(source,), output=target, **attributes)


def _conv(kernel: int, height: int, channels: int, groups: int = 1) -> Case:
    depth, pad = channels // groups, kernel // 2
    weight = np.full((channels, kernel, kernel, depth), 1e-3, np.float32)
    make = _op(Conv, weight=weight, bias=_zeros(channels), pads=(pad,) * 4, groups=groups)
    name = f"conv {kernel} x {kernel}" + (f", {groups} groups" if groups > 1 else "")
    operations = 2 * height * height * channels * kernel * kernel * depth
    return Case(name, Shape(height, height, channels), make, "flops", operations=operations)


def _depthwise(kernel: int, height: int, channels: int) -> Case:
    pad, weight = kernel // 2, np.full((kernel, kernel, channels), 0.1, np.float32)
    make = _op(DepthwiseConv, weight=weight, bias=_zeros(channels), pads=(pad,) * 4)
    operations = 2 * height * height * channels * kernel * kernel
    shape = Shape(height, height, channels)
    return Case(f"depthwise {kernel} x {kernel}", shape, make, "flops", operations=operations)


def _connected(features: int) -> Case:
    weight = np.full((features, 1, 1, features), 1e-4, np.float32)
    make = _op(Conv, weight=weight, bias=_zeros(features))
    shape = Shape(1, 1, features)
    return Case("fully connected", shape, make, "memory_read", bytes=4 * features * features)


def _streaming(name: str, shape: Shape, make: Make) -> Case:
    return Case(name, shape, make, "cache_copy", bytes=_map_bytes(shape))


def _pool(kind: str, height: int, channels: int) -> Case:
    make = _op(Pool, kind=kind, kernel=(3, 3), pads=(1, 1, 1, 1))
    return _streaming(f"{kind} pooling 3 x 3", Shape(height, height, channels), make)


def _unary(kind: Any, height: int, channels: int) -> Case:
    return _streaming(kind, Shape(height, height, channels), _op(Unary, activation=Activation(kind)))


def _add(height: int, channels: int) -> Case:
    make = _op(Binary, kind="add", constant=np.ones((1, 1, channels), np.float32))
    return _streaming("add a row", Shape(height, height, channels), make)


def _shuffle(height: int, channels: int) -> Case:
    order = np.arange(channels, dtype=np.int32).reshape(3, -1).T.ravel().copy()
    return _streaming("channel shuffle", Shape(height, height, channels), _op(Gather, chans=order))


def _softmax(width: int, channels: int) -> Case:
    return _streaming("softmax", Shape(1, width, channels), _op(Softmax))


def _layer_norm(width: int, channels: int) -> Case:
    make = _op(LayerNorm, scale=np.ones(channels, np.float32), bias=_zeros(channels), epsilon=1e-5)
    return _streaming("layer normalization", Shape(1, width, channels), make)


def _lrn(height: int, channels: int) -> Case:
    make = _op(Lrn, size=5, alpha=1e-4, beta=0.75, bias=1.0)
    return _streaming("local response normalization", Shape(height, height, channels), make)


def _table(rows: list[dict[str, Any]], peaks: Peaks) -> Table:
    table = Table(title=describe_peaks(asdict(peaks)), title_justify="left")
    for title in ("kernel", "y x c"):
        table.add_column(title)
    for title in ("us", "rate", "of peak"):
        table.add_column(title, justify="right")
    for row in rows:
        microseconds = f"{1e6 * row['seconds']:,.0f}" if row["seconds"] else ""
        rate, share = f"{row['rate'] / 1e9:,.1f} {row['unit']}", f"{row['share']:.0%} of {row['peak']}"
        table.add_row(row["kernel"], " x ".join(map(str, row["shape"])), microseconds, rate, share)
    return table


def describe_peaks(peaks: dict[str, float]) -> str:
    """The machine's limits in a line."""
    return (
        f"one core's peaks: {peaks['flops'] / 1e9:,.0f} GFLOP/s and {peaks['dots'] / 1e9:,.0f} int8 GOP/s in registers,"
        f" {peaks['memory_read'] / 1e9:.1f} GB/s"
        f" reading memory, {peaks['cache_copy'] / 1e9:.0f} GB/s copying within the cache"
    )


if __name__ == "__main__":
    sys.exit(main())
