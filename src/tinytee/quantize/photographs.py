"""A folder of photographs as samples: some to calibrate with, others, held out, to measure accuracy on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle.manifest import Preprocessing
from tinytee.runtime.images import load_crops

CALIBRATION_PICTURES, REPORT_PICTURES = 96, 300
"""About so many pictures are made of the photographs: crops and mirror images of them, where these are fewer."""
_MOST_CROPS = 64
_HELD_OUT = 0.4


@dataclass(frozen=True, eq=False)
class Photographs:
    """Pictures as a network's input, float32 with a leading axis of 1.

    Attributes:
        calibration, held_out: of different photographs.
        calibration_files, held_out_files: the photographs.
    """

    calibration: tuple[NDArray[np.float32], ...]
    held_out: tuple[NDArray[np.float32], ...]
    calibration_files: tuple[Path, ...]
    held_out_files: tuple[Path, ...]


def read_photographs(folder: str | os.PathLike[str], how: Preprocessing, seed: int = 0) -> Photographs:
    """Reads every file in a folder and the folders in it, hidden files apart.

    Of the photographs in order of their names, two in five are held out, evenly spread. The first picture of each is
    prepared as 'tinytee run' would; the others are crops of 70% to 100% of its sides at random places, every other
    one mirrored.

    Raises:
        ValueError: fewer than two photographs, or a file that is not an image.
        OSError: no such folder, or a file that cannot be read.
    """
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"there is no folder '{root}'")
    if not root.is_dir():
        raise NotADirectoryError(f"'{root}' is a file; --calibrate takes a folder of photographs")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not files:
        raise ValueError(f"the folder '{root}' is empty; put photographs in it of the kind that the network will see")
    if len(files) < 2:
        raise ValueError(
            f"'{root}' holds one file; two photographs are the least: one to calibrate with, one to measure accuracy on"
        )
    held = max(1, round(len(files) * _HELD_OUT))
    at = {int((position + 0.5) * len(files) / held) for position in range(held)}
    groups = [[path for i, path in enumerate(files) if (i in at) == kept] for kept in (False, True)]
    rng = np.random.default_rng(seed)
    pictures: list[tuple[NDArray[np.float32], ...]] = []
    for paths, wanted in zip(groups, (CALIBRATION_PICTURES, REPORT_PICTURES), strict=True):
        each = min(_MOST_CROPS if wanted == CALIBRATION_PICTURES else wanted, max(1, -(-wanted // len(paths))))
        chosen = paths if len(paths) <= wanted else paths[:: -(-len(paths) // wanted)]
        pictures.append(tuple(picture for path in chosen for picture in load_crops(path, how, each, rng)))
    return Photographs(pictures[0], pictures[1], tuple(groups[0]), tuple(groups[1]))
