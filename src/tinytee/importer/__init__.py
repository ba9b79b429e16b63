"""ONNX in, ``tinytee.ir.Graph`` out. The only room that imports onnx."""

from tinytee.importer.fixed import fix_inputs
from tinytee.importer.half import HALVES, in_float32, reference_model
from tinytee.importer.translate import load
from tinytee.importer.walk import UnsupportedNodes

__all__ = ["HALVES", "UnsupportedNodes", "fix_inputs", "in_float32", "load", "reference_model"]
