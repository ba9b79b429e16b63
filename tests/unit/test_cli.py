"""The command line: what it prints, what it leaves behind, how it exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tamper.programs import passthrough_bundle
from tinytee import Preprocessing, __version__
from tinytee.cli import main
from unit.conftest import Run
from unit.importer.support import by_rate, in_half


def build_model(scale: float = 1.0) -> onnx.ModelProto:
    """A small classifier: Conv, Relu, GlobalAveragePool, Flatten, Gemm, Softmax."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((8, 3, 3, 3)).astype(np.float32) * scale,
        "b": generator.standard_normal(8).astype(np.float32),
        "m": generator.standard_normal((8, 4)).astype(np.float32),
        "c": generator.standard_normal(4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "m", "c"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 12])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def ready(run: Run, tmp_path: Path) -> Path:
    """A folder with a key, a model, a passthrough bundle and an input of its shape."""
    assert run("keygen", "model.key")[0] == 0
    onnx.save(build_model(), tmp_path / "small.onnx")
    key = bytes.fromhex((tmp_path / "model.key").read_text())
    names = tuple(f"class {k}" for k in range(105))
    how = Preprocessing((7, 5), mean=(127.0,), scale=(128.0,))
    passthrough_bundle(key, preprocessing=how, class_names=names).save(tmp_path / "pass.tt")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((2, 3, 7, 5)).astype(np.float32))
    return tmp_path


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"tinytee {__version__}\n", "")
    status, out, _ = run("--help")
    assert status == 0
    for command in ("keygen", "compile", "plan", "run", "inspect", "verify", "profile", "demo"):
        assert command in out
        assert run(command, "--help")[0] == 0


def test_keygen_writes_once_for_the_owner_only(run: Run, tmp_path: Path) -> None:
    assert run("keygen", "model.key")[0] == 0
    path = tmp_path / "model.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32
    before = path.read_bytes()
    status, _, err = run("keygen", "model.key")
    assert (status, err) == (2, "tinytee: model.key exists; a key is never overwritten\n")
    assert path.read_bytes() == before


