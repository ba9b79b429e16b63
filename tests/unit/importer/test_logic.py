"""Comparisons, logic and selection, against ONNX Runtime."""

from __future__ import annotations

import secrets

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import tinytee
from tinytee.importer import load
from tinytee.ir.graph import Binary
from unit.importer.support import compare, kinds, model, node, random, run_onnxruntime

BOOL, FLOAT, INT64 = TensorProto.BOOL, TensorProto.FLOAT, TensorProto.INT64
COMPARISONS = ["Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"]


def whole(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Few values, so that many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("op_type", COMPARISONS)
@pytest.mark.parametrize(
    "shapes", [((1, 3, 4, 5), (1, 3, 4, 5)), ((1, 3, 4, 5), (3, 1, 1)), ((1, 3, 1, 5), (1, 1, 4, 5))]
)
def test_comparisons(op_type: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    proto = model([node(op_type, "a b")], {"a": shapes[0], "b": shapes[1]}, dtypes={"y": BOOL})
    compare(proto, {"a": whole(shapes[0]), "b": whole(shapes[1], 1)})


@pytest.mark.parametrize("op_type", COMPARISONS)
@pytest.mark.parametrize("words", ["x zero", "zero x"])
def test_comparisons_with_constants_sample_by_sample(op_type: str, words: str) -> None:
    proto = model([node(op_type, words)], {"x": ("N", 3, 4)}, {"zero": np.float32(0)}, dtypes={"y": BOOL})
    graph = compare(proto, {"x": whole((2, 3, 4))})
    assert graph.inputs[0].batched


def test_comparisons_of_integers() -> None:
    proto = model([node("Less", "n m")], {"n": (1, 6), "m": (1, 6)}, dtypes={"n": INT64, "m": INT64, "y": BOOL})
    compare(proto, {"n": np.arange(6).reshape(1, 6), "m": np.array([[3, 1, 2, 9, -4, 5]])})


@pytest.mark.parametrize("op_type", ["And", "Or", "Xor"])
def test_logic(op_type: str) -> None:
    proto = model(
        [node(op_type, "a b", "c"), node("Not", "c")],
        {"a": (1, 4, 1), "b": (1, 1, 4)},
        dtypes={"a": BOOL, "b": BOOL, "y": BOOL},
    )
    a = np.array([True, False, True, False])
    compare(proto, {"a": a.reshape(1, 4, 1), "b": a.reshape(1, 1, 4)})


@pytest.mark.parametrize(
    "attributes", [{}, {"detect_negative": 0}, {"detect_positive": 0}, {"detect_negative": 0, "detect_positive": 0}]
)
def test_what_is_no_number_and_what_is_infinite(attributes: dict[str, int]) -> None:
    nodes = [node("IsNaN", "x", "n"), node("IsInf", "x", "i", **attributes)]
    proto = model(nodes, {"x": (1, 5)}, outputs=("n", "i"), dtypes={"n": BOOL, "i": BOOL}, opset=20)
    compare(proto, {"x": np.array([[0, np.nan, np.inf, -np.inf, 1]], np.float32)})


@pytest.mark.parametrize(
    ("shapes", "constants"),
    [
        ({"x": (1, 3, 4, 5), "b": (1, 3, 4, 5)}, {}),
        ({"x": (1, 3, 4, 5)}, {"b": np.float32(-np.inf)}),
        ({"x": (1, 3, 4, 5)}, {"b": np.float32(0)}),
        ({"x": (1, 3, 4, 5)}, {"b": random((3, 1, 1), 5)}),
        ({"x": (3, 4)}, {"b": np.zeros((1, 1, 1), np.float32)}),
        ({"x": (1, 3, 1, 5), "b": (1, 3, 4, 1)}, {}),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_selection_by_a_computed_condition(shapes: dict, constants: dict, turned: bool) -> None:
    """What is left out may be infinite."""
    nodes = [node("Greater", "x half", "c"), node("Where", "c b x" if turned else "c x b")]
    compare(model(nodes, shapes, {"half": np.float32(0.5), **constants}))


@pytest.mark.parametrize("known", ["yes no", "x no", "yes x", "x x2"])
def test_selection_by_a_known_condition(known: str) -> None:
    constants = {"c": np.tri(4, dtype=bool), "yes": random((4, 4), 1), "no": np.float32(-np.inf)}
    nodes = [node("Add", "x x", "x2"), node("Where", f"c {known}", "w"), node("Max", "w x2")]
    compare(model(nodes, {"x": (1, 2, 4, 4)}, constants))


def test_selection_that_takes_one_side_whole_and_spreads_it() -> None:
    constants = {"c": np.ones((1, 3, 4), bool), "two": np.float32(2)}
    for words in ("c two x", "c x two"):
        compare(model([node("Where", words, "w"), node("Add", "w x")], {"x": (1, 1, 4)}, constants))


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("diagonal", [None, -1, 2])
def test_triangles(upper: int, diagonal: int | None) -> None:
    constants = {} if diagonal is None else {"k": np.array(diagonal)}
    proto = model([node("Trilu", "x k" if constants else "x", upper=upper)], {"x": ("N", 3, 4, 5)}, constants)
    assert compare(proto, {"x": random((2, 3, 4, 5))}).inputs[0].batched


def peaks() -> onnx.ModelProto:
    """The head of a detector by centres: what is the largest of its neighbours stays."""
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Sigmoid", "c", "heat"),
        node("MaxPool", "heat", "most", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Equal", "most heat", "is_peak"),
        node("Cast", "is_peak", "mask", to=FLOAT),
        node("Mul", "heat mask"),
    ]
    return model(nodes, {"x": (1, 8, 24, 24)}, {"w": random((5, 8, 3, 3), 3) / 8})


def masked_attention() -> onnx.ModelProto:
    """Scores beyond a length, which is an input, are minus infinity before the softmax."""
    nodes = [
        node("MatMul", "q kt", "scores"),
        node("Less", "places length", "within"),
        node("Where", "within scores none", "masked"),
        node("Softmax", "masked", "p", axis=-1),
        node("MatMul", "p v"),
    ]
    constants = {"places": np.arange(12, dtype=np.float32), "none": np.float32(-np.inf)}
    return model(
        nodes, {"q": (1, 2, 12, 16), "kt": (1, 2, 16, 12), "v": (1, 2, 12, 16), "length": (1, 1, 1, 1)}, constants
    )


@pytest.mark.parametrize("name", ["peaks", "masked_attention"])
def test_in_the_core(name: str) -> None:
    proto, key = {"peaks": peaks, "masked_attention": masked_attention}[name](), secrets.token_bytes(32)
    feed = {port.name: random(port.shape, i) for i, port in enumerate(load(proto).inputs)}
    if "length" in feed:
        feed["length"] = np.full((1, 1, 1, 1), 7, np.float32)
    (expected,) = run_onnxruntime(proto, feed)
    with tinytee.Session(tinytee.compile(proto, "256KiB", key), key=key) as session:
        np.testing.assert_allclose(session.run(feed)["y"], expected, rtol=1e-4, atol=1e-5)


def test_a_choice_of_nothing_costs_one_operator() -> None:
    graph = compare(
        model([node("Greater", "x zero", "c"), node("Where", "c x zero")], {"x": (1, 3, 4, 5)}, {"zero": np.float32(0)})
    )
    assert [op.kind for op in graph.ops if isinstance(op, Binary)] == ["less", "keep"]
    assert len(kinds(graph)) == 2


@pytest.mark.parametrize("step", [0.005, 0.0])
def test_a_step_beside_a_grid_s_point_is_no_activation(step: float) -> None:
    """x where x > 0.005, and x sign(x - 0.005), are relu and the absolute value at 0, .02, .04, ..."""
    nodes = [node("Greater", "x step", "c"), node("Where", "c x zero", "kept")]
    nodes += [node("Sub", "x step", "d"), node("Sign", "d", "s"), node("Mul", "x s", "turned")]
    constants = {"step": np.float32(step), "zero": np.float32(0)}
    proto = model(nodes, {"x": (1, 41)}, constants, outputs=("kept", "turned"))
    compare(proto, {"x": np.linspace(-0.02, 0.02, 41, dtype=np.float32).reshape(1, 41)})


def defined(op_type: str) -> onnx.ModelProto:
    """A model around an operator that ONNX defines by others."""
    if op_type == "RMSNormalization":
        nodes = [node("RMSNormalization", "x s", epsilon=1e-3)]
        return model(nodes, {"x": (1, 6, 16)}, {"s": random((16,), 1)}, opset=23)
    if op_type == "Attention":
        nodes = [node("Attention", "x k v", q_num_heads=2, kv_num_heads=2, is_causal=1)]
        return model(nodes, {"x": (1, 6, 16), "k": (1, 6, 16), "v": (1, 6, 16)}, opset=23)
    if op_type == "RotaryEmbedding":
        angles = np.outer(np.arange(6), [1.0, 0.1, 0.01, 0.001]).astype(np.float32)[None]
        constants = {"cos": np.cos(angles), "sin": np.sin(angles)}
        return model([node("RotaryEmbedding", "x cos sin", num_heads=2)], {"x": (1, 6, 16)}, constants, opset=23)
    return model([node("MeanVarianceNormalization", "x", axes=[2, 3])], {"x": (1, 3, 4, 5)}, opset=13)


@pytest.mark.parametrize("op_type", ["RMSNormalization", "Attention", "RotaryEmbedding", "MeanVarianceNormalization"])
def test_operators_that_onnx_defines_by_others(op_type: str) -> None:
    compare(defined(op_type))


def test_a_refusal_within_a_definition_names_the_operator() -> None:
    nodes = [node("RotaryEmbedding", "x cos sin ids", num_heads=2)]
    shapes = {"x": (1, 6, 16), "cos": (50, 4), "sin": (50, 4), "ids": (1, 6)}
    proto = model(nodes, shapes, opset=23, dtypes={"ids": INT64})
    with pytest.raises(
        tinytee.UnsupportedModelError, match=r"of RotaryEmbedding 'RotaryEmbedding_y'.*--input-value ids="
    ):
        load(proto)
