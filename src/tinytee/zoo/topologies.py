"""Topologies after their papers and their authors' code, without weights. Each function names its source."""

from __future__ import annotations

import numpy as np
import onnx

from tinytee.zoo.builder import Builder, Feature


def lenet5() -> onnx.ModelProto:
    """LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998: tanh and average pooling."""
    net = Builder("lenet5", opset=13, channels=1, height=32, width=32)
    x = net.input
    for channels in (6, 16):
        x = net.op("Tanh", net.conv(x, channels, 5, bias=True, pads=(0, 0, 0, 0)))
        x = net.op("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))
    x = net.op("Tanh", net.conv(x, 120, 5, bias=True, pads=(0, 0, 0, 0)))
    x = net.op("Tanh", net.linear(net.flatten(x), 84))
    return net.model(net.op("Softmax", net.linear(x, 10), axis=1))


def mobilenet_v1(width: float = 1.0, resolution: int = 224) -> onnx.ModelProto:
    """Howard et al., arXiv 1704.04861, table 1."""
    net = Builder("mobilenet_v1", opset=13, channels=3, height=resolution, width=resolution)

    def block(x: Feature, out_channels: int, kernel: int, stride: int, groups: int = 1) -> Feature:
        return net.relu6(net.batchnorm(net.conv(x, out_channels, kernel, stride, groups=groups)))

    x = block(net.input, int(32 * width), 3, 2)
    layers = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for channels, stride in layers:
        x = block(x, x.channels, 3, stride, groups=x.channels)
        x = block(x, int(channels * width), 1, 1)
    return net.model(_classifier(net, x))


def mobilenet_v2() -> onnx.ModelProto:
    """Sandler et al., arXiv 1801.04381, table 2, as torchvision writes it."""
    net = Builder("mobilenet_v2", opset=14, channels=3, height=224, width=224)

    def block(x: Feature, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> Feature:
        return net.relu6(net.batchnorm(net.conv(x, out_channels, kernel, stride, groups=groups)))

    def inverted_residual(x: Feature, out_channels: int, stride: int, expand: int) -> Feature:
        y = block(x, x.channels * expand, 1) if expand > 1 else x
        y = block(y, y.channels, 3, stride, groups=y.channels)
        y = net.batchnorm(net.conv(y, out_channels, 1))
        return net.op("Add", x, y) if stride == 1 and x.channels == out_channels else y

    x = block(net.input, 32, 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, channels, repeats, stride in stages:
        for repeat in range(repeats):
            x = inverted_residual(x, channels, stride if repeat == 0 else 1, expand)
    return net.model(_classifier(net, block(x, 1280, 1)))


def mobilenet_v3_small() -> onnx.ModelProto:
    """Howard et al., arXiv 1905.02244, table 2, as torchvision writes it."""
    net = Builder("mobilenet_v3_small", opset=17, channels=3, height=224, width=224)

    def norm(x: Feature) -> Feature:
        return net.batchnorm(x, epsilon=1e-3)

    def squeeze_excite(x: Feature) -> Feature:
        squeezed = _round_to_8(x.channels / 4)
        y = net.op("Relu", net.conv(net.op("GlobalAveragePool", x), squeezed, 1, bias=True))
        y = net.op("HardSigmoid", net.conv(y, x.channels, 1, bias=True), alpha=1 / 6)
        return net.op("Mul", y, x)

    rows = [
        # kernel, expanded, out, squeeze-excite, activation, stride
        (3, 16, 16, True, "Relu", 2), (3, 72, 24, False, "Relu", 2), (3, 88, 24, False, "Relu", 1),
        (5, 96, 40, True, "HardSwish", 2), (5, 240, 40, True, "HardSwish", 1), (5, 240, 40, True, "HardSwish", 1),
        (5, 120, 48, True, "HardSwish", 1), (5, 144, 48, True, "HardSwish", 1), (5, 288, 96, True, "HardSwish", 2),
        (5, 576, 96, True, "HardSwish", 1), (5, 576, 96, True, "HardSwish", 1),
    ]  # fmt: skip
    x = net.op("HardSwish", norm(net.conv(net.input, 16, 3, 2)))
    for kernel, expanded, out_channels, has_gate, activation, stride in rows:
        y = net.op(activation, norm(net.conv(x, expanded, 1))) if expanded != x.channels else x
        y = net.op(activation, norm(net.conv(y, expanded, kernel, stride, groups=expanded)))
        y = squeeze_excite(y) if has_gate else y
        y = norm(net.conv(y, out_channels, 1))
        x = net.op("Add", y, x) if stride == 1 and x.channels == out_channels else y
    x = net.op("HardSwish", norm(net.conv(x, 576, 1)))
    x = net.flatten(net.op("GlobalAveragePool", x))
    x = net.op("HardSwish", net.linear(x, 1024))
    return net.model(net.linear(x, 1000))


def tiny_darknet() -> onnx.ModelProto:
    """Redmon, darknet's cfg/tiny.cfg."""
    net = Builder("tiny_darknet", opset=13, channels=3, height=224, width=224)
    x = net.input
    for channels in (16, 32):
        x = net.max_pool(_darknet_conv(net, x, channels, 3), 2, 2)
    for squeezed, expanded in ((16, 128), (32, 256)):
        for _ in range(2):
            x = _darknet_conv(net, _darknet_conv(net, x, squeezed, 1), expanded, 3)
        x = net.max_pool(x, 2, 2)
    for _ in range(2):
        x = _darknet_conv(net, _darknet_conv(net, x, 64, 1), 512, 3)
    return net.model(_darknet_head(net, _darknet_conv(net, x, 128, 1)))


def darknet_reference() -> onnx.ModelProto:
    """Redmon, darknet's cfg/darknet.cfg. Its last max pool reaches one row and column beyond the map."""
    net = Builder("darknet_reference", opset=13, channels=3, height=256, width=256)
    x = net.input
    for channels in (16, 32, 64, 128, 256):
        x = net.max_pool(_darknet_conv(net, x, channels, 3), 2, 2)
    x = net.max_pool(_darknet_conv(net, x, 512, 3), 2, 2, pads=(0, 0, 1, 1))
    return net.model(_darknet_head(net, _darknet_conv(net, x, 1024, 3)))


def tiny_yolo_v2() -> onnx.ModelProto:
    """Redmon and Farhadi, arXiv 1612.08242, darknet's cfg/yolov2-tiny-voc.cfg, written as the ONNX model zoo's file:
    pixels scaled by the graph itself, automatic padding throughout, and a max pool that moves by one.
    """
    net = Builder("tiny_yolo_v2", opset=13, channels=3, height=416, width=416, input_name="image")
    x = net.op("Mul", net.input, net.constant(np.array([1 / 255], np.float32), "scaler.scale"))
    x = net.op("Add", x, net.constant(np.zeros((3, 1, 1), np.float32), "scaler.bias"))

    def conv(x: Feature, channels: int) -> Feature:
        return net.op("LeakyRelu", net.batchnorm(net.conv(x, channels, 3, same_upper=True)), alpha=0.1)

    for channels in (16, 32, 64, 128, 256):
        x = net.max_pool(conv(x, channels), 2, 2, auto_pad="SAME_UPPER")
    x = net.max_pool(conv(x, 512), 2, 1, auto_pad="SAME_UPPER")
    x = conv(conv(x, 1024), 1024)
    return net.model(net.conv(x, 125, 1, bias=True, same_upper=True), "grid")


def unet_transposed() -> onnx.ModelProto:
    """Ronneberger et al., arXiv 1505.04597, as in mateuszbuda/brain-segmentation-pytorch (Torch Hub): base width 32."""
    net = Builder("unet_transposed", opset=13, channels=3, height=256, width=256)

    def double_conv(x: Feature, channels: int) -> Feature:
        for _ in range(2):
            x = net.op("Relu", net.batchnorm(net.conv(x, channels, 3)))
        return x

    x, skips = net.input, []
    for channels in (32, 64, 128, 256):
        skips.append(double_conv(x, channels))
        x = net.max_pool(skips[-1], 2, 2)
    x = double_conv(x, 512)
    for skip in reversed(skips):
        x = double_conv(net.concat(net.conv_transpose(x, skip.channels, 2, 2), skip), skip.channels)
    return net.model(net.op("Sigmoid", net.conv(x, 1, 1, bias=True)))


def unet_resized() -> onnx.ModelProto:
    """The same with bilinear upsampling (align_corners) instead, as in milesial/Pytorch-UNet: base width 32, logits."""
    net = Builder("unet_resized", opset=13, channels=3, height=256, width=256)

    def double_conv(x: Feature, middle: int, channels: int) -> Feature:
        for width in (middle, channels):
            x = net.op("Relu", net.batchnorm(net.conv(x, width, 3)))
        return x

    def upsample(x: Feature) -> Feature:
        scales = net.constant(np.array([1, 1, 2, 2], np.float32), "upsample.scales")
        return net.op("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="align_corners")

    skips = [double_conv(net.input, 32, 32)]
    for channels in (64, 128, 256):
        skips.append(double_conv(net.max_pool(skips[-1], 2, 2), channels, channels))
    x = double_conv(net.max_pool(skips[-1], 2, 2), 256, 256)
    for skip, channels in zip(reversed(skips), (128, 64, 32, 32), strict=True):
        joined = net.concat(skip, upsample(x))
        x = double_conv(joined, joined.channels // 2, channels)
    return net.model(net.conv(x, 2, 1, bias=True))


def _classifier(net: Builder, x: Feature) -> Feature:
    return net.linear(net.flatten(net.op("GlobalAveragePool", x)), 1000)


def _darknet_conv(net: Builder, x: Feature, channels: int, kernel: int) -> Feature:
    return net.op("LeakyRelu", net.batchnorm(net.conv(x, channels, kernel)), alpha=0.1)


def _darknet_head(net: Builder, x: Feature) -> Feature:
    x = net.op("GlobalAveragePool", net.conv(x, 1000, 1, bias=True))
    return net.op("Softmax", net.flatten(x), axis=1)


def _round_to_8(channels: float) -> int:
    """torchvision's _make_divisible: the nearest multiple of 8, not less than 90%."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
