"""The manifest: what a bundle says about itself to anyone, as JSON in its public part.

Until a session has authenticated the bundle with its key, a manifest is only a claim.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from tinytee.bundle.abi import constants
from tinytee.bundle.version import VERSION
from tinytee.errors import BundleError
from tinytee.ir.graph import Port, Quant, Shape

DTYPES = (
    "float32", "float64", "float16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
"""The dtypes of a model's signature; the core carries every one as float32, or as what is quantized of it."""

_MAX_DIMS, _MAX_EXTENT, _MAX_TEXT = 16, 2**31, 4096
_MOST_SCALE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the network.

    Attributes:
        name: the model's name for it.
        shape: logical shape; where ``batched``, axis 0 is the sample axis (0: any size).
        dtype: numpy dtype name of the signature.
        perm: ``logical.transpose(perm).reshape(height, width, channels)`` is one sample as the core has it.
        batched: whether a run loops over axis 0.
        height, width, channels: one sample in the core, in the order y, x, c.
        quant: what its elements stand for in the core, where they are uint8; None: they are float32.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    perm: tuple[int, ...]
    batched: bool
    height: int
    width: int
    channels: int
    quant: Quant | None = None

    @classmethod
    def of(cls, port: Port, shape: Shape, quant: Quant | None = None) -> TensorSpec:
        """The spec of a graph's port, whose tensor has that shape and quant."""
        extents = (shape.height, shape.width, shape.channels)
        return cls(port.name, tuple(port.shape), port.dtype, tuple(port.perm), port.batched, *extents, quant)

    @cached_property
    def native_dtype(self) -> np.dtype[Any]:
        """``dtype`` in this machine's order of bytes."""
        return np.dtype(self.dtype)

    @cached_property
    def sample_shape(self) -> tuple[int, ...]:
        """Logical shape of one sample: axis 0 is 1 where batched."""
        return (1, *self.shape[1:]) if self.batched else self.shape

    @cached_property
    def moved_shape(self) -> tuple[int, ...]:
        """Shape of one sample with its axes as ``perm`` moves them."""
        return tuple(self.sample_shape[axis] for axis in self.perm)

    @cached_property
    def back(self) -> tuple[int, ...]:
        """The permutation that undoes ``perm``."""
        return tuple(sorted(range(len(self.perm)), key=self.perm.__getitem__))

    @cached_property
    def elems(self) -> int:
        """Elements of one sample."""
        return self.height * self.width * self.channels

    @property
    def wire_dtype(self) -> np.dtype[Any]:
        """Of the elements where they cross the boundary."""
        return np.dtype(np.float32 if self.quant is None else np.uint8)

    @property
    def wire_bytes(self) -> int:
        """Of one sample where it crosses the boundary."""
        return self.elems * self.wire_dtype.itemsize

    def __str__(self) -> str:
        extents = ", ".join("any" if i == 0 and self.batched and not n else str(n) for i, n in enumerate(self.shape))
        return f"{self.name}: {self.dtype} [{extents}]"


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input: resize, crop the centre, then ``(pixel - mean) / scale`` for each channel.

    Attributes:
        size: height and width of the input, in pixels.
        resize: "exact" stretches to ``size``; "shorter" keeps proportions and makes the shorter side fit.
        crop: with "shorter", the fraction of the resized image that ``size`` covers (0.875: 256 for 224).
        interpolation: of the resize.
        mean, scale: one number, or one a channel, in units of a pixel value of 0 to 255.
        layout: order of the input's axes.
        channels: order of the colours; "L" is grey.
    """

    size: tuple[int, int]
    resize: Literal["exact", "shorter"] = "shorter"
    crop: float = 1.0
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["RGB", "BGR", "L"] = "RGB"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(1 <= extent <= 65536 for extent in self.size):
            raise ValueError(f"an image's size is a height and a width of 1 to 65536 pixels, not {self.size}")
        for name, value, allowed in (
            ("resize", self.resize, ("exact", "shorter")),
            ("interpolation", self.interpolation, ("bilinear", "bicubic", "nearest")),
            ("layout", self.layout, ("NCHW", "NHWC")),
            ("channels", self.channels, ("RGB", "BGR", "L")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not '{value}'")
        if not 0.01 <= self.crop <= 1:
            raise ValueError(f"crop is a fraction from 0.01 to 1, not {self.crop}")
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            if len(values) not in (1, self.channel_count) or not all(math.isfinite(v) for v in values):
                raise ValueError(f"{name} is one number, or {self.channel_count}, one a channel; not {values}")
        if 0 in self.scale:
            raise ValueError("scale divides, it may not be 0")

    @property
    def channel_count(self) -> int:
        return 1 if self.channels == "L" else 3


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
        inputs, outputs: the network's signature, in its order.
        budget_bytes: the secure memory that the compiler was offered.
        predicted_seconds: of one run, by the device profile it was compiled for.
        producer: what wrote the bundle.
        preprocessing: how an image becomes the first input.
        class_names: names of the first output's channels.
        threads: most threads that may share a run.
        integer_operators, float_operators: how many compute in integers, and in float32.
        entropy_coded: how many operators' weights are entropy-coded.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    budget_bytes: int
    predicted_seconds: float | None = None
    producer: str = f"tinytee {VERSION}"
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    threads: int = 1
    integer_operators: int = 0
    float_operators: int = 0
    entropy_coded: int = 0

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Reads a manifest that may be hostile.

        Raises:
            BundleError: it is not a manifest.
        """
        try:
            found = json.loads(text.decode(), parse_constant=_refuse_constant)
            manifest = _manifest(_Fields(found))
        except (UnicodeDecodeError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise BundleError(f"the bundle's manifest is malformed: {error}") from error
        return manifest


class _Fields:
    """A JSON object whose fields are taken out by name and type; ``done`` says whether any is left."""

    def __init__(self, found: Any) -> None:
        if not isinstance(found, dict):
            raise ValueError("an object is missing")
        self._found = dict(found)

    def take(self, name: str, kind: type, allowed: Callable[[Any], bool] = lambda _: True) -> Any:
        value = self._found.pop(name, None)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or not allowed(value):
            raise ValueError(f"field '{name}' is missing or out of bounds")
        return value

    def take_list(self, name: str, kind: type, most: int, allowed: Callable[[Any], bool] = lambda _: True) -> tuple:
        values = self.take(name, list, lambda found: len(found) <= most)
        if kind is float:
            values = [float(v) if type(v) is int else v for v in values]
        if not all(type(v) is kind and allowed(v) for v in values):
            raise ValueError(f"field '{name}' is out of bounds")
        return tuple(values)

    def take_optional(self, name: str) -> Any:
        return self._found.pop(name, None)

    def done(self) -> None:
        if self._found:
            raise ValueError(f"unknown field '{next(iter(self._found))}'")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _is_text(value: str) -> bool:
    return len(value) <= _MAX_TEXT


def _is_count(value: int) -> bool:
    return 0 <= value <= constants.TT_INSTR_MAX_INDEX


def _is_extent(value: int) -> bool:
    return 0 <= value < _MAX_EXTENT


def _quant(fields: _Fields) -> Quant:
    found = Quant(
        scale=fields.take("scale", float, lambda value: 0 < value <= _MOST_SCALE and float(np.float32(value)) == value),
        zero_point=fields.take("zero_point", int, lambda value: 0 <= value <= 255),
    )
    fields.done()
    return found


def _tensor(fields: _Fields) -> TensorSpec:
    quant = fields.take_optional("quant")
    spec = TensorSpec(
        name=fields.take("name", str, _is_text),
        shape=fields.take_list("shape", int, _MAX_DIMS, _is_extent),
        dtype=fields.take("dtype", str, DTYPES.__contains__),
        perm=fields.take_list("perm", int, _MAX_DIMS),
        batched=fields.take("batched", bool),
        height=fields.take("height", int, _is_extent),
        width=fields.take("width", int, _is_extent),
        channels=fields.take("channels", int, _is_extent),
        quant=None if quant is None else _quant(_Fields(quant)),
    )
    fields.done()
    if sorted(spec.perm) != list(range(len(spec.shape))) or (spec.batched and not spec.shape):
        raise ValueError(f"the axes of '{spec.name}' do not agree")
    if math.prod(spec.sample_shape) != spec.elems or not 1 <= spec.elems <= 2**32:
        raise ValueError(f"the shapes of '{spec.name}' do not agree")
    return spec


def _preprocessing(fields: _Fields) -> Preprocessing:
    found = Preprocessing(
        size=fields.take_list("size", int, 2),
        resize=fields.take("resize", str),
        crop=fields.take("crop", float),
        interpolation=fields.take("interpolation", str),
        mean=fields.take_list("mean", float, 4),
        scale=fields.take_list("scale", float, 4),
        layout=fields.take("layout", str),
        channels=fields.take("channels", str),
    )
    fields.done()
    return found


def _manifest(fields: _Fields) -> Manifest:
    signature = []
    for name in ("inputs", "outputs"):
        tensors = tuple(_tensor(_Fields(found)) for found in fields.take_list(name, dict, 65536))
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise ValueError(f"two {name} have one name")
        signature.append(tensors)
    seconds, preprocessing = fields.take_optional("predicted_seconds"), fields.take_optional("preprocessing")
    if seconds is not None and (type(seconds) not in (int, float) or not 0 <= seconds < 1e9):
        raise ValueError("field 'predicted_seconds' is out of bounds")
    manifest = Manifest(
        inputs=signature[0],
        outputs=signature[1],
        budget_bytes=fields.take("budget_bytes", int, lambda value: 0 < value < 2**32),
        predicted_seconds=None if seconds is None else float(seconds),
        producer=fields.take("producer", str, _is_text),
        preprocessing=None if preprocessing is None else _preprocessing(_Fields(preprocessing)),
        class_names=fields.take_list("class_names", str, 1 << 20, _is_text),
        threads=fields.take("threads", int, lambda value: 1 <= value <= constants.TT_MAX_WORKERS),
        integer_operators=fields.take("integer_operators", int, _is_count),
        float_operators=fields.take("float_operators", int, _is_count),
        entropy_coded=fields.take("entropy_coded", int, _is_count),
    )
    fields.done()
    return manifest
