"""C files beside the benchmarks: compiled when they are newer than what was made of them, loaded through a header."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cffi import FFI

BUILD = Path(__file__).resolve().parents[1] / "build" / "bench"


class NativeError(Exception):
    """There is no C compiler, or it does not accept the source."""


def build_library(name: str, sources: Sequence[Path], headers: Sequence[Path], flags: Sequence[str]) -> Path:
    """Makes ``name`` in build/bench out of C files, if it is not newer than they and their headers are.

    Raises:
        NativeError: it cannot be made.
    """
    library = BUILD / name
    newest = max(path.stat().st_mtime for path in (*sources, *headers))
    if library.exists() and library.stat().st_mtime >= newest:
        return library
    BUILD.mkdir(parents=True, exist_ok=True)
    aside = library.with_suffix(f".{os.getpid()}")
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-Wall", "-Wextra", "-fPIC", "-shared", "-o", str(aside)]
    command += [*(str(path) for path in sources), *flags]
    try:
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NativeError(f"{name} needs a C compiler: {error}") from error
    if built.returncode != 0:
        raise NativeError(f"{name} does not compile:\n{built.stderr}")
    aside.replace(library)
    return library


def load_library(path: Path, header: Path) -> tuple[FFI, Any]:
    """The library, with what its header declares, which keeps to plain structs, enums and prototypes."""
    ffi = FFI()
    lines = header.read_text(encoding="utf-8").splitlines()
    ffi.cdef("\n".join(line for line in lines if not line.startswith("#")))
    return ffi, ffi.dlopen(str(path))
