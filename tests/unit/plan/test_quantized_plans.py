"""Properties of integer networks' plans: any network, any budget, any instruction set, the same bits."""

from __future__ import annotations

import functools
import itertools
import platform
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytee import BudgetError, EngineError, UnsupportedModelError
from tinytee.api import compile_graph
from tinytee.ir.check import check
from tinytee.ir.graph import Gather, Graph, Lrn, Op, Port, Quant, Shape
from tinytee.ir.lanes import Stretch
from tinytee.ir.quantized import Dequantize, QConv, QDepthwiseConv, QLrn, Quantize
from tinytee.ir.reference import evaluate
from tinytee.plan import network, profile
from tinytee.plan.api import least_budget, lower, make_plan
from tinytee.plan.weights import aligned
from tinytee.runtime.session import Session
from unit.plan.oracle import Oracle
from unit.plan.quantized_graphs import fully_connected, quantized_graphs
from unit.plan.test_plans import budgets_of, quick

PROFILE = profile.load()
KEY = bytes(range(32))
ISAS = (
    ("portable", "avx2", "avx512", "avx512vnni") if platform.machine() == "x86_64" else ("portable", "neon", "neondot")
)


def with_float_output(graph: Graph) -> tuple[Graph, Graph]:
    """What ``between`` gives, and the same with the operator's result as float32."""
    quantize, op, _ = graph.ops
    shapes = {name: graph.shapes[name] for name in ("x", "q", "y")}
    return graph, replace(
        graph, ops=(quantize, replace(op, output="y")), shapes=shapes, quants={"q": graph.quants["q"]}
    )


@functools.cache
def usable(isa: str) -> bool:
    try:
        Session(compile_graph(fully_connected(4, 4, 1), 1 << 16, KEY), key=KEY, isa=isa).close()
    except EngineError:
        return False
    return True


def run(graph: Graph, budget_bytes: int, isa: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    try:
        bundle = compile_graph(graph, budget_bytes, KEY)
    except BudgetError as error:  # the public part, which the core authenticates in the arena, takes more than the plan
        bundle = compile_graph(graph, error.needed_bytes, KEY)
    with Session(bundle, key=KEY, isa=isa) as session:
        session.run(inputs)
        outputs = session.run(inputs)
        assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes
        return outputs


def inputs_of(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {port.name: rng.standard_normal(port.shape).astype(np.float32) for port in graph.inputs}


def between(op: Op, shape: Shape, out: Shape) -> Graph:
    """Quantize to "q", the operator from there to "p", Dequantize."""
    ops = (Quantize(name="q", inputs=("x",), output="q"), op, Dequantize(name="y", inputs=("p",), output="y"))
    shapes = {"x": shape, "q": shape, "p": out, "y": out}
    ports = [Port(n, n, (1, *vars(s).values()), "float32", (0, 1, 2, 3), True) for n, s in (("x", shape), ("y", out))]
    return Graph((ports[0],), (ports[1],), shapes, ops, {"q": Quant(0.02, 120), "p": Quant(0.03, 100)})


@quick
@given(quantized_graphs(), st.floats(0, 1))
def test_a_program_reads_only_what_it_has_written(graph: Graph, share: float) -> None:
    check(graph)
    low, high = budgets_of(graph)
    plan = make_plan(graph, int(low * (high / low) ** share), PROFILE)
    lowered = lower(graph, plan)
    highest = Oracle(lowered).run()
    assert highest <= plan.peak_secure_memory_bytes == lowered.arena_bytes


@settings(parent=quick, max_examples=150)
@given(quantized_graphs(), st.floats(0, 1), st.sampled_from(ISAS), st.integers(0, 1 << 30))
def test_any_budget_gives_the_reference_s_bits(graph: Graph, share: float, isa: str, seed: int) -> None:
    isa = isa if usable(isa) else "portable"
    low, high = budgets_of(graph)
    inputs = inputs_of(graph, seed)
    outputs = run(graph, int(low * (high / low) ** share), isa, inputs)
    for name, want in evaluate(graph, inputs).items():
        np.testing.assert_array_equal(outputs[name], want)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("weight", [-128, -127, 127])
def test_the_largest_sums_are_exact(isa: str, weight: int) -> None:
    """Every input 255 (or, less 128, -128), every weight at its bound: no lane may saturate."""
    if not usable(isa):
        pytest.skip(f"this processor has no {isa}")
    graph = fully_connected(1027, 40, weight)
    for value in (-100.0, 100.0):
        inputs = {"x": np.full((1, 1, 1027), value, np.float32)}
        expected = evaluate(graph, inputs)
        np.testing.assert_array_equal(run(graph, 1 << 20, isa, inputs)["y"], expected["y"])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1, 5, 12])
def test_lrn_is_what_its_values_give(isa: str, size: int) -> None:
    """The bits of the same in three operators, in float32 between."""
    if not usable(isa):
        pytest.skip(f"this processor has no {isa}")
    shape, settings_of = Shape(13, 7, 20), {"size": size, "alpha": 0.5, "beta": 0.75, "bias": 1.0}
    graph = between(QLrn(name="p", inputs=("q",), output="p", **settings_of), shape, shape)
    quantize, _, dequantize = graph.ops
    apart = (
        Dequantize(name="v", inputs=("q",), output="v"),
        Lrn(name="n", inputs=("v",), output="n", **settings_of),
        Quantize(name="p", inputs=("n",), output="p"),
    )
    wide = replace(graph, ops=(quantize, *apart, dequantize), shapes={**graph.shapes, "v": shape, "n": shape})
    inputs = inputs_of(graph, size)
    for budget in (least_budget(graph), 1 << 20):
        outputs = run(graph, budget, isa, inputs)["y"]
        np.testing.assert_array_equal(outputs, run(wide, 1 << 20, isa, inputs)["y"])
        assert np.abs(outputs - evaluate(graph, inputs)["y"]).max() <= 0.031  # a step


