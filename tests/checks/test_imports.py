"""Imports point one way only: ARCHITECTURE.md's map of the rooms, enforced on the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

FOUNDATION = {"errors", "sizes"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "sizes": {"errors"},
    "processor": set(),
    "ort": {"processor"},
    "ir": {"errors"},
    "importer": {"ir", *FOUNDATION},
    "passes": {"ir", *FOUNDATION},
    "quantize": {"ir", "importer", "bundle", "ort", "runtime", *FOUNDATION},
    "plan": {"ir", "bundle", *FOUNDATION},
    "bundle": {"ir", *FOUNDATION},
    "runtime": {"ir", "bundle", *FOUNDATION},
    "report": {"plan", "ir", "passes", "quantize", "bundle", *FOUNDATION},
    "zoo": {"bundle", "ort", "quantize", *FOUNDATION},
    "api": {
        "__init__",
        "importer",
        "passes",
        "processor",
        "quantize",
        "plan",
        "bundle",
        "runtime",
        "report",
        "ir",
        *FOUNDATION,
    },
    "backend": {"__init__", "api", "importer", "passes", "plan", "bundle", "runtime", "ir", *FOUNDATION},
    "demo": {"__init__", "api", "bundle", "runtime", "report", "zoo", *FOUNDATION},
    "bench": {"__init__", "api", "bundle", "plan", "processor", "runtime", "zoo", *FOUNDATION},
    "cli": {
        "__init__",
        "api",
        "bench",
        "backend",
        "bundle",
        "runtime",
        "report",
        "demo",
        "plan",
        "importer",
        "ir",
        "ort",
        *FOUNDATION,
    },
    "__init__": {"api", "bundle", "runtime", *FOUNDATION},
    "__main__": {"cli"},
}
"""What each room may import. Types of another room, under TYPE_CHECKING, are not imports at run time."""

OWNERS: dict[str, set[str]] = {
    "onnx": {"importer", "zoo", "backend", "quantize"},
    "onnx_ir": {"importer"},
    "onnxscript": {"importer"},
    "cryptography": {"bundle"},
    "elftools": {"bundle"},
    "onnxruntime": {"cli", "ort", "quantize", "zoo"},
    "typer": {"cli"},
    "rich": {"cli", "demo", "report"},
    "matplotlib": {"report"},
}
"""The rooms that may import a package that not every user has."""


def _room(path: Path) -> str:
    return path.relative_to(SOURCE / "tinytee").parts[0].removesuffix(".py")


def _family(room: str) -> str:
    """cli.py and a cli_*.py beside it are one room."""
    return "cli" if room.startswith("cli") else room


def _without_type_checking(tree: ast.Module) -> ast.Module:
    class Remove(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return node.orelse
            return self.generic_visit(node)

    return Remove().visit(tree)


def _imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    tree = _without_type_checking(ast.parse(path.read_text(encoding="utf-8")))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            if node.module == "tinytee":
                found.update(f"tinytee.{alias.name}" for alias in node.names)
            elif node.module:
                found.add(node.module)
    return found


def _rooms_imported(path: Path) -> set[str]:
    rooms = set()
    for name in _imports(path):
        package, _, rest = name.partition(".")
        if package == "tinytee":
            head = rest.split(".")[0]
            is_room = (SOURCE / "tinytee" / head).is_dir() or (SOURCE / "tinytee" / f"{head}.py").is_file()
            rooms.add(_family(head) if head and is_room else "__init__")
    return rooms


FILES = sorted((SOURCE / "tinytee").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    room = _family(_room(path))
    assert room in ALLOWED, f"add the room '{room}' to the table, and to ARCHITECTURE.md"
    forbidden = _rooms_imported(path) - ALLOWED[room] - {room}
    assert not forbidden, f"{room} may not import {', '.join(sorted(forbidden))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_packages_stay_in_their_rooms(path: Path) -> None:
    room = _family(_room(path))
    packages = {name.split(".")[0] for name in _imports(path)}
    strays = {package for package in packages if package in OWNERS and room not in OWNERS[package]}
    assert not strays, f"{room} may not import {', '.join(sorted(strays))}"


def test_rooms_form_no_circle() -> None:
    """The package itself apart: it re-exports the public face, and knows the version."""
    order: list[str] = []
    remaining = {room: allowed - {"__init__"} for room, allowed in ALLOWED.items() if room != "__init__"}
    while remaining:
        free = [room for room, needs in remaining.items() if needs <= set(order)]
        assert free, f"a circle among {sorted(remaining)}"
        order += free
        remaining = {room: needs for room, needs in remaining.items() if room not in free}


def test_a_device_needs_neither_compiler_nor_its_packages() -> None:
    """Running a bundle works where only numpy and cffi are installed."""
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {sorted(OWNERS)!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import tinytee
tinytee.Session
loaded = {{name.split('.')[1] for name in sys.modules if name.startswith('tinytee.')}}
assert not loaded & {{'importer', 'passes', 'plan', 'zoo', 'quantize', 'report'}}, loaded
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
