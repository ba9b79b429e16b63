"""tinytee bench: one command for one's own network. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from tinytee import bench, zoo
from tinytee.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "lenet5.onnx"
    onnx.save(zoo.NETWORKS["lenet5"].build(), path)
    return path


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        main(["bench", *arguments])
    return int(done.value.code or 0)


def _probe(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(bench, "steady_probe", lambda threads: lambda: answer)


def test_rows_are_complete(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _probe(monkeypatch, True)
    suites = "aes-256-gcm,chacha20-poly1305"
    assert _run(str(model), "--memory", "64KiB,1MiB", "--runs", "3", "--suite", suites, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["suite"], row["budget_bytes"]) for row in rows] == [
        (suite, budget) for suite in suites.split(",") for budget in (65536, 1048576)
    ]
    for row in rows:
        assert row["rounds"] == row["steady_rounds"] == 3
        assert row["error"] < 1e-5
        assert row["measured_peak_bytes"] == row["peak_bytes"] <= row["budget_bytes"]
        assert 0 <= row["spill_share"] <= row["aead_share"] <= 1
        assert set(row["rivals"]) >= {"onnxruntime"}
        for times in (row["tinytee"], *row["rivals"].values()):
            assert 0 < times["best"] <= times["lower_quartile"] <= times["median"] <= times["upper_quartile"]
    assert len(bench.prediction_errors(rows)) == len(rows)


def test_disturbed_rounds_are_counted(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _probe(monkeypatch, False)
    assert _run(str(model), "--memory", "1MiB", "--runs", "3", "--suite", "aes-256-gcm") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "slowed this machine down in 6 of the 6 rounds" in printed
    _probe(monkeypatch, True)
    assert _run(str(model), "--memory", "1MiB", "--runs", "3", "--suite", "aes-256-gcm") == 0
    assert "slowed" not in capsys.readouterr().out


def test_table_says_which_budget_is_too_small(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(str(model), "--memory", "16KiB,1MiB", "--runs", "1") == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "needs at least" in printed
    assert "the cost model's median error" in printed


def test_missing_onnx_runtime_is_said_plainly(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert _run(str(model)) == 2
    assert "pip install onnxruntime" in capsys.readouterr().err
