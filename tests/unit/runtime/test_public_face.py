"""What ``import tinytee`` offers: nothing is added or taken away unnoticed, and compile() takes what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import tinytee
from tinytee.plan.profile import load

KEY = bytes(range(32))


def build_model(batch: str | int = "n") -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, "h", "w"])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def reference(x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(build_model().SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_the_public_surface() -> None:
    assert sorted(tinytee.__all__) == [
        "Attested",
        "AuthenticationError",
        "BudgetError",
        "Bundle",
        "BundleError",
        "EngineError",
        "Manifest",
        "Preprocessing",
        "SealedKey",
        "Session",
        "SessionStats",
        "TensorSpec",
        "TinyteeError",
        "UnsupportedModelError",
        "__version__",
        "compile",
        "device_key",
        "load_image",
        "make_quote",
        "provision",
        "quantize_model",
        "verify_quote",
    ]
    assert all(hasattr(tinytee, name) for name in tinytee.__all__)
    errors = [found for name in tinytee.__all__ if isinstance(found := getattr(tinytee, name), type)]
    assert all(issubclass(found, tinytee.TinyteeError) for found in errors if issubclass(found, Exception))


@pytest.mark.parametrize("form", ["path", "text", "bytes", "proto"])
@pytest.mark.parametrize("suite", ["aes-256-gcm", "chacha20-poly1305", "aegis-256x4", None])
def test_compile_and_run(tmp_path: Path, form: str, suite: str | None) -> None:
    model = build_model()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    given = {"path": path, "text": str(path), "bytes": model.SerializeToString(), "proto": model}[form]
    told: list[float] = []
    bundle = tinytee.compile(
        given,
        secure_memory="64KiB",
        key=KEY,
        input_shapes={"x": (1, 3, 9, 11)},
        suite=suite,
        progress=lambda what, fraction: told.append(fraction),
    )
    assert bundle.suite == (suite or "aes-256-gcm")
    assert bundle.plan.peak_secure_memory_bytes <= bundle.peak_secure_memory_bytes <= 65536
    assert all(0 <= fraction <= 1 for fraction in told)
    bundle.save(tmp_path / "model.tt")
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 11)).astype(np.float32)
    for source in (bundle, tmp_path / "model.tt", str(tmp_path / "model.tt")):
        with tinytee.Session(source, key=KEY) as session:
            np.testing.assert_allclose(session.run({"x": x})["y"], reference(x), rtol=1e-4, atol=1e-5)
            assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes


def test_the_budget_is_a_number_of_bytes_too() -> None:
    with pytest.raises(tinytee.BudgetError) as refused:
        tinytee.compile(build_model(), 4096, KEY, input_shapes={"x": (1, 3, 64, 64)})
    assert refused.value.available_bytes == 4096
    needed = refused.value.needed_bytes
    assert f"{needed:,}" in str(refused.value)
    bundle = tinytee.compile(build_model(), needed, KEY, input_shapes={"x": (1, 3, 64, 64)})
    assert bundle.peak_secure_memory_bytes <= needed


def test_a_profile_is_a_name_a_file_or_itself(tmp_path: Path) -> None:
    board = load("raspberry-pi-3")
    board.save(tmp_path / "board.json")
    for profile in ("raspberry-pi-3", tmp_path / "board.json", board):
        bundle = tinytee.compile(build_model(), "1MiB", KEY, input_shapes={"x": (1, 3, 8, 8)}, profile=profile)
        assert bundle.suite == "chacha20-poly1305"


def test_class_names_count(tmp_path: Path) -> None:
    names = [f"a long name of class number {k}" for k in range(3000)]
    shapes = {"x": (1, 3, 8, 8)}
    with pytest.raises(tinytee.BudgetError) as refused:
        tinytee.compile(build_model(), "32KiB", KEY, input_shapes=shapes, class_names=names)
    bundle = tinytee.compile(build_model(), refused.value.needed_bytes, KEY, input_shapes=shapes, class_names=names)
    with tinytee.Session(bundle, key=KEY) as session:
        assert session.manifest.class_names == tuple(names)
        session.run({"x": np.zeros((1, 3, 8, 8), np.float32)})
        assert session.stats.arena_bytes == bundle.peak_secure_memory_bytes


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"key": b"short"}, ValueError, "a key is 32 bytes, not 5"),
        ({"key": "x" * 32}, TypeError, "a key is 32 bytes"),
        ({"secure_memory": "1 MB"}, ValueError, "not a size"),
        ({"secure_memory": 1.5}, TypeError, "a size is text"),
        ({"suite": "des"}, ValueError, "no suite 'des'"),
        ({"model": Path("nowhere.onnx")}, tinytee.TinyteeError, "nowhere.onnx"),
        ({"model": b""}, tinytee.TinyteeError, "model"),
        ({"model": b"not a model"}, tinytee.TinyteeError, "ONNX"),
        ({"preprocessing": tinytee.Preprocessing((5, 5))}, ValueError, "do not fit input 'x'"),
        ({"input_shapes": None}, tinytee.TinyteeError, "x"),
        ({"profile": "abacus"}, ValueError, "no device profile 'abacus': give a file, or one of .*raspberry-pi-3"),
    ],
)
def test_a_slip_is_named(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"model": build_model(), "secure_memory": "1MiB", "key": KEY, "input_shapes": {"x": (1, 3, 8, 8)}}
    with pytest.raises(error, match=message):
        tinytee.compile(**{**good, **arguments})  # type: ignore[arg-type]
