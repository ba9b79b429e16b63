"""Which weights of an int8 convolution meet in one 16-bit lane of a processor without dot products.

A lane of 16 bits holds a sum of products of int8 if the weights' magnitudes add up to at most ``LANE_BOUND``: 128 * 255
is 32,640. k is cut into fours (``tt_op`` in tinytee_program.h), k and k + 2 of a four share a lane, and so do both with
those of the next four. A convolution whose k is fed in parts may begin at any four; every two neighbours must do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LANE_BOUND = 255


@dataclass(frozen=True)
class Stretch:
    """How k lies in the input: ``count`` stretches of ``length`` elements side by side, each in ``rows`` fours."""

    length: int
    count: int

    @property
    def rows(self) -> int:
        return -(-self.length // 4)

    @classmethod
    def of(cls, shape: tuple[int, ...], groups: int, dilation_x: int) -> Stretch:
        """Of weights [out_channels, kernel_y, kernel_x, channels of a group]."""
        _, kernel_y, kernel_x, channels = shape
        if groups == 1 and (dilation_x == 1 or kernel_x == 1):
            return cls(kernel_x * channels, kernel_y)
        return cls(channels, kernel_y * kernel_x)


def lane_sums(weight: NDArray, groups: int, dilation_x: int, products: int) -> NDArray:
    """The largest sum of magnitudes in a lane of two or four products, for each output channel.

    Args:
        weight: integers [out_channels, kernel_y, kernel_x, channels of a group].
        groups: of the convolution.
        dilation_x: likewise.
        products: 2 or 4.
    """
    stretch = Stretch.of(weight.shape, groups, dilation_x)
    channels = len(weight)
    magnitudes = np.zeros((channels, stretch.count, stretch.rows * 4), np.uint16)
    magnitudes[:, :, : stretch.length] = np.abs(weight.astype(np.int16)).reshape(channels, stretch.count, -1)
    fours = magnitudes.reshape(channels, stretch.count, stretch.rows, 4)
    pairs = fours[..., :2] + fours[..., 2:]
    if products == 4 and stretch.rows > 1:
        pairs = pairs[:, :, 1:] + pairs[:, :, :-1]
    return pairs.reshape(channels, -1).max(axis=1)
