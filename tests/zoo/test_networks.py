"""The zoo's models are what they say, and show errors at their outputs."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tinytee import zoo
from tinytee.runtime.images import load_image
from tinytee.zoo import efficientnet
from tinytee.zoo.torch_pickle import load_state_dict

LIGHT_ENOUGH = [name for name in zoo.NETWORKS if name not in ("vgg19", "alexnet", "zfnet512")]
"""Three share their builder with six others, and weigh half a gigabyte."""


def _run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("name", LIGHT_ENOUGH)
def test_network_is_valid_and_informative(name: str) -> None:
    network = zoo.NETWORKS[name]
    model = network.build()
    onnx.checker.check_model(model)
    assert [output.name for output in model.graph.output] == [network.output_name]
    first, second = (_run(model, {network.input_name: zoo.reference_input(network, seed)}) for seed in (0, 1))
    assert np.isfinite(first).all()
    spread = float(np.ptp(first))
    assert spread > 0
    assert np.unique(first).size > 0.5 * first.size, "equal outputs hide errors"
    assert np.abs(first - second).max() > 0.01 * spread, "the output does not depend on the picture"


def test_same_weights_every_time() -> None:
    network = zoo.NETWORKS["squeezenet"]
    assert network.build() == network.build()


def test_efficientnet_sees_the_espresso() -> None:
    picture = load_image(efficientnet.photograph(), efficientnet.PREPROCESSING)
    scores = _run(efficientnet.build_efficientnet_lite0(), {"images": picture})[0]
    best = int(scores.argmax())
    assert efficientnet.class_names()[best] == "espresso"
    assert scores[best] > 0.9


class _Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("true",)


def test_checkpoint_reader_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(pickle.UnpicklingError, match="not a tensor"):
        load_state_dict(path)


def test_checkpoint_reader_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    stream = io.BytesIO()
    pickle.dump(1, stream)
    path.write_bytes(stream.getvalue())
    with pytest.raises(pickle.UnpicklingError, match="not a legacy"):
        load_state_dict(path)