def test_compile_verify_run_inspect(run: Run, ready: Path) -> None:
    status, out, err = run(
        "compile",
        "small.onnx",
        "--memory",
        "64KiB",
        "--key-file",
        "model.key",
        "-o",
        "small.tt",
        "--image",
        "--mean",
        "127",
    )
    assert status == 0, err
    assert "wrote small.tt" in out
    assert "of 65,536 bytes" in out
    assert run("verify", "small.tt", "small.onnx", "-k", "model.key")[0] == 0
    Image.new("RGB", (30, 40), (200, 10, 20)).save(ready / "photo.png")
    status, out, _ = run("run", "small.tt", "-k", "model.key", "--input", "photo.png", "--top", "2", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["outputs"]["scores"]["shape"] == [1, 4]
    assert len(found["top"][0]) == 2
    assert found["stats"]["peak_secure_memory_bytes"] <= 65536
    status, out, _ = run("inspect", "small.tt")
    assert status == 0
    assert "image: float32 [any, 3, 16, 12]" in out
    assert "unauthenticated" in out
    assert "in float32" in out
    assert "in integers" not in out
    found = json.loads(run("inspect", "small.tt", "--json")[1])
    assert found["suite"] == "aes-256-gcm"
    assert found["manifest"]["preprocessing"]["mean"] == [127.0]
    assert sorted(os.listdir(ready)) == ["model.key", "pass.tt", "photo.png", "small.onnx", "small.tt", "x.npy"]


def test_a_model_in_float16_is_compared_in_float32(run: Run, ready: Path) -> None:
    onnx.save(in_half(), ready / "half.onnx")
    assert run("compile", "half.onnx", "-m", "64KiB", "-k", "model.key")[0] == 0
    assert run("verify", "half.tt", "half.onnx", "-k", "model.key")[0] == 0
    status, out, _ = run("bench", "half.onnx", "-m", "64KiB", "--runs", "1", "--json")
    assert status == 0
    assert json.loads(out)[0]["error"] < 1e-4


def test_an_input_is_made_a_constant(run: Run, ready: Path) -> None:
    onnx.save(by_rate(), ready / "rate.onnx")
    np.save(ready / "s.npy", np.ones((1, 4), np.float32))
    fixed = ("--input-value", "rate=16000", "--input-value", "s=s.npy")
    assert run("compile", "rate.onnx", "-m", "64KiB", "-k", "model.key", *fixed)[0] == 0
    assert [port["name"] for port in json.loads(run("inspect", "rate.tt", "--json")[1])["manifest"]["inputs"]] == ["x"]
    assert run("verify", "rate.tt", "rate.onnx", "-k", "model.key", *fixed)[0] == 0
    assert run("verify", "rate.tt", "rate.onnx", "-k", "model.key", fixed[0], "rate=8000", *fixed[2:])[0] == 1
    assert run("plan", "rate.onnx", "-m", "64KiB", *fixed)[0] == 0
    assert run("plan", "rate.onnx", "--sweep", "-m", "64KiB", *fixed)[0] == 0
    status, out, _ = run("bench", "rate.onnx", "-m", "64KiB", "--runs", "1", "--json", *fixed)
    assert (status, json.loads(out)[0]["error"]) == (0, 0)


def test_verify_says_where_no_value_is_finite(run: Run, ready: Path) -> None:
    scaled = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        logs (float[1, 8] x) => (float[1, 8] y) { s = Mul(x, x)  n = Neg(s)  l = Log(n)  y = Relu(l) }
    """)
    onnx.save(scaled, ready / "logs.onnx")
    assert run("compile", "logs.onnx", "--memory", "64KiB", "-k", "model.key", "-o", "logs.tt")[0] == 0
    status, out, _ = run("verify", "logs.tt", "logs.onnx", "-k", "model.key")
    assert status == 0
    assert "the same, none finite" in out


def test_verify_fails_on_another_model(run: Run, ready: Path) -> None:
    assert run("compile", "small.onnx", "-m", "64KiB", "-k", "model.key")[0] == 0
    onnx.save(build_model(scale=1.1), ready / "other.onnx")
    status, out, _ = run("verify", "small.tt", "other.onnx", "-k", "model.key")
    assert status == 1
    assert "above" in out
    status, out, _ = run("verify", "small.tt", "other.onnx", "-k", "model.key", "--json")
    assert status == 1
    assert json.loads(out)["within_tolerance"] is False


def test_plan(run: Run, ready: Path) -> None:
    status, out, _ = run("plan", "small.onnx", "-m", "64KiB", "--plot", "plan.png")
    assert status == 0
    assert "of 65,536 bytes" in out
    with Image.open(ready / "plan.png") as picture:
        assert picture.width > 1000
    found = json.loads(run("plan", "small.onnx", "-m", "64KiB", "--json")[1])
    assert found["peak_secure_memory_bytes"] <= 65536
    assert found["segments"]
    status, out, _ = run("plan", "small.onnx", "--sweep", "-m", "2KiB,32KiB,64KiB", "--json", "--plot", "sweep.svg")
    assert status == 0
    rows = json.loads(out)
    assert rows[0]["needed_bytes"] > 2048
    assert rows[1]["predicted_seconds"] >= rows[2]["predicted_seconds"]
    assert (ready / "sweep.svg").read_text().startswith("<?xml")
    assert "does not fit" in run("plan", "small.onnx", "--sweep", "-m", "2KiB,64KiB")[1]


def test_run_prints_and_writes(run: Run, ready: Path) -> None:
    x = np.load(ready / "x.npy")
    status, out, _ = run("run", "pass.tt", "-k", "model.key", "-i", "x.npy", "-o", "y.npy", "--stats")
    assert status == 0
    assert "[2, 3, 7, 5]" in out
    assert "arena kind" in out
    np.testing.assert_array_equal(np.load(ready / "y.npy"), x)
    assert run("run", "pass.tt", "-k", "model.key", "-i", "x=x.npy", "-o", "y.npz")[0] == 0
    np.testing.assert_array_equal(np.load(ready / "y.npz")["y"], x)
    np.savez(ready / "all.npz", x=x)
    status, out, _ = run("run", "pass.tt", "-k", "model.key", "-i", "all.npz", "--top", "1")
    assert status == 0
    assert f"class {int(x[0].argmax())}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.tt", "-k", "model.key", "-i", "x.npy"], "nowhere.tt: No such file or directory"),
        (["run", ".", "-k", "model.key", "-i", "x.npy"], ".: Is a directory"),
        (["run", "small.onnx", "-k", "model.key", "-i", "x.npy"], "this is not a tinytee bundle"),
        (["run", "pass.tt", "-k", "nokey", "-i", "x.npy"], "nokey: No such file or directory"),
        (["run", "pass.tt", "-k", "x.npy", "-i", "x.npy"], "x.npy is not a key file"),
        (
            ["run", "pass.tt", "-k", "other.key", "-i", "x.npy"],
            "the key is not this bundle's key, or the bundle was changed",
        ),
        (["run", "pass.tt", "-k", "model.key", "-i", "wrong.npy"], "input 'x' has dtype float64; expected is float32"),
        (["run", "pass.tt", "-k", "model.key", "-i", "z=x.npy"], "names 'z', the network's inputs are 'x'"),
        (["run", "pass.tt", "-k", "model.key", "-i", "x.npy", "-i", "x.npy"], "too often"),
        (["run", "pass.tt", "-k", "model.key", "-i", "small.onnx"], "small.onnx is not an image"),
        (["run", "pass.tt", "-k", "model.key", "-i", "x.npy", "-o", "y.txt"], "ends in .npz or .npy"),
        (
            ["run", "pass.tt", "-k", "model.key", "-i", "x.npy", "--isa", "mmx"],
            "instruction set 'mmx' is not available",
        ),
        (["run", "pass.tt", "-k", "model.key", "-i", "x.npy", "--mean", "a,b"], "--mean a,b"),
        (["compile", "small.onnx", "-m", "1MB", "-k", "model.key"], "'1MB' is not a size"),
        (["compile", "small.onnx", "-m", "2KiB", "-k", "model.key"], "bytes of secure memory, 2,048 were offered"),
        (["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--suite", "rot13"], "no suite 'rot13'"),
        (["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--input-shape", "1,2"], "write it as name="),
        (["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--input-value", "n=a"], "write it as name=16000"),
        (["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--input-value", "n=1"], "has no input 'n'"),
        (["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--size", "9"], "do not fit"),
        (["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "-o", "."], "is a directory"),
        (["compile", "nowhere.onnx", "-m", "1MiB", "-k", "model.key"], "nowhere.onnx"),
        (["compile", "x.npy", "-m", "1MiB", "-k", "model.key"], "x.npy"),
        (["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--profile", "abacus"], "abacus"),
        (
            ["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--weights", "int4", "--entropy", "maybe"],
            "auto, always or never, not maybe",
        ),
        (
            ["compile", "small.onnx", "-m", "1MiB", "-k", "model.key", "--weights", "fp16", "--entropy", "always"],
            "--entropy always goes with --weights int8 or int4",
        ),
        (["plan", "small.onnx"], "give --memory for one plan, or --sweep for many"),
        (["plan", "small.onnx", "-m", "64KiB", "--plot", "plan.txt"], "pictures are .png, .svg or .pdf files"),
        (["inspect", "model.key"], "this is not a tinytee bundle"),
        (["inspect", "half.tt"], "the bundle is truncated"),
        (["verify", "pass.tt", "model.key", "-k", "model.key"], "ONNX Runtime does not load model.key"),
    ],
)
def test_a_slip_is_one_plain_message(run: Run, ready: Path, arguments: list[str], message: str) -> None:
    (ready / "other.key").write_text("00" * 32)
    (ready / "half.tt").write_bytes((ready / "pass.tt").read_bytes()[:-100])
    np.save(ready / "wrong.npy", np.zeros((1, 3, 7, 5)))
    before = sorted(os.listdir(ready))
    status, _, err = run(*arguments)
    assert status == 2
    assert message in err
    assert err.startswith("tinytee: ")
    assert "Traceback" not in err
    assert sorted(os.listdir(ready)) == before


def test_usage_errors(run: Run) -> None:
    for arguments in (["run"], ["run", "a.tt", "--nonsense"], ["fly"]):
        status, _, err = run(*arguments)
        assert status == 2
        assert "Usage" in err


def test_debug_shows_the_traceback(run: Run, ready: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["inspect", "nowhere.tt", "--debug"])


def test_an_interrupt_leaves_no_half_written_bundle(ready: Path) -> None:
    program = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the test runner's own parent chose
from tinytee.bundle import sealing
slow = sealing.Unsealed.write
def write(self, stream, progress=None):
    stream.write(b"half")
    stream.flush()
    print("writing", flush=True)
    time.sleep(60)
sealing.Unsealed.write = write
from tinytee.cli import main
main(sys.argv[1:])
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program, "compile", "small.onnx", "-m", "64KiB", "-k", "model.key", "-o", "late.tt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ready,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    assert any(name.startswith(".late.tt") for name in os.listdir(ready))
    time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode != 0
    assert "Traceback" not in err
    assert not [name for name in os.listdir(ready) if "late" in name]
