"""The importer's entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinytee.errors import TinyteeError, UnsupportedModelError
from tinytee.importer import handlers  # noqa: F401  registers the operators
from tinytee.importer.signature import Input, bind_inputs
from tinytee.importer.source import ModelSource, read_model
from tinytee.importer.values import NotSampleWise
from tinytee.importer.walk import Walk
from tinytee.ir.graph import Graph


def load(model: ModelSource, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Translates an ONNX model.

    The leading axis of the inputs becomes the sample axis, over which a run loops, where every operator leaves it
    alone; where not, it is an axis like any other.

    Args:
        model: path, bytes, or ModelProto.
        input_shapes: sizes for symbolic dimensions, by input name; 0 leaves the leading batch dimension open.

    Returns:
        the graph, not yet optimized (``tinytee.passes.optimize``).

    Raises:
        UnsupportedModelError: listing every node that is not supported, why, and what to do.
        TinyteeError: the file, its external data or ``input_shapes`` are wrong.
    """
    found, version = read_model(model)
    inputs = bind_inputs(found.graph, input_shapes)
    reason = _why_not_batched(inputs)
    if reason is None:
        try:
            return Walk(found, version, inputs, batched=True).run()
        except NotSampleWise as mixed:
            reason = str(mixed)
    still_open = [item.name for item in inputs if 0 in item.shape]
    if still_open:
        item = next(item for item in inputs if item.name == still_open[0])
        example = "x".join(str(extent or 1) for extent in item.shape)
        raise TinyteeError(
            f"the leading dimension of input {', '.join(map(repr, still_open))} is open, but the model does not treat"
            f" its samples one by one ({reason}); bind it with --input-shape {item.name}={example}"
        )
    try:
        return Walk(found, version, inputs, batched=False).run()
    except NotSampleWise as mixed:
        raise UnsupportedModelError(str(mixed)) from None


def _why_not_batched(inputs: Sequence[Input]) -> str | None:
    if not inputs:
        return "it has no inputs"
    if any(not item.shape for item in inputs):
        return "an input is a scalar"
    if len({item.shape[0] for item in inputs}) > 1:
        return "its inputs have different leading dimensions"
    return None
