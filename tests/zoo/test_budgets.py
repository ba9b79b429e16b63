"""Every network at every budget of the ladder: right, and within the budget, as the compiler said.

One model, one reference and one session of ONNX Runtime serve all budgets of a network; with xdist, one worker does.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

import tinytee
from tinytee import zoo
from tinytee.api import compile_graph, load_graph
from tinytee.errors import BudgetError
from tinytee.ir.graph import Graph
from tinytee.sizes import format_size
from tinytee.zoo.rival import Rival
from zoo.support import largest_error

KEY = bytes(range(32))
TOLERANCE = 1e-4

HEAVY = ("vgg19", "alexnet", "zfnet512")
"""Building these networks takes most of a test; that they are refused below their floors is left to the others."""

CASES = [
    pytest.param(network.name, budget, id=f"{network.name}-{budget // zoo.KIB}KiB", marks=marks)
    for network in zoo.NETWORKS.values()
    for marks in [pytest.mark.xdist_group(network.name)]
    for budget in zoo.LADDER
]


@dataclass(frozen=True)
class Prepared:
    network: zoo.Network
    graph: Graph
    feed: dict[str, NDArray[np.float32]]
    expected: NDArray[np.float32]


class _Bench:
    """The network at hand; another one takes its place."""

    def __init__(self) -> None:
        self._prepared: Prepared | None = None

    def prepare(self, name: str) -> Prepared:
        if self._prepared is None or self._prepared.network.name != name:
            self._prepared = None
            gc.collect()
            network = zoo.NETWORKS[name]
            model = network.build()
            feed = {network.input_name: zoo.reference_input(network)}
            expected = Rival(model).run(feed)[network.output_name]
            self._prepared = Prepared(network, load_graph(model), feed, expected)
        return self._prepared


@pytest.fixture(scope="module")
def bench() -> Iterator[_Bench]:
    yield _Bench()


@pytest.mark.parametrize(("name", "budget"), CASES)
def test_network_is_right_within_budget(bench: _Bench, name: str, budget: int) -> None:
    prepared = bench.prepare(name)
    bundle = compile_graph(prepared.graph, budget, KEY)
    with tinytee.Session(bundle, key=KEY) as session:
        found = session.run(prepared.feed)[prepared.network.output_name]
        measured = session.stats.peak_secure_memory_bytes
    assert found.shape == prepared.expected.shape
    assert largest_error(found, prepared.expected) <= TOLERANCE
    assert measured == bundle.peak_secure_memory_bytes <= budget


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in zoo.NETWORKS if name not in HEAVY],
)
def test_refusal_names_a_budget_that_works(bench: _Bench, name: str) -> None:
    """The floor is at most what was promised, one byte less is refused, and the floor itself works."""
    prepared = bench.prepare(name)
    with pytest.raises(BudgetError) as refused:
        compile_graph(prepared.graph, 16 * zoo.KIB, KEY)
    floor = refused.value.needed_bytes
    assert refused.value.available_bytes == 16 * zoo.KIB
    assert floor <= prepared.network.floor_bytes, f"needs {format_size(floor)}"
    with pytest.raises(BudgetError):
        compile_graph(prepared.graph, floor - 1, KEY)
    with tinytee.Session(compile_graph(prepared.graph, floor, KEY), key=KEY) as session:
        found = session.run(prepared.feed)[prepared.network.output_name]
    assert largest_error(found, prepared.expected) <= TOLERANCE
