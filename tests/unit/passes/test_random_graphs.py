"""Networks put together at random keep their meaning through every pass."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.importer.support import compare, model, node, random

STEPS = (
    "conv", "conv", "depthwise", "norm", "activation", "activation", "add", "concat", "pool", "pad", "slice", "shuffle",
    "excite", "swish", "scale", "resize", "transpose", "deconv",
)  # fmt: skip


class Sketch:
    """A model under construction: values of shape (1, c, h, w) by name."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.nodes: list = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, int, int]] = {"x": (4, 6, 5)}

    def constant(self, array: np.ndarray) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = array
        return name

    def emit(self, op_type: str, inputs: str, shape: tuple[int, int, int] | None = None, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(op_type, inputs, name, **attributes))
        if shape is not None:
            self.shapes[name] = shape
        return name

    def pick(self, shape: tuple[int, int, int] | None = None) -> str:
        names = [name for name, found in self.shapes.items() if shape in (None, found)]
        return self.data.draw(st.sampled_from(names[-4:]))

    def step(self, kind: str) -> None:
        x = self.pick()
        c, h, w = shape = self.shapes[x]
        seed = len(self.nodes)
        if kind == "conv":
            pads = self.data.draw(st.sampled_from([[0, 0, 0, 0], [1, 1, 1, 1]]))
            kernel = 3 if min(h, w) > 2 or any(pads) else 1
            size = [extent + pads[0] * 2 - kernel + 1 for extent in (h, w)]
            weight = self.constant(random((4, c, kernel, kernel), seed) / 4)
            self.emit("Conv", f"{x} {weight}", (4, size[0], size[1]), pads=pads)
        elif kind == "deconv":
            weight = self.constant(random((c, 4, 2, 2), seed) / 4)
            self.emit("ConvTranspose", f"{x} {weight}", (4, h * 2, w * 2), strides=[2, 2])
        elif kind == "depthwise":
            self.emit("Conv", f"{x} {self.constant(random((c, 1, 3, 3), seed))}", shape, group=c, pads=[1, 1, 1, 1])
        elif kind == "norm":
            parameters = [self.constant(np.abs(random((c,), seed + i)) + 0.1) for i in range(4)]
            self.emit("BatchNormalization", " ".join([x, *parameters]), shape)
        elif kind == "activation":
            self.emit(self.data.draw(st.sampled_from(["Relu", "Sigmoid", "LeakyRelu", "HardSwish"])), x, shape)
        elif kind == "swish":
            self.emit("Mul", f"{x} {self.emit('Sigmoid', x)}", shape)
        elif kind == "scale":
            op_type = self.data.draw(st.sampled_from(["Mul", "Add", "Sub", "Div"]))
            extents = self.data.draw(st.sampled_from([(c, 1, 1), (1,), (h, w)]))
            self.emit(op_type, f"{x} {self.constant(random(extents, seed) + 3)}", shape)
        elif kind == "add":
            self.emit("Add", f"{x} {self.pick(shape)}", shape)
        elif kind == "concat":
            self.emit("Concat", f"{x} {self.pick(shape)}", (2 * c, h, w), axis=1)
        elif kind == "pool":
            op_type = self.data.draw(st.sampled_from(["MaxPool", "AveragePool"]))
            self.emit(op_type, x, shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif kind == "pad":
            self.emit("Pad", f"{x} {self.constant(np.array([0, 0, 1, 0, 0, 0, 0, 1]))}", (c, h + 1, w + 1))
        elif kind == "slice":
            bounds = [self.constant(np.array([value])) for value in (0, c // 2 or 1, 1)]
            self.emit("Slice", " ".join([x, *bounds]), (c // 2 or 1, h, w))
        elif kind == "shuffle" and c % 2 == 0:
            cut = self.emit("Reshape", f"{x} {self.constant(np.array([1, 2, c // 2, h, w]))}")
            swapped = self.emit("Transpose", cut, perm=[0, 2, 1, 3, 4])
            self.emit("Reshape", f"{swapped} {self.constant(np.array([1, c, h, w]))}", shape)
        elif kind == "excite":
            mean = self.emit("GlobalAveragePool", x)
            gate = self.emit("Sigmoid", self.emit("Conv", f"{mean} {self.constant(random((c, c, 1, 1), seed))}"))
            self.emit("Mul", f"{x} {gate}", shape)
        elif kind == "resize" and h * w < 200:
            self.emit(
                "Resize", f"{x} - - {self.constant(np.array([1, c, h * 2, w + 1]))}", (c, h * 2, w + 1), mode="linear"
            )
        elif kind == "transpose":
            self.emit("Transpose", x, (c, w, h), perm=[0, 1, 3, 2])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_networks(data: st.DataObject) -> None:
    sketch = Sketch(data)
    for kind in data.draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=10)):
        sketch.step(kind)
    names = [name for name in sketch.shapes if name != "x"]
    if not names:
        return
    outputs = {names[-1], data.draw(st.sampled_from(names))}
    compare(model(sketch.nodes, {"x": (1, 4, 6, 5)}, sketch.constants, outputs=sorted(outputs)), tolerance=1e-4)
