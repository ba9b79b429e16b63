"""Models in float16 and bfloat16 become float32, whichever way they say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tinytee.errors import TinyteeError
from tinytee.importer import in_float32, load, reference_model
from tinytee.ir.reference import evaluate
from tinytee.quantize import read_proto
from unit.importer.support import compare, in_half, model, node, random, run_onnxruntime


def test_a_model_in_float16_computes_what_it_says_but_for_rounding() -> None:
    proto = in_half()
    before = proto.SerializeToString()
    widened = in_float32(proto)
    assert proto.SerializeToString() == before
    assert widened.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    compare(widened)
    x = random((1, 3, 8, 8))
    (expected,) = run_onnxruntime(proto, {"x": x.astype(np.float16)})
    found = evaluate(load(proto), {"x": x})["y"]
    assert expected.dtype == np.float16
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_casts_at_the_edges() -> None:
    """As converters leave models that keep their inputs and outputs in float32."""
    proto = in_half(x=TensorProto.FLOAT, y=TensorProto.FLOAT)
    proto.graph.node.insert(0, node("Cast", "x", "x_half", to=TensorProto.FLOAT16))
    proto.graph.node[1].input[0] = "x_half"
    proto.graph.node[-1].output[0] = "y_half"
    proto.graph.node.append(node("Cast", "y_half", "y", to=TensorProto.FLOAT))
    compare(in_float32(proto))


def test_bfloat16_becomes_float32_too() -> None:
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [2, 1], [1.5, -3.0])
    kinds = {"x": TensorProto.BFLOAT16, "y": TensorProto.BFLOAT16}
    proto = model([node("MatMul", "x w")], {"x": (1, 2)}, dtypes=kinds)
    proto.graph.initializer.append(weight)
    assert evaluate(load(proto), {"x": np.array([[2, 1]], np.float32)})["y"].tolist() == [[0.0]]


def test_a_model_without_halves_is_left_alone(tmp_path: Path) -> None:
    proto = model([node("Relu", "x")], {"x": (1, 2)})
    assert in_float32(proto) is proto
    onnx.save(proto, tmp_path / "model.onnx")
    assert reference_model(tmp_path / "model.onnx") == tmp_path / "model.onnx"


@pytest.mark.parametrize("external", [False, True])
def test_files(external: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(in_half(), path, save_as_external_data=external, location="weights", size_threshold=0)
    assert (tmp_path / "weights").exists() == external
    x = random((1, 3, 8, 8))
    expected = evaluate(load(in_half()), {"x": x})["y"]
    np.testing.assert_array_equal(evaluate(load(path), {"x": x})["y"], expected)
    for found in (reference_model(path), read_proto(path)):
        assert isinstance(found, onnx.ModelProto)
        np.testing.assert_allclose(run_onnxruntime(found, {"x": x})[0], expected, rtol=1e-5, atol=1e-5)


def test_weights_that_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(in_half(), path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").write_bytes(b"\x00")
    with pytest.raises(TinyteeError, match="float16 weights cannot be read"):
        load(path)
