"""Own quantization: photographs, calibration, corrections, and the accuracy that is reported."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner

import tinytee
from tinytee.bundle import Preprocessing
from tinytee.cli import app
from tinytee.errors import TinyteeError
from tinytee.importer import load
from tinytee.ir.check import check
from tinytee.ir.reference import evaluate
from tinytee.passes import optimize
from tinytee.quantize import quantize, read_photographs
from tinytee.quantize.accuracy import measure_outputs
from tinytee.quantize.engine import open_session
from tinytee.quantize.prepare import bind, prepare
from tinytee.quantize.refine import (
    after_results,
    correct_biases,
    keep_results_float,
    merge_activations,
    weighted_inputs,
)
from tinytee.quantize.sensitivity import quantize_only, rank, with_writers
from tinytee.report import accuracy_tables, plot_accuracy, precision_of, precision_table
from unit.importer.detector import detector
from unit.importer.support import model, node, random

SIZE = 16
HOW = Preprocessing(size=(SIZE, SIZE), mean=(127.0,), scale=(128.0,), resize="shorter")


def network(opset: int = 17) -> onnx.ModelProto:
    """conv, batch norm, relu6, depthwise, relu6, conv + residual, mean, fully connected, softmax."""
    constants: dict[str, NDArray] = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 1, 3, 3), "w2": (8, 8, 1, 1), "w3": (10, 8), "b3": (10,), "b2": (8,)}
    constants |= {name: random(shape, seed) / 2 for seed, (name, shape) in enumerate(shapes.items())}
    constants |= {name: np.abs(random((8,), 9 + seed)) + 0.2 for seed, name in enumerate(("g", "b", "m", "v"))}
    nodes = [
        node("Conv", "image w0", "c0", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c0 g b m v", "n0"),
        node("Clip", "n0 low high", "r0"),
        node("Conv", "r0 w1", "c1", pads=[1, 1, 1, 1], group=8),
        node("Clip", "c1 low high", "r1"),
        node("Conv", "r1 w2 b2", "c2"),
        node("Add", "c2 r0", "a"),
        node("GlobalAveragePool", "a", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w3 b3", "logits", transB=1),
        node("Softmax", "logits", "y", axis=1),
    ]
    made = model(nodes, {"image": (1, 3, SIZE, SIZE)}, constants, opset=opset)
    return onnx.shape_inference.infer_shapes(made)


def pictures(count: int, seed: int = 0) -> list[dict[str, NDArray]]:
    rng = np.random.default_rng(seed)
    return [{"image": rng.uniform(-1, 1, (1, 3, SIZE, SIZE)).astype(np.float32)} for _ in range(count)]


def photographs(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        array = np.kron(rng.integers(0, 256, (4, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(array).save(folder / f"{number}.png")
    return folder


def run(proto: onnx.ModelProto, feed: dict[str, NDArray]) -> NDArray:
    return np.asarray(open_session(proto).run(None, feed)[0])


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_a_network_of_integers_to_its_scores(method: str) -> None:
    made = quantize(network(), pictures(6), pictures(8, 1), method=method)
    graph = optimize(load(made.model))
    check(graph)
    assert [type(op).__name__ for op in graph.ops] == [
        "QConv", "QDepthwiseConv", "QConv", "QBinary", "QReduce", "QConv", "Softmax",
    ]  # fmt: skip
    for feed in pictures(4, 2):
        np.testing.assert_allclose(evaluate(graph, feed)["y"], run(made.model, feed), atol=2e-6)
    output = made.accuracy.outputs[0]
    assert output.name == "y" and output.cosine > 0.99 and output.top1_agreement is not None
    assert [layer.snr_db for layer in made.accuracy.layers] == sorted(layer.snr_db for layer in made.accuracy.layers)
    found = precision_of(graph)
    assert found is not None and (found.integer_ops, found.float_ops) == (6, 1)
    assert list(found.reasons) == ["Softmax has no integer form"]
    assert precision_of(optimize(load(network()))) is None
    assert precision_table(found).row_count == 1


def test_models_of_old_opsets_are_quantized() -> None:
    made = network(13)
    for entry in made.opset_import:
        entry.version = 11
    del made.graph.value_info[:]
    made.graph.node[2].CopyFrom(node("Clip", "n0 low high", "r0"))
    assert quantize(made, pictures(2)).model.opset_import[0].version >= 13


def test_batch_normalization_is_folded_and_nodes_have_names() -> None:
    anonymous = network()
    for made in anonymous.graph.node:
        made.name = ""
    prepared = prepare(anonymous)
    assert "BatchNormalization" not in {made.op_type for made in prepared.graph.node}
    names = [made.name for made in prepared.graph.node]
    assert all(names) and len(set(names)) == len(names)
    feed = pictures(1)[0]
    np.testing.assert_allclose(run(prepared, feed), run(network(), feed), atol=1e-6)


def test_leftover_scales_and_transposed_convolutions_become_convolutions() -> None:
    """A batch normalization behind a concatenation, Caffe's Scale behind it, and a transposed convolution."""
    shapes = {"g": (6,), "b": (6,), "m": (6,), "k": (6, 1, 1), "t": (1, 6, 1, 1), "w": (6, 4, 2, 2), "d": (4,)}
    constants = {name: random(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    constants["v"] = (np.abs(random((6,), 20)) + 0.2).astype(np.float32)
    nodes = [
        node("Concat", "image image", "both", axis=1),
        node("BatchNormalization", "both g b m v", "normal"),
        node("Mul", "normal k", "scaled"),
        node("Add", "t scaled", "shifted"),
        node("Relu", "shifted", "r"),
        node("ConvTranspose", "r w d", "y", strides=[2, 2], kernel_shape=[2, 2]),
    ]
    made = onnx.shape_inference.infer_shapes(model(nodes, {"image": (1, 3, SIZE, SIZE)}, constants))
    prepared = prepare(made)
    kinds = [found.op_type for found in prepared.graph.node]
    assert kinds == ["Concat", "Conv", "Relu", "Conv", "DepthToSpace"]
    feed = pictures(1)[0]
    np.testing.assert_allclose(run(prepared, feed), run(made, feed), atol=1e-5)


def test_a_detector_s_scores_survive_beside_its_boxes() -> None:
    """In one tensor of 256 steps with boxes of hundreds of pixels they would all be 0."""
    floating = detector(SIZE)
    made = quantize(floating, pictures(8))
    for feed in pictures(4, 1):
        wanted, found = run(floating, feed)[0], run(made.model, feed)[0]
        assert np.ptp(wanted[:4]) > 100 and np.ptp(wanted[4:]) > 0.3
        np.testing.assert_allclose(found[4:], wanted[4:], atol=0.03)
        np.testing.assert_allclose(found[:4], wanted[:4], atol=4)  # half a bin at the coarsest scale
    kinds = [type(op).__name__ for op in optimize(load(made.model)).ops]
    assert kinds.count("QConv") == 6 and kinds.count("Conv") == 1


def test_the_report_tells_channels_apart() -> None:
    """Scores that are lost beside boxes of hundreds of pixels: the cosine of the whole does not say so."""
    floating, lost = detector(SIZE), detector(SIZE)
    zero = node("Mul", "scores nothing", "none")
    lost.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    lost.graph.node.insert(len(lost.graph.node) - 1, zero)
    lost.graph.node[-1].input[1] = "none"
    (output,) = measure_outputs(floating, lost, pictures(3))
    assert output.cosine > 0.999 and output.snr_db > 30
    assert {channel.channel for channel in output.channels[:2]} == {4, 5} and len(output.channels) == 6
    assert all(channel.snr_db == 0 and 0 < channel.largest < 1 for channel in output.channels[:2])
    assert all(channel.snr_db > 100 for channel in output.channels[2:])
    made = quantize(floating, pictures(2), pictures(2, 1)).accuracy
    assert len(accuracy_tables(made)) == 3 and len(made.to_dict()["outputs"][0]["channels"]) == 6
    scores = quantize(network(), pictures(2), pictures(2, 1)).accuracy.outputs[0]
    assert scores.channels == () and scores.by_margin


def test_heads_of_several_scales_may_share_their_weights() -> None:
    prepared = prepare(detector(SIZE))
    stored = {tensor.name for tensor in prepared.graph.initializer}
    read = [name for item in prepared.graph.node for name in item.input if name in stored]
    assert len(set(read)) == len(read)
    feed = pictures(1)[0]
    np.testing.assert_array_equal(run(prepared, feed), run(detector(SIZE), feed))


def test_what_reads_a_shape_alone_reads_no_result() -> None:
    """As exporters write whose image sizes are open. Bound, it is folded."""
    made = detector(SIZE)
    made.graph.node.extend([node("Shape", "both0", "shape"), node("Gather", "shape two", "sizes", axis=0)])
    made.graph.output.append(onnx.helper.make_tensor_value_info("sizes", onnx.TensorProto.INT64, [2]))
    names = {item.name for item in made.graph.node}
    assert {"Concat_both0", "Split_bins_of", "Conv_mean", "Concat_y"} <= after_results(made) <= names
    for dim in made.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "size"
    del made.graph.value_info[:]
    assert any(item.op_type == "Shape" for item in prepare(made).graph.node)
    bound = prepare(bind(made, {"image": (0, 0, SIZE, SIZE)}))
    assert all(item.op_type != "Shape" for item in bound.graph.node)


def _quantized_pair() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    prepared = prepare(network())
    return prepared, quantize(network(), pictures(4)).model


def test_corrected_biases_take_the_mean_error_out() -> None:
    """Of weights that are wrong by a constant, the correction leaves nothing where padding plays no part."""
    prepared, made = _quantized_pair()
    wrong = onnx.ModelProto()
    wrong.CopyFrom(made)
    names = {entry.name: entry for entry in wrong.graph.initializer}
    twin = next(item for item in wrong.graph.node if item.name == "Conv_c2")
    source = next(item for item in wrong.graph.node if item.output[0] == twin.input[1])
    integers = numpy_helper.to_array(names[source.input[0]])
    shifted = np.clip(integers.astype(int) + 9, -128, 127).astype(np.int8)
    names[source.input[0]].CopyFrom(numpy_helper.from_array(shifted, source.input[0]))
    assert weighted_inputs(prepared) == {"Conv_c0": "image", "Conv_c2": "r1", "Gemm_logits": "f"}
    means = {"r1": np.zeros(8)}
    for feed in pictures(4):
        session = onnxruntime.InferenceSession(_expose(prepared, "r1"), providers=["CPUExecutionProvider"])
        means["r1"] += np.asarray(session.run(["r1"], feed)[0]).mean(axis=(0, 2, 3)) / 4
    before = measure_outputs(prepared, wrong, pictures(8, 3))[0].snr_db
    after = measure_outputs(prepared, correct_biases(wrong, prepared, means), pictures(8, 3))[0].snr_db
    assert after > before + 3


def _expose(proto: onnx.ModelProto, name: str) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    changed.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    return changed.SerializeToString()


def test_results_stay_float_and_relus_stay_whole() -> None:
    prepared, made = _quantized_pair()
    written = {name for item in made.graph.node for name in item.output}
    assert not any(name.startswith(("y_", "logits_")) for name in written)
    for rewrite in (lambda m: keep_results_float(m, prepared), merge_activations):
        again = rewrite(made)
        feed = pictures(1, 5)[0]
        np.testing.assert_array_equal(run(again, feed), run(made, feed))


def test_one_node_alone_harms_less_than_all() -> None:
    prepared, made = _quantized_pair()
    samples = pictures(6, 4)
    ranked = rank(prepared, made, samples)
    assert sorted(ranked) == sorted(item.name for item in made.graph.node if item.op_type in ("Conv", "Gemm"))
    whole = measure_outputs(prepared, made, samples)[0].snr_db
    assert measure_outputs(prepared, quantize_only(prepared, made, ranked[-1]), samples)[0].snr_db > whole


def test_nodes_kept_in_float() -> None:
    made = quantize(network(), pictures(4), pictures(4, 1), keep_float=["Conv_c1"])
    graph = optimize(load(made.model))
    kinds = {op.name: type(op).__name__ for op in graph.ops}
    assert made.accuracy.kept_float == ("Conv_c1",) and "DepthwiseConv" in kinds.values()
    with pytest.raises(ValueError, match="no node 'Conv_c9'; near are 'Conv_c"):
        quantize(network(), pictures(1), keep_float=["Conv_c9"])


def test_sensitive_nodes_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    accurate = quantize(network(), pictures(4), keep_float=["auto"])
    module = sys.modules["tinytee.quantize.quantize"]
    monkeypatch.setattr(module, "WANTED_COSINE", 2.0)
    monkeypatch.setattr(module, "NEARLY_DB", 0.0)
    hopeless = quantize(network(), pictures(4), keep_float=["auto"])
    assert len(hopeless.accuracy.kept_float) <= 3
    assert accurate.accuracy.agrees and hopeless.accuracy.agrees is False
    assert quantize(network(), pictures(1)).accuracy.agrees is None
    monkeypatch.setattr(module, "NEARLY_DB", 1000.0)
    assert quantize(network(), pictures(4), keep_float=["auto"]).accuracy.kept_float == ()


def test_what_only_nodes_in_float_read_is_written_by_one() -> None:
    prepared, _ = _quantized_pair()
    assert with_writers(prepared, ["Conv_c2"]) == ["Conv_c2", "Conv_c1"]
    assert with_writers(prepared, ["Conv_c1"]) == ["Conv_c1"]  # the addition reads r0, too
    assert with_writers(prepared, ["Gemm_logits"]) == ["Gemm_logits"]


def test_weights_in_float_are_left_alone_by_whoever_compares() -> None:
    made = quantize(network(), pictures(4), keep_float=["Conv_c1"]).model
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    literal = onnxruntime.InferenceSession(made.SerializeToString(), plain, providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in made.graph.output)
    for sample in pictures(4, 2):
        found, wanted = (np.asarray(session.run([name], sample)[0]) for session in (open_session(made), literal))
        np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        quantize(network(), [])
    with pytest.raises(ValueError, match="no calibration method 'mean'; there are minmax, percentile, entropy"):
        quantize(network(), pictures(1), method="mean")
    with pytest.raises(ValueError, match="no rounding 'up'; there are output, nearest"):
        quantize(network(), pictures(1), rounding="up")
    with pytest.raises(TinyteeError, match="quantized already"):
        quantize(quantize(network(), pictures(1)).model, pictures(1))


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TinyteeError, match=r"pip install 'tinytee\[quantize\]'"):
        quantize(network(), pictures(1))


def test_photographs_are_held_out(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos", 5)
    (folder / "more").mkdir()
    Image.new("RGB", (30, 20), (200, 10, 10)).save(folder / "more" / "red.png")
    (folder / ".hidden").write_text("not a picture")
    found = read_photographs(folder, HOW)
    assert (len(found.calibration_files), len(found.held_out_files)) == (4, 2)
    assert not set(found.calibration_files) & set(found.held_out_files)
    assert (len(found.calibration), len(found.held_out)) == (96, 300)
    assert all(picture.shape == (1, 3, SIZE, SIZE) for picture in found.calibration + found.held_out)
    first = tinytee.load_image(found.held_out_files[0], HOW)
    np.testing.assert_array_equal(found.held_out[0], first)
    again = read_photographs(folder, HOW)
    np.testing.assert_array_equal(np.stack(found.held_out), np.stack(again.held_out))


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_photographs(tmp_path / "none", HOW)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="is empty; put photographs in it"):
        read_photographs(empty, HOW)
    with pytest.raises(ValueError, match="holds one file; two photographs are the least"):
        read_photographs(photographs(tmp_path / "one", 1), HOW)
    mixed = photographs(tmp_path / "mixed", 3)
    (mixed / "notes.txt").write_text("not a picture")
    with pytest.raises(ValueError, match=r"notes\.txt is not an image"):
        read_photographs(mixed, HOW)
    with pytest.raises(NotADirectoryError, match="is a file"):
        read_photographs(mixed / "0.png", HOW)


def test_the_public_function(tmp_path: Path) -> None:
    told: list[str] = []
    made = tinytee.quantize_model(
        network(), photographs(tmp_path, 4), progress=lambda what, fraction: told.append(what)
    )
    assert made.accuracy.photographs == 2 and made.accuracy.calibration_photographs == 2
    assert {"reading photographs", "calibrating", "comparing"} <= set(told)
    assert len(accuracy_tables(made.accuracy)) == 3
    plot_accuracy(made.accuracy, tmp_path / "layers.svg")
    assert (tmp_path / "layers.svg").stat().st_size > 1000
    plain = model([node("Relu", "x")], {"x": (1, 7)})
    with pytest.raises(ValueError, match="is no image"):
        tinytee.quantize_model(plain, tmp_path)
    two = model([node("Add", "x z")], {"x": (1, 3, 4, 4), "z": (1, 3, 4, 4)})
    with pytest.raises(ValueError, match="has 2 inputs"):
        tinytee.quantize_model(two, tmp_path)


def test_agreement_is_told_apart_by_margin() -> None:
    """Scores that another network halves and reverses: they disagree, sure or not."""
    near, far = ([1.0, 0.95, 0.0], [1.0, 0.2, 0.0])
    constants = {"flip": np.eye(3, dtype=np.float32)[::-1].copy()}
    same = model([node("Identity", "x")], {"x": (1, 3)})
    other = model([node("MatMul", "x flip")], {"x": (1, 3)}, constants)
    samples = [{"x": np.array([scores], np.float32)} for scores in (near, near, far)]
    for twin, expected in ((same, 1.0), (other, 0.0)):
        found = measure_outputs(same, twin, samples)[0].by_margin
        assert [part.samples for part in found] == [2, 0, 1]
        assert [part.top1_agreement for part in found] == [expected, None, expected]


def _invoke(*arguments: object) -> tuple[int, str]:
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return ran.exit_code, ran.output + str(ran.exception or "")


WRONG: list[tuple[Sequence[str], str]] = [
    (["--precision", "int4"], "--precision int4: fp32 or int8"),
    (["--precision", "int8"], "needs --calibrate"),
    (["--calibrate", "."], "--calibrate goes with --precision int8"),
    (["--keep-float", "n"], "--keep-float goes with --precision int8"),
    (["--short-sums", "always"], "--short-sums goes with --precision int8"),
    (["--precision", "int8", "--calibrate", ".", "--accuracy", "a.txt"], "a.txt: pictures are"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda item: " ".join(item)[:40])
def test_wrong_options(tmp_path: Path, options: Sequence[str], message: str) -> None:
    onnx.save(network(), tmp_path / "m.onnx")
    (tmp_path / "key").write_text("00" * 32)
    code, text = _invoke("compile", tmp_path / "m.onnx", "--memory", "1MiB", "--key-file", tmp_path / "key", *options)
    assert code != 0 and message in text


def test_accuracy_is_plain_data() -> None:
    made = quantize(network(), pictures(2), pictures(3, 1))
    found = json.loads(json.dumps(made.accuracy.to_dict()))
    assert found["samples"] == 3 and found["outputs"][0]["name"] == "y" and found["layers"]


def test_one_command_compiles_and_runs(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "m.onnx")
    (tmp_path / "key").write_text("00" * 32)
    folder, report, kept = photographs(tmp_path / "photos", 4), tmp_path / "report.json", tmp_path / "int8.onnx"
    code, text = _invoke(
        "compile", tmp_path / "m.onnx", "--memory", "1MiB", "--key-file", tmp_path / "key", "--precision", "int8",
        "--calibrate", folder, "--keep-float", "Conv_c1", "--accuracy", report, "--quantized-model", kept,
        "--mean", "127", "--scale", "128",
    )  # fmt: skip
    assert code == 0, text
    assert "operators run in integers" in text and "in float32 as asked: Conv_c1" in text
    assert json.loads(report.read_text())["kept_float"] == ["Conv_c1"]
    picture = tinytee.load_image(folder / "0.png", HOW)
    with tinytee.Session(tmp_path / "m.tt", key=bytes(32)) as session:
        found = session.run({"image": picture})["y"]
        counts = session.manifest.integer_operators, session.manifest.float_operators
    assert f"{counts[0]} operators run in integers, {counts[1]} in float32" in text
    np.testing.assert_allclose(found, run(onnx.load(kept), {"image": picture}), atol=0.01)
