"""Makes integer operators of what stands between dequantization and quantization.

One walk, forward. A float32 tensor is *coded* where it is what a uint8 tensor stands for: its elements need not be
computed to know them. Three rules suffice:

- operators that move elements, and max pooling, work on the codes where all operands have one quant; their results are
  coded too;
- a Quantize asks its operand for bytes (``_Walk.bytes_of``): of a coded tensor its code (through a table, where the
  quants differ), of an operator that nothing else reads its integer form, of one that moves elements its operands'
  bytes, moved; of anything else Quantize itself;
- a convolution of a coded tensor by integer weights that no Quantize alone reads is computed in integers, its result
  in float32.

Example: DQ(a) -> Conv -> Relu -> Q, where the activation is fused already, becomes QConv(a). What fits no rule stays as
it is, in float32; ``why_float`` says why.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tinytee.ir import graph as g
from tinytee.ir import quantized as q
from tinytee.ir.check import most_accumulated
from tinytee.ir.graph import IDENTITY, Graph, Op, Quant
from tinytee.ir.reference import evaluate_op
from tinytee.passes.eliminate_dead import eliminate_dead
from tinytee.passes.rewrite import is_identity, producers, rename, use_counts

_MOST_FUNCTIONS = 12
_WEIGHT_TOLERANCE = 1e-3
_BOUNDED = ("identity", "relu", "clip")
_KINDS = ("add", "sub", "mul")


def fuse_quantized(graph: Graph) -> Graph:
    """The graph with integer operators wherever the model's quantization allows them; others are left alone."""
    if not graph.quants:
        return graph
    return eliminate_dead(_Walk(_merge_quantizes(graph)).run())


def why_float(op: Op, graph: Graph) -> str | None:
    """Why an operator of a quantized network works in float32; None where it does not, or is no arithmetic at all."""
    if isinstance(op, (q.QUANTIZED, g.Constant)) or op.output in graph.quants:
        return None
    written = producers(graph)
    if not isinstance(op, (g.Conv, g.DepthwiseConv, g.Binary, g.Unary, g.Pool, g.Reduce, g.Lrn, *q.MOVING)):
        return f"{type(op).__name__} has no integer form"
    convolves = isinstance(op, (g.Conv, g.DepthwiseConv))
    sources = op.inputs[:1] if convolves else op.inputs
    if not all(isinstance(written.get(name), q.Dequantize) for name in sources):
        return "an operand is not quantized"
    if convolves:
        quant = graph.quants[written[op.inputs[0]].inputs[0]]
        problem = _integer_filters(op, quant)
        if isinstance(problem, str):
            return problem
    if isinstance(op, g.Binary):
        if op.kind not in _KINDS:
            return f"Binary {op.kind} has no integer form"
        if op.constant is not None and op.constant_quant is None:
            return "its constant operand is not quantized"
    if isinstance(op, g.Reduce) and op.kind != "mean":
        return f"Reduce {op.kind} has no integer form"
    if isinstance(op, g.Concat):
        return "its operands differ in scale or zero point"
    return "its result is not quantized"


def _merge_quantizes(graph: Graph) -> Graph:
    """Quantize operators that do the same to the same tensor become one."""
    first: dict[tuple[str, Quant], str] = {}
    renamed: dict[str, str] = {}
    kept: list[Op] = []
    for op in graph.ops:
        if isinstance(op, q.Quantize):
            key = (op.inputs[0], graph.quants[op.output])
            if first.setdefault(key, op.output) != op.output:
                renamed[op.output] = first[key]
                continue
        kept.append(op)
    return rename(graph, kept, renamed)


