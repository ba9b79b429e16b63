"""The frozen graph of typed operators that every room after the importer works on.

A tensor is one sample's feature map: ``height`` y-planes of ``width`` x ``channels`` elements, float32, in the
order y, x, c (NHWC without n). Integer tensors of the model (ArgMax, Cast) are carried as float32 values. A tensor
that has a ``Quant`` holds uint8 instead: see ``ir.quantized`` for the operators that read and write such tensors.

Operators are named after ONNX's, with their attributes already made explicit: no defaults, no automatic padding,
no optional inputs. Weights are part of the operator. Where one operator states a rule on shapes, ``check`` holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinytee.ir.coding import WeightCoding

Array = NDArray[np.float32]
Indices = NDArray[np.int32]


@dataclass(frozen=True)
class Shape:
    """Height (y-planes), width and channels of a feature map, in elements."""

    height: int
    width: int
    channels: int

    @property
    def row_elems(self) -> int:
        """Elements of one y-plane."""
        return self.width * self.channels

    @property
    def elems(self) -> int:
        return self.height * self.row_elems

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


@dataclass(frozen=True)
class Quant:
    """What the uint8 elements q of a tensor stand for: scale * (q - zero_point).

    Attributes:
        scale: positive, finite, and a float32.
        zero_point: 0 to 255.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Port:
    """An input or output of the model as its user knows it.

    Attributes:
        name: the model's own name for it.
        tensor: the tensor of the graph that carries it.
        shape: logical shape. Where ``batched``, axis 0 is the sample axis: its extent is what the model declares
            (0 for 'any'), and the graph computes one sample (extent 1) at a time.
        dtype: numpy dtype name of the model's signature ("float32", "int64", ...).
        perm: order of the logical axes in memory: ``logical.transpose(perm).reshape(y, x, c)`` is the tensor, or, where
            that has a ``Quant``, what its elements stand for.
        batched: whether a run loops over axis 0.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    dtype: str
    perm: tuple[int, ...]
    batched: bool


ActivationKind = Literal[
    "identity", "relu", "clip", "leaky_relu", "sigmoid", "hard_sigmoid", "hard_swish", "swish", "tanh", "elu", "selu",
    "softplus", "softsign", "gelu", "gelu_tanh", "erf", "mish", "exp", "log", "sqrt", "abs", "neg", "reciprocal", "pow",
    "trunc", "celu", "thresholded_relu", "floor", "ceil", "round", "sign", "not_zero",
]  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """A function of one element. What alpha and beta mean:

    clip: alpha = min, beta = max. leaky_relu, elu, celu, thresholded_relu: alpha. selu: alpha, beta = gamma.
    hard_sigmoid: clip(alpha x + beta, 0, 1). swish: x sigmoid(alpha x). pow: x ** alpha. Others take neither.
    """

    kind: ActivationKind = "identity"
    alpha: float = 0.0
    beta: float = 0.0


IDENTITY = Activation()


@dataclass(frozen=True, eq=False, kw_only=True)
class Op:
    """One operator: reads ``inputs``, applies ``activation`` to what it computes, writes ``output``.

    ``name`` is the ONNX node's name (or the first fused node's), for messages only.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    activation: Activation = IDENTITY


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Op):
    """Convolution; also Gemm and MatMul (1 x 1) and fully connected layers over a whole map (kernel = map).

    inputs: x, or x and a residual of the output's shape that is added before the activation.
    weight: [out_channels, kernel_y, kernel_x, in_channels / groups]; bias: [out_channels].
    pads: top, left, bottom, right (elements, may differ; never negative).
    weight_scale: [out_channels], where the model gives the weights as integers: weight / weight_scale is -128 to 127.
    coding: the codes that the weights are the values of, if they are to be stored as such.
    """

    weight: Array
    bias: Array
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    weight_scale: Array | None = None
    coding: WeightCoding | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthwiseConv(Op):
    """One filter a channel; with a 1 x 1 kernel, a scale and shift per channel.

    weight: [kernel_y, kernel_x, channels]; bias: [channels]. weight_scale: [channels], as for Conv.
    """

    weight: Array
    bias: Array
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    weight_scale: Array | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Op):
    """Max or average pooling. A window's last row or column may lie outside (ceil mode); it is clipped.

    count_include_pad counts padding (``pads``), but not what lies beyond it, in the average's divisor.
    """

    kind: Literal["max", "average"]
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    count_include_pad: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduce(Op):
    """Reduction over y and x: output 1 x 1 x channels. Consumes its input row by row."""

    kind: Literal["mean", "max", "min", "sum"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Unary(Op):
    """Applies only its activation."""


BinaryKind = Literal[
    "add", "sub", "mul", "div", "min", "max", "prelu", "pow", "less", "less_or_equal", "equal", "keep", "drop"
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Binary(Op):
    """Elementwise on two operands, each axis of each equal to the output's or 1 (broadcast).

    inputs: two tensors, or one tensor where ``constant`` ([1|height, 1|width, 1|channels]) is the other operand:
    the second, or the first if ``constant_first``. prelu: where(a < 0, a * b, a). pow: a ** b. less, less_or_equal,
    equal: 1 where it is so, else 0. keep: where(b != 0, a, 0). drop: where(b == 0, a, 0).
    constant_quant: where the model gives the constant as 8-bit integers, what they stand for.
    apart: of an addition: a quantized model rounds both operands to float32 before it (ONNX's Sum), not only their sum.
    """

    kind: BinaryKind
    constant: Array | None = None
    constant_first: bool = False
    constant_quant: Quant | None = None
    apart: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Op):
    """Inputs side by side along one axis; the other axes agree.

    Along y, a y-plane of an input may be several of the output, one after another: (h, w, c) counts as (h w, 1, c).
    """

    axis: Literal["y", "x", "c"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Gather(Op):
    """out[y, x, c] = in[rows[y], cols[x], chans[c]]; index -1 stands for ``fill``.

    Slice, Split, Pad, nearest-neighbour Resize and channel shuffle. None stands for the identity on that axis.
    """

    rows: Indices | None = None
    cols: Indices | None = None
    chans: Indices | None = None
    fill: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Resize(Op):
    """Separable interpolation by taps.

    out[y, x] = sum over i, j of row_weights[y, i] * col_weights[x, j] * in[row_index[y, i], col_index[x, j]].
    row_index, row_weights: [out height, taps_y]; col_index, col_weights: [out width, taps_x]; indices are valid.
    """

    row_index: Indices
    row_weights: Array
    col_index: Indices
    col_weights: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthToSpace(Op):
    """DCR: out[y*b+i, x*b+j, c] = in[y, x, (i*b+j)*C + c]. CRD: ... = in[y, x, c*b*b + i*b + j].

    b = block, C = output channels.
    """

    block: int
    mode: Literal["DCR", "CRD"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpaceToDepth(Op):
    """out[y, x, (i*b+j)*C + c] = in[y*b+i, x*b+j, c]; C = input channels."""

    block: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Permute(Op):
    """General strided copy of the whole input: Transpose, Reshape across layouts, Expand.

    The output, dense in the order y, x, c, read as an array of ``dims`` (at most 6), has at index i the input's
    element sum(i * strides), the input counted densely in the order y, x, c. Stride 0 repeats.
    """

    dims: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Lrn(Op):
    """Local response normalization over ``size`` neighbouring channels (ONNX LRN)."""

    size: int
    alpha: float
    beta: float
    bias: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Op):
    """Over the channels of every pixel; ``log`` gives LogSoftmax."""

    log: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNorm(Op):
    """Over the channels of every pixel. scale, bias: [channels]."""

    scale: Array
    bias: Array
    epsilon: float


@dataclass(frozen=True, eq=False, kw_only=True)
class ArgMax(Op):
    """Index of the largest channel of every pixel, as float32; output channels = 1."""

    select_last: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Constant(Op):
    """A tensor known at compile time (an output of the model that depends on no input).

    value: [height, width, channels].
    """

    value: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Op):
    """Matrix products of two maps, one for each group of channels, as attention has them.

    inputs: x [height, width, groups * k], and a matrix of one column: [k, 1, groups * m], or, where ``transposed``,
    [m, 1, groups * k]. out[y, x, g * m + j] = sum over i of x[y, x, g * k + i] * matrix[i, 0, g * m + j], or
    matrix[j, 0, g * k + i].
    """

    groups: int
    transposed: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan(Op):
    """A recurrence along y: a body of operators goes through the inputs y-plane by y-plane, and has a state.

    As ONNX's Scan, and what its LSTM, GRU and RNN are made of. The body's tensors are named within it and are one
    y-plane high. Its operators stand in order and are such that they are y-plane by y-plane (``check``).

    inputs: maps as high as the output. operands: what the body calls the y-plane of each.
    states: pairs (before, after) of the body's tensors: ``before`` holds what ``after`` was in the y-plane before, and
    zeros in the first.
    result: the body's tensor that is the output's y-plane.
    """

    operands: tuple[str, ...]
    states: tuple[tuple[str, str], ...]
    body: tuple[Op, ...]
    body_shapes: dict[str, Shape]
    result: str


@dataclass(frozen=True, eq=False)
class Graph:
    """A network for one sample. Operators stand in an order in which every input precedes its use.

    Attributes:
        inputs, outputs: the model's signature, in its order.
        shapes: shape of every tensor by name.
        ops: the operators; each writes one tensor, each tensor is written once.
        quants: what the elements of a tensor stand for, where it is uint8; all other tensors are float32.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    shapes: dict[str, Shape]
    ops: tuple[Op, ...] = field(default=())
    quants: dict[str, Quant] = field(default_factory=dict)

    def elem_bytes(self, tensor: str) -> int:
        """Bytes of one element of a tensor: 1 where it is uint8, 4 where it is float32."""
        return 1 if tensor in self.quants else 4

    def with_ops(self, ops: list[Op] | tuple[Op, ...]) -> Graph:
        """The same signature over other operators; shapes and quants of tensors that are gone are dropped."""
        kept = {port.tensor for port in self.inputs} | {op.output for op in ops}
        return replace(
            self,
            ops=tuple(ops),
            shapes={name: shape for name, shape in self.shapes.items() if name in kept},
            quants={name: quant for name, quant in self.quants.items() if name in kept},
        )

    def consumers(self) -> dict[str, list[int]]:
        """For every tensor, the positions of the operators that read it."""
        found: dict[str, list[int]] = {name: [] for name in self.shapes}
        for position, op in enumerate(self.ops):
            for name in dict.fromkeys(op.inputs):
                found[name].append(position)
        return found
