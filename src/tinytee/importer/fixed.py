"""Inputs of a model that are to be constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from tinytee.errors import TinyteeError
from tinytee.importer.source import ModelSource, parse_model


def fix_inputs(model: ModelSource, values: Mapping[str, ArrayLike]) -> onnx.ModelProto:
    """The same model, some of whose inputs have become constants: a sampling rate, a threshold, a state of zeros.

    Args:
        model: path, bytes or proto of an ONNX model.
        values: by input name; a single number fills an input of any known shape.

    Raises:
        TinyteeError: the model has no such input, or a value does not fit it.
    """
    proto, folder = parse_model(model)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    if folder is not None:
        onnx.load_external_data_for_model(fixed, str(folder))
    given = {tensor.name for tensor in fixed.graph.initializer}
    inputs = {value.name: value for value in fixed.graph.input if value.name not in given}
    for name, value in values.items():
        if name not in inputs:
            raise TinyteeError(f"the model has no input '{name}' to give a value; its inputs are {list(inputs)}")
        fixed.graph.initializer.append(numpy_helper.from_array(_fitting(inputs[name], value), name))
        fixed.graph.input.remove(inputs[name])
    return fixed


def _fitting(declared: onnx.ValueInfoProto, value: ArrayLike) -> NDArray:
    """The value as the input's type and shape say."""
    tensor, where = declared.type.tensor_type, f"the value of the input '{declared.name}'"
    if not declared.type.HasField("tensor_type"):
        raise TinyteeError(f"{where}: only tensors can be given one")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    try:
        found = np.asarray(value)
        array = found.astype(dtype)
    except (TypeError, ValueError) as error:
        raise TinyteeError(f"{where}: {error}") from None
    if dtype.kind in "iu" and (array != found).any():
        raise TinyteeError(f"{where} is {value}, and the model wants {dtype}")
    if not tensor.HasField("shape"):
        return array
    extents = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if array.size == 1 and None not in extents:
        return np.full([extent or 0 for extent in extents], array.reshape(()))
    if array.ndim != len(extents) or any(e not in (None, n) for e, n in zip(extents, array.shape, strict=True)):
        shape = "x".join("?" if extent is None else str(extent) for extent in extents) or "a single number"
        raise TinyteeError(f"{where} has the shape {array.shape}, and the model wants {shape}")
    return array
