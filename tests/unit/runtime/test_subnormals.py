"""Subnormal numbers count as zeros in a run, whose time they would else show in, and as themselves beside it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import tinytee
from unit.plan.test_register_tiles import ISAS, KEY

LEAST = np.float32(2.0**-126)
"""Of the normal ones."""


def scaled_model() -> onnx.ModelProto:
    """Products that are subnormal, and products by subnormal numbers that are not."""
    return onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        scaled (float[1, 64, 4, 16] x) => (float[1, 64, 4, 16] halves, float[1, 64, 4, 16] large)
        <float half = {0.5}, float much = {1048576}>
        { halves = Mul(x, half)  large = Mul(x, much) }
    """)


def numbers() -> np.ndarray:
    x = np.full((1, 64, 4, 16), LEAST, np.float32)
    x[..., ::2] /= 2
    return x


def check_zeros(found: dict[str, np.ndarray]) -> None:
    assert not found["halves"].any()
    large = np.where(numbers() < LEAST, np.float32(0), LEAST * np.float32(1048576))
    np.testing.assert_array_equal(found["large"], large)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
def test_subnormal_numbers_are_zeros(isa: str | None, threads: int) -> None:
    bundle = tinytee.compile(scaled_model(), "1MiB", KEY, threads=threads)
    x = numbers()
    with tinytee.Session(bundle, key=KEY, isa=isa, threads=threads) as session:
        check_zeros(session.run({"x": x}))
        assert (x * np.float32(0.5)).all()
        with pytest.raises(ValueError, match="x"):
            session.run({"x": x[:, :1]})
        assert (x * np.float32(0.5)).all()
