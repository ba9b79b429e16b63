"""NEON instructions a multiply-accumulate: how well the kernels use a Cortex-A53, which has no dot products.

    python bench/neon.py [--json FILE]

Counted in QEMU's normal world with a clock that counts instructions, as the difference between a chain of five equal
operators and one of them (tinytee.plan.measure): everything that an operator needs is in it, addresses and line buffers
too. The bound is what its arithmetic and its loads take at least: a multiply-accumulate of four lanes (fmla) does four
of them. Where the planner chooses Winograd's method, multiply-accumulates are those of the direct convolution.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

import tinytee
from harness import RESULTS, write_json
from kernels import Case, cases
from tinytee.ir.graph import Graph
from tinytee.plan import profile
from tinytee.plan.api import Plan, make_plan
from tinytee.plan.measure import Bench
from tinytee.plan.weights import BY_WINOGRAD
from tinytee.runtime.optee_machine import Build, Machine
from trustzone import LARGEST, UNLIMITED, build_runner, run_outside

TILE_PIXELS, TILE_VECTORS = 8, 2
"""Register tile of core/kernels/f32.c on NEON."""

INTEGER_TILE_PIXELS, CHANNELS = 4, 16
"""Register tile of core/kernels/i8_neon.h, NEON without dot products."""

MOST_OPERATIONS = 3.2e8
"""Of a case: larger ones of the same kernel would say nothing else, and take minutes each."""


def convolution_bound() -> float:
    """Four rows of weights: an fmla a pixel, vector and row; a load of four inputs a pixel, and two loads a row."""
    fmlas = 4 * TILE_PIXELS * TILE_VECTORS
    loads = TILE_PIXELS + 4 * TILE_VECTORS
    return (fmlas + loads) / (4 * fmlas)


def depthwise_bound(kernel: int) -> float:
    """A window that slides: every input is loaded once a row, weights stay in registers, one store."""
    fmlas = kernel * kernel
    return (fmlas + kernel + 1) / (4 * fmlas)


def integer_convolution_bound() -> float:
    """Eight k of a pixel: one load that spreads them; of 16 channels' weights: four loads; eight
    multiply-accumulates an smull or smlal, and a widening addition (sadalp) for every four of those."""
    multiplies = 8 * INTEGER_TILE_PIXELS * CHANNELS
    return (multiplies / 8 * 5 / 4 + INTEGER_TILE_PIXELS + 4) / multiplies


def integer_depthwise_bound(kernel: int) -> float:
    """Of eight channels: two smlal a weight; every input is loaded and widened once a row, and a store."""
    multiplies = 8 * kernel * kernel
    return (2 * kernel * kernel + 2 * kernel + 1) / multiplies


def bound_of(case: Case) -> float:
    """Least instructions a multiply-accumulate of a direct convolution."""
    depthwise = "depthwise" in case.name
    kernel = int(case.name.removeprefix("int8 ").split()[1])
    if case.quantized:
        return integer_depthwise_bound(kernel) if depthwise else integer_convolution_bound()
    return depthwise_bound(kernel) if depthwise else convolution_bound()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "neon.json")
    chosen = parser.parse_args()
    runner, device = build_runner(), profile.load("raspberry-pi-3")
    rows: list[dict[str, Any]] = []
    with Machine(Build(LARGEST), count_instructions=True) as machine:
        planned: list[Plan] = []
        counted: dict[int, float] = {}

        def run(graph: Graph, suite: str, budget_bytes: int) -> tuple[float, float, int]:
            del budget_bytes
            if planned and planned[-1].network.graph is graph:
                return counted[id(graph)], 0.0, 0  # a count is the same at every run
            plan = make_plan(graph, UNLIMITED, device, suite=suite)
            planned.append(plan)
            inputs = [np.ones(math.prod(port.shape), np.float32) for port in graph.inputs]
            counted[id(graph)] = 1e-9 * run_outside(machine, runner, plan, graph, inputs)[0]
            return counted[id(graph)], 0.0, 0

        bench = Bench(run, "chacha20-poly1305")
        for case in cases():
            if not 0 < case.operations <= MOST_OPERATIONS:
                continue
            try:
                seconds = (bench.each_quantized if case.quantized else bench.each)(case.shape, case.make)
            except tinytee.EngineError as error:
                print(f"{case.name}: {error}")
                continue
            winograd = any(node.method in BY_WINOGRAD for node in planned[-1].network.nodes)
            row = {"kernel": case.name, "shape": [case.shape.height, case.shape.width, case.shape.channels]}
            figure = 1e9 * seconds / (case.operations / 2)
            rows.append(row | {"winograd": winograd, "instructions": figure, "bound": bound_of(case)})
            size = f"{case.shape}"
            print(
                f"{case.name} | {size} | {figure:.3f} | {bound_of(case):.3f} | {'Winograd' if winograd else ''}",
                flush=True,
            )
            write_json(chosen.json, rows)


if __name__ == "__main__":
    main()
