"""ONNX in, ``tinytee.ir.Graph`` out. The only room that imports onnx."""

from tinytee.importer.translate import load
from tinytee.importer.walk import UnsupportedNodes

__all__ = ["UnsupportedNodes", "load"]
