"""Convolutions of every width: each is divided into register tiles in a way of its own."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from tinytee.api import compile_graph
from tinytee.ir.graph import Conv, Graph, Port, Shape
from tinytee.ir.reference import evaluate
from tinytee.runtime.session import Session

KEY = bytes(range(32))
ISAS = ("portable", "avx2", None) if platform.machine() == "x86_64" else ("portable", None)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [24, 32, 72])
def test_tiles_cover_a_row_of_any_width(isa: str | None, channels: int) -> None:
    rng = np.random.default_rng(channels)
    for width in range(1, 30):
        graph = convolution(rng, width, channels)
        inputs = {"x": rng.standard_normal((3, width, 5)).astype(np.float32)}
        with Session(compile_graph(graph, 1 << 20, KEY), key=KEY, isa=isa) as session:
            found = session.run(inputs)["y"]
        np.testing.assert_allclose(found, evaluate(graph, inputs)["y"], rtol=1e-5, atol=1e-5, err_msg=f"width {width}")


def convolution(rng: np.random.Generator, width: int, channels: int) -> Graph:
    weight = rng.standard_normal((channels, 2, 1, 5)).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    op = Conv(name="y", inputs=("x",), output="y", weight=weight, bias=bias, pads=(0, 0, 0, 0))
    return Graph(
        inputs=(Port("x", "x", (3, width, 5), "float32", (0, 1, 2), False),),
        outputs=(Port("y", "y", (2, width, channels), "float32", (0, 1, 2), False),),
        shapes={"x": Shape(3, width, 5), "y": Shape(2, width, channels)},
        ops=(op,),
    )
