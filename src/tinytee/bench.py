"""Measures a network within budgets of secure memory beside runtimes that have neither budget nor protection.

Latency is wall time around the call, from the model's own arrays to the model's own arrays. Contenders have as many
threads as one another and run in turns, and a ratio is the median of the ratios of neighbouring runs: both sides share
the machine's moods.
"""

from __future__ import annotations

import importlib.util
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinytee import api, processor
from tinytee.errors import TinyteeError
from tinytee.plan.profile import for_isa
from tinytee.runtime import library
from tinytee.runtime.session import Session
from tinytee.zoo.rival import MOST_TRIES, Model, OpenVinoRival, Rival, error_of_range, measure_side_by_side
from tinytee.zoo.steady import Steady

if TYPE_CHECKING:
    from tinytee.ir.graph import Graph
    from tinytee.plan.profile import Profile

Feed = Mapping[str, NDArray[Any]]

ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
ONNX_RUNTIME_FP32 = "onnxruntime_fp32"
"""Of a quantized model: ONNX Runtime with the model as it was before."""

PAUSE_SECONDS = 0.001
"""Before a run on several threads: those of the contender before it spin for a while after theirs. No longer than that:
what sleeps is slow to wake, and that would be measured."""


@dataclass(frozen=True)
class Times:
    """Seconds of a contender's runs, and tinytee's as a multiple of them (1 for tinytee itself)."""

    median: float
    best: float
    lower_quartile: float
    upper_quartile: float
    ratio: float


@dataclass(frozen=True)
class Measurement:
    """One network at one budget under one suite.

    Attributes:
        budget_bytes, suite, isa, arena_kind, threads, rounds: what was measured.
        steady_rounds: those in which the machine is known to have given what it can.
        peak_bytes: secure memory, as the compiler knows it.
        measured_peak_bytes: as the core does.
        compile_seconds: planning, packing and sealing.
        predicted_seconds: the cost model's latency.
        limit_seconds: what is physically possible: ``Plan.limit_seconds``.
        tinytee, rivals: latencies.
        engine_seconds: mean time of a run inside the port, without Python and the change of layouts.
        aead_share: of the engine's time, in the AEAD, spills included.
        spill_share: of the engine's time, in the AEAD for spills and fetches: by their part of all bytes.
        chunk_bytes_per_run, spill_bytes_per_run: sealed bytes opened; sealed or opened of spills.
        error: largest one against ONNX Runtime, as a fraction of an output's range.
    """

    budget_bytes: int
    suite: str
    isa: str
    arena_kind: str
    threads: int
    rounds: int
    steady_rounds: int
    peak_bytes: int
    measured_peak_bytes: int
    compile_seconds: float
    predicted_seconds: float | None
    limit_seconds: float
    tinytee: Times
    rivals: dict[str, Times]
    engine_seconds: float
    aead_share: float
    spill_share: float
    chunk_bytes_per_run: int
    spill_bytes_per_run: int
    error: float


