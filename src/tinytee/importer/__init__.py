"""ONNX in, ``tinytee.ir.Graph`` out. The only room that imports onnx."""

from tinytee.importer.translate import load

__all__ = ["load"]
