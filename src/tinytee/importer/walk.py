"""The forward walk: every node of the ONNX graph in order, evaluated or translated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from tinytee.errors import TinyteeError, UnsupportedModelError
from tinytee.importer import layout as lay
from tinytee.importer.builder import Builder, as_float
from tinytee.importer.fold import fold
from tinytee.importer.layout import Layout
from tinytee.importer.quantization import fold_quantization
from tinytee.importer.registry import BYTEWISE, HANDLERS, SAMPLE_WISE, Call, Result, key
from tinytee.importer.signature import Input, preferred_layout
from tinytee.importer.values import Known, NotSampleWise, Poison, Refusal, Value
from tinytee.ir import graph as g
from tinytee.ir.graph import Graph, Port

_OPEN_BATCH = 67
_OTHER_BATCH = 71
_CONTROL_FLOW = {"Loop", "Scan", "SequenceMap"}
_IGNORED_DOMAINS = ("", "ai.onnx")


class UnsupportedNodes(UnsupportedModelError):
    """Every node that was refused.

    Attributes:
        bindable: inputs of the model that some of them need as constants.
    """

    def __init__(self, problems: Sequence[str], bindable: Sequence[str]) -> None:
        count = f"{len(problems)} places" if len(problems) > 1 else "one place"
        super().__init__(f"the model is not supported in {count}:\n" + "\n".join(f"  - {text}" for text in problems))
        self.bindable = tuple(bindable)


class Walk:
    """One pass over the model, with the leading axis as the sample axis or as any other."""

    def __init__(self, model: ir.Model, version: int, inputs: Sequence[Input], batched: bool):
        self.model = model
        self.version = version
        self.inputs = inputs
        declared = inputs[0].shape[0] if batched and inputs else None
        self.open_batch = declared == 0
        self.builder = Builder((declared or _OPEN_BATCH) if batched else None)
        self.env: dict[ir.Value, Result | Poison] = {}
        self.problems: list[str] = []
        self.bindable: list[str] = []
        self.taken: set[str] = set()

    def run(self) -> Graph:
        """The whole graph.

        Raises:
            NotSampleWise: the walk is batched and a node mixes samples.
            UnsupportedModelError: with every node that was refused.
        """
        ports = [self._input_port(source) for source in self.inputs]
        for value in self.model.graph.initializers.values():
            if value not in self.env:
                self.env[value] = _weights(value)
        self._nodes(self.model.graph)
        if self.problems:
            raise UnsupportedNodes(self.problems, self.bindable)
        outputs = tuple(self._output_port(value, ports) for value in self.model.graph.outputs)
        if self.problems:
            raise UnsupportedNodes(self.problems, self.bindable)
        builder = self.builder
        return Graph(tuple(ports), outputs, builder.shapes, tuple(builder.ops), builder.quants)

    def _input_port(self, source: Input) -> Port:
        sample = (1, *source.shape[1:]) if self.builder.batched else source.shape
        layout = preferred_layout(source, sample)
        tensor = self.builder.new_tensor(layout.shape)
        shape = sample if self.builder.batch is None else (self.builder.batch, *sample[1:])
        self.env[source.value] = Value(
            tensor, tuple(shape), layout, source.dtype, self.builder.batched, source=source.name
        )
        perm = _perm(layout, len(sample))
        return Port(source.name, tensor, source.shape, source.dtype.name, perm, self.builder.batched)

    def _nodes(self, graph: ir.Graph) -> None:
        for node in graph:
            results = self._node(node)
            for output, result in zip(node.outputs, results, strict=False):
                self.env[output] = result
            for output in node.outputs[len(results) :]:
                self.env[output] = Poison()

    def _node(self, node: ir.Node) -> Sequence[Result | Poison]:
        poison = [Poison() for _ in node.outputs]
        inputs = [None if value is None else self.env.get(value, Poison()) for value in node.inputs]
        poisoned = any(isinstance(item, Poison) for item in inputs)
        self.builder.node = node.name or (node.outputs[0].name if node.outputs else "") or node.op_type
        try:
            if node.op_type == "If" and node.domain in _IGNORED_DOMAINS:
                return self._branch(node, inputs[0])
            if poisoned:
                self._refuse_unknown(node)
                return poison
            clean = [item for item in inputs if not isinstance(item, Poison)]
            return self._translate(node, clean)
        except Refusal as refusal:
            name = f"'{node.name}' " if node.name else ""
            outputs = ", ".join(f"'{output.name}'" for output in node.outputs if output.name)
            hint = _fixing([*refusal.bindable, *_integer_inputs(inputs)])
            self.problems.append(f"{node.op_type} {name}(writes {outputs}): {refusal}{hint}")
            self.bindable.extend(item for item in refusal.bindable if item not in self.bindable)
            return poison

    def _refuse_unknown(self, node: ir.Node) -> None:
        if key(node) in HANDLERS:
            return
        if node.domain not in _IGNORED_DOMAINS:
            raise Refusal(f"operators of the domain '{node.domain}' are not supported; export with standard operators")
        if node.op_type in _CONTROL_FLOW:
            raise Refusal("dynamic loops are not supported; unroll them, or fix the sizes they depend on at export")
        if node.op_type not in HANDLERS and node.op_type not in ("Shape", "Size", "If", "Constant", "ConstantOfShape"):
            raise Refusal("this operator is not supported; replace it, or cut the model before it")

    def _branch(self, node: ir.Node, condition: Result | Poison | None) -> Sequence[Result | Poison]:
        if isinstance(condition, Poison):
            return [condition for _ in node.outputs]
        if not isinstance(condition, Known) or condition.other is not None:
            bindable = (condition.source,) if isinstance(condition, Value) and condition.source else ()
            raise Refusal(
                "its condition depends on the model's inputs; conditions must be known at compile time", bindable
            )
        branch = node.attributes["then_branch" if bool(condition.array.reshape(-1)[0]) else "else_branch"].as_graph()
        self.env |= {value: _weights(value) for value in branch.initializers.values()}
        self._nodes(branch)
        return [self.env.get(value, Poison()) for value in branch.outputs]

    def _translate(self, node: ir.Node, inputs: list[Result | None]) -> Sequence[Result]:
        values = [item for item in inputs if isinstance(item, Value)]
        if not values:
            known = [item for item in inputs if not isinstance(item, Value)]
            if (folded := fold_quantization(node, known)) is not None:
                return [folded]
            if node.domain in _IGNORED_DOMAINS:
                return fold(node, self.version, known, len(node.outputs))
        self._refuse_unknown(node)
        if node.op_type == "Shape":
            return [self._shape_of(node, values[0])]
        if node.op_type == "Size":
            return [self._size_of(values[0])]
        name = key(node)
        call = Call(node, self.version, inputs, self.builder, len(node.outputs))
        if self.builder.batched and not SAMPLE_WISE[name](call):
            raise NotSampleWise(f"{node.op_type} '{self.builder.node}' mixes the leading axis with others")
        if name not in BYTEWISE:
            call.inputs = [self.builder.widen(item) if isinstance(item, Value) else item for item in inputs]
        found = HANDLERS[name](call)
        results = [found] if isinstance(found, (Value, Known)) else list(found)
        for result in results:
            if self.builder.batched and isinstance(result, Value) and result.shape[:1] != (self.builder.batch,):
                raise NotSampleWise(f"{node.op_type} '{self.builder.node}' loses the sample axis")
        return [Poison() if item is None else item for item in results]  # type: ignore[misc]

    def _shape_of(self, node: ir.Node, value: Value) -> Known:
        start = int(node.attributes["start"].value) if "start" in node.attributes else 0
        end = int(node.attributes["end"].value) if "end" in node.attributes else value.rank
        shape = np.array(value.shape, dtype=np.int64)
        other = shape.copy()
        if self.open_batch:
            other[0] = _OTHER_BATCH
        shape, other = shape[slice(start, end)], other[slice(start, end)]
        return Known(shape) if np.array_equal(shape, other) else Known(shape, other)

    def _size_of(self, value: Value) -> Known:
        size = np.prod(np.array(value.shape, dtype=np.int64))
        if not self.open_batch:
            return Known(np.asarray(size))
        return Known(np.asarray(size), np.asarray(size // _OPEN_BATCH * _OTHER_BATCH))

    def _output_port(self, output: ir.Value, inputs: Sequence[Port]) -> Port:
        name = str(output.name)
        self.builder.node = name
        found = self.env.get(output, Poison())
        if isinstance(found, Poison):
            self.problems.append(f"output '{name}': nothing computes it")
            return inputs[0] if inputs else Port(name, "", (), "float32", (), False)
        if isinstance(found, Known):
            return self._constant_port(name, found)
        found = self.builder.widen(found)
        layout = found.layout
        if any(len(layout.of_axis(axis)) > 1 for axis in range(found.rank)) and _perm_or_none(found) is None:
            found = self.builder.to_row_major(found)
        used = {op.output for op in self.builder.ops}
        if found.tensor not in used or found.tensor in self.taken:
            found = self.builder.unary(found, "identity")
        self.taken.add(found.tensor)
        perm = _perm(found.layout, found.rank)
        shape = found.shape
        if self.open_batch and found.batched:
            shape = (0, *shape[1:])
        if found.dtype.name not in ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"):
            self.problems.append(f"output '{name}': the type {found.dtype} is not supported")
        return Port(name, found.tensor, shape, found.dtype.name, perm, found.batched)

    def _constant_port(self, name: str, known: Known) -> Port:
        if known.other is not None:
            raise NotSampleWise(f"output '{name}' depends on the batch size")
        array = known.array
        layout = lay.row_major(array.shape)
        try:
            if array.size == 0:
                raise Refusal("it is empty")
            tensor = self.builder.emit(g.Constant, (), layout.shape, value=lay.place(as_float(array), layout))
        except Refusal as refusal:
            self.problems.append(f"output '{name}': {refusal}")
            return Port(name, "", array.shape, str(array.dtype), tuple(range(array.ndim)), False)
        return Port(name, tensor, array.shape, array.dtype.name, _perm(layout, array.ndim), False)


def _integer_inputs(inputs: Sequence[Result | Poison | None]) -> list[str]:
    """The model's inputs among a node's that are no float32: settings more often than samples."""
    return [item.source for item in inputs if isinstance(item, Value) and item.source and item.dtype != np.float32]


def _fixing(names: Sequence[str]) -> str:
    """What to say of inputs that would have to be constants."""
    return "".join(f"; or fix the input '{name}': --input-value {name}=..." for name in dict.fromkeys(names))


def _weights(value: ir.Value) -> Known | Poison:
    if value.const_value is None:
        return Poison()
    try:
        return Known(value.const_value.numpy())
    except Exception as error:
        reason = "their file is shorter than the model says" if "smaller" in str(error) else str(error)
        raise TinyteeError(f"the weights '{value.name}' cannot be read: {reason}") from error


def _perm_or_none(value: Value) -> tuple[int, ...] | None:
    """Order of the axes in memory, axes of 1 first; None where an axis is not in one run."""
    seen: list[int] = []
    last: dict[int, int] = {}
    for piece in value.layout.pieces:
        if seen and seen[-1] == piece.axis and last[piece.axis] == piece.extent * piece.stride:
            last[piece.axis] = piece.stride
            continue
        if piece.axis in last:
            return None
        seen.append(piece.axis)
        last[piece.axis] = piece.stride
    return tuple([axis for axis in range(value.rank) if axis not in last] + seen)


def _perm(layout: Layout, rank: int) -> tuple[int, ...]:
    seen = list(dict.fromkeys(piece.axis for piece in layout.pieces))
    return tuple([axis for axis in range(rank) if axis not in seen] + seen)
