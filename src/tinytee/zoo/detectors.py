"""Object detectors whose boxes the graph itself computes, as they are exported for devices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tinytee.zoo.builder import Builder, Feature

STRIDES = (8, 16, 32)
BINS, CLASSES = 16, 80


def yolov8n(size: int = 320) -> onnx.ModelProto:
    """YOLOv8's smallest as Ultralytics exports it, for COCO's 80 classes: C2f blocks, SPPF, heads of three scales.

    "images" [1, 3, size, size], of 0 to 1; "output" [1, 84, places]: centre and extent in pixels, scores of 0 to 1.
    Distances are means of distributions (Li et al., "Generalized Focal Loss", arXiv 2006.04388); batch normalization is
    folded.
    """
    net = Builder("yolov8n", opset=17, channels=3, height=size, width=size, input_name="images")

    def conv(x: Feature, channels: int, kernel: int, stride: int = 1) -> Feature:
        x = net.conv(x, channels, kernel, stride, bias=True)
        return net.op("Mul", x, net.op("Sigmoid", x))

    def c2f(x: Feature, channels: int, repeats: int = 1, *, residual: bool = False) -> Feature:
        half = channels // 2
        parts = [*net.split(conv(x, channels, 1), (half, half))]
        for _ in range(repeats):
            y = conv(conv(parts[-1], half, 3), half, 3)
            parts.append(net.op("Add", parts[-1], y) if residual else y)
        return conv(net.concat(*parts), channels, 1)

    def upsample(x: Feature) -> Feature:
        scales = net.constant(np.array([1, 1, 2, 2], np.float32), "upsample.scales")
        return net.op(
            "Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )

    x = c2f(conv(conv(net.input, 16, 3, 2), 32, 3, 2), 32, residual=True)
    backbone = []
    for channels, repeats in ((64, 2), (128, 2), (256, 1)):
        x = c2f(conv(x, channels, 3, 2), channels, repeats, residual=True)
        backbone.append(x)
    pools = [conv(x, 128, 1)]
    for _ in range(3):
        pools.append(net.max_pool(pools[-1], 5, 1, pads=(2, 2, 2, 2)))
    deepest = conv(net.concat(*pools), 256, 1)
    middle = c2f(net.concat(upsample(deepest), backbone[1]), 128)
    scales = [c2f(net.concat(upsample(middle), backbone[0]), 64)]
    scales.append(c2f(net.concat(conv(scales[0], 64, 3, 2), middle), 128))
    scales.append(c2f(net.concat(conv(scales[1], 128, 3, 2), deepest), 256))
    heads = []
    for x in scales:
        boxes = net.conv(conv(conv(x, 64, 3), 64, 3), 4 * BINS, 1, bias=True)
        heads.append(net.concat(boxes, net.conv(conv(conv(x, 80, 3), 80, 3), CLASSES, 1, bias=True)))
    return net.model(_detections(net, heads, [size // stride for stride in STRIDES]))


def _detections(net: Builder, heads: Sequence[Feature], sides: Sequence[int]) -> Feature:
    """Maps of distributions of four distances and of logits, to one list of boxes and scores."""
    places = sum(side * side for side in sides)
    grids = [np.mgrid[:side, :side].reshape(2, -1)[::-1] + 0.5 for side in sides]
    anchors = np.concatenate(grids, axis=1)[None].astype(np.float32)
    strides = np.repeat(np.array(STRIDES, np.float32), np.square(sides))[None]

    def reshape(x: Feature, *shape: int) -> Feature:
        return net.op("Reshape", x, net.constant(np.array(shape), "shape"), channels=shape[1])

    joined = net.op("Concat", *(reshape(x, 1, x.channels, -1) for x in heads), axis=2)
    boxes, logits = net.split(joined, (4 * BINS, CLASSES))
    by_bin = net.op("Transpose", reshape(boxes, 1, 4, BINS, places), perm=(0, 2, 1, 3))
    bins = net.constant(np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1), "bins")
    distance = net.op("Conv", net.op("Softmax", by_bin, axis=1), bins, channels=1, kernel_shape=(1, 1))
    before, after = net.split(reshape(distance, 1, 4, places), (2, 2))
    low = net.op("Sub", net.constant(anchors, "anchors"), before, channels=2)
    high = net.op("Add", net.constant(anchors, "anchors"), after, channels=2)
    centre = net.op("Div", net.op("Add", low, high), net.constant(np.array(2, np.float32), "two"))
    box = net.op("Mul", net.concat(centre, net.op("Sub", high, low)), net.constant(strides, "strides"))
    return net.concat(box, net.op("Sigmoid", logits))
