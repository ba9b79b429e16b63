"""Recurrent layers, as scans: what depends on the input alone is computed before, for all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.importer import layout as lay
from tinytee.importer.builder import as_float
from tinytee.importer.handlers.linear import linear
from tinytee.importer.layout import Layout, Piece
from tinytee.importer.registry import Call, handles
from tinytee.importer.values import Known, Refusal, Value
from tinytee.ir import graph as g
from tinytee.ir.graph import Activation, Op, Shape

_ACTIVATIONS: dict[str, tuple[g.ActivationKind, tuple[float, ...]]] = {
    "Sigmoid": ("sigmoid", ()),
    "Tanh": ("tanh", ()),
    "Relu": ("relu", ()),
    "Softsign": ("softsign", ()),
    "Softplus": ("softplus", ()),
    "LeakyRelu": ("leaky_relu", (0.01,)),
    "Elu": ("elu", (1.0,)),
    "ThresholdedRelu": ("thresholded_relu", (1.0,)),
    "HardSigmoid": ("hard_sigmoid", (0.2, 0.5)),
}
"""By ONNX's name, with the defaults of alpha and beta for those that take them."""


@dataclass(eq=False)
class _Body:
    """The body of a scan under construction: its tensors are one y-plane of ``width`` pixels.

    name: of the node, of which operators are parts.
    """

    name: str
    width: int
    ops: list[Op] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def declare(self, tensor: str, channels: int) -> str:
        self.shapes[tensor] = Shape(1, self.width, channels)
        return tensor

    def linear(self, tensor: str, x: str, matrix: NDArray, bias: NDArray, *added: str, then: Activation) -> str:
        """then(matrix x + bias + added). matrix: [outputs, inputs]."""
        weight = as_float(matrix)[:, None, None, :]
        return self._emit(g.Conv, tensor, (x, *added), len(matrix), weight=weight, bias=as_float(bias), activation=then)

    def scale(self, tensor: str, x: str, factors: NDArray) -> str:
        """factors x. factors: [channels]."""
        weight, bias = as_float(factors)[None, None, :], np.zeros(len(factors), np.float32)
        return self._emit(g.DepthwiseConv, tensor, (x,), len(factors), weight=weight, bias=bias)

    def binary(self, tensor: str, kind: str, a: str, b: str, then: Activation = g.IDENTITY) -> str:
        return self._emit(g.Binary, tensor, (a, b), self.shapes[a].channels, kind=kind, activation=then)

    def unary(self, tensor: str, x: str, then: Activation) -> str:
        return self._emit(g.Unary, tensor, (x,), self.shapes[x].channels, activation=then)

    def concat(self, tensor: str, *parts: str) -> str:
        return self._emit(g.Concat, tensor, parts, sum(self.shapes[part].channels for part in parts), axis="c")

    def _emit(self, operator: type[Op], tensor: str, inputs: Sequence[str], channels: int, **attributes: Any) -> str:
        self.ops.append(operator(name=f"{self.name}/{tensor}", inputs=tuple(inputs), output=tensor, **attributes))
        return self.declare(tensor, channels)


@dataclass(eq=False)
class _Cell:
    """One direction of a layer: its weights, by gate, and the step that it takes.

    Attributes:
        from_input, from_state: [gates, hidden, input] and [gates, hidden, hidden].
        bias, state_bias: [gates, hidden] each; the second only where it must be apart, zeros else.
        peepholes: [3, hidden] of an LSTM that has them.
        resets_after: whether a GRU resets what it has made of its state, not the state.
        functions: activations in ONNX's order.
    """

    from_input: NDArray
    from_state: NDArray
    bias: NDArray
    state_bias: NDArray
    peepholes: NDArray | None
    resets_after: bool
    functions: list[Activation]

    @property
    def hidden(self) -> int:
        return self.from_state.shape[2]

    def gate(self, body: _Body, name: str, number: int, state: str, then: Activation, cell: str = "") -> str:
        """then(W x + R state + b), and P cell where there is a cell to look at."""
        matrix, bias = self.from_state[number], self.state_bias[number]
        if self.peepholes is None or not cell:
            return body.linear(name, state, matrix, bias, f"x{number}", then=then)
        inner = body.linear(f"{name}.linear", state, matrix, bias, f"x{number}", then=g.IDENTITY)
        seen = body.scale(f"{name}.peephole", cell, self.peepholes[number])
        return body.binary(name, "add", inner, seen, then)


