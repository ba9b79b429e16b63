"""Binds the shapes of a model's inputs, and chooses how each is laid out in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tinytee.errors import TinyteeError, UnsupportedModelError
from tinytee.importer import layout as lay
from tinytee.importer.layout import Layout

_DTYPES = ("float32", "int64", "int32", "int16", "int8", "uint8", "bool")
_IMAGE_OPS = {
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "LRN",
    "BatchNormalization", "InstanceNormalization", "GroupNormalization", "DepthToSpace", "SpaceToDepth", "QLinearConv",
}  # fmt: skip
_RECURRENT_OPS = {"LSTM", "GRU", "RNN"}
_TRANSPARENT_OPS = {
    "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "Add", "Sub", "Mul", "Div", "Identity", "Dropout", "Cast",
    "Pad", "Concat", "Slice", "Elu", "Sum", "Abs", "Neg", "HardSigmoid", "Split", "Pow", "Sqrt", "Resize", "Upsample",
    "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """An input of the model, bound.

    Attributes:
        shape: with 0 as the leading extent where the model leaves its batch open.
    """

    value: ir.Value
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


def bind_inputs(graph: ir.Graph, input_shapes: Mapping[str, Sequence[int]] | None) -> list[Input]:
    """The model's inputs with every dimension known, but for a leading batch that may stay open.

    Raises:
        TinyteeError: an unknown name, a shape that contradicts the model, or symbolic dimensions left unbound.
        UnsupportedModelError: an input of a type that is not carried.
    """
    wanted = {name: tuple(int(extent) for extent in shape) for name, shape in (input_shapes or {}).items()}
    values = [value for value in graph.inputs if value.name not in graph.initializers]
    names = [str(value.name) for value in values]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise TinyteeError(f"the model has no input {unknown}; its inputs are {names}")
    symbols: dict[str, int] = {}
    for value in values:
        _learn_symbols(value, wanted.get(str(value.name)), symbols)
    bound = [_bind(value, wanted.get(str(value.name)), symbols) for value in values]
    problems = [problem for problem in bound if isinstance(problem, str)]
    if problems:
        raise TinyteeError("; ".join(problems))
    return [item for item in bound if isinstance(item, Input)]


def _learn_symbols(value: ir.Value, shape: tuple[int, ...] | None, symbols: dict[str, int]) -> None:
    if shape is None or value.shape is None or len(value.shape) != len(shape):
        return
    for dim, extent in zip(value.shape, shape, strict=True):
        name = getattr(dim, "value", None) if isinstance(dim, ir.SymbolicDim) else None
        if name and extent > 0:
            symbols[name] = extent


def _bind(value: ir.Value, wanted: tuple[int, ...] | None, symbols: dict[str, int]) -> Input | str:
    name = str(value.name)
    if isinstance(value.type, (ir.SequenceType, ir.OptionalType)) or value.dtype is None:
        raise UnsupportedModelError(f"input '{name}' is not a tensor of known type; only tensors are supported")
    dtype_name = value.dtype.name.lower()
    dtype_name = {"float": "float32", "double": "float64"}.get(dtype_name, dtype_name)
    if dtype_name not in _DTYPES:
        raise UnsupportedModelError(
            f"input '{name}' has the type {dtype_name}; supported are {', '.join(_DTYPES)}; export the model in float32"
        )
    if value.shape is None:
        if wanted is None:
            return f"input '{name}' declares no shape; give it with --input-shape {name}=1x3x224x224 (its own sizes)"
        declared: list[object] = [None] * len(wanted)
    else:
        declared = list(value.shape)
    if wanted is not None:
        fits = len(wanted) == len(declared) and all(
            extent == dim if isinstance(dim, int) and dim > 0 else extent > 0 or axis == 0
            for axis, (extent, dim) in enumerate(zip(wanted, declared, strict=True))
        )
        if not fits:
            return f"input '{name}' has the shape {_show(declared)}, which {_show(wanted)} does not fit"
        shape = tuple(max(extent, 0) for extent in wanted)
    else:
        found: list[int | None] = []
        for axis, dim in enumerate(declared):
            known = dim if isinstance(dim, int) and dim > 0 else symbols.get(str(getattr(dim, "value", None)))
            found.append(known if known else 0 if axis == 0 else None)
        if None in found:
            example = "x".join(str(extent or (1 if axis == 0 else 224)) for axis, extent in enumerate(found))
            return (
                f"input '{name}' has the symbolic shape {_show(declared)}; bind it with --input-shape {name}={example}"
                " (your own sizes)"
            )
        shape = tuple(extent or 0 for extent in found)
    return Input(value, name, shape, np.dtype(dtype_name))


def _show(dims: Sequence[object]) -> str:
    return (
        "x".join(str(dim if isinstance(dim, int) else getattr(dim, "value", None) or "?") for dim in dims) or "scalar"
    )


def preferred_layout(source: Input, sample: Sequence[int]) -> Layout:
    """The order that the first operator to care about it wants the input in: channels last where it is an image, steps
    as y where it is a sequence.

    Follows the value through elementwise operators and transpositions to an image operator or a recurrent layer.
    """
    queue: list[tuple[ir.Value, tuple[int, ...]]] = [(source.value, tuple(range(len(sample))))]
    seen: set[int] = set()
    fallback = lay.row_major(sample)
    while queue:
        value, axes = queue.pop(0)
        if id(value) in seen or len(seen) > 64:
            continue
        seen.add(id(value))
        for node, _ in value.uses():
            if node.op_type in _IMAGE_OPS and value is node.inputs[0] and len(axes) >= 2:
                spatial = axes[2:]
                if sample[axes[0]] == 1:
                    return lay.by_axes(sample, spatial[:-1], spatial[-1:], [axes[1]])
            elif node.op_type in _RECURRENT_OPS and value is node.inputs[0] and len(axes) == 3:
                samples_first = "layout" in node.attributes and int(node.attributes["layout"].value) == 1
                steps, samples = (axes[1], axes[0]) if samples_first else (axes[0], axes[1])
                return lay.by_axes(sample, [steps], [samples], [axes[2]])
            elif node.op_type == "Transpose" and "perm" in node.attributes:
                perm = [int(axis) for axis in node.attributes["perm"].value]
                if len(perm) == len(axes):
                    queue.append((node.outputs[0], tuple(axes[axis] for axis in perm)))
            elif node.op_type in _TRANSPARENT_OPS:
                if node.op_type in ("Resize", "Upsample") and len(axes) == 4 and sample[axes[0]] == 1:
                    fallback = lay.by_axes(sample, [axes[2]], [axes[3]], [axes[1]])
                queue.extend((output, axes) for output in node.outputs)
    return fallback
