"""What the benchmarks share: the machine's description, JSON files, and the choice of networks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinytee import zoo

RUNTIMES = ("onnxruntime", "openvino")
RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, str]:
    """What a measurement depends on; the load is the last minute's, the benchmark's own included."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in RUNTIMES if importlib.util.find_spec(name)},
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "")
        widest = next((isa for isa in ("avx512f", "avx2") if isa in flags), "")
        return f"{models[0]} {widest}".strip() if models else platform.machine()
    return platform.machine()


def chosen_networks(names: Sequence[str]) -> list[zoo.Network]:
    """Networks by name, or all of them for none."""
    unknown = sorted(set(names) - set(zoo.NETWORKS))
    if unknown:
        raise SystemExit(f"no network {', '.join(unknown)}; there are {', '.join(zoo.NETWORKS)}")
    return [zoo.NETWORKS[name] for name in names or zoo.NETWORKS]


class Rows:
    """Rows of one bench, written to a JSON file (or to none) as each is measured.

    Args:
        case: the fields that say what a row measures.
        keep: rows that the file holds stay, in their order, until their case is measured again.
    """

    def __init__(self, path: Path | None, case: Sequence[str], *, keep: bool) -> None:
        self.measured: list[dict[str, Any]] = []
        self._path, self._case = path, tuple(case)
        kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if keep and path and path.exists() else []
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {self._case_of(row): row for row in kept}

    def add(self, row: dict[str, Any]) -> None:
        self.measured.append(row)
        self._rows[self._case_of(row)] = row
        if self._path:
            write_json(self._path, list(self._rows.values()))

    def _case_of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in self._case)


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows and the machine aside, then renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
