"""Images to input arrays. Needs Pillow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle.manifest import Preprocessing


def infer_preprocessing(shape: Sequence[int], given: Mapping[str, Any]) -> Preprocessing:
    """Preprocessing for an input of that shape; what is not given follows from the shape.

    Args:
        shape: [samples, 1 or 3, height, width] or [samples, height, width, 1 or 3].
        given: fields of Preprocessing by name.

    Raises:
        ValueError: the input is no image, or what is given does not fit it.
    """
    layout = given.get("layout") or ("NCHW" if len(shape) == 4 and shape[1] in (1, 3) else "NHWC")
    if len(shape) != 4 or shape[1 if layout == "NCHW" else 3] not in (1, 3):
        raise ValueError(f"an input of shape {list(shape)} is no image in grey or in three colours")
    channels = shape[1] if layout == "NCHW" else shape[3]
    size = tuple(shape[2:4] if layout == "NCHW" else shape[1:3])
    how = Preprocessing(
        **{"size": size, "layout": layout, "channels": "L" if channels == 1 else "RGB", "resize": "shorter", **given}
    )
    if how.size != size or how.channel_count != channels:
        raise ValueError(
            f"images of {how.channel_count} channels and {how.size[0]}x{how.size[1]} pixels (height x width) do not fit"
            f" an input of shape {list(shape)}"
        )
    return how


def load_image(path: str | os.PathLike[str], how: Preprocessing) -> NDArray[np.float32]:
    """Reads an image file as a network's input.

    Args:
        path: an image in any format that Pillow reads; it is turned as its EXIF data say, animations give frame 0.
        how: size, mean, scale, layout and channel order.

    Returns:
        float32 of shape [1, channels, height, width] or [1, height, width, channels], as ``how.layout`` says, with
        (pixel - mean) / scale for pixels of 0 to 255.

    Raises:
        ValueError: the file is not an image, or too large a one, or Pillow is not installed.
        OSError: the file cannot be read.
    """
    return _to_array(_fit(_open(path, how), how), how)


def load_crops(
    path: str | os.PathLike[str], how: Preprocessing, count: int, rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    """One picture as ``load_image`` makes it, and crops of it: 70% to 100% of its sides, anywhere, half flipped.

    Args:
        path: an image file.
        how: as for ``load_image``.
        count: of arrays, the whole picture's among them.
        rng: where they lie.

    Raises:
        ValueError, OSError: as ``load_image``.
    """
    picture = _open(path, how)
    found = [_to_array(_fit(picture, how), how)]
    for number in range(1, count):
        share = rng.uniform(0.7, 1.0)
        width, height = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        left, top = (int(rng.integers(0, room + 1)) for room in (picture.width - width, picture.height - height))
        array = _to_array(_fit(picture.crop((left, top, left + width, top + height)), how), how)
        if number % 2:
            array = np.ascontiguousarray(array[..., ::-1] if how.layout == "NCHW" else array[:, :, ::-1])
        found.append(array)
    return found


def _open(path: str | os.PathLike[str], how: Preprocessing) -> Any:
    """The picture, turned and in the colours wanted."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("reading images needs Pillow: pip install pillow") from error
    name = os.fspath(path)
    try:
        with Image.open(name) as opened:
            picture = ImageOps.exif_transpose(opened).convert("L" if how.channels == "L" else "RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{name} is not an image that can be read: {error}") from error
    except OSError as error:
        if error.errno is None:
            raise ValueError(f"{name} is a damaged image: {error}") from error
        raise
    return picture


def _to_array(picture: Any, how: Preprocessing) -> NDArray[np.float32]:
    """A picture of the right size as the network's input."""
    pixels = np.asarray(picture, dtype=np.float32).reshape(*how.size, how.channel_count)
    if how.channels == "BGR":
        pixels = pixels[:, :, ::-1]
    values = (pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.scale, np.float32)
    ordered = values.transpose(2, 0, 1) if how.layout == "NCHW" else values
    return np.ascontiguousarray(ordered[np.newaxis], dtype=np.float32)


def _fit(picture: Any, how: Preprocessing) -> Any:
    from PIL import Image  # noqa: PLC0415

    filters = {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "nearest": Image.Resampling.NEAREST,
    }
    height, width = how.size
    if how.resize == "exact":
        return picture.resize((width, height), filters[how.interpolation])
    enlarge = max(height / picture.height, width / picture.width) / how.crop
    fitted_width, fitted_height = (
        max(width, round(picture.width * enlarge)),
        max(height, round(picture.height * enlarge)),
    )
    fitted = picture.resize((fitted_width, fitted_height), filters[how.interpolation])
    left, top = (fitted_width - width) // 2, (fitted_height - height) // 2
    return fitted.crop((left, top, left + width, top + height))
