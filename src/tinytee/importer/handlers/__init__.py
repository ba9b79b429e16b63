"""Translations of ONNX operators; importing this package registers them all."""

from tinytee.importer.handlers import (
    einsum,
    elementwise,
    linear,
    logic,
    movement,
    normalize,
    quantized,
    recurrent,
    reduce,
    resize,
    window,
)

__all__ = [
    "einsum",
    "elementwise",
    "linear",
    "logic",
    "movement",
    "normalize",
    "quantized",
    "recurrent",
    "reduce",
    "resize",
    "window",
]
