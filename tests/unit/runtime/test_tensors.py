"""Between the model's arrays and the core's feature maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytee.bundle import TensorSpec
from tinytee.bundle.manifest import DTYPES
from tinytee.runtime.tensors import check_inputs, from_core, to_core

IMAGE = TensorSpec("image", (0, 3, 4, 5), "float32", (0, 2, 3, 1), True, 4, 5, 3)
TOKENS = TensorSpec("tokens", (6,), "int64", (0,), False, 1, 1, 6)


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    extents = [draw(st.integers(1, 4)) for _ in range(draw(st.integers(1, 5)))]
    batched = draw(st.booleans())
    axes = len(extents) + batched
    perm = tuple(draw(st.permutations(range(axes))))
    shape = ((draw(st.integers(0, 3)), *extents)) if batched else tuple(extents)
    elems = int(np.prod(extents))
    return TensorSpec("t", shape, draw(st.sampled_from(DTYPES)), perm, batched, 1, 1, elems)


@given(specs(), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_there_and_back(spec: TensorSpec, sample_count: int, seed: int) -> None:
    shape = (sample_count, *spec.shape[1:]) if spec.batched else spec.shape
    array = np.random.default_rng(seed).integers(0, 2, shape).astype(spec.dtype)
    samples = [to_core(spec, array, k) for k in range(sample_count if spec.batched else 1)]
    assert all(s.flags.c_contiguous and s.dtype == np.float32 and s.size == spec.elems for s in samples)
    back = from_core(spec, np.stack([s.ravel() for s in samples]))
    assert back.dtype == array.dtype
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, array)


@given(st.integers(0, 2**32 - 1))
def test_the_core_sees_y_x_c(seed: int) -> None:
    array = np.random.default_rng(seed).standard_normal((2, 3, 4, 5)).astype(np.float32)
    found = to_core(IMAGE, array, 1)
    assert found.shape == (4, 5, 3)
    assert found[2, 4, 1] == array[1, 1, 2, 4]


def test_scalars() -> None:
    spec = TensorSpec("s", (), "float32", (), False, 1, 1, 1)
    arrays, count = check_inputs([spec], {"s": np.float32(3)})
    assert count == 1
    back = from_core(spec, to_core(spec, arrays["s"], 0).reshape(1, 1))
    assert back.shape == ()
    assert back == 3


def test_nan_and_infinities_pass() -> None:
    array = np.full((1, 3, 4, 5), np.nan, np.float32)
    array[0, 0, 0] = np.inf, -np.inf, 0.0, -0.0, np.nan
    arrays, _ = check_inputs([IMAGE], {"image": array})
    back = from_core(IMAGE, to_core(IMAGE, arrays["image"], 0).reshape(1, -1))
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "'image' is missing; the network takes image: float32 [any, 3, 4, 5]; tokens: int64 [6]"),
        ({"picture": 1}, ValueError, "no input 'picture'; the network takes image: float32"),
        ({"image": np.zeros((1, 3, 4, 5))}, TypeError, "'image' has dtype float64; expected is float32"),
        ({"image": [[1.0]]}, TypeError, "'image' has dtype float64; expected is float32"),
        (
            {"image": np.zeros((1, 3, 5, 4), np.float32)},
            ValueError,
            r"'image' has shape \[1, 3, 5, 4\]; expected is \[samples, 3, 4, 5\]",
        ),
        ({"image": np.zeros((3, 4, 5), np.float32)}, ValueError, r"shape \[3, 4, 5\]"),
        ({"image": np.zeros((0, 3, 4, 5), np.float32)}, ValueError, "no samples"),
        ({"tokens": np.zeros(6, np.int32)}, TypeError, "'tokens' has dtype int32; expected is int64"),
        ({"tokens": np.zeros(7, np.int64)}, ValueError, r"shape \[7\]; expected is \[6\]"),
        ({"tokens": np.full(6, 2**24 + 1)}, ValueError, r"beyond 2\*\*24"),
        ({"tokens": np.full(6, -(2**24) - 1)}, ValueError, r"beyond 2\*\*24"),
        ({"tokens": np.full(6, np.iinfo(np.int64).min)}, ValueError, r"beyond 2\*\*24"),
    ],
)
def test_a_callers_slip_is_named(given: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"image": np.zeros((2, 3, 4, 5), np.float32), "tokens": np.arange(6)}
    with pytest.raises(error, match=message.replace("[any", r"\[any").replace("5];", r"5\];").replace("[6]", r"\[6\]")):
        check_inputs([IMAGE, TOKENS], {**good, **given} if given else {"tokens": good["tokens"]})


def test_inputs_that_disagree_on_samples() -> None:
    other = TensorSpec("other", (0, 2), "float32", (0, 1), True, 1, 1, 2)
    given_arrays = {"image": np.zeros((2, 3, 4, 5), np.float32), "other": np.zeros((3, 2), np.float32)}
    with pytest.raises(ValueError, match="'image' has 2, 'other' has 3"):
        check_inputs([IMAGE, other], given_arrays)


def test_integers_up_to_the_limit_are_exact() -> None:
    array = np.array([2**24, -(2**24), 0, 1, 12345678, -7])
    arrays, _ = check_inputs([TOKENS], {"tokens": array})
    np.testing.assert_array_equal(from_core(TOKENS, to_core(TOKENS, arrays["tokens"], 0).reshape(1, -1)), array)


def test_foreign_byte_order_and_strides() -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(">f4")
    turned = np.asfortranarray(array)[:, ::-1]
    arrays, _ = check_inputs([IMAGE], {"image": turned})
    np.testing.assert_array_equal(to_core(IMAGE, arrays["image"], 0), array[0, ::-1].transpose(1, 2, 0))
