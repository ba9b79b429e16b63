"""Measures a device profile: runs small networks through the whole path and derives the cost model's constants.

Each constant comes from the difference between a chain of several equal operators and one of them, so that what the
two have in common (input, output, calls) cancels out. Times are the engine's own, without Python.
"""

from __future__ import annotations

import itertools
import platform
import statistics
from collections.abc import Callable

import numpy as np

from tinytee.ir.graph import Activation, Binary, Conv, DepthwiseConv, Graph, Op, Port, Shape, Unary
from tinytee.plan.profile import Profile, load

Runner = Callable[[Graph, str, int], tuple[float, float, int]]
"""Runs a graph in a budget (bytes) under a suite: (seconds of a run, seconds in the AEAD, bytes of chunks opened)."""

ROOM = 64 << 20
SHORT, LONG = 1, 5


def _chain(shape: Shape, count: int, make: Callable[[str, str], Op]) -> Graph:
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


class Bench:
    """Derives one constant after another from runs of small networks."""

    def __init__(self, run: Runner, suite: str) -> None:
        self.run, self.suite = run, suite

    def seconds(self, graph: Graph) -> float:
        return statistics.median(self.run(graph, self.suite, ROOM)[0] for _ in range(3))

    def each(self, shape: Shape, make: Callable[[str, str], Op]) -> float:
        """Time of one operator out of a chain of equal ones."""
        longer, shorter = (self.seconds(_chain(shape, count, make)) for count in (LONG, SHORT))
        return max(0.0, longer - shorter) / (LONG - SHORT)

    def opening(self, suite: str) -> float:
        """Bytes opened a second under a suite: streams the weights of two large layers."""
        graph = _chain(Shape(1, 1, 1536), 2, _conv(1, 1536))
        runs = [self.run(graph, suite, 1 << 20) for _ in range(5)]
        return runs[0][2] / statistics.median(seconds for _, seconds, _ in runs)


def measure(run: Runner, suites: list[str], progress: Callable[[str, float], None] | None = None) -> Profile:
    """Measures this machine.

    Args:
        run: runs a graph (see ``Runner``); the planner's room does not know the runtime.
        suites: AEAD suites that are available here.
        progress: told what is being measured, and the fraction done.
    """
    base = load()
    bench = Bench(run, suites[0])

    def tell(what: str, fraction: float) -> None:
        if progress:
            progress(what, fraction)

    tell("convolution", 0.0)
    deep = Shape(28, 28, 512)  # one column: nothing for Winograd
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
    tell("instructions and chunks", 0.65)
    step = bench.each(Shape(1, 1, 1), _unary("abs"))
    chunk = bench.seconds(_chain(Shape(1, 1, 1), 1, _unary("abs"))) / 2  # one in, one out
    opened = {}
    for number, suite in enumerate(suites):
        tell(suite, 0.7 + 0.3 * number / len(suites))
        opened[suite] = bench.opening(suite)
    return Profile(
        name=platform.node() or "this-machine",
        source=f"measured on {platform.machine()} {platform.processor()}".strip(),
        suite=max(opened, key=lambda name: opened[name]),
        lanes=base.lanes,
        tile_pixels=base.tile_pixels,
        panels=base.panels,
        fma_seconds=fma,
        tile_seconds=max(tile, 0.0),
        depthwise_seconds=depthwise,
        element_seconds=element,
        function_seconds=max(function, element),
        step_seconds=step,
        chunk_seconds=chunk,
        aead_bytes_per_second=opened,
        dot_tile_pixels=base.dot_tile_pixels,
        dot_seconds=base.dot_seconds,
        dot_tile_seconds=base.dot_tile_seconds,
        dot_depthwise_seconds=base.dot_depthwise_seconds,
        byte_seconds=base.byte_seconds,
    )
