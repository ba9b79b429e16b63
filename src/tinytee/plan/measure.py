"""Measures a device profile: runs small networks through the whole path and derives the cost model's constants.

Each constant comes from the difference between a chain of several equal operators and one of them, so that what the
two have in common (input, output, calls) cancels out. Times are the engine's own, without Python.
"""

from __future__ import annotations

import itertools
import platform
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinytee.ir.coding import encode
from tinytee.ir.graph import Activation, Binary, Conv, DepthwiseConv, Graph, Op, Port, Quant, Shape, Unary
from tinytee.ir.quantized import Dequantize, QBinary, QConv, QDepthwiseConv, Quantize
from tinytee.plan.profile import Profile

Runner = Callable[[Graph, str, int], tuple[float, float, int]]
"""Runs a graph in a budget (bytes) under a suite: (seconds of a run, seconds in the AEAD, bytes of chunks opened).
Weights that are coded are entropy-coded."""

Make = Callable[[str, str], Op]

QUANT = Quant(1 / 16, 128)
"""Of every uint8 tensor of a chain."""

ROOM = 64 << 20
SHORT, LONG = 1, (5, 20)


def _chain(shape: Shape, count: int, make: Make) -> Graph:
    names = [f"t{i}" for i in range(count + 1)]
    ops = tuple(make(a, b) for a, b in itertools.pairwise(names))
    port = (shape.height, shape.width, shape.channels)
    return Graph(
        inputs=(Port("x", "t0", port, "float32", (0, 1, 2), False),),
        outputs=(Port("y", names[-1], port, "float32", (0, 1, 2), False),),
        shapes=dict.fromkeys(names, shape),
        ops=ops,
    )


def _conv(kernel: int, channels: int) -> Callable[[str, str], Op]:
    weight = np.full((channels, kernel, kernel, channels), 1e-3, np.float32)
    pad = kernel // 2

    def make(source: str, target: str) -> Op:
        bias = np.zeros(channels, np.float32)
        return Conv(name=target, inputs=(source,), output=target, weight=weight, bias=bias, pads=(pad, pad, pad, pad))

    return make


def _entropy_coded(channels: int) -> Make:
    """A product with weights of a normal distribution, as int4."""
    weight = np.random.default_rng(0).standard_normal((channels, 1, 1, channels)).astype(np.float32)
    coding, bias = encode(weight, "int4"), np.zeros(channels, np.float32)
    decoded = coding.decoded().reshape(weight.shape)
    return lambda source, target: Conv(
        name=target, inputs=(source,), output=target, weight=decoded, bias=bias, coding=coding
    )


def _depthwise(channels: int) -> Callable[[str, str], Op]:
    weight, bias = np.full((3, 3, channels), 0.1, np.float32), np.zeros(channels, np.float32)
    return lambda source, target: DepthwiseConv(
        name=target, inputs=(source,), output=target, weight=weight, bias=bias, pads=(1, 1, 1, 1)
    )


def _unary(kind: str) -> Callable[[str, str], Op]:
    return lambda source, target: Unary(
        name=target,
        inputs=(source,),
        output=target,
        activation=Activation(kind),  # type: ignore[arg-type]
    )


def _add(source: str, target: str) -> Op:
    return Binary(name=target, inputs=(source,), output=target, kind="add", constant=np.ones((1, 1, 1), np.float32))


def _quantized_chain(shape: Shape, count: int, make: Make) -> Graph:
    """Integer operators between a Quantize and a Dequantize."""
    inner = _chain(shape, count, make)
    last = inner.ops[-1].output
    ops = (
        Quantize(name="q", inputs=("x",), output="t0"),
        *inner.ops,
        Dequantize(name="y", inputs=(last,), output="y"),
    )
    return Graph(
        inputs=(replace(inner.inputs[0], tensor="x"),),
        outputs=(replace(inner.outputs[0], tensor="y"),),
        shapes=dict.fromkeys([*inner.shapes, "x", "y"], shape),
        ops=ops,
        quants=dict.fromkeys(inner.shapes, QUANT),
    )


