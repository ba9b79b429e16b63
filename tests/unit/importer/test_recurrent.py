"""RNN, GRU and LSTM against ONNX Runtime, and what of them is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tinytee.errors import UnsupportedModelError
from tinytee.importer import load
from tinytee.ir.graph import Scan
from tinytee.ir.reference import evaluate
from unit.importer.support import compare, kinds, model, node, random

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FEATURES, HIDDEN = 5, 6


def layer(
    op_type: str,
    steps: int = 4,
    samples: int = 1,
    direction: str = "forward",
    *,
    initial: Sequence[NDArray | str] = (),
    peepholes: bool = False,
    outputs: Sequence[str] = (),
    lengths: Sequence[int] = (),
    **attributes: Any,
) -> onnx.ModelProto:
    """One layer. initial: constants, or names of inputs."""
    count, rows = 1 + (direction == "bidirectional"), GATES[op_type] * HIDDEN
    constants: dict[str, NDArray] = {
        "w": random((count, rows, FEATURES), 1) / 2, "r": random((count, rows, HIDDEN), 2) / 4,
        "b": random((count, 2 * rows), 3) / 4,
    }  # fmt: skip
    batch_first = attributes.get("layout", 0) == 1
    inputs: dict[str, Sequence[int]] = {"x": (samples, steps, FEATURES) if batch_first else (steps, samples, FEATURES)}
    names = ["x", "w", "r", "b", "-"]
    if lengths:
        names[4], constants["lengths"] = "lengths", np.array(lengths, np.int32)
    for number, given in enumerate(initial):
        names.append(f"s{number}")
        if isinstance(given, str):
            inputs[f"s{number}"] = (samples, count, HIDDEN) if batch_first else (count, samples, HIDDEN)
        else:
            constants[f"s{number}"] = given
    if peepholes:
        names += ["-"] * (7 - len(names)) + ["p"]
        constants["p"] = random((count, 3 * HIDDEN), 4) / 2
    wanted = outputs or ("y", "yh", "yc")[: 3 if op_type == "LSTM" else 2]
    recurrent = node(op_type, " ".join(names), " ".join(wanted), hidden_size=HIDDEN, direction=direction, **attributes)
    return model([recurrent], inputs, constants, [name for name in wanted if name != "-"])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op_type", GATES)
def test_directions(op_type: str, direction: str) -> None:
    for samples in (1, 3):
        compare(layer(op_type, samples=samples, direction=direction))


@pytest.mark.parametrize("op_type", GATES)
def test_initial_states_that_are_inputs(op_type: str) -> None:
    states = ["h", "c"][: 1 + (op_type == "LSTM")]
    compare(layer(op_type, samples=2, direction="bidirectional", initial=states))
    compare(layer(op_type, steps=1, initial=states))


def test_initial_states_that_are_constants() -> None:
    some, none = random((1, 2, HIDDEN), 5), np.zeros((1, 2, HIDDEN), np.float32)
    compare(layer("LSTM", samples=2, initial=[some, some]))
    graph = compare(layer("LSTM", samples=2, initial=[none, none]))
    assert kinds(graph) == kinds(compare(layer("LSTM", samples=2)))


def test_variants() -> None:
    compare(layer("GRU", linear_before_reset=1, direction="bidirectional"))
    compare(layer("LSTM", peepholes=True))
    compare(layer("LSTM", lengths=[4]))
    compare(layer("LSTM", activations=["HardSigmoid", "Relu", "Tanh"], activation_alpha=[0.3], activation_beta=[0.4]))
    compare(layer("RNN", activations=["LeakyRelu"], activation_alpha=[0.3]))


def test_a_single_step_and_outputs_that_nobody_wants() -> None:
    compare(layer("GRU", steps=1))
    scan = next(op for op in compare(layer("LSTM", outputs=("-", "yh"))).ops if isinstance(op, Scan))
    assert scan.result == "h"


@pytest.mark.parametrize("op_type", GATES)
def test_samples_first(op_type: str) -> None:
    """ONNX Runtime refuses this layout: it is the other one, transposed."""
    graph, other = load(layer(op_type, samples=2, layout=1)), load(layer(op_type, samples=2))
    x = random((2, 4, FEATURES))
    assert graph.inputs[0].batched
    found, expected = evaluate(graph, {"x": x}), evaluate(other, {"x": x.swapaxes(0, 1)})
    np.testing.assert_allclose(found["y"], expected["y"].transpose(2, 0, 1, 3), atol=1e-6)
    np.testing.assert_allclose(found["yh"], expected["yh"].swapaxes(0, 1), atol=1e-6)


def test_as_torch_exports_it() -> None:
    """Samples first outside, features of both directions side by side, and a classifier of the last step."""
    inner = layer("GRU", steps=6, direction="bidirectional")
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in inner.graph.initializer}
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("GRU", "t w r b", "g h", hidden_size=HIDDEN, direction="bidirectional"),
        node("Transpose", "g", "gt", perm=[0, 2, 1, 3]),
        node("Reshape", "gt flat", "features"),
        node("Transpose", "features", "f", perm=[1, 0, 2]),
        node("Gather", "f last", "l", axis=1),
        node("Gemm", "l m", "y"),
    ]
    constants |= {"flat": np.array([0, 0, -1]), "last": np.array(-1), "m": random((2 * HIDDEN, 3), 7)}
    found = compare(model(nodes, {"x": (1, 6, FEATURES)}, constants))
    assert "Permute" not in kinds(found)


def refused(proto: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        load(proto)
    return str(caught.value)


def test_refusals() -> None:
    assert "sequences are shorter than the 4 steps" in refused(layer("LSTM", samples=2, lengths=[4, 3]))
    assert "clipped gates" in refused(layer("GRU", clip=3.0))
    assert "coupled input and forget" in refused(layer("LSTM", input_forget=1))
    assert "activation Affine" in refused(layer("RNN", activations=["Affine"]))
    assert "2 activations" in refused(layer("RNN", activations=["Tanh", "Tanh"]))
    assert "a state is (1, 2, 6), not of 1 samples" in refused(layer("GRU", initial=[np.ones((1, 2, HIDDEN), "f4")]))
    one = layer("GRU", direction="bidirectional", initial=[np.ones((1, 1, HIDDEN), "f4")])
    assert "a state is (1, 1, 6)" in refused(one)
    proto = layer("LSTM", peepholes=True)
    proto.graph.initializer.remove(next(i for i in proto.graph.initializer if i.name == "p"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(random((1, 2 * HIDDEN)), "p"))
    assert "P are not of the shape (1, 18)" in refused(proto)
    proto = layer("GRU")
    proto.graph.initializer.remove(next(i for i in proto.graph.initializer if i.name == "r"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(random((1, 3 * HIDDEN, HIDDEN + 1)), "r"))
    assert "do not meet an input of 5 features" in refused(proto)
    proto = layer("GRU")
    proto.graph.input.append(onnx.helper.make_tensor_value_info("r2", 1, [1, 3 * HIDDEN, HIDDEN]))
    proto.graph.node[0].input[2] = "r2"
    assert "the weights R must be a constant" in refused(proto)
