"""Random small networks with every kind of row flow, for property tests."""

# pyright: reportArgumentType=false
# Strategies draw plain strings where the graph wants literals.

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st

from tinytee.ir.graph import (
    Activation,
    Binary,
    Concat,
    Conv,
    DepthToSpace,
    DepthwiseConv,
    Gather,
    Graph,
    LayerNorm,
    Lrn,
    Op,
    Permute,
    Pool,
    Port,
    Product,
    Reduce,
    Resize,
    Scan,
    Shape,
    Softmax,
    SpaceToDepth,
    Unary,
)

SLOW_IS_FINE = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.function_scoped_fixture,
    HealthCheck.large_base_example,
]
"""Of a test that draws these networks."""

ACTIVATIONS = (
    Activation(),
    Activation("relu"),
    Activation("clip", -0.5, 0.75),
    Activation("leaky_relu", 0.1),
    Activation("sigmoid"),
    Activation("hard_swish"),
)


class _Maker:
    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
        self.shapes: dict[str, Shape] = {}
        self.ops: list[Op] = []

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def values(self, *shape: int) -> np.ndarray:
        return (self.rng.standard_normal(shape) * 0.4).astype(np.float32)

    def add(self, op: Op, shape: Shape) -> str:
        self.ops.append(op)
        self.shapes[op.output] = shape
        return op.output

    def base(self, *inputs: str) -> dict:
        name = f"t{len(self.ops)}"
        return {"name": name, "inputs": inputs, "output": name, "activation": self.draw(st.sampled_from(ACTIVATIONS))}

    def window(
        self, s: Shape
    ) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, ...], tuple[int, int]] | None:
        kernel = (self.number(1, 3), self.number(1, 3))
        strides = (self.number(1, 2), self.number(1, 2))
        dilations = (self.number(1, 2), self.number(1, 2))
        pads = tuple(self.number(0, kernel[i % 2] - 1) for i in range(4))
        out = []
        for i, extent in enumerate((s.height, s.width)):
            span = (kernel[i] - 1) * dilations[i] + 1
            out.append((extent + pads[i] + pads[i + 2] - span) // strides[i] + 1)
        return None if min(out) < 1 else (kernel, strides, dilations, pads, (out[0], out[1]))

    def conv(self, x: str) -> str | None:
        s, found = self.shapes[x], self.window(self.shapes[x])
        if not found:
            return None
        kernel, strides, dilations, pads, (height, width) = found
        groups = self.draw(st.sampled_from([g for g in (1, 1, 2, 3) if s.channels % g == 0]))
        out = groups * self.number(1, 24)
        weight, shape = self.values(out, *kernel, s.channels // groups), Shape(height, width, out)
        window = {"strides": strides, "dilations": dilations, "pads": pads}
        residuals = [n for n, other in self.shapes.items() if other == shape and n != x]
        inputs = (x, residuals[-1]) if residuals and self.number(0, 1) else (x,)
        return self.add(
            Conv(**self.base(*inputs), weight=weight, bias=self.values(out), groups=groups, **window), shape
        )

    def pointwise(self, x: str) -> str | None:
        """1 x 1, of as many channels as Strassen's method takes, if the input has an even number of them."""
        s, stride = self.shapes[x], self.number(1, 2)
        out = self.draw(st.sampled_from([16, 32, 48, 64, 128]))
        shape = Shape(-(-s.height // stride), -(-s.width // stride), out)
        residuals = [n for n, other in self.shapes.items() if other == shape and n != x]
        inputs = (x, residuals[-1]) if residuals and self.number(0, 1) else (x,)
        weight, bias = self.values(out, 1, 1, s.channels), self.values(out)
        return self.add(Conv(**self.base(*inputs), weight=weight, bias=bias, strides=(stride, stride)), shape)

    def depthwise(self, x: str) -> str | None:
        s, found = self.shapes[x], self.window(self.shapes[x])
        if not found:
            return None
        kernel, strides, dilations, pads, (height, width) = found
        op = DepthwiseConv(
            **self.base(x), weight=self.values(*kernel, s.channels), bias=self.values(s.channels),
            strides=strides, dilations=dilations, pads=pads,
        )  # fmt: skip
        return self.add(op, Shape(height, width, s.channels))

    def pool(self, x: str) -> str | None:
        s, found = self.shapes[x], self.window(self.shapes[x])
        if not found:
            return None
        kernel, strides, _, pads, _ = found
        pads = tuple(min(p, kernel[i % 2] - 1) for i, p in enumerate(pads))
        out = [(n + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, n in enumerate((s.height, s.width))]
        if min(out) < 1:
            return None
        kind = self.draw(st.sampled_from(["max", "average"]))
        op = Pool(
            **self.base(x),
            kind=kind,
            kernel=kernel,
            strides=strides,
            pads=pads,
            count_include_pad=bool(self.number(0, 1)),
        )
        return self.add(op, Shape(out[0], out[1], s.channels))

    def binary(self, x: str) -> str:
        s = self.shapes[x]
        kind = self.draw(st.sampled_from(["add", "sub", "mul", "min", "max", "prelu"]))
        fits = [
            name
            for name, o in self.shapes.items()
            if o.height in (1, s.height) and o.width in (1, s.width) and o.channels in (1, s.channels)
        ]
        if self.number(0, 1):
            return self.add(Binary(**self.base(x, self.draw(st.sampled_from(fits))), kind=kind), s)
        extents = [n if self.number(0, 1) else 1 for n in (s.height, s.width, s.channels)]
        first = bool(self.number(0, 1))
        return self.add(Binary(**self.base(x), kind=kind, constant=self.values(*extents), constant_first=first), s)

    def concat(self, x: str) -> str:
        s = self.shapes[x]
        axis = self.draw(st.sampled_from("yxc"))
        fields = {"y": ("width", "channels"), "x": ("height", "channels"), "c": ("height", "width")}[axis]
        fits = [n for n, o in self.shapes.items() if all(getattr(o, f) == getattr(s, f) for f in fields)]
        names = [x] + [self.draw(st.sampled_from(fits)) for _ in range(self.number(1, 2))]
        total = sum(getattr(self.shapes[n], {"y": "height", "x": "width", "c": "channels"}[axis]) for n in names)
        shape = Shape(
            total if axis == "y" else s.height, total if axis == "x" else s.width, total if axis == "c" else s.channels
        )
        return self.add(Concat(**self.base(*names), axis=axis), shape)

    def planes(self, x: str) -> str:
        """Rows, or parts of them, as y-planes of their own, of every map that has whole ones."""
        s = self.shapes[x]
        width = self.draw(st.sampled_from([n for n in range(1, s.width + 1) if s.width % n == 0]))
        plane = width * s.channels
        channels = self.draw(st.sampled_from([n for n in range(1, plane + 1) if plane % n == 0]))
        fits = [n for n, o in self.shapes.items() if o.row_elems % plane == 0]
        names = [x] + [self.draw(st.sampled_from(fits)) for _ in range(self.number(0, 2))]
        height = sum(self.shapes[n].elems // plane for n in names)
        if height > 512:
            return x
        return self.add(Concat(**self.base(*names), axis="y"), Shape(height, plane // channels, channels))

    def gather(self, x: str) -> str:
        s = self.shapes[x]
        picks = []
        for extent in (s.height, s.width, s.channels):
            style = self.number(0, 3)
            index = (
                np.arange(extent)
                if style < 2
                else np.repeat(np.arange(extent), 2)
                if style == 2
                else self.rng.integers(-1, extent, extent + 1)
            )
            picks.append(None if style == 0 else index.astype(np.int32))
        shape = Shape(
            *(n if p is None else len(p) for p, n in zip(picks, (s.height, s.width, s.channels), strict=True))
        )
        return self.add(Gather(**self.base(x), rows=picks[0], cols=picks[1], chans=picks[2], fill=0.25), shape)

    def resize(self, x: str) -> str:
        s = self.shapes[x]
        tables = []
        for extent in (s.height, s.width):
            out = self.number(1, 2 * extent)
            at = np.clip((np.arange(out) + 0.5) * extent / out - 0.5, 0, extent - 1)
            low = np.floor(at).astype(np.int32)
            index = np.stack([low, np.minimum(low + 1, extent - 1)], axis=1)
            tables += [index.astype(np.int32), np.stack([1 - (at - low), at - low], axis=1).astype(np.float32)]
        op = Resize(
            **self.base(x), row_index=tables[0], row_weights=tables[1], col_index=tables[2], col_weights=tables[3]
        )
        return self.add(op, Shape(len(tables[0]), len(tables[2]), s.channels))

    def pixels(self, x: str) -> str:
        """Operators over the channels of a pixel, and those that move whole blocks."""
        s = self.shapes[x]
        kind = self.number(0, 7)
        if kind == 0:
            return self.add(Softmax(**self.base(x), log=bool(self.number(0, 1))), s)
        if kind == 1:
            return self.add(
                LayerNorm(**self.base(x), scale=self.values(s.channels), bias=self.values(s.channels), epsilon=1e-5), s
            )
        if kind == 2:
            return self.add(Lrn(**self.base(x), size=self.number(1, 4), alpha=0.5, beta=0.75, bias=1.0), s)
        if kind == 3 and s.channels % 4 == 0:
            mode = self.draw(st.sampled_from(["DCR", "CRD"]))
            return self.add(
                DepthToSpace(**self.base(x), block=2, mode=mode), Shape(s.height * 2, s.width * 2, s.channels // 4)
            )
        if kind == 4 and s.height % 2 == 0 and s.width % 2 == 0:
            return self.add(SpaceToDepth(**self.base(x), block=2), Shape(s.height // 2, s.width // 2, s.channels * 4))
        if kind == 5:
            dims = (s.width, s.channels, s.height)
            return self.add(
                Permute(**self.base(x), dims=dims, strides=(s.channels, 1, s.width * s.channels)), Shape(*dims)
            )
        if kind == 6:
            op_kind = self.draw(st.sampled_from(["mean", "max", "min", "sum"]))
            return self.add(Reduce(**self.base(x), kind=op_kind), Shape(1, 1, s.channels))
        return self.add(Unary(**self.base(x)), s)

    def product(self, x: str) -> str:
        """Of a map and what its own pixels are, as attention has it."""
        s = self.shapes[x]
        pixels = s.height * s.width
        groups = self.draw(st.sampled_from([n for n in range(1, s.channels + 1) if s.channels % n == 0]))
        transposed, depth = bool(self.number(0, 1)), s.channels // groups
        outputs = pixels if transposed else depth
        if groups * outputs > 512:
            return x
        matrix = self.add(Concat(**self.base(x), axis="y"), Shape(pixels, 1, s.channels))
        if not transposed:
            rows = self.rng.integers(0, pixels, depth).astype(np.int32)
            matrix = self.add(Gather(**self.base(matrix), rows=rows), Shape(depth, 1, s.channels))
        op = Product(**self.base(x, matrix), groups=groups, transposed=transposed)
        return self.add(op, Shape(s.height, s.width, groups * outputs))

    def scan(self, x: str) -> str:
        """Recurrences with one or two states, what they are made of, and what depends on them."""
        s = self.shapes[x]
        fits = [n for n, o in self.shapes.items() if (o.height, o.width) == (s.height, s.width)]
        names = [x] + [self.draw(st.sampled_from(fits)) for _ in range(self.number(0, 1))]
        inner = _Maker(self.draw)
        operands = [f"in{i}" for i in range(len(names))]
        for operand, name in zip(operands, names, strict=True):
            inner.shapes[operand] = Shape(1, s.width, self.shapes[name].channels)
        befores = [f"state{i}" for i in range(self.number(1, 2))]
        for before in befores:
            inner.shapes[before] = Shape(1, s.width, self.number(1, 24))
        states = []
        for before in befores:
            for _ in range(self.number(0, 2)):
                inner.rowwise(self.draw(st.sampled_from(list(inner.shapes))))
            read = self.draw(st.sampled_from(list(inner.shapes)))
            after = inner.linear(read, inner.shapes[before].channels, before, Activation("tanh"))
            states.append((before, after))
        for _ in range(self.number(0, 2)):
            inner.rowwise(self.draw(st.sampled_from(list(inner.shapes))))
        result = self.draw(st.sampled_from([op.output for op in inner.ops]))
        base = self.base(*names) | {"activation": Activation()}
        op = Scan(
            **base, operands=tuple(operands), states=tuple(states), body=tuple(inner.ops), body_shapes=inner.shapes,
            result=result,
        )  # fmt: skip
        return self.add(op, Shape(s.height, *(inner.shapes[result].width, inner.shapes[result].channels)))

    def linear(self, x: str, channels: int, residual: str | None, activation: Activation) -> str:
        s = self.shapes[x]
        base = self.base(*((x, residual) if residual else (x,))) | {"activation": activation}
        weight, bias = self.values(channels, 1, 1, s.channels), self.values(channels)
        return self.add(Conv(**base, weight=weight, bias=bias), Shape(s.height, s.width, channels))

    def rowwise(self, x: str) -> str:
        s = self.shapes[x]
        kind = self.number(0, 4)
        if kind == 0:
            return self.linear(x, self.number(1, 24), None, self.draw(st.sampled_from(ACTIVATIONS)))
        if kind == 1:
            pair = (x, self.draw(st.sampled_from(list(self.shapes))))
            return self.add(
                Concat(**self.base(*pair), axis="c"), Shape(1, s.width, sum(self.shapes[n].channels for n in pair))
            )
        if kind == 2:
            fits = [n for n, o in self.shapes.items() if o == s]
            return self.add(Binary(**self.base(x, self.draw(st.sampled_from(fits))), kind="mul"), s)
        if kind == 3:
            return self.add(Softmax(**self.base(x)), s)
        return self.add(Unary(**self.base(x)), s)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A graph of a few operators, one or two inputs and outputs; tensors up to about 20 x 16 x 24."""
    maker = _Maker(draw)
    inputs = []
    for number in range(draw(st.integers(1, 2))):
        shape = Shape(draw(st.integers(1, 20)), draw(st.integers(1, 16)), draw(st.integers(1, 9)))
        maker.shapes[f"x{number}"] = shape
        inputs.append(
            Port(f"x{number}", f"x{number}", (shape.height, shape.width, shape.channels), "float32", (0, 1, 2), False)
        )
    makers = [
        maker.conv,
        maker.conv,
        maker.pointwise,
        maker.depthwise,
        maker.pool,
        maker.binary,
        maker.concat,
        maker.planes,
        maker.gather,
        maker.resize,
        maker.pixels,
        maker.pixels,
        maker.scan,
        maker.product,
    ]
    for _ in range(draw(st.integers(1, 9))):
        x = draw(st.sampled_from(list(maker.shapes)))
        if maker.shapes[x].elems > 24000:
            continue
        draw(st.sampled_from(makers))(x)
    read = {name for op in maker.ops for name in op.inputs}
    names = [n for n in maker.shapes if n not in read and not n.startswith("x")] or [list(maker.shapes)[-1]]
    if draw(st.booleans()):
        names = list(dict.fromkeys([*names, draw(st.sampled_from(list(maker.shapes)))]))
    outputs = tuple(
        Port(
            f"y{i}",
            n,
            (maker.shapes[n].height, maker.shapes[n].width, maker.shapes[n].channels),
            "float32",
            (0, 1, 2),
            False,
        )
        for i, n in enumerate(names)
    )
    return Graph(tuple(inputs), outputs, maker.shapes, tuple(maker.ops))
