"""Placement in the arena."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinytee.plan.arena import Buffer, live_peak, place

buffers = st.lists(
    st.builds(
        lambda size, begin, length: Buffer("b", 64 * size, begin, begin + length),
        st.integers(1, 100), st.integers(0, 10), st.integers(0, 5),
    ),
    max_size=30,
)  # fmt: skip


@given(buffers)
def test_no_two_live_buffers_overlap(items: list[Buffer]) -> None:
    offsets, peak = place(items)
    for i, a in enumerate(items):
        assert offsets[i] >= 0 and offsets[i] + a.bytes <= peak
        for j, b in enumerate(items[:i]):
            apart = offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]
            assert apart or a.end < b.begin or b.end < a.begin


@given(buffers)
def test_the_peak_is_at_least_what_lives_at_once(items: list[Buffer]) -> None:
    assert place(items)[1] >= live_peak(items)
