"""Makes int8 models of float32 ones by ONNX Runtime's static quantizer, and says what that costs in accuracy."""

from tinytee.quantize.accuracy import Accuracy, ChannelAccuracy, LayerAccuracy, MarginAgreement, OutputAccuracy
from tinytee.quantize.photographs import Photographs, read_photographs
from tinytee.quantize.prepare import bind, read_proto
from tinytee.quantize.quantize import AUTO, METHODS, ROUNDINGS, Quantized, quantize

__all__ = [
    "AUTO",
    "METHODS",
    "ROUNDINGS",
    "Accuracy",
    "ChannelAccuracy",
    "LayerAccuracy",
    "MarginAgreement",
    "OutputAccuracy",
    "Photographs",
    "Quantized",
    "bind",
    "quantize",
    "read_photographs",
    "read_proto",
]
