"""Segments: line buffers, and operators that cannot stop halfway."""

from __future__ import annotations

import numpy as np

from tinytee.ir.graph import Conv, Graph, Permute, Port, Shape
from tinytee.plan import profile
from tinytee.plan.network import build
from tinytee.plan.segments import Growth


def conv(source: str, target: str, kernel: int, stride: int, channels: int) -> Conv:
    weight, pad = np.zeros((channels, kernel, kernel, channels), np.float32), kernel // 2
    bias = np.zeros(channels, np.float32)
    strides, pads = (stride, stride), (pad, pad, pad, pad)
    return Conv(name=target, inputs=(source,), output=target, weight=weight, bias=bias, strides=strides, pads=pads)


def graph(ops: list[Conv | Permute], shapes: dict[str, Shape]) -> Graph:
    def port(name: str, tensor: str) -> Port:
        shape = shapes[tensor]
        return Port(name, tensor, (shape.height, shape.width, shape.channels), "float32", (0, 1, 2), False)

    return Graph((port("x", "x"),), (port("y", ops[-1].output),), shapes, tuple(ops))


def grown(network_of: Graph, last: int, steps: int, nodes: int) -> Growth:
    growth = Growth(build(network_of, profile.load(), "aes-256-gcm"), last, steps)
    for _ in range(nodes):
        growth.add()
    return growth


def test_a_3x3_convolution_needs_three_slots_of_its_input() -> None:
    shapes = {name: Shape(8, 8, 2) for name in "xab"}
    growth = grown(graph([conv("x", "a", 3, 1, 2), conv("a", "b", 3, 1, 2)], shapes), last=2, steps=8, nodes=2)
    names = [info.name for info in growth.network.tensors]
    assert growth.slots[names.index("a")] == 3
    assert list(growth.frontiers[1]) == [0, 2, 3, 4, 5, 6, 7, 8, 8]


def test_a_permutation_is_done_whole_even_where_little_of_it_is_read() -> None:
    shapes = {"x": Shape(4, 2, 2), "a": Shape(4, 2, 2), "b": Shape(2, 1, 2)}
    permute = Permute(name="a", inputs=("x",), output="a", dims=(4, 2, 2), strides=(4, 1, 2))
    growth = grown(graph([permute, conv("a", "b", 1, 2, 2)], shapes), last=2, steps=2, nodes=2)
    assert list(growth.frontiers[1]) == [0, 4, 4]
