"""Evaluates nodes whose inputs are all known at compile time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tinytee.importer.values import Grid, Known, Refusal

_NEVER = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Loop",
    "Scan",
}
_MOVES = {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
_MOST_BYTES = 2 << 30


def fold(node: ir.Node, version: int, inputs: Sequence[Known | None], output_count: int) -> list[Known]:
    """The outputs of ``node``, evaluated by ONNX's own reference implementation.

    Raises:
        Refusal: the operator is random or a loop, works on strings or sequences, or is wrong.
    """
    if node.op_type in _NEVER:
        raise Refusal("its result is not fixed at compile time")
    arrays = [known.array if known is not None else None for known in inputs]
    results = _evaluate(node, version, arrays, output_count)
    if all(known is None or known.other is None for known in inputs):
        return [Known(result, grid=_grid(node, inputs, result)) for result in results]
    others = [None if known is None else known.array if known.other is None else known.other for known in inputs]
    alternatives = _evaluate(node, version, others, output_count)
    return [
        Known(result) if np.array_equal(result, other) else Known(result, other)
        for result, other in zip(results, alternatives, strict=True)
    ]


def _grid(node: ir.Node, inputs: Sequence[Known | None], result: NDArray) -> Grid | None:
    """The integers of the first input, where the node only moves them and leaves their axis whole."""
    source = inputs[0] if inputs else None
    if source is None or source.grid is None or node.op_type not in _MOVES:
        return None
    axis, before = source.grid.axis, source.array
    if axis is None:
        return source.grid
    if node.op_type == "Transpose":
        perm = list(node.attributes["perm"].value) if "perm" in node.attributes else list(range(before.ndim))[::-1]
        return replace(source.grid, axis=perm.index(axis))
    for position, extent in enumerate(result.shape):
        if extent == before.shape[axis] and np.prod(result.shape[:position]) == np.prod(before.shape[:axis]):
            return replace(source.grid, axis=position)
    return None


def _evaluate(node: ir.Node, version: int, arrays: Sequence[NDArray | None], output_count: int) -> list[NDArray]:
    shortcut = _SHORTCUTS.get(node.op_type)
    try:
        results = [shortcut(node, arrays)] if shortcut else _reference(node, version, arrays, output_count)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(f"cannot be evaluated at compile time: {type(error).__name__}: {error}") from error
    found = []
    for result in results:
        array = np.asarray(result)
        if not isinstance(result, (np.ndarray, np.generic)) or array.dtype.kind in "OUS":
            raise Refusal("yields a sequence or strings, which are not supported")
        found.append(array)
    return found


def _reference(node: ir.Node, version: int, arrays: Sequence[NDArray | None], output_count: int) -> list[NDArray]:
    proto = ir.to_proto(node)
    feeds: dict[str, NDArray] = {}
    names = []
    for position, array in enumerate(arrays):
        names.append(f"i{position}" if array is not None else "")
        if array is not None:
            feeds[f"i{position}"] = array
    del proto.input[:]
    proto.input.extend(names)
    del proto.output[:]
    proto.output.extend(f"o{position}" for position in range(output_count))
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in feeds],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in proto.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    return ReferenceEvaluator(model).run(None, feeds)  # type: ignore[return-value]


def _constant(node: ir.Node, arrays: Sequence[NDArray | None]) -> NDArray:
    attribute = next(iter(node.attributes.values()))
    if attribute.name == "value":
        return attribute.value.numpy()
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(attribute.value, dtype=np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(attribute.value, dtype=np.int64)
    raise Refusal(f"constants given as {attribute.name} are not supported")


def _constant_of_shape(node: ir.Node, arrays: Sequence[NDArray | None]) -> NDArray:
    attribute = node.attributes.get("value")
    value = attribute.value.numpy().reshape(-1)[0] if attribute is not None else np.float32(0)
    shape = tuple(int(extent) for extent in np.asarray(arrays[0]))
    if np.prod(shape, dtype=np.float64) * value.dtype.itemsize > _MOST_BYTES:
        raise Refusal(f"a constant of the shape {shape} is too large")
    return np.full(shape, value)


_SHORTCUTS: dict[str, Callable[[ir.Node, Sequence[NDArray | None]], NDArray]] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Identity": lambda node, arrays: np.asarray(arrays[0]),
}