def _rnn(body: _Body, cell: _Cell, states: list[str]) -> list[str]:
    return [cell.gate(body, "h", 0, states[0], cell.functions[0])]


def _gru(body: _Body, cell: _Cell, states: list[str]) -> list[str]:
    (before,), (gate, function) = states, cell.functions
    update = cell.gate(body, "z", 0, before, gate)
    reset = cell.gate(body, "r", 1, before, gate)
    if cell.resets_after:
        linear = body.linear("n.linear", before, cell.from_state[2], cell.state_bias[2], then=g.IDENTITY)
        new = body.binary("n", "add", body.binary("n.reset", "mul", reset, linear), "x2", function)
    else:
        new = cell.gate(body, "n", 2, body.binary("n.reset", "mul", reset, before), function)
    kept = body.binary("h.kept", "mul", update, body.binary("h.change", "sub", before, new))
    return [body.binary("h", "add", new, kept)]


def _lstm(body: _Body, cell: _Cell, states: list[str]) -> list[str]:
    (hidden, memory), (gate, function, squash) = states, cell.functions
    kept = body.binary("c.kept", "mul", cell.gate(body, "f", 2, hidden, gate, memory), memory)
    entering = cell.gate(body, "i", 0, hidden, gate, memory)
    new = body.binary("c.new", "mul", entering, cell.gate(body, "g", 3, hidden, function))
    after = body.binary("c", "add", kept, new)
    leaving = cell.gate(body, "o", 1, hidden, gate, after)
    return [body.binary("h", "mul", leaving, body.unary("c.squashed", after, squash)), after]


@dataclass(frozen=True)
class _Kind:
    """step: from the states before to those after, the one that is the layer's output first."""

    gates: int
    states: int
    functions: tuple[str, ...]
    step: Callable[[_Body, _Cell, list[str]], list[str]]


_KINDS = {
    "RNN": _Kind(1, 1, ("Tanh",), _rnn),
    "GRU": _Kind(3, 1, ("Sigmoid", "Tanh"), _gru),
    "LSTM": _Kind(4, 2, ("Sigmoid", "Tanh", "Tanh"), _lstm),
}


@dataclass(frozen=True)
class _Order:
    """The order of the axes: (steps, samples, features) and (directions, samples, features), or samples first."""

    samples_first: bool

    @property
    def steps(self) -> int:
        return int(self.samples_first)

    @property
    def samples(self) -> int:
        return int(not self.samples_first)

    @property
    def directions(self) -> int:
        """Of states. In sequences, directions come before what is last."""
        return int(self.samples_first)

    def plain(self, shape: Sequence[int]) -> Layout:
        """Of a sequence: steps as y, samples as x, features as c."""
        return lay.by_axes(shape, [self.steps], [self.samples], [2])


def _order(call: Call) -> _Order:
    return _Order(call.int("layout", 0) != 0)


def _samples_lead(call: Call) -> bool:
    return isinstance(call.inputs[0], Value) and _order(call).samples_first


