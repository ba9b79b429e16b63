"""ONNX in, ``tinytee.ir.Graph`` out. The only room that imports onnx."""

from tinytee.importer.load import load

__all__ = ["load"]
