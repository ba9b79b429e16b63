"""Whether the machine gives at the moment what it can.

Others' work on the other thread of a core takes up to half of it, for milliseconds or for minutes, and does not slow
down all work alike: the more of a core a kernel uses, the more it loses, and a ratio measured meanwhile speaks of the
machine. What shows it is a probe of some tens of microseconds that is as busy as the best kernels are, on as many
threads as are measured: products of matrices that the nearest caches hold.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

SIZE, PRODUCTS = 64, 8
"""Of the matrices, small enough that BLAS leaves a product to one thread; and how many products a probe takes."""

FIRST_PROBES = 400
SLACK = 1.12
"""A probe that takes so much more than good ones tells of others' work."""

GOOD = 0.05
"""The quantile of probes that is a good one: the very best are those of a clock that is kept for moments."""

SEEN = 4000
"""Of how many probes, the latest ones."""

SLOWER_TOGETHER = 1.3
"""What threads may take at once over what one takes alone: clocks fall. More, and they share a core: never steady."""


class Steady:
    """A probe for so many threads: whether all get, now, about the best that has been seen."""

    def __init__(self, threads: int) -> None:
        generator = np.random.default_rng(0)
        self._left = generator.standard_normal((threads, PRODUCTS, SIZE, SIZE), np.float32)
        self._right = generator.standard_normal((threads, SIZE, SIZE), np.float32)
        self._results = np.empty_like(self._left)
        self._threads = range(threads)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._together = Barrier(threads)
        self._seen = deque((self._probe() for _ in range(FIRST_PROBES)), maxlen=SEEN)
        self._alone = float(np.quantile([self._multiply(0) for _ in range(FIRST_PROBES)], GOOD))

    def __call__(self) -> bool:
        pair = self._probe(), self._probe()
        self._seen.extend(pair)
        return min(pair) < min(SLACK * float(np.quantile(self._seen, GOOD)), SLOWER_TOGETHER * self._alone)

    def _probe(self) -> float:
        """Seconds that the slowest of the threads takes, all at the same time."""
        return max(self._pool.map(self._at_once, self._threads)) if self._pool else self._multiply(0)

    def _at_once(self, thread: int) -> float:
        self._together.wait()
        return self._multiply(thread)

    def _multiply(self, thread: int) -> float:
        begun = time.perf_counter()
        np.matmul(self._left[thread], self._right[thread], out=self._results[thread])
        return time.perf_counter() - begun
