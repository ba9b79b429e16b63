"""Int8 versions of the zoo's networks, calibrated on random pictures. Needs ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import onnx

from tinytee.quantize import quantize
from tinytee.zoo import NETWORKS, Network, reference_input

CALIBRATION_PICTURES = 4


@cache
def quantized_network(name: str, short_sums: bool = False) -> onnx.ModelProto:
    """A network of the zoo in int8: QDQ, uint8 activations, int8 weights for each channel. Made once a process.

    Args:
        name: of the network.
        short_sums: for a processor without dot products.

    Raises:
        KeyError: the zoo has no such network.
        TinyteeError: ONNX Runtime is not installed.
    """
    network = NETWORKS[name]
    pictures = [reference_input(network, seed) for seed in range(CALIBRATION_PICTURES)]
    return quantize_model(network.build(), network, pictures, short_sums)


def quantize_model(
    model: onnx.ModelProto, network: Network, pictures: Sequence[np.ndarray], short_sums: bool = False
) -> onnx.ModelProto:
    """A model in int8, rounded to nearest, calibrated on pictures of the shape of ``network``'s input."""
    feeds = [{network.input_name: picture} for picture in pictures]
    return quantize(model, feeds, rounding="nearest", short_sums=short_sums).model


def builders() -> dict[str, Callable[[], onnx.ModelProto]]:
    """How to make every network of the zoo in int8, by name."""
    return {name: (lambda name=name: quantized_network(name)) for name in NETWORKS}
