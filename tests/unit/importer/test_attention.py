"""Products of two values, and transformers made of them, against ONNX Runtime."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import tinytee
from tinytee.api import load_graph
from tinytee.errors import UnsupportedModelError
from tinytee.importer import load
from tinytee.ir.graph import Conv, Product
from tinytee.plan.api import least_budget
from unit.importer.support import compare, kinds, model, node, random, run_onnxruntime

SHAPES = [
    ((1, 3, 5, 4), (1, 3, 4, 6)),
    ((2, 5, 4), (2, 4, 7)),
    ((5, 4), (4, 6)),
    ((1, 1, 5, 1), (1, 1, 1, 6)),
    ((2, 3, 4, 8), (2, 3, 8, 4)),
    # Leading axes that one side does not have, or has one of; vectors.
    ((1, 6, 5, 4), (1, 1, 4, 7)),
    ((1, 1, 5, 4), (1, 6, 4, 7)),
    ((3, 5, 4), (4, 6)),
    ((2, 3, 5, 4), (3, 4, 6)),
    ((1, 2, 3, 5, 4), (1, 2, 1, 4, 6)),
    ((1, 2, 1, 5, 4), (1, 1, 3, 4, 6)),
    ((2, 1, 5, 4), (1, 3, 4, 6)),
    ((4,), (4,)),
    ((7, 5, 4), (4,)),
    ((4,), (7, 4, 5)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_products(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    compare(model([node("MatMul", "a b")], {"a": left, "b": right}))


def test_products_with_what_was_transposed_move_nothing() -> None:
    perm = [0, 1, 3, 2]
    nodes = [node("Relu", "a", "ra"), node("Transpose", "b", "bt", perm=perm), node("MatMul", "ra bt")]
    assert kinds(compare(model(nodes, {"a": (1, 1, 5, 4), "b": (1, 1, 6, 4)}))).count("Permute") == 0


def test_the_smaller_side_is_the_matrix_where_nothing_moves() -> None:
    """As detectors write attention: channels first, values times transposed scores."""
    shapes = {"v": (1, 2, 4, 9), "s": (1, 2, 9, 9)}
    nodes = [
        node("Softmax", "s", "p", axis=-1),
        node("Transpose", "p", "pt", perm=[0, 1, 3, 2]),
        node("MatMul", "v pt"),
    ]
    graph = compare(model(nodes, shapes))
    product = next(op for op in graph.ops if isinstance(op, Product))
    assert [graph.shapes[name].height for name in product.inputs] == [9, 4]
    assert product.transposed


def test_shapes_that_do_not_meet_are_refused() -> None:
    nodes = [node("Reshape", "a shape", "r"), node("MatMul", "r b")]
    constants = {"shape": np.array([1, 0, 5, 4])}
    with pytest.raises(UnsupportedModelError, match="axes of 4 and 3 meet"):
        load(model(nodes, {"a": (1, 3, 5, 4), "b": (3, 6)}, constants))


def transformer(tokens: int, width: int, heads: int, layers: int = 2) -> onnx.ModelProto:
    """An encoder as vision transformers have it (Dosovitskiy et al., arXiv 2010.11929): 'x' [1, tokens, width] to three
    scores."""
    depth = width // heads
    constants: dict[str, np.ndarray] = {
        "split": np.array([0, 0, heads, depth]), "merge": np.array([0, 0, width]), "axes": np.array([1]),
        "scale": np.array(depth**-0.5, np.float32), "head": random((width, 3), 99),
    }  # fmt: skip
    nodes, x = [], "x"

    def linear(name: str, source: str, inputs: int, outputs: int) -> str:
        constants[f"{name}.w"] = random((inputs, outputs), len(constants)) / np.sqrt(inputs).astype(np.float32)
        constants[f"{name}.b"] = random((outputs,), len(constants))
        nodes.extend([node("MatMul", f"{source} {name}.w", f"{name}.p"), node("Add", f"{name}.p {name}.b", name)])
        return name

    def norm(name: str, source: str) -> str:
        constants[f"{name}.s"], constants[f"{name}.o"] = random((width,), len(constants)), random((width,), 7)
        nodes.append(node("LayerNormalization", f"{source} {name}.s {name}.o", name))
        return name

    for layer in map(str, range(layers)):
        source = norm(f"n{layer}", x)
        for role, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
            made = linear(f"{role}{layer}", source, width, width)
            nodes.append(node("Reshape", f"{made} split", f"{made}.heads"))
            nodes.append(node("Transpose", f"{made}.heads", f"{made}.t", perm=perm))
        nodes += [
            node("MatMul", f"q{layer}.t k{layer}.t", f"s{layer}"),
            node("Mul", f"s{layer} scale", f"scaled{layer}"),
            node("Softmax", f"scaled{layer}", f"p{layer}", axis=-1),
            node("MatMul", f"p{layer} v{layer}.t", f"a{layer}"),
            node("Transpose", f"a{layer}", f"at{layer}", perm=[0, 2, 1, 3]),
            node("Reshape", f"at{layer} merge", f"merged{layer}"),
        ]
        nodes.append(node("Add", f"{x} {linear(f'o{layer}', f'merged{layer}', width, width)}", f"r{layer}"))
        hidden = linear(f"u{layer}", norm(f"m{layer}", f"r{layer}"), width, 4 * width)
        nodes.append(node("Gelu", hidden, f"g{layer}"))
        x = f"x{layer}"
        nodes.append(node("Add", f"r{layer} {linear(f'd{layer}', f'g{layer}', 4 * width, width)}", x))
    nodes += [node("ReduceMean", f"{x} axes", "pooled", keepdims=0), node("MatMul", "pooled head", "y")]
    return model(nodes, {"x": (1, tokens, width)}, constants)


def test_a_vision_transformer_flows_by_tokens() -> None:
    """An image's patches, a token before them and their places; the answer is that token's."""
    width, side = 24, 4
    inner = transformer(side * side + 1, width, heads=3)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in inner.graph.initializer}
    constants |= {
        "patch": random((width, 3, 8, 8), 50) / 8, "flat": np.array([0, 0, -1]), "class": random((1, 1, width), 51),
        "places": random((1, side * side + 1, width), 52), "first": np.array(0),
    }  # fmt: skip
    nodes = [
        node("Conv", "image patch", "c", strides=[8, 8]),
        node("Reshape", "c flat", "f"),
        node("Transpose", "f", "t", perm=[0, 2, 1]),
        node("Concat", "class t", "tokens", axis=1),
        node("Add", "tokens places", "x"),
        *(n for n in inner.graph.node if n.output[0] not in ("pooled", "y")),
        node("Gather", "x1 first", "pooled", axis=1),
        node("MatMul", "pooled head", "y"),
    ]
    graph = compare(model(nodes, {"image": (1, 3, 8 * side, 8 * side)}, constants))
    assert kinds(graph).count("Permute") == 0
    assert all(graph.shapes[op.output].height > 1 for op in graph.ops if isinstance(op, Conv) and len(op.inputs) > 1)


@pytest.mark.parametrize(("tokens", "width", "heads"), [(10, 24, 3), (17, 20, 2)])
def test_transformers(tokens: int, width: int, heads: int) -> None:
    proto = transformer(tokens, width, heads)
    graph = compare(proto)
    assert kinds(graph).count("Product") == 4
    feed, key = {"x": random((1, tokens, width), 3)}, secrets.token_bytes(32)
    expected = run_onnxruntime(proto, feed)[0]
    least = least_budget(load_graph(proto))
    for budget in (least, 2 * least, 1 << 20):
        for threads in (1, 2):
            try:
                bundle = tinytee.compile(proto, budget, key, threads=threads)
            except tinytee.BudgetError:
                assert (budget, threads) == (least, 2)  # two workers take more
                continue
            with tinytee.Session(bundle, key=key) as session:
                for _ in range(2):
                    np.testing.assert_allclose(session.run(feed)["y"], expected, atol=2e-5 * np.ptp(expected))


class _Samples(CalibrationDataReader):
    def __init__(self) -> None:
        self.feeds = iter([{"x": random((1, 16, 24), seed)} for seed in range(8)])

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return next(self.feeds, None)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_quantized_transformers(tmp_path: Path, form: QuantFormat) -> None:
    """Products of activations run in float32 between conversions, all else as in other networks."""
    onnx.save(transformer(16, 24, 3), tmp_path / "float.onnx")
    quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", _Samples(), quant_format=form, per_channel=True)
    proto, feed, key = onnx.load(tmp_path / "int8.onnx"), {"x": random((1, 16, 24), 99)}, secrets.token_bytes(32)
    expected = run_onnxruntime(proto, feed)[0]
    with tinytee.Session(tinytee.compile(proto, "256KiB", key), key=key) as session:
        np.testing.assert_allclose(session.run(feed)["y"], expected, atol=0.02 * np.ptp(expected))


SCALED = {"q": (1, 2, 9, 4), "k": (1, 2, 4, 9)}
QUERY = [
    node("MatMul", "x wq", "q0"),
    node("Reshape", "q0 split", "q1"),
    node("Transpose", "q1", "q", perm=[0, 2, 1, 3]),
]


@pytest.mark.parametrize(("kind", "by"), [("Mul", 0.5), ("Div", 2.0)])
def test_a_scale_of_scores_goes_into_the_query(kind: str, by: float) -> None:
    nodes = [*QUERY, node("MatMul", "q k", "s"), node(kind, "s by", "scaled"), node("Softmax", "scaled", "y", axis=-1)]
    constants = {"wq": random((8, 8)), "split": np.array([0, 0, 2, 4]), "by": np.float32(by)}
    graph = compare(model(nodes, {"x": (1, 9, 8), "k": SCALED["k"]}, constants))
    assert {"Binary", "DepthwiseConv"}.isdisjoint(kinds(graph))


def test_scales_one_after_another_go_there_too() -> None:
    nodes = [*QUERY, node("MatMul", "q k", "s"), node("Mul", "s a", "t"), node("Div", "t b", "y")]
    constants = {"wq": random((8, 8)), "split": np.array([0, 0, 2, 4]), "a": np.float32(3), "b": np.float32(7)}
    graph = compare(model(nodes, {"x": (1, 9, 8), "k": SCALED["k"]}, constants))
    assert {"Binary", "DepthwiseConv"}.isdisjoint(kinds(graph))


@pytest.mark.parametrize("why", ["shift", "columns", "read by others", "wide"])
def test_what_is_no_scale_of_a_smaller_map_stays(why: str) -> None:
    shapes = {"q": (1, 2, 3, 9), "k": (1, 2, 9, 3)} if why == "wide" else SCALED
    by = random((shapes["k"][-1],)) if why == "columns" else np.float32(0.5)
    nodes = [node("MatMul", "q k", "s"), node("Add" if why == "shift" else "Mul", "s by", "y")]
    outputs = ["y"]
    if why == "read by others":
        nodes.append(node("Relu", "s", "other"))
        outputs.append("other")
    graph = compare(model(nodes, shapes, {"by": by}, outputs=outputs))
    found = kinds(graph)
    scaled = next(at for at, kind in enumerate(found) if kind in ("Binary", "DepthwiseConv"))
    assert found.index("Product") < scaled
