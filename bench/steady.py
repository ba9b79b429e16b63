"""Whether the machine gives at the moment what it can.

Others' work on the other thread of a core takes up to half of it, for milliseconds or for minutes, and does not slow
down all work alike: the more of a core a kernel uses, the more it loses, and a ratio measured meanwhile speaks of the
machine. What shows it is a probe of some tens of microseconds that is as busy as the best kernels are, on as many
threads as are measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compiled import build_library, load_library

ROWS = 20_000
FIRST_PROBES = 400
SLACK = 1.06
"""A probe that takes so much more than the best one tells of others' work."""

SLOWER_TOGETHER = 1.3
"""What threads may take at once over what one takes alone: clocks fall. More, and they share a core: never steady."""


def load_peak() -> Any:
    """The functions of peak.h, compiled for this machine."""
    here = Path(__file__).resolve().parent
    flags = ["-O3", "-march=native", "-pthread"]
    return load_library(build_library("libpeak.so", [here / "peak.c"], [here / "peak.h"], flags), here / "peak.h")[1]


class Steady:
    """A probe for so many threads: whether all get, now, the best that has been seen.

    Raises:
        NativeError: there is no C compiler.
    """

    def __init__(self, threads: int) -> None:
        self._peak, self._threads = load_peak(), threads
        self._best = min(self._probe(threads) for _ in range(FIRST_PROBES))
        self._alone = min(self._probe(1) for _ in range(FIRST_PROBES))

    def __call__(self) -> bool:
        seconds = min(self._probe(self._threads), self._probe(self._threads))
        self._best = min(self._best, seconds)
        return seconds < min(SLACK * self._best, SLOWER_TOGETHER * self._alone)

    def _probe(self, threads: int) -> float:
        return self._peak.peak_moment(threads, ROWS)
