"""Images to inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinytee.bundle import Preprocessing
from tinytee.runtime.images import infer_preprocessing, load_image


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """40 x 20 (width x height): the left half red, the right half blue."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20, 0] = 200
    pixels[:, 20:, 2] = 100
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_layouts_and_channel_order(path: Path) -> None:
    how = {"size": (20, 40), "mean": (10.0, 20.0, 30.0), "scale": (2.0,)}
    planes = load_image(path, Preprocessing(**how))
    assert planes.shape == (1, 3, 20, 40)
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes[0, :, 3, 2], [95, -10, -15])
    np.testing.assert_allclose(planes[0, :, 3, 38], [-5, -10, 35])
    np.testing.assert_array_equal(load_image(path, Preprocessing(**how, layout="NHWC")), planes.transpose(0, 2, 3, 1))
    turned = load_image(path, Preprocessing(size=(20, 40), channels="BGR"))
    np.testing.assert_allclose(turned[0, :, 3, 2], [0, 0, 200])


def test_grey(path: Path) -> None:
    assert load_image(path, Preprocessing(size=(10, 10), channels="L")).shape == (1, 1, 10, 10)


def test_shorter_side_and_crop(path: Path) -> None:
    centre = load_image(path, Preprocessing(size=(20, 20)))
    np.testing.assert_allclose(centre[0, 0, 5, :9], 200)
    np.testing.assert_allclose(centre[0, 2, 5, 11:], 100)
    closer = load_image(path, Preprocessing(size=(20, 20), crop=0.5, interpolation="nearest"))
    assert closer.shape == (1, 3, 20, 20)
    stretched = load_image(path, Preprocessing(size=(8, 8), resize="exact", interpolation="nearest"))
    np.testing.assert_allclose(stretched[0, 0, 0], [200] * 4 + [0] * 4)


@pytest.mark.parametrize("size", [(1, 1), (3, 300), (300, 3), (224, 224)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_any_size_comes_out_as_asked(path: Path, size: tuple[int, int], crop: float) -> None:
    assert load_image(path, Preprocessing(size=size, crop=crop)).shape == (1, 3, *size)


def test_other_modes_and_orientation(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "1", "I;16"):
        Image.new(mode, (6, 4)).save(tmp_path / "mode.png")
        assert load_image(tmp_path / "mode.png", Preprocessing(size=(4, 6))).shape == (1, 3, 4, 6)
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = load_image(tmp_path / "turned.png", Preprocessing(size=(6, 4), channels="L"))
    np.testing.assert_allclose(upright[0, 0, 0], [18, 12, 6, 0])


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a" + bytes(3)])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(ValueError, match="image"):
        load_image(tmp_path / "photo.png", Preprocessing(size=(2, 2)))


def test_a_truncated_image(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="image"):
        load_image(path, Preprocessing(size=(2, 2)))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "nowhere.png", Preprocessing(size=(2, 2)))


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((1, 3, 8, 9), {}, Preprocessing((8, 9))),
        ((0, 1, 8, 9), {}, Preprocessing((8, 9), channels="L")),
        ((1, 8, 9, 3), {"mean": (1.0,)}, Preprocessing((8, 9), layout="NHWC", mean=(1.0,))),
        ((1, 3, 8, 3), {"layout": "NHWC", "channels": "BGR"}, Preprocessing((3, 8), layout="NHWC", channels="BGR")),
    ],
)
def test_preprocessing_follows_from_the_shape(
    shape: tuple[int, ...], given: dict[str, Any], expected: Preprocessing
) -> None:
    assert infer_preprocessing(shape, given) == expected


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((1, 10), {}),
        ((1, 5, 8, 9), {}),
        ((1, 3, 8, 9), {"size": (9, 9)}),
        ((1, 3, 8, 9), {"channels": "L"}),
        ((1, 8, 9, 3), {"layout": "NCHW"}),
    ],
)
def test_preprocessing_that_does_not_fit(shape: tuple[int, ...], given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        infer_preprocessing(shape, given)
