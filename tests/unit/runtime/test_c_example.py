"""examples/c: a bundle runs from C alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tamper.programs import passthrough, passthrough_bundle
from tinytee.ir.graph import Quant
from tinytee.ir.quantized import dequantize, quantize

KEY = bytes(range(32))
PROGRAM = Path(__file__).parents[3] / "build" / "examples" / "tinytee_run"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the C example is not built: cmake --build build")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    passthrough_bundle(KEY).save(tmp_path / "model.tt")
    (tmp_path / "raw.key").write_bytes(KEY)
    (tmp_path / "hex.key").write_text(KEY.hex() + "\n")
    (tmp_path / "bad.key").write_bytes(bytes(32))
    np.random.default_rng(5).standard_normal((7, 5, 3)).astype("<f4").tofile(tmp_path / "x.f32")
    return tmp_path


@pytest.mark.parametrize("key", ["raw.key", "hex.key"])
def test_it_runs(folder: Path, key: str) -> None:
    ran = run(folder, "model.tt", key, "x.f32", "105", "y.f32")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("secure memory: ")
    assert (folder / "y.f32").read_bytes() == (folder / "x.f32").read_bytes()


def test_a_quantized_network_takes_floats(folder: Path) -> None:
    quant = Quant(0.5, 120)
    passthrough_bundle(KEY, lowered=passthrough(quant=quant)).save(folder / "model.tt")
    ran = run(folder, "model.tt", "raw.key", "x.f32", "105", "y.f32")
    assert (ran.returncode, ran.stderr) == (0, "")
    given, found = (np.fromfile(folder / name, "<f4") for name in ("x.f32", "y.f32"))
    np.testing.assert_array_equal(found, dequantize(quantize(given, quant), quant))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model.tt", "bad.key", "x.f32", "105", "y.f32"],
            "the key is not this bundle's key, or the bundle was changed",
        ),
        (["model.tt", "x.f32", "x.f32", "105", "y.f32"], "no key"),
        (["x.f32", "raw.key", "x.f32", "105", "y.f32"], "not a tinytee bundle"),
        (["model.tt", "raw.key", "x.f32", "104", "y.f32"], "output 0 has 104 elements"),
        (["model.tt", "raw.key", "x.f32,x.f32", "", "y.f32"], "output 0 of 0"),
        (["model.tt", "raw.key", "raw.key", "105", "y.f32"], "input 0 has 8 elements"),
        (["model.tt", "raw.key", "nowhere", "105", "y.f32"], "cannot be read"),
        (["model.tt"], "usage"),
    ],
)
def test_slips_are_one_line(folder: Path, arguments: list[str], message: str) -> None:
    ran = run(folder, *arguments)
    assert ran.returncode == 1
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (folder / "y.f32").exists()
