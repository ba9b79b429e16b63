"""What each pass rewrites, and what it must leave alone. ``compare`` holds every stage to ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinytee.importer import load
from tinytee.ir import graph as g
from tinytee.ir import quantized as q
from tinytee.ir.check import check
from tinytee.ir.graph import Activation, Graph, Port, Quant, Shape
from tinytee.ir.reference import evaluate
from tinytee.passes import PASSES, optimize
from tinytee.passes.eliminate_dead import eliminate_dead
from tinytee.passes.merge_gathers import merge_gathers
from tinytee.passes.order_depth_first import order_depth_first
from tinytee.passes.permute_to_gather import permute_to_gather
from tinytee.passes.ports_carry_bytes import ports_carry_bytes
from tinytee.passes.tabulate import tabulate
from unit.importer.detector import BINS, CLASSES, detector
from unit.importer.support import compare, kinds, model, node, random

NORM = {name: random((4,), i) for i, name in enumerate("sbm")} | {"v": np.array([0.5, 1, 2, 3], np.float32)}
CONV = {"w": random((4, 4, 3, 3)), "k": random((4, 4, 1, 1), 9)}
IMAGE = {"x": (1, 4, 6, 6)}


def _tensor_graph(source: Shape, *ops: g.Op, shapes: dict[str, Shape]) -> Graph:
    """A graph over one input 'x' whose last operator's result is the output."""
    last = ops[-1].output
    everything = {"x": source, **shapes}
    return Graph(
        inputs=(_port("x", source),), outputs=(_port(last, everything[last]),), shapes=everything, ops=tuple(ops)
    )


def _port(name: str, shape: Shape) -> Port:
    return Port(name, name, (shape.height, shape.width, shape.channels), "float32", (0, 1, 2), batched=False)


def test_batch_normalization_folds_backwards_and_the_activation_follows() -> None:
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c s b m v", "n"), node("Relu", "n")]
    graph = compare(model(nodes, IMAGE, {**CONV, **NORM}))
    assert kinds(graph) == ["Conv"] and graph.ops[0].activation.kind == "relu"


def test_batch_normalization_folds_forwards_where_nothing_is_padded() -> None:
    nodes = [node("BatchNormalization", "x s b m v", "n"), node("Conv", "n w")]
    assert kinds(compare(model(nodes, IMAGE, {**CONV, **NORM}))) == ["Conv"]


def test_a_shift_does_not_cross_padding() -> None:
    nodes = [node("BatchNormalization", "x s b m v", "n"), node("Conv", "n w", pads=[1, 1, 1, 1])]
    assert kinds(compare(model(nodes, IMAGE, {**CONV, **NORM}))) == ["DepthwiseConv", "Conv"]


def test_a_scale_crosses_padding_and_groups() -> None:
    nodes = [node("Mul", "x f", "n"), node("Conv", "n w", pads=[1, 1, 1, 1], group=2)]
    constants = {"f": random((4, 1, 1)), "w": random((6, 2, 3, 3))}
    assert kinds(compare(model(nodes, IMAGE, constants))) == ["Conv"]


def test_scales_in_a_row_become_one() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("BatchNormalization", "r s b m v", "n"),
        node("Mul", "n f", "p"),
        node("Add", "p f", "q"),
        node("Relu", "q"),
    ]
    assert kinds(compare(model(nodes, IMAGE, {**NORM, "f": random((4, 1, 1))}))) == ["Unary", "DepthwiseConv"]


def test_what_others_read_is_not_folded() -> None:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y"), node("Sigmoid", "c", "z")]
    graph = compare(model(nodes, IMAGE, CONV, outputs=("y", "z")))
    assert kinds(graph) == ["Conv", "Unary", "Unary"]


def test_an_output_in_between_is_kept() -> None:
    nodes = [node("Conv", "x w", "y"), node("Relu", "y", "z")]
    assert kinds(compare(model(nodes, IMAGE, CONV, outputs=("y", "z")))) == ["Conv", "Unary"]


def test_residual_joins_the_later_convolution() -> None:
    nodes = [
        node("Conv", "x k", "a"),
        node("Relu", "a", "r"),
        node("Conv", "r w", "b", pads=[1, 1, 1, 1]),
        node("Conv", "x k", "c"),
        node("Add", "b c", "d"),
        node("Relu", "d"),
    ]
    graph = compare(model(nodes, IMAGE, CONV))
    assert kinds(graph) == ["Conv"] * 3
    last = graph.ops[-1]
    assert len(last.inputs) == 2 and last.activation.kind == "relu"