@handles(*_KINDS, sample_wise=_samples_lead)
def recurrent(call: Call) -> list[Value | None]:
    """ONNX's RNN, GRU and LSTM: y counts steps, x samples, c what each has."""
    call.float_only(0, 1, 2, 3, 5, 6, 7)
    kind = _KINDS[call.op_type]
    call.forbid("clip" in call.node.attributes, "clipped gates are not supported")
    call.forbid(bool(call.int("input_forget", 0)), "coupled input and forget gates are not supported")
    direction = call.text("direction", "forward")
    reversals = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(direction)
    if reversals is None:
        raise Refusal(f"direction = '{direction}' is unknown")
    builder, value, order = call.builder, call.value(), _order(call)
    call.forbid(value.rank != 3, f"expects (steps, samples, features), got the shape {value.shape}")
    steps = value.sample[order.steps]
    _check_lengths(call, steps)
    cells = _cells(call, kind, len(reversals), value.sample[2])
    if value.layout.y != order.plain(value.sample).y:
        value = builder.with_layout(value, order.plain(value.sample))
    backwards = {order.steps: np.arange(steps)[::-1]}
    last = {order.steps: [steps - 1]}
    has_memory = kind.states == 2 and _is_read(call, 2)
    sequences, lasts, memories = [], [], []
    for number, (is_reversed, cell) in enumerate(zip(reversals, cells, strict=True)):
        fed = builder.gather(value, backwards) if is_reversed else value
        found = _scan(call, cell, fed, number, has_memory=has_memory)
        if has_memory:
            of_state, of_memory = np.arange(2 * cell.hidden).reshape(2, -1)
            memories.append(builder.gather(found, last | {2: of_memory}))
            found = builder.gather(found, {2: of_state})
        lasts.append(builder.gather(found, last))
        sequences.append(builder.gather(found, backwards) if is_reversed else found)
    states = [_joined(call, parts, has_steps=False) for parts in (lasts, memories) if parts]
    return [_joined(call, sequences, has_steps=True), *states]


def _check_lengths(call: Call, steps: int) -> None:
    if call.has(4):
        lengths = call.constant(4, "the lengths of sequences")
        call.forbid(bool((lengths != steps).any()), f"its sequences are shorter than the {steps} steps of its input")


def _is_read(call: Call, output: int) -> bool:
    """Whether anything reads an output of the node."""
    found = call.node.outputs[output : output + 1]
    return any(value.name and (value.uses() or value.is_graph_output()) for value in found)


def _cells(call: Call, kind: _Kind, count: int, features: int) -> list[_Cell]:
    """The weights of each direction."""
    from_input, from_state = call.constant(1, "the weights W"), call.constant(2, "the weights R")
    hidden = from_state.shape[-1] if from_state.ndim == 3 else 0
    rows = kind.gates * hidden
    fits = from_input.shape == (count, rows, features) and from_state.shape == (count, rows, hidden)
    call.forbid(not fits, f"W {from_input.shape} and R {from_state.shape} do not meet an input of {features} features")
    bias = call.constant(3, "the bias B") if call.has(3) else np.zeros((count, 2 * rows), np.float32)
    call.forbid(bias.shape != (count, 2 * rows), f"the bias B is {bias.shape}, not {(count, 2 * rows)}")
    peepholes = call.constant(7, "the weights P") if call.has(7) else None
    wrong = peepholes is not None and peepholes.shape != (count, 3 * hidden)
    call.forbid(wrong, f"the weights P are not of the shape {(count, 3 * hidden)}")
    resets_after = call.op_type == "GRU" and call.int("linear_before_reset", 0) != 0
    functions = _functions(call, kind, count)
    cells = []
    for number in range(count):
        own, of_state = bias[number].reshape(2, kind.gates, hidden)
        apart = np.arange(kind.gates)[:, None] == (2 if resets_after else -1)
        cells.append(
            _Cell(
                from_input[number].reshape(kind.gates, hidden, features),
                from_state[number].reshape(kind.gates, hidden, hidden),
                np.where(apart, own, own + of_state),
                np.where(apart, of_state, 0),
                None if peepholes is None else peepholes[number].reshape(3, hidden),
                resets_after,
                functions[number],
            )
        )
    return cells


def _functions(call: Call, kind: _Kind, count: int) -> list[list[Activation]]:
    """The activations of each direction; alpha and beta are listed for those that take them, in order."""
    names = call.texts("activations") or list(kind.functions) * count
    call.forbid(len(names) != len(kind.functions) * count, f"it has {len(names)} activations")
    given = [iter(call.floats(name) or ()) for name in ("activation_alpha", "activation_beta")]
    found = []
    for name in names:
        if name not in _ACTIVATIONS:
            raise Refusal(f"the activation {name} is not supported; supported are {', '.join(_ACTIVATIONS)}")
        function, defaults = _ACTIVATIONS[name]
        found.append(Activation(function, *(next(own, usual) for own, usual in zip(given, defaults, strict=False))))
    return [found[at : at + len(kind.functions)] for at in range(0, len(names), len(kind.functions))]


