"""Placement in the arena."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytee import zoo
from tinytee.api import load_graph
from tinytee.plan import arena
from tinytee.plan.api import make_plan
from tinytee.plan.arena import Buffer, live_peak, place
from tinytee.plan.layout import lay_out
from tinytee.plan.lower import lower
from unit.plan.oracle import Oracle

buffers = st.lists(
    st.builds(
        lambda size, begin, length: Buffer("b", 64 * size, begin, begin + length),
        st.integers(1, 100), st.integers(0, 10), st.integers(0, 5),
    ),
    max_size=30,
)  # fmt: skip


def check_placement(items: Sequence[Buffer], offsets: Sequence[int], peak: int) -> None:
    for i, a in enumerate(items):
        assert offsets[i] >= 0 and offsets[i] + a.bytes <= peak
        for j, b in enumerate(items[:i]):
            apart = offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]
            assert apart or a.end < b.begin or b.end < a.begin


@given(buffers)
def test_no_two_live_buffers_overlap(items: list[Buffer]) -> None:
    check_placement(items, *place(items))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_pinning_takes_no_more_than_what_is_pinned(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Also where what is left of the buffers is placed less closely than they were."""
    plan = make_plan(load_graph(zoo.NETWORKS["mobilenet_v1_025_128"].build()), 300 << 10)
    unpinned = lay_out(plan.network, plan.choices)
    monkeypatch.setattr(arena, "place", _stacked)
    nodes = [number for number, node in enumerate(plan.network.nodes) if node.weight_bytes][::every]
    pinned_bytes = sum(plan.network.nodes[node].weight_bytes for node in nodes)
    assert lay_out(plan.network, plan.choices, frozenset(nodes)).peak_bytes > unpinned.peak_bytes + pinned_bytes
    found = lay_out(plan.network, plan.choices, frozenset(nodes), unpinned)
    assert found.peak_bytes == unpinned.peak_bytes + pinned_bytes
    check_placement(found.buffers, found.offsets, found.peak_bytes)
    lowered = lower(plan.network, plan.choices, found)
    assert Oracle(lowered).run() <= lowered.arena_bytes


def _stacked(items: Sequence[Buffer]) -> tuple[list[int], int]:
    ends = list(itertools.accumulate((item.bytes for item in items), initial=0))
    return ends[:-1], ends[-1]


@given(buffers)
def test_the_peak_is_at_least_what_lives_at_once(items: list[Buffer]) -> None:
    assert place(items)[1] >= live_peak(items)
