"""Functions, products, normalizations, reductions and resizing against ONNX Runtime."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tinytee.ir.graph import Gather, Unary
from unit.importer.support import compare, kinds, model, node, random

SOME = settings(max_examples=60, deadline=None)
IMAGE = {"x": (2, 6, 4, 5)}

FUNCTIONS = [
    "Relu", "Sigmoid", "Tanh", "Exp", "Abs", "Neg", "Erf", "Softplus", "Softsign", "Floor", "Ceil", "Round", "Sign",
    "HardSwish", "Mish", "LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "Selu", "HardSigmoid", "Gelu", "Identity",
]  # fmt: skip


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_functions(op_type: str) -> None:
    compare(model([node(op_type, "x")], IMAGE))


@pytest.mark.parametrize("op_type", ["Log", "Sqrt", "Reciprocal"])
def test_functions_of_positive_numbers(op_type: str) -> None:
    compare(model([node("Exp", "x", "e"), node(op_type, "e")], IMAGE))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0, -1.0, 1.7])
def test_pow(exponent: float) -> None:
    compare(model([node("Exp", "x", "e"), node("Pow", "e p")], IMAGE, {"p": np.float32(exponent)}))


@pytest.mark.parametrize("bounds", [("lo hi", {}), ("- hi", {}), ("lo -", {})])
def test_clip(bounds: tuple) -> None:
    compare(model([node("Clip", f"x {bounds[0]}")], IMAGE, {"lo": np.float32(0), "hi": np.float32(1)}))


def test_a_wide_product_goes_pixel_by_pixel() -> None:
    """A recognizer's scores of thousands of classes at each place."""
    constants = {"w": random((6, 9000), 1), "b": random((9000,), 2)}
    nodes = [node("MatMul", "x w", "p"), node("Add", "p b", "s"), node("Softmax", "s", axis=2)]
    graph = compare(model(nodes, {"x": (1, 8, 6)}, constants))
    assert graph.shapes[graph.outputs[0].tensor].height == 8


def test_clip_to_bounds_that_are_computed() -> None:
    nodes = [node("ReduceMax", "x", "hi", keepdims=0), node("Sub", "hi one", "lo"), node("Clip", "x lo", "a")]
    compare(
        model([*nodes, node("Clip", "a zero lo")], {"x": (1, 6, 4, 5)}, {"one": np.float32(1), "zero": np.float32(0)})
    )


def test_old_clip() -> None:
    compare(model([node("Clip", "x", min=0.0, max=6.0)], IMAGE, opset=10))


@pytest.mark.parametrize("op_type", ["Max", "Min", "Sum", "Mean"])
def test_many_operands(op_type: str) -> None:
    compare(model([node(op_type, "x z w")], {**IMAGE, "z": (2, 6, 1, 1)}, {"w": random((6, 1, 5), 3)}))


@pytest.mark.parametrize("slope", [(6, 1, 1), (1,), (6, 4, 5)])
def test_prelu(slope: tuple) -> None:
    compare(model([node("PRelu", "x s")], IMAGE, {"s": random(slope, 1)}))


