"""Convolutions and pools of every shape against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinytee.errors import UnsupportedModelError
from tinytee.importer import load
from unit.importer.support import compare, kinds, model, node, random

SOME = settings(max_examples=60, deadline=None)
AUTO = st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])


@st.composite
def windows(draw, rank: int) -> dict:
    """Attributes of a sliding window over ``rank`` axes, and extents that it fits."""
    kernel = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    dilations = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    pads = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return {
        "kernel_shape": kernel,
        "strides": draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)),
        "dilations": dilations,
        "pads": pads,
        "size": [draw(st.integers(r, r + 6)) for r in reach],
        "auto_pad": draw(AUTO),
    }


def _attributes(window: dict, *drop: str) -> dict:
    found = {key: value for key, value in window.items() if key not in ("size", *drop)}
    if found.get("auto_pad") != "NOTSET":
        found.pop("pads", None)
    return found


@SOME
@given(st.data())
def test_conv(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    window = data.draw(windows(rank))
    groups, per_in, per_out = (data.draw(st.integers(1, 3)) for _ in range(3))
    channels, outputs, batch = groups * per_in, groups * per_out, data.draw(st.integers(1, 2))
    if window["auto_pad"].startswith("SAME"):
        window["dilations"] = [1] * rank
    weight = random((outputs, per_in, *window["kernel_shape"]), 1)
    constants = {"w": weight, "b": random((outputs,), 2)}
    proto = model(
        [node("Conv", "x w b", group=groups, **_attributes(window))],
        {"x": (batch, channels, *window["size"])},
        constants,
    )
    compare(proto)


@SOME
@given(st.data())
def test_conv_transpose(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    window = data.draw(windows(rank))
    strides = window["strides"]
    if data.draw(st.booleans()):
        strides = window["strides"] = [strides[0]] * rank
    window["dilations"] = [1] * rank if window["auto_pad"] != "NOTSET" else window["dilations"]
    extra = [data.draw(st.integers(0, s - 1)) for s in strides]
    groups, per_in, per_out = (data.draw(st.integers(1, 2)) for _ in range(3))
    reach = [(k - 1) * d + 1 for k, d in zip(window["kernel_shape"], window["dilations"], strict=True)]
    before, after = window["pads"][:rank], window["pads"][rank:]
    outs = [(n - 1) * s + r + e - b - a for n, s, r, e, b, a in
            zip(window["size"], strides, reach, extra, before, after, strict=True)]  # fmt: skip
    assume(min(outs) > 0)
    assume(window["auto_pad"] in ("NOTSET", "VALID"))
    constants = {
        "w": random((groups * per_in, per_out, *window["kernel_shape"]), 1),
        "b": random((groups * per_out,), 2),
    }
    attributes = {**_attributes(window), "output_padding": extra, "group": groups}
    proto = model(
        [node("ConvTranspose", "x w b", **attributes)], {"x": (1, groups * per_in, *window["size"])}, constants
    )
    compare(proto)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_conv_transpose_same(auto_pad: str, kernel: int) -> None:
    attributes = {"strides": [2, 2], "auto_pad": auto_pad}
    constants = {"w": random((3, 2, kernel, kernel))}
    compare(model([node("ConvTranspose", "x w", **attributes)], {"x": (1, 3, 4, 5)}, constants))


def test_conv_transpose_output_shape() -> None:
    constants = {"w": random((3, 2, 3, 3))}
    proto = model([node("ConvTranspose", "x w", strides=[3, 2], output_shape=[10, 8])], {"x": (1, 3, 3, 3)}, constants)
    compare(proto)


@SOME
@given(st.data(), st.sampled_from(["MaxPool", "AveragePool"]))
def test_pool(data: st.DataObject, op_type: str) -> None:
    rank = data.draw(st.integers(1, 2))
    window = data.draw(windows(rank))
    attributes = _attributes(window)
    attributes["ceil_mode"] = data.draw(st.integers(0, 1)) if attributes["auto_pad"] == "NOTSET" else 0
    if op_type == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    if attributes["auto_pad"].startswith("SAME"):
        attributes["dilations"] = [1] * rank
    # ONNX Runtime refuses windows shorter than their stride under SAME.
    shorter = any(k < s for k, s in zip(window["kernel_shape"], window["strides"], strict=True))
    assume(not (shorter and attributes["auto_pad"].startswith("SAME")))
    # ONNX Runtime divides the windows that ceil_mode cuts short by another number when it counts padding.
    assume(not (attributes.get("count_include_pad") and attributes["ceil_mode"]))
    compare(model([node(op_type, "x", **attributes)], {"x": (2, 3, *window["size"])}))


def test_depthwise_is_its_own_operator() -> None:
    constants = {"w": random((4, 1, 3, 3))}
    assert kinds(compare(model([node("Conv", "x w", group=4)], {"x": (1, 4, 6, 6)}, constants))) == ["DepthwiseConv"]


def test_padding_joins_the_window() -> None:
    constants = {"p": np.array([0, 0, 1, 0, 0, 0, 2, 1]), "w": random((2, 3, 3, 3))}
    graph = compare(model([node("Pad", "x p", "z"), node("Conv", "z w")], {"x": (1, 3, 6, 5)}, constants))
    assert kinds(graph) == ["Conv"]


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_padding_joins_a_pool_after_relu(op_type: str) -> None:
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": random((3, 3, 1, 1))}
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("Pad", "b p", "z"),
        node(op_type, "z", kernel_shape=[3, 3], strides=[2, 2]),
    ]
    assert kinds(compare(model(nodes, {"x": (1, 3, 7, 7)}, constants))) == ["Conv", "Pool"]


def test_padding_stays_before_a_max_pool_of_anything() -> None:
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    nodes = [node("Pad", "x p", "z"), node("MaxPool", "z", kernel_shape=[3, 3])]
    assert kinds(compare(model(nodes, {"x": (1, 3, 7, 7)}, constants))) == ["Gather", "Pool"]


@pytest.mark.parametrize("groups", [1, 3])
def test_padding_wider_than_a_convolution(groups: int) -> None:
    proto = model(
        [node("Conv", "x w", pads=[2, 3, 4, 2], group=groups)],
        {"x": (1, 3, 4, 4)},
        {"w": random((3, 3 // groups, 1, 2))},
    )
    assert kinds(compare(proto)) == ["Gather", "DepthwiseConv" if groups == 3 else "Conv"]


def test_three_dimensions_are_refused() -> None:
    proto = model([node("Conv", "x w")], {"x": (1, 2, 4, 4, 4)}, {"w": random((2, 2, 1, 1, 1))})
    with pytest.raises(UnsupportedModelError, match="3-D is not supported"):
        load(proto)
