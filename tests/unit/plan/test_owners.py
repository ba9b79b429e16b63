"""Where buffers lie for several threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given

from tinytee import zoo
from tinytee.api import load_graph
from tinytee.plan import owners
from tinytee.plan.api import make_plan
from tinytee.plan.arena import GRAIN_BYTES, NOBODY, Buffer, Settling, Touched, place, settle
from tinytee.plan.layout import lay_out
from tinytee.plan.owners import settled
from tinytee.plan.partition import Choice
from tinytee.plan.profile import load as load_profile
from unit.plan.test_arena import buffers, check_placement

KIB = 1024
CACHE_BYTES = 1 << 20


def halves(count_bytes: int) -> Touched:
    """By two threads that share a map evenly."""
    grains = -(-count_bytes // GRAIN_BYTES)
    who = (np.arange(grains) * 2 >= grains).astype(np.int8)
    return Touched(who, who)


def settling_of(
    items: Sequence[Buffer], offsets: Sequence[int], touched: Sequence[Touched], clocks: Sequence[int]
) -> Settling:
    return Settling(items, offsets, touched, clocks, CACHE_BYTES)


@given(buffers)
def test_settling_overlaps_nothing_and_takes_no_more_memory(items: list[Buffer]) -> None:
    items = [Buffer(f"b{at}", 64 * b.bytes, b.begin, b.end) for at, b in enumerate(items)]
    offsets, peak = place(items)
    touched = [halves(b.bytes) for b in items]
    clocks = [at * 300 * KIB for at in range(17)]
    found = settle(settling_of(items, offsets, touched, clocks))
    check_placement(items, found, peak)
    assert settling_of(items, found, touched, clocks).cost <= settling_of(items, offsets, touched, clocks).cost


def test_a_smaller_map_lies_amid_the_place_of_the_one_before() -> None:
    """So that each of two threads that share both evenly finds its own half."""
    items = [Buffer("a", 512 * KIB, 0, 1), Buffer("b", 384 * KIB, 1, 2), Buffer("c", 256 * KIB, 2, 3)]
    offsets, _ = place(items)
    assert offsets == [0, 512 * KIB, 0]
    found = settle(settling_of(items, offsets, [halves(b.bytes) for b in items], [0] * 5))
    assert found == [0, 512 * KIB, 128 * KIB]


def test_what_no_cache_holds_any_more_is_nobodys() -> None:
    """Another core's is then as far away as one's own, and memory that is still near is better than either."""
    items = [Buffer("a", 256 * KIB, 0, 0), Buffer("b", 256 * KIB, 1, 1), Buffer("c", 256 * KIB, 2, 2)]
    touched = [halves(b.bytes) for b in items]
    offsets = [0, 256 * KIB, 0]
    late = [0, 1 << 20, 2 << 20, 3 << 20]
    assert settle(settling_of(items, offsets, touched, late)) == [0, 0, 0]
    assert settling_of(items, [0, 0, 0], touched, late).cost < settling_of(items, offsets, touched, late).cost


def traced(network: str, budget_bytes: int, threads: int) -> tuple[list[Buffer], list[Touched]]:
    graph = load_graph(zoo.NETWORKS[network].build())
    plan = make_plan(graph, budget_bytes, load_profile().with_threads(threads))
    return list(plan.layout.buffers), owners.touched(plan.network, plan.choices, plan.layout)


def test_threads_share_a_map_by_its_y_planes() -> None:
    graph = load_graph(zoo.NETWORKS["mobilenet_v1_025_128"].build())
    plan = make_plan(graph, 16 << 20, load_profile().with_threads(2))
    touched = owners.touched(plan.network, plan.choices, plan.layout)
    first = plan.network.nodes[1]
    assert first.op is not None
    instance = plan.layout.instances[plan.layout.instance_of[plan_segment(plan.choices, 1), first.output]]
    assert instance.capacity == first.height
    grains = touched[instance.buffer].first
    middle = first.height // 2 * plan.network.tensors[first.output].row_bytes // GRAIN_BYTES
    assert set(grains[:middle]) == {0}
    assert set(grains[middle + 1 :]) == {1}


def plan_segment(choices: Sequence[Choice], node: int) -> int:
    return next(s for s, c in enumerate(choices) if c.segment.first <= node <= c.segment.last)


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("budget_kib", [300, 512, 4096])
def test_every_thread_is_one_that_there_is(threads: int, budget_kib: int) -> None:
    items, touched = traced("mobilenet_v1_025_128", budget_kib << 10, threads)
    for item, grains in zip(items, touched, strict=True):
        assert len(grains.first) == len(grains.last) == -(-item.bytes // GRAIN_BYTES)
        assert set(grains.first) | set(grains.last) <= {NOBODY, *range(threads)}
    assert {thread for grains in touched for thread in grains.last} >= set(range(threads))


@pytest.mark.parametrize("budget_kib", [300, 512, 1024])
def test_a_plan_is_settled_and_as_large_as_before(budget_kib: int) -> None:
    graph = load_graph(zoo.NETWORKS["mobilenet_v1_025_128"].build())
    plan = make_plan(graph, budget_kib << 10, load_profile().with_threads(2))
    unsettled = lay_out(plan.network, plan.choices)
    found = settled(plan.network, plan.choices, unsettled)
    check_placement(found.buffers, found.offsets, unsettled.peak_bytes)
    assert found.peak_bytes == unsettled.peak_bytes
    assert max(o + b.bytes for o, b in zip(found.offsets, found.buffers, strict=True)) <= unsettled.peak_bytes


def test_one_thread_finds_all_its_own() -> None:
    plan = make_plan(load_graph(zoo.NETWORKS["mobilenet_v1_025_128"].build()), 512 << 10, load_profile())
    layout = lay_out(plan.network, plan.choices)
    assert settled(plan.network, plan.choices, layout) is layout
