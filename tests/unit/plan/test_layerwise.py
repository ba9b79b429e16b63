"""The baselines that run layer by layer, and what may cross the boundary at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tinytee
from tinytee import BudgetError, UnsupportedModelError, zoo
from tinytee.api import load_graph
from tinytee.bundle import Bundle, Manifest, TensorSpec
from tinytee.bundle.sealing import Unsealed
from tinytee.ir.graph import Graph
from tinytee.plan import profile
from tinytee.plan.api import Plan, lower, make_plan

KEY = bytes(range(32))
PROFILE = profile.load("raspberry-pi-3")


@pytest.fixture(scope="module")
def network() -> zoo.Network:
    return zoo.NETWORKS["mobilenet_v1_025_128"]


@pytest.fixture(scope="module")
def graph(network: zoo.Network) -> Graph:
    return load_graph(network.build())


def run(network: zoo.Network, graph: Graph, plan: Plan) -> tuple[np.ndarray, tinytee.SessionStats]:
    lowered = lower(graph, plan)
    manifest = Manifest(
        inputs=tuple(TensorSpec.of(*port) for port in lowered.inputs),
        outputs=tuple(TensorSpec.of(*port) for port in lowered.outputs),
        budget_bytes=plan.budget_bytes,
    )
    with tinytee.Session(Bundle(unsealed=Unsealed(lowered, manifest, plan.suite, KEY)), key=KEY) as session:
        outputs = session.run({network.input_name: zoo.reference_input(network)})
        return outputs[network.output_name], session.stats


def test_layer_by_layer_without_pinning(network: zoo.Network, graph: Graph) -> None:
    """One layer and one step a segment; every weight is opened in every run; spills where maps do not fit."""
    fused, _ = run(network, graph, make_plan(graph, 1 << 20, PROFILE))
    roomy = make_plan(graph, 8 << 20, PROFILE, schedule="layerwise", pin=False)
    with pytest.raises(BudgetError) as refused:
        make_plan(graph, 64 << 10, PROFILE, schedule="layerwise", pin=False)
    tight = make_plan(graph, refused.value.needed_bytes, PROFILE, schedule="layerwise", pin=False)
    assert tight.peak_secure_memory_bytes <= refused.value.needed_bytes <= roomy.peak_secure_memory_bytes
    for plan in (roomy, tight):
        assert not plan.layout.pinned
        assert all((len(segment.nodes), segment.steps) == (1, 1) for segment in plan.segments)
        found, stats = run(network, graph, plan)
        assert np.abs(found - fused).max() <= 1e-5 * np.ptp(fused)
        weights = sum(node.weight_bytes for node in plan.network.nodes)
        assert stats.chunk_bytes >= weights
    assert not any(segment.spilled for segment in roomy.segments)


def test_windows_bound_what_crosses_at_once(graph: Graph) -> None:
    """Not even one y-plane of the input fits: refused, with the name, both sizes, and what to do."""
    needed = 4 * 128 * 3 + 16
    make_plan(graph, 1 << 20, replace(PROFILE, window_bytes=1 << 20))
    with pytest.raises(UnsupportedModelError, match=f"y-plane of 'input' has {needed:,} bytes.*at most 1,024 cross"):
        make_plan(graph, 1 << 20, replace(PROFILE, window_bytes=1024))


def test_what_does_not_fit_a_window_is_not_spilled(graph: Graph) -> None:
    fits = replace(PROFILE, window_bytes=4016)
    plan = make_plan(graph, 160 << 10, fits)
    spilled = {name for segment in plan.segments for name in segment.spilled}
    rows = {info.name: info.row_bytes for info in plan.network.tensors}
    assert all(rows[name] <= 4016 for name in spilled)
