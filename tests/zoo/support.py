"""What the zoo's networks are held to."""

from __future__ import annotations

from numpy.typing import NDArray

from tinytee.zoo.rival import error_of_range


def largest_error(found: NDArray, expected: NDArray) -> float:
    """As a fraction of the output's range; of a list of boxes and scores [1, channels, places], of each channel's:
    pixels would else hide by how much scores are off."""
    channels = range(expected.shape[1]) if expected.ndim == 3 else [slice(None)]
    return max(error_of_range(found[:, channel], expected[:, channel]) for channel in channels)
