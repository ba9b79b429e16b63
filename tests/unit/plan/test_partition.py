"""A partition is the fastest for every budget between what it takes and what it was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytee import zoo
from tinytee.importer import load
from tinytee.ir.graph import Graph
from tinytee.passes import optimize
from tinytee.plan import profile
from tinytee.plan.api import Planner
from tinytee.plan.network import build, expand
from tinytee.plan.partition import Partition, Partitioner
from tinytee.plan.segments import SegmentTable
from unit.plan.graphs import graphs
from unit.plan.test_plans import quick

LARGEST = 1 << 20


def partitioner_of(graph: Graph, cache_bytes: int) -> Partitioner:
    """Its device has a small cache, and what that does not keep is slow to read: weights are worth opening anew."""
    device = replace(profile.load(), cache_bytes=cache_bytes, far_bytes_per_second=1e8)
    network = build(expand(graph, device, "aegis-256x4"), device, "aegis-256x4", {})
    return Partitioner(network, SegmentTable(network, LARGEST), device, "aegis-256x4")


def seconds_of(partition: Partition | None) -> float:
    return partition.seconds if partition else float("inf")


@quick
@given(graphs(), st.sampled_from([0, 512, 4096]), st.floats(0, 1))
def test_a_partition_holds_for_smaller_budgets_too(graph: Graph, cache_bytes: int, share: float) -> None:
    partitioner = partitioner_of(graph, cache_bytes)
    budget_bytes, found = LARGEST, partitioner.partition(LARGEST)
    while found:
        assert found.bytes <= budget_bytes
        between = found.bytes + int(share * (budget_bytes - found.bytes))
        for again in (partitioner.partition(between), partitioner.partition(found.bytes)):
            assert again is not None
            assert seconds_of(again) == pytest.approx(seconds_of(found), rel=1e-12)
        budget_bytes = found.bytes - 1
        less = partitioner.partition(budget_bytes)
        assert seconds_of(less) >= seconds_of(found) * (1 - 1e-12)
        found = less


@quick
@given(graphs(), st.sampled_from([0, 4096]), st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_other_budgets_asked_for_before_change_nothing(graph: Graph, cache_bytes: int, shares: list[float]) -> None:
    asked = partitioner_of(graph, cache_bytes)
    for budget_bytes in [LARGEST, *(int(LARGEST * share**4) for share in shares)]:
        found, alone = asked.partition(budget_bytes), partitioner_of(graph, cache_bytes).partition(budget_bytes)
        assert (found and (found.choices, found.bytes)) == (alone and (alone.choices, alone.bytes))


def test_what_saves_most_time_for_a_byte_is_pinned_first() -> None:
    """Small weights that are alone in a segment, before large ones: without them a run needs a chunk less."""
    graph = optimize(load(zoo.NETWORKS["mobilenet_v2"].build()))
    planner = Planner(graph, profile.load(), None, 4 << 20)
    variant = planner._variants[0][1]
    best = variant.best(4 << 20)
    assert best is not None
    assert best.pinned
    worth = variant._worth_pinning(best.placed.choices)
    size = {node: variant.network.nodes[node].weight_bytes for _, node in worth}
    rates = [seconds / size[node] for seconds, node in worth]
    assert rates == sorted(rates, reverse=True)
    saved = sum(seconds for seconds, node in worth if node in best.pinned)
    assert best.seconds == pytest.approx(sum(choice.seconds for choice in best.placed.choices) - saved)
    alone = {
        c.segment.first for c in best.placed.choices if c.segment.first == c.segment.last and not c.weights.streamed
    }
    small, large = min(alone & size.keys(), key=size.__getitem__), max(alone & size.keys(), key=size.__getitem__)
    assert [node for _, node in worth if node in (small, large)] == [small, large]
