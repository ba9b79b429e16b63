"""ONNX Runtime as reference and as rival: unprotected, on one thread, with all the memory it wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tinytee.zoo.efficientnet import MissingPackageError


class Rival:
    """A model in ONNX Runtime, which uses one thread as tinytee does.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        try:
            import onnxruntime  # noqa: PLC0415
        except ImportError as error:
            raise MissingPackageError("onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        serialized = model.SerializeToString()
        self._session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Output arrays by name."""
        results = self._session.run(self._names, dict(inputs))
        return {name: np.asarray(value) for name, value in zip(self._names, results, strict=True)}


def measure_side_by_side(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call, by contender: one after the other in each round, so that all share the machine's moods.

    Each is called once beforehand, which does not count.
    """
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def error_of_range(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute error, as a fraction of the range (maximum - minimum) of what is expected."""
    spread = float(np.ptp(expected))
    worst = float(np.max(np.abs(found.astype(np.float64) - expected)))
    return worst / spread if spread else worst
