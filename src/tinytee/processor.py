"""What Linux tells of this machine's processor."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def facts() -> dict[str, str]:
    """Of its first core, as /proc/cpuinfo names them; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def vendor() -> str:
    """As CPUID names it, GenuineIntel or AuthenticAMD for example; "" where it is not known."""
    return facts().get("vendor_id", "")


def has_vnni() -> bool:
    """Whether it is known to have x86-64's dot products of bytes."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(facts().get("flags", "").split())
