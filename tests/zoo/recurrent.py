"""Recurrent networks of the kinds that devices run, with seeded random weights."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from unit.importer.support import model, node


def matrix(*shape: int) -> NDArray[np.float32]:
    """The same for the same shape."""
    return (np.random.default_rng(shape).standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def recurrent_weights(name: str, gates: int, hidden: int, features: int, directions: int = 1) -> dict[str, NDArray]:
    rows = gates * hidden
    return {
        f"{name}.w": matrix(directions, rows, features), f"{name}.r": matrix(directions, rows, hidden),
        f"{name}.b": matrix(directions, 2 * rows),
    }  # fmt: skip


def keyword_spotter() -> onnx.ModelProto:
    """A second of speech in ten coefficients to twelve scores: a convolution, two GRUs, their last state (in the manner
    of the CRNN of Zhang et al., "Hello Edge", arXiv 1711.07128)."""
    constants = {
        "conv.w": matrix(48, 1, 10, 4), "conv.b": matrix(48), "shape": np.array([1, 20, -1]), "last": np.array(-1),
        "fc.w": matrix(12, 60), **recurrent_weights("g0", 3, 60, 48 * 4), **recurrent_weights("g1", 3, 60, 60),
    }  # fmt: skip
    nodes = [
        node("Conv", "x conv.w conv.b", "conv", strides=[2, 2]),
        node("Relu", "conv", "relu"),
        node("Transpose", "relu", "by_time", perm=[0, 2, 1, 3]),
        node("Reshape", "by_time shape", "frames"),
        node("Transpose", "frames", "f", perm=[1, 0, 2]),
        node("GRU", "f g0.w g0.r g0.b", "h0 l0", hidden_size=60, linear_before_reset=1),
        node("Squeeze", "h0 one", "s0"),
        node("GRU", "s0 g1.w g1.r g1.b", "h1 l1", hidden_size=60, linear_before_reset=1),
        node("Squeeze", "l1 zero", "state"),
        node("Gemm", "state fc.w", "scores", transB=1),
        node("Softmax", "scores", "y", axis=1),
    ]
    constants |= {"one": np.array([1]), "zero": np.array([0])}
    return model(nodes, {"x": (1, 1, 49, 10)}, constants)


def activity_recognizer() -> onnx.ModelProto:
    """128 readings of nine sensors to six activities, by two LSTMs in both directions and a mean."""
    constants = {
        "order": np.array([0, 0, -1]), "fc.w": matrix(6, 64), "axes": np.array([0]),
        **recurrent_weights("l0", 4, 32, 9, 2), **recurrent_weights("l1", 4, 32, 64, 2),
    }  # fmt: skip
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2])]
    source = "t"
    for name in ("l0", "l1"):
        nodes += [
            node(
                "LSTM", f"{source} {name}.w {name}.r {name}.b", f"{name}.y", hidden_size=32, direction="bidirectional"
            ),
            node("Transpose", f"{name}.y", f"{name}.t", perm=[0, 2, 1, 3]),
            node("Reshape", f"{name}.t order", f"{name}.s"),
        ]
        source = f"{name}.s"
    nodes += [node("ReduceMean", f"{source} axes", "mean", keepdims=0), node("Gemm", "mean fc.w", "y", transB=1)]
    return model(nodes, {"x": (1, 128, 9)}, constants)


def voice_detector(steps: int) -> onnx.ModelProto:
    """An LSTM whose state comes in and goes out, so that a stream can be fed piece by piece."""
    constants = {"fc.w": matrix(64, 1), **recurrent_weights("l", 4, 64, 40)}
    nodes = [
        node("LSTM", "x l.w l.r l.b - h c", "hidden h1 c1", hidden_size=64),
        node("MatMul", "hidden fc.w", "logit"),
        node("Sigmoid", "logit", "y"),
    ]
    return model(nodes, {"x": (steps, 1, 40), "h": (1, 1, 64), "c": (1, 1, 64)}, constants, ["y", "h1", "c1"])
