"""The numbers and record layouts of the C headers, read from the headers themselves.

``ffi`` knows every type and ``constants`` every number of tinytee.h, tinytee_program.h and tinytee_host.h. A record is
made with ``ffi.new`` and becomes bytes with :func:`record_bytes`:

    >>> chunk = ffi.new("tt_chunk *", {"offset": 4096, "bytes": 64})
    >>> record_bytes(chunk).hex()
    '0010000040000000'
    >>> hex(constants.TT_PROGRAM_MAGIC)
    '0x50545454'
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cffi import FFI

_PACKAGE = Path(__file__).resolve().parents[1]
_HEADERS = ("core/include/tinytee.h", "core/include/tinytee_program.h", "ports/host/include/tinytee_host.h")


def _header_path(header: str) -> Path:
    installed = _PACKAGE / "include" / Path(header).name
    return installed if installed.exists() else _PACKAGE.parents[1] / header


def _declarations(header: str) -> str:
    """The header without preprocessor lines; the headers keep to what cffi reads after that."""
    lines = _header_path(header).read_text(encoding="utf-8").splitlines()
    kept = "\n".join(line for line in lines if not line.startswith("#"))
    return kept.replace("TT_MUST_USE ", "")


def _parse() -> tuple[FFI, SimpleNamespace]:
    if sys.byteorder != "little":
        raise ImportError("tinytee's records are little-endian, and so must be the machine")
    parsed = FFI()
    for header in _HEADERS:
        parsed.cdef(_declarations(header))
    process: Any = parsed.dlopen(None)
    names = [name for name in dir(process) if name.startswith(("TT_", "TTH_"))]
    return parsed, SimpleNamespace(**{name: getattr(process, name) for name in names})


ffi: Any
constants: Any
ffi, constants = _parse()


def record_bytes(record: Any) -> bytes:
    """The bytes of a record or array that ``ffi.new`` made."""
    return bytes(ffi.buffer(record))
