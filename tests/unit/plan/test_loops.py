"""Instructions in loops: the same ones, in the same order, in fewer words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinytee.bundle.abi import constants as C
from tinytee.plan.loops import roll, words
from unit.plan.oracle import unroll


def packed(code: int, index: int, arg: int) -> int:
    return code | index << C.TT_INSTR_INDEX_SHIFT | arg << C.TT_INSTR_ARG_SHIFT


def gone_through(rolled: list[int]) -> list[int]:
    return [packed(instr.code, instr.index, instr.arg) for instr in unroll(rolled)]


CODES = (C.TT_INSTR_RUN, C.TT_INSTR_LOAD, C.TT_INSTR_SPILL)
INSTRUCTIONS = st.builds(packed, st.sampled_from(CODES), st.integers(0, 2), st.integers(0, 9))
REPEATED = st.builds(
    lambda body, adds, times: [
        bits + (time * add << C.TT_INSTR_ARG_SHIFT)
        for time in range(times)
        for bits, add in zip(body, adds, strict=False)
    ],
    st.lists(INSTRUCTIONS, min_size=1, max_size=5),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    st.integers(1, 9),
)


@given(st.lists(REPEATED, max_size=6))
def test_a_run_goes_through_the_same_instructions(stretches: list[list[int]]) -> None:
    instrs = [bits for stretch in stretches for bits in stretch]
    rolled = roll(instrs)
    assert gone_through(rolled) == instrs
    assert len(rolled) <= len(instrs)


def test_a_steady_stretch_is_one_loop() -> None:
    body = [(C.TT_INSTR_FETCH, 4, 0, 1), (C.TT_INSTR_RUN, 7, 3, 2), (C.TT_INSTR_SPILL, 5, 1, 1)]
    instrs = [packed(C.TT_INSTR_RUN, 1, 9)]
    instrs += [packed(code, index, first + time * add) for time in range(50) for code, index, first, add in body]
    rolled = roll(instrs)
    assert gone_through(rolled) == instrs
    assert len(rolled) == 1 + words(3)


def test_what_stands_still_or_loads_is_in_no_loop() -> None:
    still = [packed(C.TT_INSTR_OUTPUT, 0, 3)] * 20
    loads = [packed(C.TT_INSTR_LOAD, 0, number) for number in range(20)]
    assert roll(still + loads) == still + loads


def test_nothing() -> None:
    assert roll([]) == []