class _Walk:
    """The graph under rewriting.

    Attributes:
        codes: the uint8 tensor of every coded tensor.
        writers: of every tensor of the graph as it was.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shapes = dict(graph.shapes)
        self.quants = dict(graph.quants)
        self.ops: list[Op] = []
        self.codes: dict[str, str] = {}
        self.writers = producers(graph)
        self.counts = use_counts(graph)
        self.readers = graph.consumers()
        self.renamed: dict[str, str] = {}

    def run(self) -> Graph:
        for op in self.graph.ops:
            self._visit(replace(op, inputs=tuple(self.renamed.get(name, name) for name in op.inputs)))
        return replace(self.graph, shapes=self.shapes, quants=self.quants).with_ops(self.ops)

    def _visit(self, op: Op) -> None:
        if isinstance(op, q.Dequantize):
            self.codes[op.output] = op.inputs[0]
            self.ops.append(op)
        elif isinstance(op, q.Quantize):
            self.renamed[op.output] = self.bytes_of(op.inputs[0], self.quants[op.output], op.name)
        elif _moves(op) and self._one_code(op):
            moved = self._move(op, [self.codes[name] for name in op.inputs])
            self.ops.append(q.Dequantize(name=op.name, inputs=(moved,), output=op.output))
            self.codes[op.output] = moved
        elif isinstance(op, (g.Conv, g.DepthwiseConv)) and not self._meets_one_quantize(op.output):
            self._convolve_to_float(op)
        else:
            self.ops.append(op)

    def bytes_of(self, tensor: str, quant: Quant, name: str) -> str:
        """A uint8 tensor with the elements of a float32 one under ``quant``."""
        code = self.codes.get(tensor)
        if code is not None and self.quants[code] == quant:
            return code
        found = self._by_table(tensor, quant)
        if found is not None:
            return found
        op = self.writers.get(tensor)
        if op is not None and self.counts[tensor] == 1:
            if _moves(op):
                return self._move(op, [self.bytes_of(source, quant, op.name) for source in op.inputs], quant)
            fused = self._integer_form(op, quant)
            if fused is not None:
                return self._write(fused, quant)
        return self._write(q.Quantize(name=name, inputs=(tensor,), output=tensor), quant)

    def _write(self, op: Op, quant: Quant) -> str:
        """Adds an operator that writes a new uint8 tensor, of the shape that ``op.output`` has."""
        output = f"{op.output}:q{len(self.ops)}"
        self.shapes[output], self.quants[output] = self.shapes[op.output], quant
        self.ops.append(replace(op, output=output))
        return output

    def _one_code(self, op: Op) -> bool:
        """Whether the operands are coded, under one quant."""
        return all(name in self.codes for name in op.inputs) and (
            len({self.quants[self.codes[name]] for name in op.inputs}) == 1
        )

    def _move(self, op: Op, sources: list[str], quant: Quant | None = None) -> str:
        common = {"inputs": tuple(sources), "activation": IDENTITY}
        if isinstance(op, g.Pool):
            names = ("kernel", "strides", "dilations", "pads")
            moved: Op = q.QPool(
                name=op.name, output=op.output, kind="max", **common, **{name: getattr(op, name) for name in names}
            )
        else:
            moved = replace(op, **common)
        return self._write(moved, quant or self.quants[sources[0]])

    def _by_table(self, tensor: str, quant: Quant) -> str | None:
        """Bytes of a function of one coded tensor, element by element: a table of 256."""
        functions: list[Op] = []
        while tensor not in self.codes:
            op = self.writers.get(tensor)
            if op is None or not _is_function(op) or len(functions) == _MOST_FUNCTIONS:
                return None
            functions.append(op)
            tensor = op.inputs[0]
        code = self.codes[tensor]
        values = q.dequantize(np.arange(256, dtype=np.uint8), self.quants[code]).reshape(1, 256, 1)
        for op in reversed(functions):
            values = evaluate_op(op, [values], g.Shape(1, 256, 1))
        output = functions[0] if functions else self.writers[tensor]
        table = q.quantize(values.reshape(-1), quant)
        return self._write(q.QLut(name=output.name, inputs=(code,), output=output.output, table=table), quant)

    def _integer_form(self, op: Op, quant: Quant) -> Op | None:
        """The operator on the codes of its operands, its result under ``quant``."""
        codes = [self.codes.get(name) for name in op.inputs]
        sources = tuple(code for code in codes if code is not None)
        if len(sources) != len(codes):
            return None
        common = {"name": op.name, "inputs": sources, "output": op.output}
        if isinstance(op, (g.Conv, g.DepthwiseConv)):
            return self._convolution(op, quant)
        if isinstance(op, g.Binary):
            return self._binary(op, common, quant)
        if isinstance(op, g.Pool) and is_identity(op):
            names = ("kind", "kernel", "strides", "dilations", "pads", "count_include_pad")
            return q.QPool(**common, **{name: getattr(op, name) for name in names})
        if isinstance(op, g.Reduce) and op.kind == "mean" and is_identity(op):
            return q.QReduce(**common)
        if isinstance(op, g.Lrn) and is_identity(op):
            return q.QLrn(**common, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.bias)
        return None

    def _binary(self, op: g.Binary, common: dict, quant: Quant) -> Op | None:
        if op.kind not in _KINDS or op.activation.kind not in _BOUNDED:
            return None
        low, high = _bounds(op.activation, quant)
        kind = "sum" if op.apart else op.kind
        quants = [self.quants[code] for code in common["inputs"]]
        if op.constant_quant is not None:
            quants.insert(0 if op.constant_first else 1, op.constant_quant)
        elif op.constant is None and kind == "add" and self._is_spread(op):
            # One element for many counts as the second operand, as in ONNX Runtime.
            common, quants = common | {"inputs": common["inputs"][::-1]}, quants[::-1]
        if kind == "add" and not (len(quants) == 2 and q.adds_exactly(quants[0], quants[1], quant)):
            return None
        constant = None
        if op.constant is not None:
            if op.constant_quant is None:
                return None
            constant = q.quantize(op.constant, op.constant_quant)
            if not np.array_equal(q.dequantize(constant, op.constant_quant), op.constant):
                return None
        return q.QBinary(
            **common,
            kind=kind,  # type: ignore[arg-type]
            constant=constant,
            constant_quant=op.constant_quant,
            constant_first=op.constant_first,
            low=low,
            high=high,
        )

    def _is_spread(self, op: Op) -> bool:
        """Whether the first operand's pixels all equal one another, and the result's do not."""
        first, result = self.shapes[op.inputs[0]], self.shapes[op.output]
        return first.height * first.width == 1 < result.height * result.width

    def _convolution(self, op: g.Conv | g.DepthwiseConv, quant: Quant | None) -> Op | None:
        """The integer convolution; its result under ``quant``, or float32."""
        code = self.codes.get(op.inputs[0])
        if code is None or len(op.inputs) != 1 or op.activation.kind not in _BOUNDED:
            return None
        source = self.quants[code]
        found = _integer_filters(op, source)
        if isinstance(found, str):
            return None
        weight, bias, scale = found
        multiplier = np.float32(source.scale) * scale
        if quant is not None:
            multiplier = multiplier / np.float32(quant.scale)
        low, high = (0, 255) if quant is None else _bounds(op.activation, quant)
        attributes = {
            "name": op.name,
            "inputs": (code,),
            "output": op.output,
            "activation": op.activation if quant is None else IDENTITY,
            "weight": weight,
            "bias": bias,
            "multiplier": multiplier.astype(np.float32),
            "strides": op.strides,
            "dilations": op.dilations,
            "pads": op.pads,
            "low": low,
            "high": high,
        }
        return q.QConv(**attributes, groups=op.groups) if isinstance(op, g.Conv) else q.QDepthwiseConv(**attributes)

    def _convolve_to_float(self, op: g.Conv | g.DepthwiseConv) -> None:
        bare = op if op.activation.kind in _BOUNDED else replace(op, activation=IDENTITY)
        fused = self._convolution(bare, None)
        if fused is None:
            self.ops.append(op)
        elif bare is op:
            self.ops.append(fused)
        else:
            before = f"{op.output}:f{len(self.ops)}"
            self.shapes[before] = self.shapes[op.output]
            self.ops.append(replace(fused, output=before))
            self.ops.append(g.Unary(name=op.name, inputs=(before,), output=op.output, activation=op.activation))

    def _meets_one_quantize(self, tensor: str) -> bool:
        """Whether bytes of the tensor are all that is asked for, directly or through operators that move them."""
        if self.counts[tensor] != 1 or not self.readers[tensor]:
            return False
        reader = self.graph.ops[self.readers[tensor][0]]
        if isinstance(reader, q.Quantize):
            return self._bounded_writer(tensor)
        return _moves(reader) and self._bounded_writer(tensor) and self._meets_one_quantize(reader.output)

    def _bounded_writer(self, tensor: str) -> bool:
        op = self.writers[tensor]
        return _moves(op) or op.activation.kind in _BOUNDED


def _moves(op: Op) -> bool:
    """Whether an operator gives each element of its result one of its operands' (or a fill), the order kept."""
    return is_identity(op) and (isinstance(op, q.MOVING) or (isinstance(op, g.Pool) and op.kind == "max"))