SPELLED = {
    "swish": [node("Sigmoid", "c", "s"), node("Mul", "c s")],
    "hard_swish": [node("HardSigmoid", "c", "s", alpha=1 / 6, beta=0.5), node("Mul", "s c")],
    "mish": [node("Softplus", "c", "s"), node("Tanh", "s", "t"), node("Mul", "c t")],
    "gelu": [
        node("Div", "c root", "d"), node("Erf", "d", "e"), node("Add", "e one", "a"), node("Mul", "c a", "m"),
        node("Mul", "m half"),
    ],
    "gelu_tanh": [
        node("Pow", "c three", "p"), node("Mul", "p cubic", "q"), node("Add", "c q", "r"), node("Mul", "r factor", "s"),
        node("Tanh", "s", "t"), node("Add", "t one", "u"), node("Mul", "half c", "h"), node("Mul", "h u"),
    ],
    "hard_sigmoid": [node("Add", "c three", "a"), node("Clip", "a zero six", "d"), node("Div", "d six")],
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLED)
def test_spelled_out_activations(name: str) -> None:
    constants = {
        "w": random((6, 6, 1, 1)),
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "three": np.float32(3),
        "cubic": np.float32(0.044715),
        "factor": np.float32(np.sqrt(2 / np.pi)),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    graph = compare(model([node("Conv", "x w", "c"), *SPELLED[name]], {"x": (1, 6, 4, 5)}, constants))
    assert [op.activation.kind for op in graph.ops] == [name]


def test_almost_an_activation_is_left_alone() -> None:
    nodes = [node("Sigmoid", "x", "s"), node("Mul", "s k", "m"), node("Mul", "m x")]
    graph = compare(model(nodes, IMAGE, {"k": np.float32(1.01)}))
    assert not any(isinstance(op, Unary) and op.activation.kind == "swish" for op in graph.ops)


@pytest.mark.parametrize(
    ("trans_a", "trans_b", "bias"), list(itertools.product([0, 1], [0, 1], [(), (4,), (3, 4), (3, 1)]))
)
def test_gemm(trans_a: int, trans_b: int, bias: tuple) -> None:
    constants = {"w": random((4, 5) if trans_b else (5, 4)), "b": random(bias)}
    attributes = {"transA": trans_a, "transB": trans_b, "alpha": 0.5, "beta": 2.0}
    compare(model([node("Gemm", "x w b", **attributes)], {"x": (5, 3) if trans_a else (3, 5)}, constants))


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [
        ((5,), (5, 4)),
        ((3, 5), (5, 4)),
        ((2, 3, 5), (5, 4)),
        ((2, 3, 5), (5,)),
        ((3, 5), (2, 5, 4)),
        ((2, 2, 3, 5), (2, 5, 4)),
    ],
)
def test_matmul(shape: tuple, matrix: tuple) -> None:
    compare(model([node("MatMul", "x w")], {"x": shape}, {"w": random(matrix)}))


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 5, 3)])
@pytest.mark.parametrize("matrix", [(4, 5), (2, 4, 5)])
def test_matmul_from_the_left(shape: tuple, matrix: tuple) -> None:
    compare(model([node("MatMul", "w x")], {"x": shape}, {"w": random(matrix)}))


@pytest.mark.parametrize("flatten", [node("Flatten", "a", "f"), node("Reshape", "a s", "f")])
def test_flattened_maps_need_no_copy(flatten) -> None:
    constants = {"w": random((6, 3, 1, 1)), "s": np.array([-1, 120]), "m": random((120, 7))}
    nodes = [node("Conv", "x w", "a"), flatten, node("Gemm", "f m")]
    graph = compare(model(nodes, {"x": ("n", 3, 4, 5)}, constants))
    assert kinds(graph) == ["Conv", "Conv"]


def test_normalizations() -> None:
    channels = {name: random((6,), i) for i, name in enumerate("sbm")} | {"v": np.abs(random((6,), 4)) + 0.1}
    nodes = [
        node("BatchNormalization", "x s b m v", "a", epsilon=1e-3),
        node("InstanceNormalization", "a s b", "c"),
        node("LRN", "c", "d", size=3, alpha=0.5),
        node("GroupNormalization", "d s b", "y", num_groups=2),
    ]
    compare(model(nodes, IMAGE, channels), tolerance=1e-4)


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_layer_normalization(axis: int) -> None:
    shape = IMAGE["x"][axis:]
    compare(model([node("LayerNormalization", "x s b", axis=axis)], IMAGE, {"s": random(shape), "b": random(shape, 1)}))


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("axis", "opset"), [(1, 21), (2, 21), (-1, 21), (0, 21), (1, 11), (2, 11), (0, 11)])
def test_softmax(op_type: str, axis: int, opset: int) -> None:
    compare(model([node(op_type, "x", axis=axis)], IMAGE, opset=opset))


@SOME
@given(
    st.sampled_from(["ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2", "ReduceLogSumExp"]),
    st.sets(st.integers(0, 3), min_size=1),
    st.integers(0, 1),
    st.permutations(range(4)),
)
def test_reductions(op_type: str, axes: set, keepdims: int, perm: list) -> None:
    nodes = [node("Transpose", "x", "t", perm=list(perm)), node(op_type, "t a", keepdims=keepdims)]
    compare(model(nodes, {"x": (2, 3, 4, 5)}, {"a": np.array(sorted(axes))}))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("last", [0, 1])
