"""Runtimes as reference and as rivals: unprotected, with all the memory they want."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tinytee import ort
from tinytee.zoo.efficientnet import MissingPackageError

LEAST_ROUNDS = 3
MOST_TRIES = 10
"""Rounds are measured again while the machine is not steady, until there are so many times as many as are wanted."""

STEADY_PROBES = 200
"""How often a call waits for the machine to be steady before it goes ahead."""

Model = onnx.ModelProto | str | os.PathLike[str]


class Rival:
    """A model in ONNX Runtime, its integers exact as tinytee's are (``tinytee.ort``).

    Args:
        model: a proto, or a file's path.
        threads: that share a run.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        try:
            import onnxruntime  # noqa: PLC0415
        except ImportError as error:
            raise MissingPackageError("onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Its threads would spin on after a run, on the processors that whoever is measured next needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = ort.open_session(model, options)
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Output arrays by name."""
        results = self._session.run(self._names, dict(inputs))
        return {name: np.asarray(value) for name, value in zip(self._names, results, strict=True)}


class OpenVinoRival:
    """A model in OpenVINO, in float32 throughout, as the others compute.

    Args:
        model: a proto, or a file's path.
        threads: that share a run.

    Raises:
        MissingPackageError: openvino is not installed.
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        if not self.is_installed():
            raise MissingPackageError("openvino")
        openvino: Any = importlib.import_module("openvino")
        core = openvino.Core()
        count = str(threads)
        config = {"INFERENCE_NUM_THREADS": count, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._compiled = core.compile_model(core.read_model(ort.as_source(model)), "CPU", config)
        self._request = self._compiled.create_infer_request()

    @staticmethod
    def is_installed() -> bool:
        return importlib.util.find_spec("openvino") is not None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Output arrays by name."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        return {port.get_any_name(): np.array(value) for port, value in results.items()}


@dataclass(frozen=True)
class SideBySide:
    """Seconds of every call, by contender, and in how many of the rounds the machine is known to have been steady."""

    seconds: dict[str, list[float]]
    steady_rounds: int


def measure_side_by_side(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    most_seconds: float | None = None,
    pause_seconds: float = 0.0,
    steady: Callable[[], bool] | None = None,
    most_tries: int = MOST_TRIES,
) -> SideBySide:
    """Calls one contender after the other in each round, so that all share the machine's moods.

    Args:
        contenders: each is called once beforehand, which does not count.
        rounds: how many count.
        most_seconds: after which no round begins, the first three excepted.
        pause_seconds: before each call.
        steady: whether the machine gives now what it can. Calls wait for it a while, and a round counts if it is so
            after each of them, too; all do if there are not three that it is so in.
        most_tries: with ``steady``, so many times as many rounds at most.
    """
    for call in contenders.values():
        call()
    good: list[dict[str, float]] = []
    other: list[dict[str, float]] = []
    begun = time.perf_counter()
    while len(good) < rounds and len(good) + len(other) < (most_tries if steady else 1) * rounds:
        enough = len(good) >= LEAST_ROUNDS or len(other) >= most_tries * LEAST_ROUNDS
        if most_seconds is not None and enough and time.perf_counter() - begun > most_seconds:
            break
        found, was_steady = {}, True
        for name, call in contenders.items():
            time.sleep(pause_seconds)
            if steady:
                any(steady() for _ in range(STEADY_PROBES))
            start = time.perf_counter()
            call()
            found[name] = time.perf_counter() - start
            was_steady = was_steady and (steady is None or steady())
        (good if was_steady else other).append(found)
    counted = good if len(good) >= min(rounds, LEAST_ROUNDS) else good + other
    seconds = {name: [found[name] for found in counted] for name in contenders}
    return SideBySide(seconds, len(good) if steady else 0)


def error_of_range(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute error, as a fraction of the range (maximum - minimum) of what is expected."""
    spread = float(np.ptp(expected))
    worst = float(np.max(np.abs(found.astype(np.float64) - expected)))
    return worst / spread if spread else worst