def _is_function(op: Op) -> bool:
    """Of one element of its only operand."""
    if isinstance(op, g.Unary):
        return True
    return isinstance(op, g.Binary) and op.constant is not None and op.constant.size == 1


def _bounds(activation: g.Activation, quant: Quant) -> tuple[int, int]:
    """Relu and clip as bounds of the bytes."""
    if activation.kind == "identity":
        return 0, 255
    limits = (0.0, np.inf) if activation.kind == "relu" else (activation.alpha, activation.beta)
    low, high = q.quantize(np.array(limits, np.float32), quant)
    return int(low), max(int(low), int(high))


def _integer_filters(op: g.Conv | g.DepthwiseConv, source: Quant) -> tuple[q.SignedBytes, q.Words, g.Array] | str:
    """Integer weights, the bias in units of both scales, and the weights' scales; or what forbids them."""
    depthwise = isinstance(op, g.DepthwiseConv)
    scale = op.weight_scale
    if scale is None and depthwise and op.weight.shape[:2] == (1, 1):
        scale = _exact_scale(op.weight.reshape(-1), op.bias, source)
    if scale is None:
        return "its weights are not quantized"
    if len(op.inputs) != 1:
        return "a residual is added in float32"
    if op.activation.kind not in _BOUNDED:
        return f"{op.activation.kind} follows without quantization between"
    rows = (np.moveaxis(op.weight, 2, 0) if depthwise else op.weight).reshape(len(scale), -1).astype(np.float64)
    exact = rows / scale[:, None]
    steps = np.rint(exact)
    if np.abs(exact - steps).max() > _WEIGHT_TOLERANCE or steps.min() < -128 or steps.max() > 127:
        return "its weights, less their zero point, are no integers from -128 to 127"
    scale = scale * _coarser(steps, op.bias / (np.float64(source.scale) * scale))
    steps = np.rint(rows / scale[:, None])
    bias = np.rint(op.bias / (np.float64(source.scale) * scale))
    if not np.isfinite(scale).all() or most_accumulated(steps, bias) >= 2**31:
        return "an accumulator may overflow"
    shape = (-1, *op.weight.shape[:2]) if depthwise else op.weight.shape
    weight = np.moveaxis(steps.reshape(shape), 0, 2) if depthwise else steps.reshape(shape)
    return np.ascontiguousarray(weight, dtype=np.int8), bias.astype(np.int32), scale.astype(np.float32)


def _exact_scale(weight: g.Array, bias: g.Array, source: Quant) -> NDArray[np.float32]:
    """A scale for each of single weights: it makes the weight an integer of 64 to 127, the one that fits the bias best.

    The bias is to be an integer, too, in units of this scale and the input's: among 64 units one comes close.
    """
    steps = np.arange(127, 63, -1, dtype=np.float64)[:, None]
    size = np.where(weight != 0, np.abs(weight), np.float32(1)).astype(np.float64)
    exact = bias * steps / (np.float64(source.scale) * size)
    lost = np.abs(exact - np.rint(exact)) / steps
    return (size / steps[lost.argmin(axis=0), 0]).astype(np.float32)


def _coarser(steps: NDArray, bias: NDArray) -> NDArray[np.float32]:
    """Powers of two by which filters are to be coarser, so that no accumulator overflows.

    A channel whose weights are next to nothing has a bias of next to 2**31 units: rounding its weights once more is
    rounding a trifle of the result.
    """
    most = 255 * np.abs(steps).sum(axis=1) + np.abs(bias)
    return np.exp2(np.ceil(np.log2(np.maximum(most / (2.0**31 - 2.0**24), 1)))).astype(np.float32)
