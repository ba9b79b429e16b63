"""Files that are there whole, or not at all."""

from __future__ import annotations

import secrets
from pathlib import Path


def write_aside(path: Path, data: bytes, *, private: bool = False) -> None:
    """Writes a file aside, then renames it.

    Args:
        path: the file; what it held before is replaced.
        data: all of it.
        private: whether its owner alone may read it.

    Raises:
        OSError: it cannot be written; what was there still is.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        if private:
            aside.touch(0o600)
        aside.write_bytes(data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
