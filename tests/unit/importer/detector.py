"""The head of a detector as YOLOv8 is exported: maps of several scales become one list of boxes and scores."""

from __future__ import annotations

import numpy as np
import onnx

from unit.importer.support import model, node, random

BINS, CLASSES = 8, 2


def detector(size: int = 16, scales: int = 2) -> onnx.ModelProto:
    """'image' [1, 3, size, size] to 'y' [1, 4 + CLASSES, places]: corners in pixels, scores of 0 to 1.

    A corner's distance from its place is the mean of a distribution over BINS (distribution focal loss).
    """
    sides = [size >> scale for scale in range(1, scales + 1)]
    places = sum(side * side for side in sides)
    constants = {
        "w_boxes": random((4 * BINS, 8, 1, 1), 2), "b_boxes": random((4 * BINS,), 4),
        "w_scores": random((CLASSES, 8, 1, 1), 3) / 4, "b_scores": random((CLASSES,), 5) - 1,
        "bins": np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1), "flat": np.array([1, 4 * BINS + CLASSES, -1]),
        "parts": np.array([4 * BINS, CLASSES]), "by_bin": np.array([1, 4, BINS, places]),
        "list": np.array([1, 4, places]), "two": np.array([2, 2]), "half": np.float32(0.5),
        "stride": np.concatenate([np.full((1, side * side), size / side, np.float32) for side in sides], axis=1),
        "anchors": 2 * BINS + size * random((1, 2, places), 6),
    }  # fmt: skip
    nodes, source, channels = [], "image", 3
    for scale in range(scales):
        constants[f"w{scale}"] = random((8, channels, 3, 3), scale) / 2
        nodes += [
            node("Conv", f"{source} w{scale}", f"c{scale}", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Relu", f"c{scale}", f"r{scale}"),
            node("Conv", f"r{scale} w_boxes b_boxes", f"boxes{scale}"),
            node("Conv", f"r{scale} w_scores b_scores", f"classes{scale}"),
            node("Concat", f"boxes{scale} classes{scale}", f"both{scale}", axis=1),
            node("Reshape", f"both{scale} flat", f"row{scale}"),
        ]
        source, channels = f"r{scale}", 8
    rows = " ".join(f"row{scale}" for scale in range(scales))
    nodes += [
        node("Concat", rows, "rows", axis=2),
        node("Split", "rows parts", "bins_of scores_of", axis=1),
        node("Reshape", "bins_of by_bin", "binned"),
        node("Transpose", "binned", "turned", perm=[0, 2, 1, 3]),
        node("Softmax", "turned", "likely", axis=1),
        node("Conv", "likely bins", "mean"),
        node("Reshape", "mean list", "distance"),
        node("Split", "distance two", "before after", axis=1),
        node("Sub", "anchors before", "low"),
        node("Add", "anchors after", "high"),
        node("Add", "low high", "sum"),
        node("Mul", "sum half", "middle"),
        node("Sub", "high low", "extent"),
        node("Concat", "middle extent", "corners", axis=1),
        node("Mul", "corners stride", "pixels"),
        node("Sigmoid", "scores_of", "scores"),
        node("Concat", "pixels scores", "y", axis=1),
    ]
    return onnx.shape_inference.infer_shapes(model(nodes, {"image": (1, 3, size, size)}, constants))
