"""Weights made to fit: the proof, and what the change of scales keeps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

import tinytee
from tinytee.api import load_graph, wants_short_sums
from tinytee.ir.lanes import LANE_BOUND, lane_sums
from tinytee.ir.quantized import QConv
from tinytee.plan import profile
from tinytee.plan.quantized import products_in_16_bits
from tinytee.quantize import quantize
from tinytee.quantize.lanes import limited_scales, rounded
from unit.quantize.test_quantize import SIZE, network


def worst_lane(weight: np.ndarray) -> int:
    """By hand, for a kernel of 1 x 1: k, k + 2 of a four, and the same of the next."""
    padded = np.abs(np.pad(weight[:, 0, 0].astype(int), ((0, 0), (0, -weight.shape[3] % 4))))
    worst = 0
    for k in (k for k in range(padded.shape[1]) if k % 4 < 2):
        worst = max(worst, (padded[:, k] + padded[:, k + 2] + sum(padded[:, k + 4 : k + 7 : 2].T, np.int64(0))).max())
    return int(worst)


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 1 << 30))
def test_sums_of_a_lane(channels: int, depth: int, seed: int) -> None:
    weight = np.random.default_rng(seed).integers(-128, 128, (channels, 1, 1, depth)).astype(np.int8)
    assert lane_sums(weight, 1, 1, 4).max() == worst_lane(weight)


@pytest.mark.parametrize(("magnitude", "count"), [(63, 4), (64, 2), (127, 2), (128, 1)])
def test_proof(magnitude: int, count: int) -> None:
    weight = np.full((3, 1, 1, 16), -magnitude, np.int8)
    ones = np.ones(3, np.float32)
    conv = QConv(name="c", inputs=("x",), output="y", weight=weight, bias=np.zeros(3, np.int32), multiplier=ones)
    assert products_in_16_bits(conv) == count


@given(st.sampled_from([1, 2]), st.sampled_from([1, 3]), st.integers(0, 1 << 30))
def test_scales_grow_just_enough(groups: int, kernel: int, seed: int) -> None:
    kernels = np.random.default_rng(seed).standard_normal((4, kernel, kernel, 24)).astype(np.float32)
    scales = (np.abs(kernels).reshape(4, -1).max(axis=1) / 127).astype(np.float32)
    integers = rounded(kernels, scales)
    after = limited_scales(kernels, integers, scales, groups, 1)
    sums = lane_sums(integers, groups, 1, 4)
    assert (after >= scales).all()
    np.testing.assert_array_equal(after[sums <= LANE_BOUND], scales[sums <= LANE_BOUND])
    assert lane_sums(rounded(kernels, after), groups, 1, 4).max() <= LANE_BOUND
    assert (after / scales <= np.maximum(1, 1.03 * sums / LANE_BOUND)).all()


def test_a_network_fits_and_keeps_its_answers() -> None:
    rng = np.random.default_rng(1)
    pictures = [{"image": rng.standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)} for _ in range(6)]
    made = quantize(network(), pictures[:4], pictures[4:], short_sums=True)
    convs = [op for op in load_graph(made.model).ops if isinstance(op, QConv)]
    assert len(convs) == 3
    assert all(products_in_16_bits(conv) == 4 for conv in convs)
    assert made.accuracy.outputs[0].cosine > 0.99
    scales = {t.name: numpy_helper.to_array(t) for t in made.model.graph.initializer}
    readers = {node.output[0]: node for node in made.model.graph.node if node.op_type == "DequantizeLinear"}
    for node in made.model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        image, weight, bias = (readers[name].input[1] for name in node.input)
        np.testing.assert_allclose(scales[bias], scales[image] * scales[weight], rtol=1e-5)
    onnx.checker.check_model(made.model)


def test_the_device_decides() -> None:
    pi = profile.load("raspberry-pi-3")
    assert wants_short_sums("auto", pi)
    assert not wants_short_sums("never", pi)
    assert not wants_short_sums("auto", None)
    assert not wants_short_sums("auto", profile.load())
    assert wants_short_sums("always", None)
    with pytest.raises(ValueError, match="auto, always and never"):
        wants_short_sums("sometimes", pi)
    with pytest.raises(ValueError, match="auto, always and never"):
        tinytee.quantize_model("model.onnx", "photos", short_sums="sometimes")
