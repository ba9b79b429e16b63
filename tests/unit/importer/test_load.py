"""What is bound, what is batched, what is refused, and how errors read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tinytee.errors import TinyteeError, UnsupportedModelError
from tinytee.importer import load
from tinytee.ir.reference import evaluate
from tinytee.passes import optimize
from unit.importer.support import compare, model, node, random, run_onnxruntime

WEIGHT = {"w": random((4, 3, 3, 3))}
CONV = [node("Conv", "x w")]


@pytest.mark.parametrize("batch", ["n", 1, 5])
def test_convolutions_run_sample_by_sample(batch: int | str) -> None:
    proto = model(CONV, {"x": (batch, 3, 5, 5)}, WEIGHT)
    port = load(proto).inputs[0]
    assert port.batched and port.shape == (batch if isinstance(batch, int) else 0, 3, 5, 5)
    compare(proto, {"x": random((batch if isinstance(batch, int) else 3, 3, 5, 5))})


def test_literal_batch_in_a_reshape() -> None:
    nodes = [*CONV[:0], node("Conv", "x w", "c"), node("Reshape", "c s", "r"), node("Softmax", "r")]
    compare(model(nodes, {"x": (5, 3, 4, 4)}, {**WEIGHT, "s": np.array([5, -1])}))


def test_batch_computed_by_shape_operators() -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n zero", "u"),
        node("Concat", "u rest", "t", axis=0),
        node("Reshape", "c t"),
    ]
    constants = {**WEIGHT, "zero": np.array([0]), "rest": np.array([16])}
    nodes[3] = node("Identity", "n", "u")
    compare(model(nodes, {"x": ("n", 3, 4, 4)}, constants), {"x": random((3, 3, 4, 4))})


def test_mixed_samples_need_a_fixed_batch() -> None:
    proto = model([node("ReduceMax", "x a")], {"x": ("n", 3)}, {"a": np.array([0])})
    with pytest.raises(TinyteeError, match="--input-shape x=1x3"):
        load(proto)
    assert not compare(proto, {"x": random((4, 3))}, {"x": (4, 3)}).inputs[0].batched


def test_reshape_that_merges_samples_is_not_cut() -> None:
    proto = model([node("Reshape", "x s", "r"), node("ReduceMax", "r a")], {"x": ("n", 6)},
                  {"s": np.array([1, -1]), "a": np.array([1])})  # fmt: skip
    with pytest.raises(TinyteeError, match="open"):
        load(proto)
    compare(proto, {"x": random((4, 6))}, {"x": (4, 6)})


def test_batch_size_as_an_operand_is_not_cut() -> None:
    nodes = [node("Shape", "x", "s", end=1), node("Cast", "s", "f", to=1), node("Mul", "x f")]
    proto = model(nodes, {"x": ("n", 3)})
    with pytest.raises(TinyteeError, match="batch size"):
        load(proto)
    compare(proto, {"x": random((4, 3))}, {"x": (4, 3)})


def test_batch_size_as_the_end_of_another_axis_is_not_cut() -> None:
    nodes = [node("Shape", "x", "s", end=1), node("Slice", "x zero s one")]
    proto = model(nodes, {"x": ("n", 8)}, {"zero": np.array([0]), "one": np.array([1])})
    with pytest.raises(TinyteeError, match="ends depends on the batch size"):
        load(proto)
    compare(proto, {"x": random((4, 8))}, {"x": (4, 8)})


def test_constants_that_repeat_the_batch_size_are_not_cut() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "z"),
        node("Gather", "s zero", "n", axis=0),
        node("Cast", "n", "f", to=1),
        node("Add", "z f", "k"),
        node("Add", "x k"),
    ]
    proto = model(nodes, {"x": ("n", 3)}, {"zero": np.array([0])})
    with pytest.raises(TinyteeError, match="open"):
        load(proto)
    compare(proto, {"x": random((4, 3))}, {"x": (4, 3)})


def test_constants_of_the_batch_shape_are_cut() -> None:
    nodes = [node("Shape", "x", "s"), node("ConstantOfShape", "s", "z"), node("Concat", "x z", axis=1)]
    assert compare(model(nodes, {"x": ("n", 3)}), {"x": random((4, 3))}).inputs[0].batched


def test_sizes_of_a_resize_computed_from_the_shape() -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s", end=2),
        node("Concat", "s hw", "t", axis=0),
        node("Resize", "c - - t", mode="linear"),
    ]
    proto = model(nodes, {"x": ("n", 3, 4, 4)}, {**WEIGHT, "hw": np.array([5, 7])})
    assert compare(proto, {"x": random((2, 3, 4, 4))}).inputs[0].batched


def test_other_symbolic_dimensions_must_be_bound() -> None:
    proto = model(CONV, {"x": (1, 3, "height", "width")}, WEIGHT)
    with pytest.raises(TinyteeError, match=r"1x3xheightxwidth.*--input-shape x=1x3x224x224"):
        load(proto)
    compare(proto, {"x": random((1, 3, 6, 7))}, {"x": (1, 3, 6, 7)})


def test_a_symbol_bound_once_is_bound_everywhere() -> None:
    proto = model([node("Add", "x z")], {"x": (1, "a"), "z": (1, "a")})
    assert [port.shape for port in load(proto, {"x": (1, 4)}).inputs] == [(1, 4), (1, 4)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [({"q": (1,)}, "no input"), ({"x": (1, 4, 5, 5)}, "does not fit"), ({"x": (1, 3)}, "does not fit")],
)
def test_wrong_input_shapes(shapes: dict, message: str) -> None:
    with pytest.raises(TinyteeError, match=message):
        load(model(CONV, {"x": ("n", 3, 5, 5)}, WEIGHT), shapes)


def test_everything_unsupported_is_listed_at_once() -> None:
    nodes = [
        node("Sin", "x", "a"),
        node("Relu", "a", "b"),
        node("Det", "b", "c"),
        node("Softmax", "x", "d"),
        helper.make_node("Conv", ["d", "x"], ["e"], name="dynamic"),
        helper.make_node("FusedThing", ["d"], ["f"], domain="com.example"),
        node("Concat", "e f", "y", axis=1),
    ]
    with pytest.raises(UnsupportedModelError) as caught:
        load(model(nodes, {"x": (1, 3, 3, 3)}))
    text = str(caught.value)
    for part in ("4 places", "Sin_a", "Det_c", "'dynamic'", "weight must be a constant", "com.example"):
        assert part in text


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.STRING, TensorProto.UINT64])
def test_inputs_of_other_types(dtype: int) -> None:
    with pytest.raises(UnsupportedModelError, match="input 'x' has the type"):
        load(model([node("Identity", "x")], {"x": (1, 3)}, dtypes={"x": dtype, "y": dtype}))


def test_integer_arithmetic_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="only on float32"):
        load(model([node("Add", "x x")], {"x": (1, 3)}, dtypes={"x": TensorProto.INT64, "y": TensorProto.INT64}))


def test_dynamic_loops_are_refused() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Relu", ["v"], ["u"])],
        "body",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, []),
         helper.make_tensor_value_info("v", 1, None)],
        [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("u", 1, None)],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["m", "", "x"], ["y"], body=body, name="loop")]
    with pytest.raises(UnsupportedModelError, match="loop"):
        load(model(nodes, {"x": (1, 3)}, {"m": np.array(3)}))


@pytest.mark.parametrize("taken", [True, False])
def test_a_known_condition_picks_its_branch(taken: bool) -> None:
    branches: dict = {
        name: helper.make_graph(
            [helper.make_node(op, ["x"], [op])], name, [], [helper.make_tensor_value_info(op, 1, None)]
        )
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    compare(model([helper.make_node("If", ["c"], ["y"], **branches)], {"x": (1, 3)}, {"c": np.array(taken)}))


def test_local_functions_are_inlined() -> None:
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="local")], {"x": (1, 3)})
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 21)]
    proto.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    compare(proto)


def test_outputs_that_are_inputs_constants_or_twice_the_same() -> None:
    nodes = [node("Relu", "x", "a"), node("Identity", "a", "b"), node("Identity", "x", "c"), node("Identity", "k", "d")]
    compare(model(nodes, {"x": (2, 3)}, {"k": random((2, 2))}, outputs=("a", "b", "c", "d")))


class TestFiles:
    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(TinyteeError, match="no file"):
            load(tmp_path / "absent.onnx")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(TinyteeError, match="is a directory"):
            load(tmp_path)

    @pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"hello", bytes(64)])
    def test_foreign_files(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(TinyteeError, match="not an ONNX model"):
            load(tmp_path / "m.onnx")

    def test_empty_file(self) -> None:
        with pytest.raises(TinyteeError, match="empty"):
            load(b"")

    def test_every_truncation_is_refused(self) -> None:
        data = model(CONV, {"x": (1, 3, 5, 5)}, WEIGHT).SerializeToString()
        for length in range(1, len(data), 7):
            with pytest.raises(TinyteeError):
                load(data[:length])

    def test_empty_model(self) -> None:
        proto = onnx.ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 21)])
        proto.graph.name = "empty"
        with pytest.raises(TinyteeError, match="empty"):
            load(proto)

    def test_external_data(self, tmp_path: Path) -> None:
        proto = model(CONV, {"x": (1, 3, 5, 5)}, WEIGHT)
        expected = run_onnxruntime(proto, {"x": random((1, 3, 5, 5))})[0]
        path = tmp_path / "m.onnx"
        onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
        found = evaluate(optimize(load(path)), {"x": random((1, 3, 5, 5))})["y"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        (tmp_path / "m.data").write_bytes((tmp_path / "m.data").read_bytes()[:100])
        with pytest.raises(TinyteeError, match="shorter"):
            load(path)
        (tmp_path / "m.data").unlink()
        with pytest.raises(TinyteeError, match=r"'m\.data', missing"):
            load(path)
        with pytest.raises(TinyteeError, match="external file"):
            load(path.read_bytes())
