"""From the model's own arrays to the core's feature maps, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
    names = [spec.name for spec in specs]
    if given.keys() != set(names):
        signature = "; ".join(str(spec) for spec in specs) or "no input at all"
        for name in given:
            if name not in names:
                raise ValueError(f"there is no input '{name}'; the network takes {signature}")
        missing = next(name for name in names if name not in given)
        raise ValueError(f"input '{missing}' is missing; the network takes {signature}")
    arrays = {name: np.asarray(given[name]) for name in names}
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
    if spec.dtype not in (array.dtype, array.dtype.name):  # in any order of bytes
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


def place_for(spec: TensorSpec) -> NDArray[np.float32]:
    """A place that ``to_core`` may write one sample of an input to."""
    return np.zeros((spec.height, spec.width, spec.channels), np.float32)


def to_core(
    spec: TensorSpec, array: NDArray[Any], sample: int, place: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """One sample as the core has it: [height, width, channels], float32, C-contiguous.

    place: of ``place_for``, to be written and returned; memory that was used before costs no page faults.
    """
    logical = array[sample : sample + 1] if spec.batched else array
    view = logical.transpose(spec.perm)
    place = place_for(spec) if place is None else place
    moved = place.reshape(view.shape)
    with _casting(array.dtype):
        if view.ndim and view.shape[-1] <= FEW_CHANNELS:  # channel by channel numpy moves long runs at a time
            for channel in range(view.shape[-1]):
                moved[..., channel] = view[..., channel]
        else:
            moved[...] = view
    return place


def from_core(spec: TensorSpec, samples: NDArray[np.float32]) -> NDArray[Any]:
    """All samples ([sample, height * width * channels]) as the model's own array. Not batched: the last one."""
    moved_shape = tuple(spec.sample_shape[axis] for axis in spec.perm)
    back = sorted(range(len(spec.perm)), key=spec.perm.__getitem__)
    if not spec.batched:
        return _cast(samples[-1].reshape(moved_shape).transpose(back), spec.dtype)
    stacked = samples.reshape(len(samples), *moved_shape).transpose(0, *(axis + 1 for axis in back))
    return _cast(stacked.reshape(len(samples), *spec.shape[1:]), spec.dtype)


def _casting(dtype: np.dtype[Any] | str) -> AbstractContextManager[Any]:
    """To or from float32, where values may be out of range."""
    return nullcontext() if dtype == np.float32 else np.errstate(invalid="ignore", over="ignore")


def _cast(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    with _casting(dtype):
        converted = array != 0 if dtype == "bool" else array.astype(dtype, copy=False)
    return np.ascontiguousarray(converted).reshape(array.shape)
