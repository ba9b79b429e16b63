"""Random small integer networks, for property tests."""

# pyright: reportArgumentType=false
# Strategies draw plain strings where the graph wants literals.

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tinytee.ir.graph import (
    Activation,
    Concat,
    DepthToSpace,
    Gather,
    Graph,
    Op,
    Permute,
    Port,
    Quant,
    Shape,
    SpaceToDepth,
)
from tinytee.ir.quantized import (
    Dequantize,
    QBinary,
    QConv,
    QDepthwiseConv,
    QLut,
    QPool,
    QReduce,
    Quantize,
)
from tinytee.passes.ports_carry_bytes import ports_carry_bytes
from unit.plan.graphs import _Maker


class _QuantizedMaker(_Maker):
    """Every tensor but the ports' is uint8."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__(draw)
        self.quants: dict[str, Quant] = {}

    def quant(self) -> Quant:
        scale = float(np.float32(self.draw(st.sampled_from([0.01, 0.02, 0.037, 0.5]))))
        return Quant(scale, self.draw(st.sampled_from([0, 255, 128, 3, 127])))

    def of(self, *inputs: str) -> dict:
        name = f"t{len(self.ops)}"
        return {"name": name, "inputs": inputs, "output": name}

    def add_quantized(self, op: Op, shape: Shape, quant: Quant | None = None) -> str:
        self.quants[op.output] = quant or self.quant()
        return self.add(op, shape)

    def bytes(self, *shape: int) -> np.ndarray:
        """Weights; sometimes with -128, sometimes such that four products fit 16 bits."""
        least, most = self.draw(st.sampled_from([(-127, 127), (-63, 63), (-128, 127)]))
        values = self.rng.integers(least, most + 1, shape)
        if self.number(0, 3) == 0:  # many extremes at once
            values = self.rng.choice([least, most], shape)
        return values.astype(np.int8)

    def bounds(self) -> dict[str, int]:
        low = self.draw(st.sampled_from([0, 0, 3]))
        return {"low": low, "high": self.draw(st.sampled_from([255, 255, 130, low]))}

    def multipliers(self, depth: int, count: int) -> np.ndarray:
        usual = 50 / (128 * 128 * np.sqrt(depth))
        return (usual * self.rng.uniform(0.2, 3, count)).astype(np.float32)

    def conv(self, x: str) -> str | None:
        s, found = self.shapes[x], self.window(self.shapes[x])
        if not found:
            return None
        kernel, strides, dilations, pads, (height, width) = found
        groups = self.draw(st.sampled_from([g for g in (1, 1, 2, 3) if s.channels % g == 0]))
        out, depth = groups * self.number(1, 40), s.channels // groups
        op = QConv(
            **self.of(x),
            weight=self.bytes(out, *kernel, depth),
            bias=self.rng.integers(-9000, 9000, out).astype(np.int32),
            multiplier=self.multipliers(depth * kernel[0] * kernel[1], out),
            groups=groups,
            strides=strides,
            dilations=dilations,
            pads=pads,
            **self.bounds(),
        )
        return self.add_quantized(op, Shape(height, width, out))

    def depthwise(self, x: str) -> str | None:
        s, found = self.shapes[x], self.window(self.shapes[x])
        if not found:
            return None
        kernel, strides, dilations, pads, (height, width) = found
        if self.number(0, 2) == 0:
            kernel, dilations, pads = (5, 5), (1, 1), (2, 2, 2, 2)
            height, width = (-(-n // stride) for n, stride in zip((s.height, s.width), strides, strict=True))
        op = QDepthwiseConv(
            **self.of(x),
            weight=self.bytes(*kernel, s.channels),
            bias=self.rng.integers(-9000, 9000, s.channels).astype(np.int32),
            multiplier=self.multipliers(kernel[0] * kernel[1], s.channels),
            strides=strides,
            dilations=dilations,
            pads=pads,
            **self.bounds(),
        )
        return self.add_quantized(op, Shape(height, width, s.channels))

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
        include = bool(self.number(0, 1))
        op = QPool(**self.of(x), kind=kind, kernel=kernel, strides=strides, pads=pads, count_include_pad=include)
        return self.add_quantized(op, Shape(out[0], out[1], s.channels), self.quants[x] if kind == "max" else None)

    def binary(self, x: str) -> str:
        s = self.shapes[x]
        kind = self.draw(st.sampled_from(["add", "sum", "sub", "mul"]))
        fits = [
            name
            for name in self.quants
            if (o := self.shapes[name]).height in (1, s.height)
            and o.width in (1, s.width)
            and o.channels in (1, s.channels)
        ]
        if self.number(0, 1):
            other = self.draw(st.sampled_from(fits))
            return self.add_quantized(QBinary(**self.of(x, other), kind=kind, **self.bounds()), s)
        extents = [n if self.number(0, 1) else 1 for n in (s.height, s.width, s.channels)]
        op = QBinary(
            **self.of(x),
            kind=kind,
            constant=self.rng.integers(0, 256, extents).astype(np.uint8),
            constant_quant=self.quant(),
            constant_first=bool(self.number(0, 1)),
            **self.bounds(),
        )
        return self.add_quantized(op, s)

    def concat(self, x: str) -> str:
        s, axis = self.shapes[x], self.draw(st.sampled_from("yxc"))
        field = {"y": "height", "x": "width", "c": "channels"}[axis]
        others = [f for f in ("height", "width", "channels") if f != field]
        fits = [
            name
            for name, quant in self.quants.items()
            if quant == self.quants[x] and all(getattr(self.shapes[name], f) == getattr(s, f) for f in others)
        ]
        names = [x] + [self.draw(st.sampled_from(fits)) for _ in range(self.number(1, 2))]
        extents = {f: getattr(s, f) for f in others} | {field: sum(getattr(self.shapes[n], field) for n in names)}
        return self.add_quantized(Concat(**self.of(*names), axis=axis), Shape(**extents), self.quants[x])

    def planes(self, x: str) -> str:
        """Each pixel a y-plane of its own."""
        s = self.shapes[x]
        return self.add_quantized(
            Concat(**self.of(x), axis="y"), Shape(s.height * s.width, 1, s.channels), self.quants[x]
        )

    def gather(self, x: str) -> str:
        s, picks = self.shapes[x], []
        for extent in (s.height, s.width, s.channels):
            style = self.number(0, 2)
            index = np.repeat(np.arange(extent), 2) if style == 1 else self.rng.integers(-1, extent, extent + 1)
            picks.append(None if style == 0 else index.astype(np.int32))
        extents = (s.height, s.width, s.channels)
        shape = Shape(*(n if p is None else len(p) for p, n in zip(picks, extents, strict=True)))
        op = Gather(**self.of(x), rows=picks[0], cols=picks[1], chans=picks[2])
        return self.add_quantized(op, shape, self.quants[x])

    def pixels(self, x: str) -> str:
        """The rest."""
        s, kind = self.shapes[x], self.number(0, 5)
        if kind == 0:
            return self.add_quantized(QLut(**self.of(x), table=self.rng.integers(0, 256, 256).astype(np.uint8)), s)
        if kind == 1 and s.channels % 4 == 0:
            mode = self.draw(st.sampled_from(["DCR", "CRD"]))
            op = DepthToSpace(**self.of(x), block=2, mode=mode)
            return self.add_quantized(op, Shape(s.height * 2, s.width * 2, s.channels // 4), self.quants[x])
        if kind == 2 and s.height % 2 == 0 and s.width % 2 == 0:
            shape = Shape(s.height // 2, s.width // 2, s.channels * 4)
            return self.add_quantized(SpaceToDepth(**self.of(x), block=2), shape, self.quants[x])
        if kind == 3:
            dims = (s.width, s.channels, s.height)
            op = Permute(**self.of(x), dims=dims, strides=(s.channels, 1, s.width * s.channels))
            return self.add_quantized(op, Shape(*dims), self.quants[x])
        if kind == 4:
            return self.add_quantized(QReduce(**self.of(x)), Shape(1, 1, s.channels))
        return self.again(x)

    def again(self, x: str) -> str:
        """To float and back, or a convolution that ends in float."""
        s, name = self.shapes[x], f"f{len(self.ops)}"
        op: Op = Dequantize(name=name, inputs=(x,), output=name)
        if self.number(0, 1):
            activation = self.draw(st.sampled_from([Activation(), Activation("relu"), Activation("clip", -0.5, 0.75)]))
            op = QConv(
                name=name, inputs=(x,), output=name, activation=activation,
                weight=self.bytes(7, 1, 1, s.channels), bias=np.arange(7, dtype=np.int32),
                multiplier=self.multipliers(s.channels, 7) / np.float32(50),
            )  # fmt: skip
            s = Shape(s.height, s.width, 7)
        self.add(op, s)
        return self.add_quantized(Quantize(**self.of(name)), s)


@st.composite
def quantized_graphs(draw: st.DrawFn) -> Graph:
    """A graph of a few operators on uint8, between float32 or uint8 at its edges; tensors
    up to about 20 x 12 x 80."""
    maker = _QuantizedMaker(draw)
    inputs = []
    for number in range(draw(st.integers(1, 2))):
        shape = Shape(draw(st.integers(1, 20)), draw(st.integers(1, 12)), draw(st.sampled_from([1, 3, 4, 9, 20, 70])))
        name = f"x{number}"
        maker.shapes[name] = shape
        inputs.append(Port(name, name, (shape.height, shape.width, shape.channels), "float32", (0, 1, 2), False))
        maker.add_quantized(Quantize(**maker.of(name)), shape)
    makers = (
        [maker.conv] * 3 + [maker.depthwise] * 2 + [maker.pool, maker.binary, maker.concat, maker.gather, maker.planes]
    )
    makers += [maker.pixels] * 2
    for _ in range(draw(st.integers(1, 9))):
        x = draw(st.sampled_from(list(maker.quants)))
        if maker.shapes[x].elems <= 24000:
            draw(st.sampled_from(makers))(x)
    read = {name for op in maker.ops for name in op.inputs}
    outputs = []
    for number, name in enumerate([name for name in maker.quants if name not in read]):
        shape, output = maker.shapes[name], f"y{number}"
        maker.add(Dequantize(name=output, inputs=(name,), output=output), shape)
        extents = (shape.height, shape.width, shape.channels)
        outputs.append(Port(output, output, extents, "float32", (0, 1, 2), False))
    graph = Graph(tuple(inputs), tuple(outputs), maker.shapes, tuple(maker.ops), maker.quants)
    return ports_carry_bytes(graph) if draw(st.booleans()) else graph


def fully_connected(features: int, out: int, weight: int, groups: int = 1) -> Graph:
    """Quantize, one product whose weights are all the same, Dequantize."""
    shapes = {"x": Shape(1, 1, features), "q": Shape(1, 1, features), "p": Shape(1, 1, out), "y": Shape(1, 1, out)}
    conv = QConv(
        name="p", inputs=("q",), output="p", weight=np.full((out, 1, 1, features // groups), weight, np.int8),
        bias=np.arange(out, dtype=np.int32), multiplier=np.full(out, 1e-4, np.float32), groups=groups,
    )  # fmt: skip
    ops = (Quantize(name="q", inputs=("x",), output="q"), conv, Dequantize(name="y", inputs=("p",), output="y"))
    ports = [Port(n, n, (1, 1, extent), "float32", (0, 1, 2), False) for n, extent in (("x", features), ("y", out))]
    return Graph((ports[0],), (ports[1],), shapes, ops, {"q": Quant(0.02, 0), "p": Quant(0.03, 100)})
