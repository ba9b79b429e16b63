"""From the model's own arrays to the core's feature maps, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle.manifest import TensorSpec
from tinytee.ir import quantized

MAX_INTEGER = 2**24
"""Integers up to this magnitude are exact in float32."""


def check_inputs(specs: Sequence[TensorSpec], given: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], int]:
    """The arrays by name, checked against the signature, and the number of samples.

    Raises:
        ValueError: a name, a shape or an integer's magnitude is wrong.
        TypeError: a dtype is wrong.
    """
    arrays: dict[str, NDArray[Any]] = {}
    sample_counts: dict[str, int] = {}
    for spec in specs:
        if spec.name not in given:
            _refuse_names(specs, given)
        array = arrays[spec.name] = np.asarray(given[spec.name])
        _check_array(spec, array)
        if spec.batched:
            sample_counts[spec.name] = array.shape[0]
    if len(given) != len(specs):
        _refuse_names(specs, given)
    counts = set(sample_counts.values())
    if len(counts) > 1:
        told = ", ".join(f"'{name}' has {count}" for name, count in sample_counts.items())
        raise ValueError(f"the inputs disagree on the number of samples: {told}")
    if 0 in counts:
        raise ValueError("the inputs have no samples: axis 0 has extent 0")
    return arrays, counts.pop() if counts else 1


def _refuse_names(specs: Sequence[TensorSpec], given: Mapping[str, Any]) -> NoReturn:
    names = [spec.name for spec in specs]
    signature = "; ".join(str(spec) for spec in specs) or "no input at all"
    for name in given:
        if name not in names:
            raise ValueError(f"there is no input '{name}'; the network takes {signature}")
    missing = next(name for name in names if name not in given)
    raise ValueError(f"input '{missing}' is missing; the network takes {signature}")


def _check_array(spec: TensorSpec, array: NDArray[Any]) -> None:
    if array.dtype != spec.native_dtype and array.dtype.name != spec.dtype:  # in any order of bytes
        raise TypeError(f"input '{spec.name}' has dtype {array.dtype.name}; expected is {spec.dtype}")
    shape = array.shape
    if (len(shape) != len(spec.shape) or shape[1:] != spec.shape[1:]) if spec.batched else shape != spec.shape:
        wanted = ("samples", *spec.shape[1:]) if spec.batched else spec.shape
        raise ValueError(
            f"input '{spec.name}' has shape {list(array.shape)}; expected is [{', '.join(str(n) for n in wanted)}]"
        )
    if array.dtype.kind in "iu" and array.size and max(int(array.max()), -int(array.min())) > MAX_INTEGER:
        raise ValueError(
            f"input '{spec.name}' holds an integer beyond 2**24 = {MAX_INTEGER:,}, which float32 does not carry exactly"
        )


def to_core(spec: TensorSpec, array: NDArray[Any], sample: int) -> NDArray[np.float32]:
    """One sample in the core's order of axes: [height, width, channels], float32, aligned; of any strides, since it is
    the array's own memory where that can be."""
    logical = array[sample : sample + 1] if spec.batched else array
    view = logical.transpose(spec.perm).reshape(spec.height, spec.width, spec.channels)
    if view.dtype == np.float32 and view.flags.aligned:  # in this machine's order of bytes
        return view
    with _casting():
        return view.astype(np.float32, order="C")


def to_wire(spec: TensorSpec, array: NDArray[np.float32]) -> NDArray[Any]:
    """What crosses the boundary for a sample in the core's order of axes: itself, or its bytes where the network is
    quantized."""
    return array if spec.quant is None else quantized.quantize(array, spec.quant)


def from_wire(spec: TensorSpec, array: NDArray[Any]) -> NDArray[np.float32]:
    """Undoes :func:`to_wire`."""
    return array if spec.quant is None else quantized.dequantize(array, spec.quant)


def from_core(spec: TensorSpec, samples: NDArray[np.float32]) -> NDArray[Any]:
    """All samples ([sample, height * width * channels]) as the model's own array. Not batched: the last one."""
    if not spec.batched:
        return _cast(samples[-1].reshape(spec.moved_shape).transpose(spec.back), spec)
    stacked = samples.reshape(len(samples), *spec.moved_shape).transpose(0, *(axis + 1 for axis in spec.back))
    return _cast(stacked.reshape(len(samples), *spec.shape[1:]), spec)


def keeps_order(spec: TensorSpec) -> bool:
    """Whether a sample of float32 lies in memory as the model's own array does."""
    moved = [axis for axis in spec.perm if spec.sample_shape[axis] != 1]
    return spec.dtype == "float32" and moved == sorted(moved)


def _cast(array: NDArray[np.float32], spec: TensorSpec) -> NDArray[Any]:
    if spec.dtype == "float32":
        converted = array
    else:
        with _casting():
            converted = array != 0 if spec.dtype == "bool" else array.astype(spec.native_dtype)
    return converted if converted.flags.c_contiguous else converted.copy()


def _casting() -> AbstractContextManager[Any]:
    """To or from float32, where values may be out of range."""
    return np.errstate(invalid="ignore", over="ignore")
