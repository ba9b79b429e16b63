"""Runtimes as reference and as rivals: unprotected, with all the memory they want."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tinytee import ort
from tinytee.zoo.efficientnet import MissingPackageError

LEAST_ROUNDS = 3

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
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else os.fspath(model)
        self._session = ort.open_session(source, options)
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
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else os.fspath(model)
        count = str(threads)
        config = {"INFERENCE_NUM_THREADS": count, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._compiled = core.compile_model(core.read_model(source), "CPU", config)
        self._request = self._compiled.create_infer_request()

    @staticmethod
    def is_installed() -> bool:
        return importlib.util.find_spec("openvino") is not None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Output arrays by name."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        return {port.get_any_name(): np.array(value) for port, value in results.items()}


def measure_side_by_side(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    most_seconds: float | None = None,
    pause_seconds: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of every call, by contender: one after the other in each round, so that all share the machine's moods.

    Each is called once beforehand, which does not count. After ``most_seconds`` no round begins, the first
    three excepted; before each call there is a pause of ``pause_seconds``.
    """
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    begun = time.perf_counter()
    for done in range(rounds):
        if most_seconds is not None and done >= LEAST_ROUNDS and time.perf_counter() - begun > most_seconds:
            break
        for name, call in contenders.items():
            time.sleep(pause_seconds)
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def error_of_range(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute error, as a fraction of the range (maximum - minimum) of what is expected."""
    spread = float(np.ptp(expected))
    worst = float(np.max(np.abs(found.astype(np.float64) - expected)))
    return worst / spread if spread else worst
