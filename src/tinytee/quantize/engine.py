"""ONNX Runtime, where it is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tinytee import ort
from tinytee.errors import TinyteeError

Feed = Mapping[str, NDArray]
INSTALL = "pip install 'tinytee[quantize]'"


def onnxruntime() -> ModuleType:
    """The package.

    Raises:
        TinyteeError: it is not installed.
    """
    try:
        import onnxruntime as found  # noqa: PLC0415
    except ImportError:
        raise TinyteeError(f"quantizing needs ONNX Runtime, which is not installed: {INSTALL}") from None
    return found


def open_session(model: onnx.ModelProto, outputs: Iterable[str] = ()) -> Any:
    """An InferenceSession that computes what the model says; ``outputs`` are tensors to expose besides its own."""
    options = onnxruntime().SessionOptions()
    options.log_severity_level = 4
    return ort.open_session(expose(model, outputs), options)


def expose(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """The model with float32 tensors as outputs besides its own."""
    known = {value.name for value in model.graph.output}
    added = [name for name in tensors if name not in known]
    if not added:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in added
    )
    return changed


def run(session: Any, names: Sequence[str], feed: Feed) -> list[NDArray]:
    """Outputs by name."""
    return [np.asarray(array) for array in session.run(list(names), dict(feed))]