def _scan(call: Call, cell: _Cell, fed: Value, direction: int, *, has_memory: bool) -> Value:
    """One direction over all steps: the hidden states as a sequence, and the memory behind them where it is wanted."""
    builder, order = call.builder, _order(call)
    steps, samples = fed.sample[order.steps], fed.sample[order.samples]
    body = _Body(builder.node, samples)
    inputs, operands, states, before = [], [], [], []
    for number, (matrix, bias) in enumerate(zip(cell.from_input, cell.bias, strict=True)):
        made = linear(builder, fed, 2, matrix.T, bias)
        inputs.append(builder.with_layout(made, order.plain(made.sample)).tensor)
        operands.append(body.declare(f"x{number}", cell.hidden))
    kind = _KINDS[call.op_type]
    for number in range(kind.states):
        states.append(body.declare(f"state{number}", cell.hidden))
        before.append(states[-1])
        first = _initial(call, 5 + number, direction, Shape(steps, samples, cell.hidden))
        if first is not None:
            inputs.append(first)
            operands.append(body.declare(f"initial{number}", cell.hidden))
            before[-1] = body.binary(f"before{number}", "add", states[-1], operands[-1])
    after = kind.step(body, cell, before)
    result = body.concat("states", *after) if has_memory else after[0]
    tensor = builder.emit(
        g.Scan,
        inputs,
        Shape(steps, samples, body.shapes[result].channels),
        operands=tuple(operands),
        states=tuple(zip(states, after, strict=True)),
        body=tuple(body.ops),
        body_shapes=body.shapes,
        result=result,
    )
    channels = body.shapes[result].channels
    shape = (samples, steps, channels) if order.samples_first else (steps, samples, channels)
    return builder.value(tensor, shape, order.plain(shape))


def _initial(call: Call, position: int, direction: int, shape: Shape) -> str | None:
    """An initial state as a map as high as the scan that is zero but for the first step; None if it is zero, too."""
    found = call.any(position) if call.has(position) else None
    if found is None or (isinstance(found, Known) and not found.array.any()):
        return None
    value, order = call.value(position), _order(call)
    fits = value.rank == 3 and (value.sample[order.samples], value.sample[2]) == (shape.width, shape.channels)
    fits = fits and direction < value.sample[order.directions]
    call.forbid(not fits, f"a state is {value.shape}, not of {shape.width} samples and {shape.channels} channels")
    value = call.builder.gather(value, {order.directions: [direction]})
    value = call.builder.with_layout(value, lay.by_axes(value.sample, [], [order.samples], [2]))
    rows = np.full(shape.height, -1, np.int32)
    rows[0] = 0
    return call.builder.emit(g.Gather, (value.tensor,), shape, rows=rows)


def _joined(call: Call, parts: list[Value], *, has_steps: bool) -> Value:
    """What the directions made, side by side in channels, as a value of the shape that ONNX says."""
    builder, tensors = call.builder, [part.tensor for part in parts]
    source = builder.shapes[tensors[0]]
    extents = {"steps": source.height, "directions": len(parts), "samples": source.width, "each": source.channels}
    names = [name for name in extents if has_steps or name != "steps"]
    if _order(call).samples_first:
        names.sort(key=lambda name: name != "samples")
    whole = Shape(source.height, source.width, len(parts) * source.channels)
    tensor = tensors[0] if len(parts) == 1 else builder.emit(g.Concat, tensors, whole, axis="c")
    piece = {name: Piece(axis, extents[name]) for axis, name in enumerate(names)}
    steps = [piece["steps"]] if has_steps else []
    layout = lay.make(steps, [piece["samples"]], [piece["directions"], piece["each"]])
    return builder.value(tensor, [extents[name] for name in names], layout)
