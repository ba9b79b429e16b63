"""Rounds in which the machine was not steady are measured again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import pytest

from tinytee.zoo import rival
from tinytee.zoo.rival import measure_side_by_side
from tinytee.zoo.steady import Steady


def probe(answers: Iterator[bool]) -> Callable[[], bool]:
    return lambda: next(answers)


def contenders(calls: list[str]) -> dict[str, Callable[[], object]]:
    return {name: lambda name=name: calls.append(name) for name in ("ours", "theirs")}


def test_without_a_probe_every_round_counts() -> None:
    calls: list[str] = []
    found = measure_side_by_side(contenders(calls), rounds=4)
    assert calls == ["ours", "theirs"] * 5
    assert found.steady_rounds == 0
    assert [len(seconds) for seconds in found.seconds.values()] == [4, 4]


def test_a_disturbed_round_is_measured_again() -> None:
    calls: list[str] = []
    # Before and after each call of a round: the first round is disturbed after its second call.
    answers = iter([True, True, True, False] + [True] * 40)
    found = measure_side_by_side(contenders(calls), rounds=3, steady=probe(answers))
    assert calls == ["ours", "theirs"] * 5
    assert found.steady_rounds == 3
    assert [len(seconds) for seconds in found.seconds.values()] == [3, 3]


def test_calls_wait_for_the_machine_to_be_steady() -> None:
    calls: list[str] = []
    answers = iter([False] * 50 + [True] * 100)
    found = measure_side_by_side(contenders(calls), rounds=3, steady=probe(answers))
    assert (calls, found.steady_rounds) == (["ours", "theirs"] * 4, 3)


def test_if_it_never_is_all_rounds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rival, "STEADY_PROBES", 2)
    calls: list[str] = []
    found = measure_side_by_side(contenders(calls), rounds=3, steady=lambda: False)
    assert found.steady_rounds == 0
    assert [len(seconds) for seconds in found.seconds.values()] == [30, 30]


def test_tries_are_bounded() -> None:
    calls: list[str] = []
    found = measure_side_by_side(contenders(calls), rounds=4, steady=lambda: False, most_tries=2)
    assert [len(seconds) for seconds in found.seconds.values()] == [8, 8]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_probe_compares_with_good_ones_that_it_has_seen(threads: int) -> None:
    steady = Steady(threads)
    steady._seen, steady._alone = deque([60.0] * 100, maxlen=100), 60.0
    assert steady()
    assert len(steady._seen) == 100
    assert min(steady._seen) < 60.0
    steady._seen = deque([1e-9] * 100, maxlen=100)
    assert not steady()


def test_a_single_best_probe_does_not_make_all_others_bad() -> None:
    steady = Steady(1)
    steady._seen, steady._alone = deque([1e-9] + [60.0] * 99), 60.0
    assert steady()


def test_threads_that_share_a_core_are_never_steady() -> None:
    steady = Steady(1)
    steady._alone = 1e-9
    assert not steady()
