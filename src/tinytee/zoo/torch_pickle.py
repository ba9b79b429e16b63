"""Reads the tensors of a PyTorch checkpoint of the legacy format with numpy alone.

Such a file is a row of pickles (magic number, protocol version, system's sizes, the state dict, the storage keys),
then every storage: its element count (int64) and its elements, in the order of the keys. A pickle can name any
function to be called; this reader admits three, and refuses the rest.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Tensor:
    """A view into a storage; strides in elements."""

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"the checkpoint asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        kind, storage_type, key, _location, _elems, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"the checkpoint holds a {kind} that is not a plain storage")
        return key, _DTYPES[storage_type]


def _rebuild_tensor(storage: tuple[str, np.dtype], offset: int, shape: tuple, strides: tuple, *_grad: Any) -> _Tensor:
    return _Tensor(storage[0], storage[1], offset, tuple(shape), tuple(strides))


def load_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a legacy checkpoint by name, each contiguous.

    Raises:
        pickle.UnpicklingError: the file is no such checkpoint, or holds anything but tensors.
    """
    with path.open("rb") as file:
        if _Unpickler(file).load() != MAGIC or _Unpickler(file).load() != PROTOCOL:
            raise pickle.UnpicklingError(f"{path} is not a legacy PyTorch checkpoint")
        if not _Unpickler(file).load()["little_endian"]:
            raise pickle.UnpicklingError(f"{path} was written by a big-endian machine")
        tensors: dict[str, _Tensor] = _Unpickler(file).load()
        dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
        storages = {key: _read_storage(file, dtypes[key]) for key in _Unpickler(file).load()}
    return {name: _view(storages[tensor.storage], tensor) for name, tensor in tensors.items()}


def _read_storage(file: BinaryIO, dtype: np.dtype) -> np.ndarray:
    elems = int.from_bytes(file.read(8), "little")
    data = file.read(elems * dtype.itemsize)
    if len(data) != elems * dtype.itemsize:
        raise pickle.UnpicklingError("the checkpoint is truncated")
    return np.frombuffer(data, dtype)


def _view(storage: np.ndarray, tensor: _Tensor) -> np.ndarray:
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0 or last >= storage.size:
        raise pickle.UnpicklingError("a tensor of the checkpoint reaches beyond its storage")
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view)
