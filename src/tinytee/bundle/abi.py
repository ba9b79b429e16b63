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

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cffi import FFI

_PACKAGE = Path(__file__).resolve().parents[1]
_HEADERS = ("core/include/tinytee.h", "core/include/tinytee_program.h", "ports/host/include/tinytee_host.h")


def _header_path(header: str) -> Path:
    installed = _PACKAGE / "include" / Path(header).name
    return installed if installed.exists() else _PACKAGE.parents[1] / header


_PREPROCESSOR = re.compile(r"^#(?:.*\\\n)*.*$", re.MULTILINE)


def _declarations(header: str) -> str:
    """The header without preprocessor lines; the headers keep to what cffi reads after that."""
    return _PREPROCESSOR.sub("", _header_path(header).read_text(encoding="utf-8")).replace("TT_MUST_USE ", "")


def parse_headers(headers: Sequence[str], prefixes: tuple[str, ...]) -> tuple[Any, Any]:
    """What C headers declare: their types, and their numbers of such names.

    Args:
        headers: paths in the source tree; an installed package has them all in one folder.
        prefixes: of the numbers' names.
    """
    if sys.byteorder != "little":
        raise ImportError("tinytee's records are little-endian, and so must be the machine")
    parsed = FFI()
    for header in headers:
        parsed.cdef(_declarations(header))
    process: Any = parsed.dlopen(None)
    names = [name for name in dir(process) if name.startswith(prefixes)]
    return parsed, SimpleNamespace(**{name: getattr(process, name) for name in names})


ffi: Any
constants: Any
ffi, constants = parse_headers(_HEADERS, ("TT_", "TTH_"))


def record_bytes(record: Any) -> bytes:
    """The bytes of a record or array that ``ffi.new`` made."""
    return bytes(ffi.buffer(record))