@pytest.mark.parametrize("isa", ISAS)
def test_weights_are_fed_in_parts_of_a_panel(isa: str) -> None:
    """Where not even one panel fits: the sums are kept between the parts."""
    if not usable(isa):
        pytest.skip(f"this processor has no {isa}")
    rng = np.random.default_rng(1)
    graph = fully_connected(8000, 40, 1)
    conv = graph.ops[1]
    assert isinstance(conv, QConv)
    conv.weight[:] = rng.integers(-127, 128, conv.weight.shape)
    floor = least_budget(graph, PROFILE)
    assert floor < 8000 * 16 < conv.weight.nbytes
    inputs = {"x": rng.standard_normal((1, 1, 8000)).astype(np.float32)}
    np.testing.assert_array_equal(run(graph, floor, isa, inputs)["y"], evaluate(graph, inputs)["y"])


@pytest.mark.parametrize("isa", ISAS)
def test_a_step_s_sums_are_kept_where_panels_are_larger(isa: str) -> None:
    """A panel is fed in parts, in every step, into less memory than it has; results have the same bits."""
    if not usable(isa):
        pytest.skip(f"this processor has no {isa}")
    rng = np.random.default_rng(2)
    shape, out = Shape(5, 13, 512), Shape(5, 13, 64)
    weight = rng.integers(-127, 128, (64, 3, 3, 512)).astype(np.int8)
    conv = QConv(
        name="p", inputs=("q",), output="p", weight=weight, bias=np.zeros(64, np.int32),
        multiplier=np.full(64, 1e-4, np.float32), strides=(1, 1), pads=(1, 1, 1, 1), dilations=(1, 1), groups=1,
    )  # fmt: skip
    graph = between(conv, shape, out)
    floor = least_budget(graph, PROFILE)
    plan = make_plan(graph, floor, PROFILE)
    choice = next(c for c in plan.choices if plan.network.nodes[c.segment.last].op is conv)
    panel = plan.network.nodes[choice.segment.last].panel
    assert choice.segment.steps == shape.height
    assert choice.weights.kept_bytes == aligned(out.width * panel * 4)
    assert choice.weights.bytes < panel * weight[0].size
    inputs = {"x": rng.standard_normal((1, 5, 13, 512)).astype(np.float32)}
    want = evaluate(graph, inputs)["y"]
    for budget in (floor, 2 * floor, 1 << 21):
        np.testing.assert_array_equal(run(graph, budget, isa, inputs)["y"], want)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [3, 8, 16, 20, 32, 40, 72, 120, 136])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_channels_of_any_number(isa: str, channels: int, stride: int) -> None:
    """Fewer than fill a vector, several pixels side by side, and what is left over; to uint8 and to float32."""
    if not usable(isa):
        pytest.skip(f"this processor has no {isa}")
    rng = np.random.default_rng(channels + stride)
    for kernel, width in itertools.product((3, 5, 7), (1, 2, 3, 4, 5, 8, 15)):
        shape, pad = Shape(4, (width - 1) * stride + 1, channels), kernel // 2
        depthwise = QDepthwiseConv(
            name="p", inputs=("q",), output="p", weight=rng.integers(-128, 128, (kernel, kernel, channels), np.int8),
            bias=rng.integers(-9000, 9000, channels, np.int32),
            multiplier=rng.uniform(1e-4, 2e-3, channels).astype(np.float32), strides=(stride, stride),
            pads=(pad, pad, pad, pad), dilations=(1, 1),
        )  # fmt: skip
        for graph in with_float_output(between(depthwise, shape, Shape(-(-4 // stride), width, channels))):
            inputs = inputs_of(graph, width)
            np.testing.assert_array_equal(run(graph, 1 << 20, isa, inputs)["y"], evaluate(graph, inputs)["y"])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("parts", [2, 3, 4, 5, 8])
def test_channels_are_shuffled(isa: str, parts: int) -> None:
    if not usable(isa):
        pytest.skip(f"this processor has no {isa}")
    for each in (1, 5, 20, 33):
        shape = Shape(2, 3, parts * each)
        order = np.arange(parts * each, dtype=np.int32).reshape(parts, each).T.reshape(-1)
        shuffle = Gather(name="p", inputs=("q",), output="p", chans=order)
        of_bytes = replace(between(shuffle, shape, shape), quants={"q": Quant(0.02, 120), "p": Quant(0.02, 120)})
        of_floats = replace(of_bytes, shapes={"x": shape, "y": shape}, quants={}, ops=(
            replace(shuffle, inputs=("x",), output="y"),))  # fmt: skip
        for graph in (of_bytes, of_floats):
            inputs = inputs_of(graph, parts)
            np.testing.assert_array_equal(run(graph, 1 << 20, isa, inputs)["y"], evaluate(graph, inputs)["y"])


def test_a_kernel_that_the_core_cannot_hold_is_refused() -> None:
    graph = fully_connected(32, 32, 1, groups=2)
    conv = graph.ops[1]
    assert isinstance(conv, QConv)
    too_many = QConv(**{**vars(conv), "weight": np.ones((32, 17, 17, 16), np.int8), "pads": (8, 8, 8, 8)})
    larger = replace(graph, ops=(graph.ops[0], too_many, graph.ops[2]))
    with pytest.raises(UnsupportedModelError, match="17 x 17"):
        network.build(larger, PROFILE, "aes-256-gcm")
    assert Stretch.of(too_many.weight.shape, too_many.groups, too_many.dilations[1]).count == 17 * 17