class Bench:
    """A model, its rivals and their answer, ready to be measured at any budget.

    Args:
        model: a proto, or a file's path.
        graph: the same, imported.
        feed: one sample, by the names of the inputs.
        isa: as for ``Session``.
        threads: that share a run, on either side.
        unquantized: what a quantized model was made of, as a further rival.

    Raises:
        ValueError: ONNX Runtime is not installed, or does not run the model.
    """

    def __init__(
        self,
        model: Model,
        graph: Graph,
        feed: Feed,
        *,
        isa: str | None = None,
        threads: int = 1,
        unquantized: Model | None = None,
    ) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise ValueError("bench compares with ONNX Runtime, which is not installed: pip install onnxruntime")
        self._graph, self._feed, self._isa, self.threads = graph, feed, isa, threads
        self._rivals: dict[str, Rival | OpenVinoRival] = {}
        try:
            self._rivals[ONNX_RUNTIME] = Rival(model, threads)
            self._expected = self._rivals[ONNX_RUNTIME].run(feed)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise ValueError(f"ONNX Runtime does not run the model: {error}") from error
        if unquantized is not None:
            self._rivals[ONNX_RUNTIME_FP32] = Rival(unquantized, threads)
        if OpenVinoRival.is_installed():
            self._rivals[OPENVINO] = OpenVinoRival(model, threads)

    def measure(
        self,
        budget_bytes: int,
        *,
        suite: str | None = None,
        profile: Profile | None = None,
        rounds: int = 9,
        most_seconds: float | None = None,
        steady: Callable[[], bool] | None = None,
        most_tries: int = MOST_TRIES,
        progress: api.Progress | None = None,
    ) -> Measurement:
        """Compiles for a budget and measures.

        Args:
            budget_bytes: secure memory.
            suite: as for ``tinytee.compile``.
            profile: the device to predict times for; None: the shipped one for this machine's processor and kernels.
            rounds: runs of each contender.
            most_seconds: fewer rounds, but three, if they would take longer.
            steady, most_tries: as for ``measure_side_by_side``.
            progress: told what is being done.

        Raises:
            TinyteeError: it does not fit, or does not run.
        """
        key = secrets.token_bytes(32)
        device = profile or for_isa(self._isa or library.best_isa(), processor.vendor())
        start = time.perf_counter()
        bundle = api.compile_graph(
            self._graph, budget_bytes, key, suite=suite, profile=device, threads=self.threads, progress=progress
        )
        bundle.sealed()
        compile_seconds = time.perf_counter() - start
        if progress:
            progress("running", 0.0)
        with Session(bundle, key=key, isa=self._isa, threads=self.threads) as session:
            found = session.run(self._feed)
            calls = {"tinytee": lambda: session.run(self._feed)}
            for name, rival in self._rivals.items():
                calls[name] = lambda rival=rival: rival.run(self._feed)
            before = session.stats
            pause = PAUSE_SECONDS if self.threads > 1 else 0.0
            measured = measure_side_by_side(calls, rounds, most_seconds, pause, steady, most_tries)
            after = session.stats
        seconds = measured.seconds
        spent = {name: value - getattr(before, name) for name, value in asdict(after).items() if _is_counter(value)}
        runs = int(spent["runs"])
        spilled = spent["spill_bytes"] + spent["fetch_bytes"]
        crossed = spilled + sum(spent[f"{what}_bytes"] for what in ("chunk", "input", "output"))
        aead_share = spent["aead_seconds"] / spent["run_seconds"]
        return Measurement(
            budget_bytes=budget_bytes,
            suite=after.suite,
            isa=after.isa,
            arena_kind=after.arena_kind,
            threads=self.threads,
            rounds=len(seconds["tinytee"]),
            steady_rounds=measured.steady_rounds,
            peak_bytes=bundle.peak_secure_memory_bytes,
            measured_peak_bytes=after.peak_secure_memory_bytes,
            compile_seconds=compile_seconds,
            predicted_seconds=bundle.manifest.predicted_seconds,
            limit_seconds=bundle.plan.limit_seconds(
                int(spent["chunk_bytes"]) // runs, device.with_threads(self.threads)
            ),
            tinytee=_times(seconds["tinytee"], seconds["tinytee"]),
            rivals={name: _times(seconds[name], seconds["tinytee"]) for name in self._rivals},
            engine_seconds=spent["run_seconds"] / runs,
            aead_share=aead_share,
            spill_share=aead_share * spilled / crossed if crossed else 0.0,
            chunk_bytes_per_run=int(spent["chunk_bytes"]) // runs,
            spill_bytes_per_run=int(spilled) // runs,
            error=_worst_error(found, self._expected),
        )


def measure_row(bench: Bench, budget_bytes: int, **how: Any) -> dict[str, Any]:
    """``Bench.measure`` as a row of JSON; where the network does not fit or run, it says why under 'failure'."""
    try:
        return asdict(bench.measure(budget_bytes, **how))
    except TinyteeError as error:
        row: dict[str, Any] = {"budget_bytes": budget_bytes, "suite": how.get("suite"), "threads": bench.threads}
        return row | {"failure": f"{type(error).__name__}: {error}"}


def steady_probe(threads: int) -> Callable[[], bool]:
    """Tells ``Bench.measure`` whether the machine gives at the moment what it can to so many threads."""
    return Steady(threads)


def prediction_errors(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """|predicted / measured median - 1| of every row that has both."""
    measured = [row for row in rows if "failure" not in row and row["predicted_seconds"]]
    return [abs(row["predicted_seconds"] / row["tinytee"]["median"] - 1) for row in measured]


def _is_counter(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _times(seconds: Sequence[float], ours: Sequence[float]) -> Times:
    low, middle, high = (float(np.quantile(seconds, quantile)) for quantile in (0.25, 0.5, 0.75))
    ratio = statistics.median(a / b for a, b in zip(ours, seconds, strict=True))
    return Times(middle, min(seconds), low, high, ratio)


def _worst_error(found: Feed, expected: Feed) -> float:
    return max((error_of_range(found[name], np.asarray(expected[name], np.float64)) for name in expected), default=0.0)