def test_arg_max(axis: int, last: int) -> None:
    nodes = [node("Round", "x", "r"), node("ArgMax", "r", axis=axis, select_last_index=last, keepdims=0)]
    compare(model(nodes, IMAGE, dtypes={"y": 7}))


COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]


@SOME
@given(st.data(), st.sampled_from(COORDINATES), st.sampled_from(["nearest", "linear", "cubic"]))
def test_resize(data: st.DataObject, kind: str, mode: str) -> None:
    size = [data.draw(st.integers(2, 6)) for _ in range(2)]
    out = [data.draw(st.integers(1, 11)) for _ in range(2)]
    attributes: dict = {"mode": mode, "coordinate_transformation_mode": kind}
    if mode == "nearest":
        attributes["nearest_mode"] = data.draw(
            st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
        )
        if kind == "half_pixel_symmetric":
            return  # ties fall either way by a rounding error
    if mode == "cubic":
        attributes["exclude_outside"] = data.draw(st.integers(0, 1))
    constants = {"sizes": np.array([1, 3, *out])}
    compare(model([node("Resize", "x - - sizes", **attributes)], {"x": (1, 3, *size)}, constants), tolerance=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scale", [0.4, 0.7, 2.0])
def test_resize_with_antialias(mode: str, scale: float) -> None:
    constants = {"scales": np.array([1, 1, scale, scale], np.float32)}
    compare(
        model([node("Resize", "x - scales", mode=mode, antialias=1)], {"x": (1, 2, 9, 8)}, constants), tolerance=1e-4
    )


@pytest.mark.parametrize(("op_type", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_old_resizes(op_type: str, opset: int, mode: str) -> None:
    scales = [1.0, 1.0, 2.0, 3.0]
    if opset == 7:
        proto = model([helper.make_node(op_type, ["x"], ["y"], mode=mode, scales=scales)], {"x": (1, 2, 3, 4)}, opset=7)
    else:
        constants = {"s": np.array(scales, np.float32)}
        proto = model([node(op_type, "x s", mode=mode)], {"x": (1, 2, 3, 4)}, constants, opset=opset)
    graph = compare(proto)
    assert kinds(graph) == ["Gather" if mode == "nearest" else "Resize"]


def test_resize_of_channels_last() -> None:
    constants = {"sizes": np.array([1, 7, 9, 3]), "w": random((2, 3, 1, 1))}
    nodes = [
        node("Resize", "x - - sizes", "r", mode="linear"),
        node("Transpose", "r", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w"),
    ]
    assert kinds(compare(model(nodes, {"x": (1, 4, 5, 3)}, constants))) == ["Resize", "Conv"]


def test_squeeze_and_excite() -> None:
    constants = {"w": random((6, 6, 1, 1)), "a": random((6, 3)), "b": random((3, 6), 1), "s": np.array([0, 6, 1, 1])}
    nodes = [
        node("Conv", "x w", "c"),
        node("ReduceMean", "c", "m", axes=[2, 3], keepdims=0),
        node("Gemm", "m a", "p"),
        node("Relu", "p", "q"),
        node("Gemm", "q b", "r"),
        node("Sigmoid", "r", "t"),
        node("Reshape", "t s", "u"),
        node("Mul", "c u", "y"),
    ]
    graph = compare(model(nodes, {"x": ("n", 6, 4, 5)}, constants, opset=13))
    assert kinds(graph) == ["Conv", "Reduce", "Conv", "Conv", "Binary"]


def test_slices_and_pads_merge() -> None:
    constants = {"p": np.array([0, 0, 1, 2, 0, 0, 2, 1]), "s": np.array([1]), "e": np.array([5]), "a": np.array([2])}
    nodes = [node("Slice", "x s e a", "z"), node("Pad", "z p")]
    graph = compare(model(nodes, {"x": (1, 3, 6, 7)}, constants))
    assert kinds(graph) == ["Gather"] and isinstance(graph.ops[0], Gather)
