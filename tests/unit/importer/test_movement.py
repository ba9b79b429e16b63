"""Reshaping, slicing, padding and broadcasting through all sorts of layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee.ir.graph import Concat, Shape
from unit.importer.detector import detector
from unit.importer.support import compare, kinds, model, node, random

SOME = settings(max_examples=60, deadline=None)
IMAGE = {"x": (1, 6, 4, 5)}


@SOME
@given(st.data())
def test_chains_of_views(data: st.DataObject) -> None:
    """Transpositions and reshapes in any order, then an operator that wants its axis last."""
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=2, max_size=4))
    nodes, constants, current, name = [], {}, list(shape), "x"
    for step in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            perm = data.draw(st.permutations(range(len(current))))
            nodes.append(node("Transpose", name, f"v{step}", perm=list(perm)))
            current = [current[axis] for axis in perm]
        else:
            current = data.draw(reshapes(int(np.prod(current))))
            constants[f"s{step}"] = np.array(current)
            nodes.append(node("Reshape", f"{name} s{step}", f"v{step}"))
        name = f"v{step}"
        if data.draw(st.booleans()):
            nodes.append(node("Add", f"{name} {name}", f"a{step}"))
            name = f"a{step}"
    axis = data.draw(st.integers(0, len(current) - 1))
    nodes.append(node("Softmax", name, "y", axis=axis))
    compare(model(nodes, {"x": shape}, constants))


@st.composite
def reshapes(draw, total: int) -> list[int]:
    """A shape of so many elements."""
    found = []
    while total > 1 and len(found) < 3:
        factor = draw(st.sampled_from([d for d in range(1, total + 1) if total % d == 0]))
        found.append(factor)
        total //= factor
    return [*found, total]


@SOME
@given(st.data())
def test_elementwise_broadcasting(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    other = [extent if data.draw(st.booleans()) else 1 for extent in shape]
    other = other[data.draw(st.integers(0, len(other) - 1)) :]
    shape = [extent if data.draw(st.integers(0, 3)) else 1 for extent in shape]
    op_type = data.draw(st.sampled_from(["Add", "Sub", "Mul", "Max"]))
    order = data.draw(st.permutations(range(len(shape))))
    nodes = [node("Transpose", "x", "t", perm=np.argsort(order).tolist())]
    inputs = {"x": [shape[axis] for axis in order]}
    constants = {}
    if data.draw(st.booleans()):
        inputs["z"] = other
    else:
        constants["z"] = random(other, 5)
    nodes.append(node(op_type, data.draw(st.sampled_from(["t z", "z t"]))))
    compare(model(nodes, inputs, constants))


@SOME
@given(st.data())
def test_slice(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(2, 6), min_size=2, max_size=4))
    axis = data.draw(st.integers(0, len(shape) - 1))
    extent, step = shape[axis], data.draw(st.sampled_from([1, 2, 3, -1, -2]))
    start, end = (
        data.draw(st.integers(0, extent - 1)),
        data.draw(st.sampled_from([1000, -1000, extent, extent - 1, -1])),
    )
    if len(range(extent)[slice(start, None if step < 0 and end < -extent else end, step)]) == 0:
        start, end = (0, 1000) if step > 0 else (extent - 1, -1000)
    constants = {"s": [start], "e": [end], "a": [axis], "t": [step]}
    compare(model([node("Slice", "x s e a t")], {"x": shape}, {k: np.array(v) for k, v in constants.items()}))


@SOME
@given(st.data(), st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_pad(data: st.DataObject, mode: str) -> None:
    shape = data.draw(st.lists(st.integers(2, 4), min_size=2, max_size=4))
    pads = data.draw(st.lists(st.integers(0, 1), min_size=2 * len(shape), max_size=2 * len(shape)))
    constants = {"p": np.array(pads), "v": np.float32(1.5)}
    compare(model([node("Pad", "x p v", mode=mode)], {"x": shape}, constants))


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_concat_and_split(axis: int) -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("Split", "a", "p q", axis=axis, num_outputs=2),
        node("Relu", "q", "r"),
        node("Concat", "r p x", "y", axis=axis),
    ]
    compare(model(nodes, {"x": (1, 4, 4, 4)}, {"w": random((4, 4, 1, 1))}))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_of_mixed_layouts(axis: int) -> None:
    nodes = [node("Transpose", "x", "a", perm=[2, 1, 0]), node("Concat", "a z a", "y", axis=axis)]
    compare(model(nodes, {"x": (3, 3, 3), "z": (3, 3, 3)}))


def test_a_detector_s_head_goes_row_by_row() -> None:
    """Every place of every map becomes a y-plane: nothing waits for a whole map."""
    graph = compare(detector(), feeds={"image": random((1, 3, 16, 16))})
    assert not {"Permute", "Reduce"} & set(kinds(graph))
    lists = [op for op in graph.ops if isinstance(op, Concat) and op.axis == "y" and len(op.inputs) == 2]
    assert [graph.shapes[op.output] for op in lists] == [Shape(80, 4, 8), Shape(80, 1, 2)]


@pytest.mark.parametrize("sides", [((4, 5), (2, 3)), ((4, 5), (1, 1)), ((4, 1), (1, 5), (2, 2))])
def test_anchors_that_channels_hold_go_row_by_row(sides: tuple[tuple[int, int], ...]) -> None:
    """YOLOv5's heads: [1, 3, y, x, 7] of every scale, as one list."""
    nodes, constants, inputs = [], {}, {}
    for scale, (height, width) in enumerate(sides):
        inputs[f"x{scale}"] = (1, 4, height, width)
        constants[f"w{scale}"] = random((21, 4, 1, 1), scale)
        constants[f"a{scale}"] = np.array([1, 3, 7, height, width])
        constants[f"l{scale}"] = np.array([1, 3 * height * width, 7])
        nodes += [
            node("Conv", f"x{scale} w{scale}", f"c{scale}"),
            node("Reshape", f"c{scale} a{scale}", f"r{scale}"),
            node("Transpose", f"r{scale}", f"t{scale}", perm=[0, 1, 3, 4, 2]),
            node("Sigmoid", f"t{scale}", f"s{scale}"),
            node("Reshape", f"s{scale} l{scale}", f"f{scale}"),
        ]
    nodes.append(node("Concat", " ".join(f"f{scale}" for scale in range(len(sides))), "y", axis=1))
    graph = compare(model(nodes, inputs, constants))
    assert "Permute" not in kinds(graph)


