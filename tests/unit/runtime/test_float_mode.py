"""Subnormal numbers count as zeros in a run, whose time they would else show in, and as themselves beside it; and a run
rounds to nearest, whatever its caller does."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import onnx
import onnx.parser
import pytest

import tinytee
from tinytee.zoo.quantized import quantized_network
from unit.plan.test_register_tiles import ISAS, KEY

LEAST = np.float32(2.0**-126)
"""Of the normal ones."""

UPWARDS = 0x800 if platform.machine() == "x86_64" else 0x400000
"""fenv.h's FE_UPWARD."""


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


@pytest.mark.parametrize("isa", ISAS)
def test_the_caller_s_rounding_is_not_the_run_s(isa: str | None) -> None:
    bundle = tinytee.compile(quantized_network("lenet5"), "300KiB", KEY)
    modes = ctypes.CDLL(None)
    with tinytee.Session(bundle, key=KEY, isa=isa) as session:
        (port,) = session.manifest.inputs
        feed = {port.name: np.random.default_rng(0).standard_normal(port.shape).astype(np.float32)}
        expected = session.run(feed)
        assert modes.fesetround(UPWARDS) == 0
        try:
            found = session.run(feed)
            assert modes.fegetround() == UPWARDS
        finally:
            modes.fesetround(0)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
