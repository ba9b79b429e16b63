"""The benchmarks run, and what they write is complete and right. No time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(script: str, *arguments: str, statuses: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / script), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode in statuses, ran.stdout + ran.stderr
    return ran


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def _rows(path: Path) -> list[dict[str, Any]]:
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {"processor", "onnxruntime"} <= set(written["machine"])
    return written["rows"]


def test_zoo(results: Path) -> None:
    _run("zoo.py", "--smoke", "--rounds", "3", "--json", str(results / "zoo.json"))
    for row in _rows(results / "zoo.json"):
        assert "failure" not in row
        assert row["measured_peak_bytes"] == row["peak_bytes"] <= row["budget_bytes"]
        assert row["error"] < 1e-5


def test_rows_stay_until_they_are_measured_again(results: Path) -> None:
    path = results / "floors.json"
    for networks in (("lenet5",), ("tiny_darknet", "--keep"), ("lenet5", "--keep")):
        _run("floors.py", *networks, "--json", str(path))
        assert _rows(path)[0]["network"] == "lenet5"
    assert len(_rows(path)) == 2


def test_kernels(results: Path) -> None:
    _run("kernels.py", "--smoke", "--json", str(results / "kernels.json"))
    rows = _rows(results / "kernels.json")
    assert {row["unit"] for row in rows} == {"GFLOP/s", "GOP/s", "GB/s"}
    assert all(row["rate"] >= 0 for row in rows)


def test_trustzone_is_reported(tmp_path: Path) -> None:
    """Ratios to tinytee and to the normal world; where there is no measurement, why."""
    row = {"network": "n", "suite": "chacha20-poly1305", "arena_bytes": 1, "peak_bytes": 1, "multiplies": 10**6}
    row |= {"calls": 2, "streamed_bytes": 3 * 10**6, "spilled_bytes": 0, "failure": ""}
    rows = [
        row | {"how": "normal world", "heap": "", "suite": "none", "instructions": 10**6},
        row | {"how": "tinytee", "heap": "2MiB", "instructions": 2 * 10**6},
        row | {"how": "layer by layer", "heap": "12MiB", "instructions": 8 * 10**6},
        row | {"how": "layer by layer", "heap": "2MiB", "instructions": 0, "failure": "needs 4,000 bytes"},
        row | {"how": "tinytee", "precision": "int8", "heap": "2MiB", "instructions": 10**6},
    ]
    (tmp_path / "trustzone.json").write_text(json.dumps({"machine": {}, "rows": rows}))
    _run("report.py", "--results", str(tmp_path), "--page", str(tmp_path / "page.md"))
    page = (tmp_path / "page.md").read_text()
    assert (
        "| n | fp32 | layer by layer | 12MiB | chacha20-poly1305 | 1 | 8.0 | 8.00 | 4.00 | 8.00 | 2 | 3,000,000 | 0 |"
        in page
    )
    assert "| n | int8 | tinytee | 2MiB | chacha20-poly1305 | 1 | 1.0 | 1.00 | 1.00 |  | 2 |" in page
    assert "needs 4,000 bytes" in page
    assert "| n | 4.00 |  |  | 3.0 / 3.0 /  /  |" in page


def test_paging(results: Path) -> None:
    """Both rivals give the right answer while their pages come and go, and nothing pages where all of it fits."""
    ran = _run("paging.py", "--smoke", "--rounds", "1", "--json", str(results / "paging.json"), statuses=(0, 2))
    if ran.returncode == 2:
        pytest.skip(ran.stderr.strip().splitlines()[-1])
    small, large = _rows(results / "paging.json")
    for name in ("layerwise", "onnxruntime"):
        paged, resident = small["contenders"][name], large["contenders"][name]
        assert paged["error"] < 1e-5
        assert paged["loads"] > 100
        assert abs(paged["loads"] - paged["evictions"]) <= 16
        assert resident["loads"] == resident["evictions"] == 0


def test_report(results: Path) -> None:
    for script in ("zoo", "kernels"):  # unless the other tests have measured it already
        if not (results / f"{script}.json").exists():
            _run(f"{script}.py", "--smoke", "--json", str(results / f"{script}.json"))
    _run("report.py", "--results", str(results), "--page", str(results / "results.md"))
    page = (results / "results.md").read_text(encoding="utf-8")
    assert "## Latency" in page
    for line in page.splitlines():
        if "](images/" in line:
            assert (results / line.split("](")[1].rstrip(")")).stat().st_size > 1000