def test_more_places_than_instructions_count_are_no_y_planes() -> None:
    nodes = [node("Conv", "x w", "c"), node("Reshape", "c flat", "a"), node("Concat", "a a", "y", axis=2)]
    constants = {"w": random((2, 1, 1, 1)), "flat": np.array([1, 2, -1])}
    graph = compare(model(nodes, {"x": (1, 1, 200, 170)}, constants))
    assert max(shape.height for shape in graph.shapes.values()) == 200


@pytest.mark.parametrize("axis", [1, 2])
def test_lists_of_maps_in_other_orders(axis: int) -> None:
    """One map as the model's layout has it, one turned, one that is a list already."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Reshape", "c flat", "a"),
        node("Transpose", "z", "t", perm=[0, 2, 1]),
        node("Concat", "a t l", "b", axis=2) if axis == 2 else node("Concat", "a a", "b", axis=1),
        node("Softmax", "b", "y", axis=1),
    ]
    constants = {"w": random((6, 6, 1, 1)), "flat": np.array([1, 6, 20])}
    inputs = {"x": (1, 6, 4, 5), "z": (1, 7, 6), "l": (1, 6, 3)} if axis == 2 else {"x": (1, 6, 4, 5)}
    compare(model(nodes if axis == 2 else [n for n in nodes if n.op_type != "Transpose"], inputs, constants))


def test_channel_shuffle_is_a_gather() -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Reshape", "c s", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "b t", "d"),
        node("Conv", "d w", "y"),
    ]
    constants = {"s": np.array([1, 2, 3, 4, 5]), "t": np.array([1, 6, 4, 5]), "w": random((6, 6, 1, 1))}
    graph = compare(model(nodes, IMAGE, constants))
    assert kinds(graph) == ["Conv", "Gather", "Conv"]


def test_transposed_input_costs_nothing() -> None:
    nodes = [
        node("Transpose", "x", "a", perm=[0, 3, 1, 2]),
        node("Conv", "a w", "b"),
        node("Transpose", "b", perm=[0, 2, 3, 1]),
    ]
    graph = compare(model(nodes, {"x": (1, 5, 4, 3)}, {"w": random((2, 3, 3, 3))}))
    assert kinds(graph) == ["Conv"]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    nodes = [node("DepthToSpace", "x", "a", blocksize=2, mode=mode), node("SpaceToDepth", "a", blocksize=2)]
    compare(model(nodes, {"x": (2, 12, 3, 2)}))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Expand", "x s")], {"s": np.array([3, 1, 6, 4, 5])}),
        ([node("Tile", "x s")], {"s": np.array([1, 2, 1, 3])}),
        ([node("Gather", "x s", axis=1)], {"s": np.array([[0, 2], [-1, 3]])}),
        ([node("Gather", "x s", axis=2)], {"s": np.array(1)}),
        ([node("Unsqueeze", "x s")], {"s": np.array([2, -1])}),
        ([node("Squeeze", "x")], {}),
        ([node("Flatten", "x", axis=2)], {}),
        ([node("Flatten", "x", axis=0)], {}),
        ([node("Reshape", "x s")], {"s": np.array([0, -1, 10])}),
        ([node("Cast", "x", "a", to=7), node("Cast", "a", to=1)], {}),
    ],
)
def test_single_movements(nodes: list, constants: dict) -> None:
    compare(model(nodes, IMAGE, constants))


def test_types_of_outputs() -> None:
    nodes = [node("Cast", "x", "i", to=7), node("ArgMax", "x", "a", axis=1), node("Cast", "x", "b", to=9)]
    compare(model(nodes, IMAGE, outputs=("i", "a", "b"), dtypes={"i": 7, "a": 7, "b": 9}))
