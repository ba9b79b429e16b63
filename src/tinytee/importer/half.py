"""Models in float16 or bfloat16, as the same models in float32: what the core computes in."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, TypeProto, numpy_helper

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
"""Of Cast, of what makes tensors of nothing, and of DequantizeLinear."""


def in_float32(model: onnx.ModelProto, folder: str | PathLike[str] | None = None) -> onnx.ModelProto:
    """The model itself if nothing in it is float16 or bfloat16; else a copy in which all of that is float32.

    Their numbers are numbers of float32 as well: weights stay what they are. Results are rounded to 24 bits where the
    model says 11 or 8, and may be larger than a float16.

    Args:
        model: as exported.
        folder: where its external weights are, if it has any.
    """
    if next(_halves(model), None) is None:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if folder is not None:
        onnx.load_external_data_for_model(changed, str(folder))
    for place in list(_halves(changed)):
        if isinstance(place, TensorProto):
            name, text = place.name, place.doc_string
            place.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(place).astype(np.float32), name))
            place.doc_string = text
        elif isinstance(place, AttributeProto):
            place.i = TensorProto.FLOAT
        else:
            place.elem_type = TensorProto.FLOAT
    return changed


def reference_model(model: str | PathLike[str] | onnx.ModelProto) -> Path | onnx.ModelProto:
    """What another runtime is to compute to be compared with tinytee: the file or proto, or its model in float32."""
    if isinstance(model, onnx.ModelProto):
        return in_float32(model)
    path = Path(model)
    proto = onnx.load(path, load_external_data=False)
    changed = in_float32(proto, path.parent)
    return path if changed is proto else changed


def _halves(message: Message) -> Iterator[Any]:
    """Where in a message, at any depth, one of these types stands."""
    if isinstance(message, TensorProto):
        if message.data_type in HALVES:
            yield message
        return
    if isinstance(message, AttributeProto):
        if message.type == AttributeProto.INT and message.name in _TYPE_ATTRIBUTES and message.i in HALVES:
            yield message
    elif isinstance(message, TypeProto.Tensor) and message.elem_type in HALVES:
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if isinstance(value, Message) else value:
                yield from _halves(item)
