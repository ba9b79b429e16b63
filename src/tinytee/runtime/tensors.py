"""From the model's own arrays to the core's feature maps, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle.manifest import TensorSpec

MAX_INTEGER = 2**24
"""Integers up to this magnitude are exact in float32."""

FEW_CHANNELS = 16


def check_inputs(specs: Sequence[TensorSpec], given: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], int]:
    """The arrays by name, checked against the signature, and the number of samples.

    Raises:
        ValueError: a name, a shape or an integer's magnitude is wrong.
        TypeError: a dtype is wrong.
    """
    expected = {spec.name: spec for spec in specs}
    signature = "; ".join(str(spec) for spec in specs) or "no input at all"
    for name in given:
        if name not in expected:
            raise ValueError(f"there is no input '{name}'; the network takes {signature}")
    missing = [name for name in expected if name not in given]
    if missing:
        raise ValueError(f"input '{missing[0]}' is missing; the network takes {signature}")
    arrays = {name: np.asarray(given[name]) for name in expected}
    sample_counts = {}
    for spec in specs:
        _check_array(spec, arrays[spec.name])
        if spec.batched:
            sample_counts[spec.name] = arrays[spec.name].shape[0]
    if len(set(sample_counts.values())) > 1:
        counts = ", ".join(f"'{name}' has {count}" for name, count in sample_counts.items())
        raise ValueError(f"the inputs disagree on the number of samples: {counts}")
    if 0 in sample_counts.values():
        raise ValueError("the inputs have no samples: axis 0 has extent 0")
    return arrays, next(iter(sample_counts.values()), 1)


def _check_array(spec: TensorSpec, array: NDArray[Any]) -> None:
    if array.dtype.name != spec.dtype:
        raise TypeError(f"input '{spec.name}' has dtype {array.dtype.name}; expected is {spec.dtype}")
    fits = array.shape == spec.shape
    if spec.batched:
        fits = array.ndim == len(spec.shape) and array.shape[1:] == spec.shape[1:]
    if not fits:
        wanted = ("samples", *spec.shape[1:]) if spec.batched else spec.shape
        raise ValueError(
            f"input '{spec.name}' has shape {list(array.shape)}; expected is [{', '.join(str(n) for n in wanted)}]"
        )
    if array.dtype.kind in "iu" and array.size and max(int(array.max()), -int(array.min())) > MAX_INTEGER:
        raise ValueError(
            f"input '{spec.name}' holds an integer beyond 2**24 = {MAX_INTEGER:,}, which float32 does not carry exactly"
        )


def to_core(spec: TensorSpec, array: NDArray[Any], sample: int) -> NDArray[np.float32]:
    """One sample as the core has it: [height, width, channels], float32, C-contiguous."""
    logical = array[sample : sample + 1] if spec.batched else array
    view = logical.transpose(spec.perm)
    moved = np.empty(view.shape, np.float32)
    with np.errstate(over="ignore"):
        if view.ndim and view.shape[-1] <= FEW_CHANNELS:  # channel by channel numpy moves long runs at a time
            for channel in range(view.shape[-1]):
                moved[..., channel] = view[..., channel]
        else:
            moved[...] = view
    return moved.reshape(spec.height, spec.width, spec.channels)


def from_core(spec: TensorSpec, samples: NDArray[np.float32]) -> NDArray[Any]:
    """All samples ([sample, height * width * channels]) as the model's own array. Not batched: the last one."""
    moved_shape = tuple(spec.sample_shape[axis] for axis in spec.perm)
    back = np.argsort(spec.perm)
    if not spec.batched:
        return _cast(samples[-1].reshape(moved_shape).transpose(back), spec.dtype)
    stacked = samples.reshape(len(samples), *moved_shape).transpose(0, *(int(axis) + 1 for axis in back))
    return _cast(stacked.reshape(len(samples), *spec.shape[1:]), spec.dtype)


def _cast(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array != 0 if dtype == "bool" else array.astype(dtype, copy=False)
    return np.ascontiguousarray(converted).reshape(array.shape)
