"""What int8 costs a network with its real weights, on photographs that scikit-image brings along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray

from tinytee.quantize import quantize
from tinytee.runtime.images import load_crops
from tinytee.zoo import efficientnet

CALIBRATION, HELD_OUT = ("astronaut.png", "coffee.png", "motorcycle_left.png"), ("chelsea.png", "rocket.jpg")


def _pictures(names: tuple[str, ...], each: int) -> list[dict[str, NDArray]]:
    folder, rng = Path(skimage.__file__).parent / "data", np.random.default_rng(0)
    return [
        {"image": picture}
        for name in names
        for picture in load_crops(folder / name, efficientnet.PREPROCESSING, each, rng)
    ]


@pytest.mark.slow
def test_efficientnet_lite0_keeps_its_choices() -> None:
    model = efficientnet.build_efficientnet_lite0()
    (name,) = (value.name for value in model.graph.input)
    calibration, held_out = (
        [{name: feed["image"]} for feed in _pictures(names, each)] for names, each in ((CALIBRATION, 8), (HELD_OUT, 20))
    )
    made = quantize(model, calibration, held_out)
    (output,) = made.accuracy.outputs
    assert output.cosine >= 0.99
    assert output.top1_agreement is not None and output.top1_agreement >= 0.9
