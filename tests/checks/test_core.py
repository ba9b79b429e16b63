"""The house's rules for the trusted core that its source and object files can show."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core"
SOURCES = sorted(CORE.rglob("*.[ch]"))
FREESTANDING = {"string.h", "stddef.h", "stdint.h", "stdbool.h", "limits.h", "float.h"}
INTRINSICS = {"immintrin.h", "arm_neon.h"}
LIBC = {"memcpy", "memmove", "memset", "memcmp"}
COMPILE = ["-std=c11", "-O3", "-ffreestanding", "-fno-pie", "-fno-math-errno", "-fno-trapping-math"]
COMPILE += ["-I", str(CORE / "include"), "-I", str(CORE), "-DTTI_ISA=portable"]
COMPILER = shutil.which("cc")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def test_core_stays_below_its_line_limit() -> None:
    script = ROOT / "tools" / "core_lines.py"
    counted = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert counted.returncode == 0, counted.stdout + counted.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CORE)))
def test_core_includes_no_hosted_header(path: Path) -> None:
    allowed = FREESTANDING | (INTRINSICS if "kernels" in path.parts else set())
    included = re.findall(r'^\s*#\s*include\s*(<[^>]+>|"[^"]+")', path.read_text(encoding="utf-8"), re.M)
    assert {name.strip("<>") for name in included if name.startswith("<")} <= allowed
    own = {header.name for header in CORE.rglob("*.h")}
    assert {Path(name.strip('"')).name for name in included if name.startswith('"')} <= own


@needs_compiler
@pytest.mark.parametrize("path", sorted(CORE.rglob("*.c")), ids=lambda path: str(path.relative_to(CORE)))
def test_core_object_keeps_to_itself(path: Path, tmp_path: Path) -> None:
    """No libc beyond the four memory functions, no mutable globals, no variable-length arrays, small frames."""
    built = tmp_path / "core.o"
    warnings = ["-Wvla", "-Walloca", "-Wframe-larger-than=8192", "-Werror"]
    assert COMPILER is not None
    subprocess.run([COMPILER, *COMPILE, *warnings, "-c", path, "-o", built], check=True)
    symbols = subprocess.run(["nm", built], capture_output=True, text=True, check=True).stdout.split("\n")
    kinds = {line.split()[-1]: line.split()[-2] for line in symbols if line}
    foreign = {name for name, kind in kinds.items() if kind == "U" and not name.startswith(("tt_", "tti_"))}
    assert foreign <= LIBC | {"_GLOBAL_OFFSET_TABLE_"}
    assert not {name for name, kind in kinds.items() if kind in "DdBbC"}, "mutable globals"
