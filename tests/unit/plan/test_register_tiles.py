"""Convolutions of every width: a row is divided into register tiles in a way of its own."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from tinytee.api import compile_graph
from tinytee.ir.graph import Conv, DepthwiseConv, Graph, Op, Port, Shape
from tinytee.ir.reference import evaluate
from tinytee.runtime.session import Session

KEY = bytes(range(32))
ISAS = ("portable", "avx2", None) if platform.machine() == "x86_64" else ("portable", None)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [24, 32, 72])
def test_tiles_cover_a_row_of_any_width(isa: str | None, channels: int) -> None:
    rng = np.random.default_rng(channels)
    for width in range(1, 30):
        weight, bias = values(rng, channels, 2, 1, 5), values(rng, channels)
        op = Conv(name="y", inputs=("x",), output="y", weight=weight, bias=bias, pads=(0, 0, 0, 0))
        agrees(rng, op, Shape(3, width, 5), Shape(2, width, channels), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [1, 3, 5, 6])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_depthwise_rows_of_any_width(isa: str | None, kernel: int, stride: int, dilation: int) -> None:
    rng = np.random.default_rng(kernel)
    for width in (1, 6, 7, 8, 15, 29):
        channels = int(rng.integers(1, 40))
        op = DepthwiseConv(
            name="y", inputs=("x",), output="y", weight=values(rng, kernel, kernel, channels),
            bias=values(rng, channels), strides=(1, stride), dilations=(1, dilation),
            pads=(kernel // 2, kernel // 2, (kernel - 1) // 2, (kernel - 1) // 2),
        )  # fmt: skip
        read = (width - 1) * stride + (kernel - 1) * (dilation - 1) + 1
        agrees(rng, op, Shape(4, read, channels), Shape(4, width, channels), isa)


def values(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def agrees(rng: np.random.Generator, op: Op, x: Shape, y: Shape, isa: str | None) -> None:
    """One operator's answer is the reference's."""
    graph = Graph(
        inputs=(Port("x", "x", (x.height, x.width, x.channels), "float32", (0, 1, 2), False),),
        outputs=(Port("y", "y", (y.height, y.width, y.channels), "float32", (0, 1, 2), False),),
        shapes={"x": x, "y": y},
        ops=(op,),
    )
    inputs = {"x": values(rng, x.height, x.width, x.channels)}
    with Session(compile_graph(graph, 1 << 20, KEY), key=KEY, isa=isa) as session:
        found = session.run(inputs)["y"]
    np.testing.assert_allclose(found, evaluate(graph, inputs)["y"], rtol=1e-5, atol=1e-5, err_msg=f"{x} to {y}")
