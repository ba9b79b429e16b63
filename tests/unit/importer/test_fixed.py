"""Inputs that become constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tinytee.errors import TinyteeError, UnsupportedModelError
from tinytee.importer import fix_inputs, load
from tinytee.ir.reference import evaluate
from unit.importer.support import by_rate, model, node, random, run_onnxruntime


@pytest.mark.parametrize("rate", [16000, 8000])
def test_a_branch_is_chosen_by_a_value(rate: int) -> None:
    fixed = fix_inputs(by_rate(), {"rate": rate})
    graph, feeds = load(fixed), {"x": random((1, 4)), "s": random((1, 4), 1)}
    assert [port.name for port in graph.inputs] == ["x", "s"]
    expected = feeds["x"] + feeds["s"] if rate == 16000 else feeds["x"] - feeds["s"]
    np.testing.assert_allclose(evaluate(graph, feeds)["y"], expected)
    np.testing.assert_allclose(run_onnxruntime(fixed, feeds)[0], expected)


def test_without_a_value_the_refusal_says_how_to_give_one() -> None:
    with pytest.raises(UnsupportedModelError, match="fix the input 'rate': --input-value rate="):
        load(by_rate())
    multiplied = model([node("Mul", "n n", "y")], {"n": (1, 2)}, dtypes={"n": TensorProto.INT64})
    with pytest.raises(UnsupportedModelError, match=r"arithmetic on int64.*--input-value n="):
        load(multiplied)


def test_one_number_fills_a_shape_and_files_keep_their_weights(tmp_path: Path) -> None:
    proto, path = by_rate(), tmp_path / "model.onnx"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(random((64, 64)), "unused"))
    onnx.save(proto, path, save_as_external_data=True, location="weights", size_threshold=16)
    fixed = fix_inputs(path, {"rate": 16000, "s": 0})
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in fixed.graph.initializer}
    np.testing.assert_array_equal(found["s"], np.zeros((1, 4), np.float32))
    np.testing.assert_array_equal(found["unused"], random((64, 64)))
    assert [value.name for value in fixed.graph.input] == ["x"]
    given = fix_inputs(path, {"s": [[1, 2, 3, 4]]})
    assert onnx.numpy_helper.to_array(given.graph.initializer[-1]).dtype == np.float32


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"rat": 1}, r"no input 'rat' to give a value; its inputs are \['x', 's', 'rate'\]"),
        ({"rate": 1.5}, "'rate' is 1.5, and the model wants int64"),
        ({"rate": [1, 2]}, "the model wants a single number"),
        ({"s": [1, 2, 3]}, "the model wants 1x4"),
        ({"s": "fast"}, "could not convert"),
    ],
)
def test_values_that_do_not_fit(values: dict, text: str) -> None:
    with pytest.raises(TinyteeError, match=text):
        fix_inputs(by_rate(), values)
