"""Translations of ONNX operators; importing this package registers them all."""

from tinytee.importer.handlers import (
    elementwise,
    linear,
    movement,
    normalize,
    quantized,
    recurrent,
    reduce,
    resize,
    window,
)

__all__ = ["elementwise", "linear", "movement", "normalize", "quantized", "recurrent", "reduce", "resize", "window"]