def test_residual_that_broadcasts_stays_an_addition() -> None:
    nodes = [node("Conv", "x k", "a"), node("ReduceMean", "x axes", "m"), node("Add", "a m")]
    graph = compare(model(nodes, IMAGE, {**CONV, "axes": np.array([2, 3])}))
    assert kinds(graph)[-1] == "Binary"


def test_sum_of_a_convolution_with_itself() -> None:
    nodes = [node("Conv", "x k", "a"), node("Add", "a a")]
    assert kinds(compare(model(nodes, IMAGE, CONV))) == ["Conv", "Binary"]


def test_dropout_and_identity_vanish() -> None:
    nodes = [node("Identity", "x", "a"), node("Dropout", "a", "b"), node("Conv", "b w", "c"), node("Identity", "c")]
    assert kinds(compare(model(nodes, IMAGE, CONV))) == ["Conv"]


def test_average_pooling_counts_merged_padding() -> None:
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    nodes = [node("Pad", "x p", "z"), node("AveragePool", "z", kernel_shape=[3, 3])]
    (pool,) = compare(model(nodes, IMAGE, constants)).ops
    assert isinstance(pool, g.Pool) and pool.count_include_pad and pool.pads == (1, 1, 1, 1)


def test_padding_wider_than_a_pool_stays() -> None:
    constants = {"p": np.array([0, 0, 4, 4, 0, 0, 4, 4])}
    nodes = [node("Pad", "x p", "z"), node("AveragePool", "z", kernel_shape=[2, 2])]
    assert kinds(compare(model(nodes, IMAGE, constants))) == ["Gather", "Pool"]


def test_lowest_padding_joins_max_pooling() -> None:
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "l": np.float32(-np.inf)}
    nodes = [node("Pad", "x p l", "z"), node("MaxPool", "z", kernel_shape=[3, 3])]
    assert kinds(compare(model(nodes, IMAGE, constants))) == ["Pool"]


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_gathers_merge_only_under_one_fill(fill: float) -> None:
    pad = np.array([-1, 0, 1, -1], np.int32)
    first = g.Gather(name="a", inputs=("x",), output="a", rows=pad, fill=0.0)
    second = g.Gather(name="b", inputs=("a",), output="b", cols=pad, fill=fill)
    shapes = {"a": Shape(4, 2, 3), "b": Shape(4, 4, 3)}
    graph = _tensor_graph(Shape(2, 2, 3), first, second, shapes=shapes)
    merged = merge_gathers(graph)
    check(merged)
    assert len(merged.ops) == (1 if fill == 0 else 2)
    x = {"x": random((2, 2, 3))}
    np.testing.assert_array_equal(evaluate(merged, x)["b"], evaluate(graph, x)["b"])


def test_a_transposition_stays_a_permute() -> None:
    op = g.Permute(name="p", inputs=("x",), output="y", dims=(3, 2), strides=(1, 3))
    graph = _tensor_graph(Shape(1, 2, 3), op, shapes={"y": Shape(1, 3, 2)})
    assert permute_to_gather(graph).ops == (op,)


def test_repetition_becomes_a_gather() -> None:
    op = g.Permute(name="p", inputs=("x",), output="y", dims=(4, 3), strides=(0, 1))
    graph = _tensor_graph(Shape(1, 1, 3), op, shapes={"y": Shape(2, 2, 3)})
    (gather,) = permute_to_gather(graph).ops
    assert isinstance(gather, g.Gather)
    np.testing.assert_array_equal(gather.rows, [0, 0])


def test_branches_are_computed_one_by_one() -> None:
    nodes = [node("Conv", "x k", name) for name in ("a", "b", "c")]
    nodes += [node("Conv", f"{name} k", f"{name}{name}") for name in ("a", "b", "c")]
    nodes.append(node("Concat", "aa bb cc", axis=1))
    graph = order_depth_first(load(model(nodes, IMAGE, CONV)))
    assert [op.name for op in graph.ops] == [f"Conv_{n}" for n in ("a", "aa", "b", "bb", "c", "cc")] + ["Concat_y"]


