"""ONNX in, ``tinytee.ir.Graph`` out. The only room that imports onnx."""

from tinytee.importer.half import in_float32, reference_model
from tinytee.importer.translate import load
from tinytee.importer.walk import UnsupportedNodes

__all__ = ["UnsupportedNodes", "in_float32", "load", "reference_model"]
