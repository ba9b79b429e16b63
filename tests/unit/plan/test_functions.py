"""Functions of one element, from their least argument to their largest and at what is no number."""

from __future__ import annotations

import numpy as np
import pytest

from tinytee.api import compile_graph
from tinytee.ir.graph import Activation, Graph, Port, Shape, Unary
from tinytee.ir.reference import activate
from tinytee.runtime.session import Session
from unit.plan.test_register_tiles import ISAS, KEY

FUNCTIONS = (
    Activation("exp"), Activation("sigmoid"), Activation("tanh"), Activation("erf"), Activation("softplus"),
    Activation("swish", 1.0), Activation("swish", 1.702), Activation("mish"), Activation("gelu"),
    Activation("gelu_tanh"), Activation("elu", 1.5), Activation("selu", 1.6732632, 1.050701),
)  # fmt: skip
EDGES = (0.0, -0.0, 1e-30, 87.3, 88.3, 88.4, 88.6, 88.72, -87.3, -87.4, -88.0, -103.0, -103.9, -104.1, -200.0)
STEPS = 4096


def arguments() -> np.ndarray:
    sweeps = [np.linspace(-bound, bound, STEPS, dtype=np.float32) for bound in (104, 20, 1)]
    return np.concatenate([*sweeps, np.array(EDGES, np.float32)])


def network(count: int, *functions: Activation) -> Graph:
    """Functions of one input, x: results y, y1, ..."""
    names = ["y", *(f"y{i}" for i in range(1, len(functions)))]
    ports = [Port(name, name, (1, count, 1), "float32", (0, 1, 2), False) for name in ("x", *names)]
    ops = [
        Unary(name=name, inputs=("x",), output=name, activation=function)
        for name, function in zip(names, functions, strict=True)
    ]
    shapes = dict.fromkeys(("x", *names), Shape(1, count, 1))
    return Graph(inputs=(ports[0],), outputs=tuple(ports[1:]), shapes=shapes, ops=tuple(ops))


def agrees(function: Activation, x: np.ndarray, found: np.ndarray) -> None:
    """To some steps of float32, or of 1 where terms cancel; results below 1e-37 need not be told from 0."""
    with np.errstate(all="ignore"):
        want = activate(function, x.astype(np.float64)).astype(np.float32)
    cancels = function.kind in ("erf", "gelu", "gelu_tanh", "elu", "selu")
    rounds_argument = function.kind == "swish"  # of exp, by a step of its own size
    rtol, atol = 5e-6 if rounds_argument else 1e-6, 3e-7 if cancels else 1e-35
    np.testing.assert_allclose(found, want, rtol=rtol, atol=atol)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: f"{function.kind}-{function.alpha}")
def test_functions_of_every_argument(function: Activation, isa: str | None) -> None:
    x = arguments()
    with Session(compile_graph(network(len(x), function), 1 << 20, KEY), key=KEY, isa=isa) as session:
        found = session.run({"x": x.reshape(1, -1, 1)})["y"].reshape(-1)
    agrees(function, x, found)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("kind", "ends"), [("exp", (0, np.inf)), ("sigmoid", (0, 1)), ("tanh", (-1, 1)), ("erf", (-1, 1))]
)
def test_no_number_stays_one_and_infinities_have_limits(kind, ends: tuple[float, float], isa: str | None) -> None:
    x = np.array([np.nan, -np.nan, -np.inf, np.inf], np.float32)
    with Session(compile_graph(network(4, Activation(kind)), 1 << 20, KEY), key=KEY, isa=isa) as session:
        found = session.run({"x": x.reshape(1, -1, 1)})["y"].reshape(-1)
    np.testing.assert_array_equal(found, np.array([np.nan, np.nan, *ends], np.float32))