def quantized_conv(kernel: int, channels: int, groups: int = 1) -> Make:
    weight = np.ones((channels, kernel, kernel, channels // groups), np.int8)
    bias, multiplier, pad = np.zeros(channels, np.int32), np.full(channels, 1e-4, np.float32), kernel // 2
    return lambda source, target: QConv(
        name=target, inputs=(source,), output=target, weight=weight, bias=bias, multiplier=multiplier,
        pads=(pad, pad, pad, pad), groups=groups,
    )  # fmt: skip


def quantized_depthwise(kernel: int, channels: int) -> Make:
    weight, pad = np.ones((kernel, kernel, channels), np.int8), kernel // 2
    bias, multiplier = np.zeros(channels, np.int32), np.full(channels, 0.1, np.float32)
    return lambda source, target: QDepthwiseConv(
        name=target, inputs=(source,), output=target, weight=weight, bias=bias, multiplier=multiplier,
        pads=(pad, pad, pad, pad),
    )  # fmt: skip


def quantized_add(source: str, target: str) -> Op:
    one = np.ones((1, 1, 1), np.uint8)
    return QBinary(name=target, inputs=(source,), output=target, kind="add", constant=one, constant_quant=QUANT)


class Bench:
    """Derives one constant after another from runs of small networks."""

    def __init__(self, run: Runner, suite: str) -> None:
        self.run, self.suite = run, suite

    def seconds(self, graph: Graph) -> float:
        return statistics.median(self.run(graph, self.suite, ROOM)[0] for _ in range(3))

    def each(self, shape: Shape, make: Make) -> float:
        """Time of one operator out of a chain of equal ones."""
        return self._each(_chain, shape, make)

    def each_quantized(self, shape: Shape, make: Make) -> float:
        """Likewise, of an operator on uint8."""
        return self._each(_quantized_chain, shape, make)

    def _each(self, chain: Callable[[Shape, int, Make], Graph], shape: Shape, make: Make) -> float:
        """As long a chain as it takes for input, output and calls not to matter."""
        shorter = self.seconds(chain(shape, SHORT, make))
        count = longer = 0.0
        for count in LONG:
            longer = self.seconds(chain(shape, count, make))
            if longer > 1.2 * shorter:
                break
        return max(0.0, longer - shorter) / (count - SHORT)

    def opening(self, suite: str) -> float:
        """Bytes opened a second under a suite: streams the weights of two large layers."""
        graph = _chain(Shape(1, 1, 1536), 2, _conv(1, 1536))
        runs = [self.run(graph, suite, 1 << 20) for _ in range(5)]
        return runs[0][2] / statistics.median(seconds for _, seconds, _ in runs)


def measure(
    run: Runner, suites: list[str], base: Profile, progress: Callable[[str, float], None] | None = None
) -> Profile:
    """Measures this machine.

    Args:
        run: runs a graph (see ``Runner``), by no method but the direct one; the planner's room does not know the
            runtime.
        suites: AEAD suites that are available here.
        base: of a machine with the same kernels: what is not measured is as there, their shapes first of all.
        progress: told what is being measured, and the fraction done.
    """
    bench = Bench(run, suites[0])

    def tell(what: str, fraction: float) -> None:
        if progress:
            progress(what, fraction)

    tell("convolution", 0.0)
    deep = Shape(28, 28, 512)
    fma = bench.each(deep, _conv(1, 512)) / (28 * 28 * (512 // base.lanes) * 512)
    tell("register tiles", 0.2)
    wide = Shape(56, 56, 32)
    tiles = 56 * -(-56 // base.tile_pixels)
    tile = bench.each(wide, _conv(1, 32)) / tiles - 32 * fma * (32 // base.lanes) * 56 / -(-56 // base.tile_pixels)
    tell("depthwise convolution", 0.4)
    depthwise = bench.each(Shape(56, 56, 64), _depthwise(64)) / (56 * 56 * (64 // base.lanes) * 11)
    tell("elementwise", 0.55)
    element = bench.each(Shape(56, 56, 64), _add) / (56 * 56 * 64)
    function = bench.each(Shape(56, 56, 64), _unary("sigmoid")) / (56 * 56 * 64)
    tell("integer operators", 0.6)
    dots = _measure_dots(bench, base)
    tell("entropy decoding", 0.63)
    features = 512
    vector = Shape(1, 1, features)
    coded, plain = (bench.each(vector, make(features)) for make in (_entropy_coded, lambda n: _conv(1, n)))
    tell("instructions and chunks", 0.65)
    step = bench.each(Shape(1, 1, 1), _unary("abs"))
    chunk = bench.seconds(_chain(Shape(1, 1, 1), 1, _unary("abs"))) / 2  # one in, one out
    opened = {}
    for number, suite in enumerate(suites):
        tell(suite, 0.7 + 0.3 * number / len(suites))
        opened[suite] = bench.opening(suite)
    return replace(
        base,
        name=platform.node() or "this-machine",
        source=f"measured on {platform.machine()} {platform.processor()}".strip(),
        suite=max(opened, key=lambda name: opened[name]),
        fma_seconds=fma,
        tile_seconds=max(tile, 0.0),
        depthwise_seconds=depthwise,
        element_seconds=element,
        function_seconds=max(function, element),
        step_seconds=step,
        chunk_seconds=chunk,
        aead_bytes_per_second=opened,
        entropy_seconds=max(base.decode_seconds, (coded - plain) / features**2),
        **dots,
    )


def _measure_dots(bench: Bench, base: Profile) -> dict[str, Any]:
    """The constants of operators on uint8."""
    pixels = base.dot_tile_pixels
    dot = bench.each_quantized(Shape(28, 28, 512), quantized_conv(1, 512)) / (28 * 28 * (512 // base.lanes) * 512 / 4)
    tiles, vectors = 56 * -(-56 // pixels), 32 // base.lanes
    wide = bench.each_quantized(Shape(56, 56, 32), quantized_conv(1, 32)) / (tiles * vectors / 2)
    depthwise = bench.each_quantized(Shape(56, 56, 64), quantized_depthwise(3, 64))
    element = bench.each_quantized(Shape(56, 56, 64), quantized_add) / (56 * 56 * 64)
    return {
        "dot_tile_pixels": pixels,
        "dot_seconds": dot,
        "dot_tile_seconds": max(0.0, wide - 32 / 4 * 2 * dot * 56 / -(-56 // pixels)),
        "dot_depthwise_seconds": depthwise / (56 * 56 * (64 // base.lanes) * (3 + 2)),
        "byte_seconds": element,
    }