def test_passes_do_not_change_what_they_are_given() -> None:
    nodes = [node("Conv", "x w", "c"), node("BatchNormalization", "c s b m v", "n"), node("Relu", "n")]
    graph = load(model(nodes, IMAGE, {**CONV, **NORM}))
    before = (graph.ops, dict(graph.shapes), [op.weight.copy() for op in graph.ops if isinstance(op, g.Conv)])
    optimize(graph)
    assert graph.ops == before[0] and graph.shapes == before[1]
    np.testing.assert_array_equal(next(op.weight for op in graph.ops if isinstance(op, g.Conv)), before[2][0])


def test_optimizing_twice_changes_nothing() -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Sigmoid", "c", "s"),
        node("Mul", "c s", "m"),
        node("MaxPool", "m", kernel_shape=[2, 2]),
    ]
    once = optimize(load(model(nodes, IMAGE, CONV)))
    twice = optimize(once)
    assert once.ops == twice.ops
    assert once.ops[0].activation == Activation("swish", 1.0)


def test_every_pass_is_named_after_its_module() -> None:
    for rewrite in PASSES:
        assert rewrite.__module__ == f"tinytee.passes.{rewrite.__name__}"


def test_conversions_at_the_edges_are_the_clients() -> None:
    """Those that are all that happens to an input, and all that comes of a tensor."""
    shape, quants = Shape(4, 8, 8), {name: Quant(0.25, 100) for name in "abcde"} | {"b": Quant(0.5, 3)}
    names = ("x", "w", "y", "z", "u", "v")
    ports = [Port(name, name, (4, 8, 8), "float32", (0, 1, 2), False) for name in names]
    table = np.arange(256).astype(np.uint8)[::-1].copy()
    ops = (
        q.Quantize(name="a", inputs=("x",), output="a"),
        q.Quantize(name="b", inputs=("w",), output="b"),  # w is read as float32, too
        g.Unary(name="z", inputs=("w",), output="z", activation=Activation("relu")),
        q.QBinary(name="c", inputs=("a", "b"), output="c", kind="mul"),
        q.QLut(name="d", inputs=("c",), output="d", table=table),
        q.Dequantize(name="y", inputs=("d",), output="y"),
        q.Dequantize(name="u", inputs=("c",), output="u"),  # c is read as bytes, too
        q.QLut(name="e", inputs=("c",), output="e", table=table),
        q.Dequantize(name="v", inputs=("e",), output="v"),
    )
    graph = Graph(tuple(ports[:2]), tuple(ports[2:]), dict.fromkeys((*names, *"abcde"), shape), ops, quants)
    check(graph)
    found = ports_carry_bytes(graph)
    check(found)
    assert kinds(found) == ["Quantize", "Unary", "QBinary", "QLut", "Dequantize", "QLut"]
    assert [port.tensor for port in (*found.inputs, *found.outputs)] == ["a", "w", "d", "z", "u", "e"]
    feed = {name: 40 * np.random.default_rng(5).standard_normal((4, 8, 8)).astype(np.float32) for name in "xw"}
    expected = evaluate(graph, feed)
    for name, values in evaluate(found, feed).items():
        np.testing.assert_array_equal(values, expected[name])


def test_a_tensor_that_enters_and_leaves_is_written_between() -> None:
    """An output is written by an operator."""
    shape, port = Shape(1, 1, 3), Port("x", "x", (3,), "float32", (0,), False)
    ops = (q.Quantize(name="a", inputs=("x",), output="a"), q.Dequantize(name="y", inputs=("a",), output="y"))
    graph = Graph((port,), (replace(port, name="y", tensor="y"),), dict.fromkeys("xay", shape), ops, {"a": Quant(1, 0)})
    found = ports_carry_bytes(graph)
    check(found)
    assert kinds(found) == ["Dequantize"]


