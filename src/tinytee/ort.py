"""ONNX Runtime as the reference: sessions that compute what a model says."""

from __future__ import annotations

import os
from typing import Any

from tinytee import processor

EXACT_INT8 = "session.x64quantprecision"
"""On x86-64 without VNNI, ONNX Runtime multiplies uint8 by int8 with instructions that saturate: its results were up to
a fifth of an output's range off on an AMD Zen 3. This makes it take others, which took 1.3 to 1.5 times as long. With
VNNI it is exact anyhow, and three times as fast as this would make it (Emerald Rapids)."""


def as_source(model: Any) -> bytes | str:
    """A model as runtimes take it: a proto's bytes, or a file's path; bytes as they are."""
    if isinstance(model, bytes):
        return model
    return model.SerializeToString() if hasattr(model, "SerializeToString") else os.fspath(model)


def open_session(model: Any, options: Any, **how: Any) -> Any:
    """An ``onnxruntime.InferenceSession`` on the processor whose integer operators are exact.

    Float32 weights that stand between quantized tensors stay what they are: by default it would quantize them by
    itself, with one scale for all channels.

    Args:
        model: a proto, its bytes, or a file's path.
        options: ``onnxruntime.SessionOptions``.
        how: further arguments of ``onnxruntime.InferenceSession``.
    """
    import onnxruntime  # noqa: PLC0415

    source = as_source(model)
    how = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": ["WeightBiasQuantization"]} | how
    options.add_session_config_entry(EXACT_INT8, "0" if processor.has_vnni() else "1")
    try:
        return onnxruntime.InferenceSession(source, options, **how)
    except Exception as error:  # its exceptions have no common base but this
        if "NOT_IMPLEMENTED" not in str(error):
            raise
        # There are no exact kernels for int8 activations.
        options.add_session_config_entry(EXACT_INT8, "0")
        return onnxruntime.InferenceSession(source, options, **how)
