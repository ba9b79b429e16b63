"""Sizes of memory as people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", re.ASCII)

MAX_BYTES = 2**32 - 1
"""The largest arena that the core addresses."""


def parse_size(size: str | int) -> int:
    """Bytes of a size such as ``"512KiB"``, ``"1.5 MiB"``, ``"65536"`` or ``65536``.

    Raises:
        ValueError: it is no such size, or not a whole number of bytes between 1 and 4 GiB.
        TypeError: it is neither text nor an integer.

    >>> parse_size("512KiB"), parse_size("1MiB"), parse_size(4096)
    (524288, 1048576, 4096)
    """
    if isinstance(size, bool) or not isinstance(size, (str, int)):
        raise TypeError(f"a size is text such as '1MiB' or a number of bytes, not {type(size).__name__}")
    if isinstance(size, str):
        found = _SIZE.fullmatch(size)
        unit = _UNITS.get(found[2].lower()) if found else None
        if not found or unit is None:
            hint = (
                "; KB and MB are not used, since some mean 1000 by them" if re.search(r"[0-9]\s*[KMG]B?$", size) else ""
            )
            raise ValueError(f"'{size}' is not a size: write 512KiB, 1MiB, or a number of bytes{hint}")
        exact = float(found[1]) * unit
        if exact != int(exact):
            raise ValueError(f"'{size}' is not a whole number of bytes")
        count = int(found[1]) if unit == 1 and "." not in found[1] else int(exact)
    else:
        count = size
    if not 1 <= count <= MAX_BYTES:
        raise ValueError(f"'{size}' is out of range: secure memory is 1 byte to 4 GiB")
    return count


def format_size(count: int) -> str:
    """Bytes in the largest unit that keeps three digits.

    >>> format_size(1048576), format_size(700000), format_size(12)
    ('1 MiB', '684 KiB', '12 bytes')
    """
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 1000 * unit else f"{count / unit:,.0f} {name}"
    return f"{count} bytes"