def test_a_function_of_one_byte_becomes_a_table() -> None:
    """x * f(x), and what a scalar does to it, but neither a product with another tensor nor one by channels."""
    shape, rng = Shape(4, 8, 8), np.random.default_rng(5)
    quants = {name: Quant((8 + i) / 64, 100 + i) for i, name in enumerate("abcdefg")}
    per_channel = rng.integers(0, 256, (1, 1, 8)).astype(np.uint8)
    table = rng.integers(0, 256, 256).astype(np.uint8)
    ops = (
        q.Quantize(name="a", inputs=("x",), output="a"),
        q.QLut(name="b", inputs=("a",), output="b", table=table),
        q.QBinary(name="c", inputs=("a", "b"), output="c", kind="mul"),
        q.QBinary(
            name="d", inputs=("c",), output="d", kind="add", constant=table[:1, None, None], constant_quant=quants["b"]
        ),
        q.QBinary(name="e", inputs=("d",), output="e", kind="mul", constant=per_channel, constant_quant=quants["b"]),
        q.QBinary(name="f", inputs=("e", "d"), output="f", kind="add"),
        q.QLut(name="g", inputs=("f",), output="g", table=table),
        q.Dequantize(name="y", inputs=("g",), output="y"),
    )
    graph = replace(_tensor_graph(shape, *ops, shapes=dict.fromkeys("abcdefgy", shape)), quants=quants)
    found = eliminate_dead(tabulate(graph))
    check(found)
    assert kinds(found) == ["Quantize", "QLut", "QBinary", "QBinary", "QLut", "Dequantize"]
    every_byte = {"x": ((np.arange(256) - 100.0) / 8).reshape(4, 8, 8).astype(np.float32)}
    np.testing.assert_array_equal(evaluate(found, every_byte)["y"], evaluate(graph, every_byte)["y"])


BRANCHES = [node("Conv", "x k", "a"), node("Sigmoid", "x", "b"), node("Tanh", "x", "c")]


def test_channels_that_were_joined_are_taken_from_where_they_come() -> None:
    constants = {**CONV, "parts": np.array([8, 4])}
    joined = [*BRANCHES, node("Concat", "a b c", "joined", axis=1), node("Split", "joined parts", "ab c_again", axis=1)]
    used = [node("Exp", "ab"), node("Neg", "c_again", "z")]
    graph = compare(model([*joined, *used], IMAGE, constants, outputs=("y", "z")))
    assert sorted(kinds(graph)) == ["Concat", "Conv", "Unary", "Unary", "Unary", "Unary"]
    assert len(next(op for op in graph.ops if isinstance(op, g.Concat)).inputs) == 2
    itself = [*joined, node("Exp", "ab", "y")]
    assert kinds(compare(model(itself, IMAGE, constants, outputs=("y", "c_again")))).count("Gather") == 0


@pytest.mark.parametrize("why", ["an operand is cut through", "the whole is an output", "channels are skipped"])
def test_joined_channels_stay(why: str) -> None:
    parts = np.array([6, 6]) if why == "an operand is cut through" else np.array([8, 4])
    nodes = [*BRANCHES, node("Concat", "a b c", "joined", axis=1)]
    if why == "channels are skipped":
        nodes.append(node("Gather", "joined every_other", "y", axis=1))
        nodes.append(node("Gather", "joined every_other", "z", axis=1))
    else:
        nodes.append(node("Split", "joined parts", "y z", axis=1))
    outputs = ("y", "z", "joined") if why == "the whole is an output" else ("y", "z")
    constants = {**CONV, "parts": parts, "every_other": np.arange(0, 12, 2)}
    graph = compare(model(nodes, IMAGE, constants, outputs=outputs))
    assert len(next(op for op in graph.ops if isinstance(op, g.Concat)).inputs) == 3


def test_a_detector_joins_boxes_and_scores_of_all_scales_apart() -> None:
    """Two lists, each of its own maps: neither the maps of a scale nor all scales are joined in one."""
    graph = compare(detector(scales=3))
    lists = [op for op in graph.ops if isinstance(op, g.Concat) and op.axis == "y" and len(op.inputs) == 3]
    assert [graph.shapes[op.output].channels for op in lists] == [BINS, CLASSES]
    assert all(isinstance(op, g.Conv) for op in graph.ops if op.output in {*lists[0].inputs, *lists[1].inputs})


def test_concats_in_a_row_become_one() -> None:
    nodes = [*BRANCHES, node("Concat", "a b", "ab", axis=1), node("Concat", "ab c", axis=1)]
    graph = compare(model(nodes, IMAGE, CONV))
    assert kinds(graph).count("Concat") == 1
    read_twice = compare(model([*nodes, node("Neg", "ab", "z")], IMAGE, CONV, outputs=("y", "z")))
    assert kinds(read_twice).count("Concat") == 2
    other_axis = [*BRANCHES, node("Concat", "a b", "ab", axis=1), node("Concat", "ab ab", axis=3)]
    assert kinds(compare(model(other_axis, IMAGE, CONV))).count("Concat") == 2
