"""Authenticated programs that break a rule of loops or spills: the validator refuses each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tamper.driver import CoreError, core_on
from tamper.programs import SMALL, passthrough, passthrough_bundle
from tinytee.bundle.abi import constants as c

KEY = bytes(range(32, 64))
SPILLS, FETCHES = 5, 9
"""Where the two loops begin, in words: three inputs stand behind two loads."""


def word(code: int, index: int, arg: int) -> dict[str, int]:
    return {"bits": code | index << c.TT_INSTR_INDEX_SHIFT | arg << c.TT_INSTR_ARG_SHIFT}


def put(at: int, *words: dict[str, int]) -> Callable[[dict[str, Any]], None]:
    def change(records: dict[str, Any]) -> None:
        records["instrs"][at : at + len(words)] = words

    return change


def put_all(**fields: dict[str, int]) -> Callable[[dict[str, Any]], None]:
    """Fields of the head, of the part, of the only spill, or of the first tensor."""

    def change(records: dict[str, Any]) -> None:
        for name, changed in fields.items():
            (records[name] if name in ("head", "part") else records[name][0]).update(changed)

    return change


def two_maps(tag: int, tag_count: int) -> Callable[[dict[str, Any]], None]:
    """The second tensor's row blocks leave, too, before the first's come back there: into places from 'tag' on."""

    def change(records: dict[str, Any]) -> None:
        records["head"]["spill_count"] = 2
        records["head"]["tag_count"] = tag_count
        records["head"]["data_offset"] += 64
        records["head"]["arena_bytes"] += 64
        for name in ("tensors", "loads"):
            for record in records[name]:
                record["offset"] += 64
        records["spills"].append({**records["spills"][0], "first": 3, "tag": tag})
        records["tensors"].append({**records["tensors"][1], "home": 2})
        records["part"]["tensor_count"] = 3
        repeat, adds = word(c.TT_INSTR_REPEAT, 1, 3), {"bits": 1}
        records["instrs"][SPILLS + 3 : SPILLS + 3] = [repeat, word(c.TT_INSTR_SPILL, 2, 0), adds]
        records["part"]["instr_count"] += 3

    return change


BAD_LOOPS = {
    "empty": put(SPILLS, word(c.TT_INSTR_REPEAT, 0, 3)),
    "never": put(SPILLS, word(c.TT_INSTR_REPEAT, 1, 0)),
    "longer than the program": put(SPILLS, word(c.TT_INSTR_REPEAT, 4000, 3)),
    "cut short": lambda records: (records["instrs"].append(word(c.TT_INSTR_REPEAT, 1, 2)), grow(records)),
    "in a loop": put(SPILLS + 1, word(c.TT_INSTR_REPEAT, 1, 1)),
    "of loads": put(SPILLS + 1, word(c.TT_INSTR_LOAD, 0, 0)),
    "that stands still": put(SPILLS + 2, {"bits": 0}),
    "too often": put(SPILLS, word(c.TT_INSTR_REPEAT, 1, 4)),
    "too far": put(SPILLS + 2, {"bits": 0xFFFF}),
    "during setup": put_all(head={"setup_count": 8}),
    "shorter than the setup": put_all(head={"setup_count": 1 << 20}),
    "followed by a part": put_all(part={"next_chunk": 1, "next_bytes": 256}),
}


def grow(records: dict[str, Any]) -> None:
    """Room for one more instruction; 64 bytes, that all else stays aligned."""
    records["part"]["instr_count"] += 1
    for record in (records["head"], *records["tensors"], *records["loads"]):
        for field in ("offset", "data_offset", "arena_bytes"):
            if field in record:
                record[field] += 64


BAD_SPILLS = {
    "of no rows": put_all(spills={"rows": 0}),
    "of another height": put_all(spills={"height": SMALL.height - 1}),
    "numbered as others are": put_all(spills={"first": 1}),
    "whose tags have no place": put_all(spills={"tag": 1}),
    "whose tags lie beyond": put_all(head={"tag_count": 1 << 20}),
    "beside counters that lie beyond": put_all(head={"kept_count": 1 << 20}),
    "of no record": put_all(tensors={"home": 2}),
    "of a tensor that stays": put_all(tensors={"home": 0}),
    "twice": put(SPILLS + 2, {"bits": 0}, word(c.TT_INSTR_SPILL, 0, 0)),
    "out of order": put(SPILLS + 1, word(c.TT_INSTR_SPILL, 0, 1)),
    "fetched from another place": put(FETCHES + 1, word(c.TT_INSTR_FETCH, 1, 1)),
    "fetched after its tags were lost": two_maps(tag=2, tag_count=5),
}


def opened(change: Callable[[dict[str, Any]], Any]) -> int:
    """The status that opening a changed program ends with."""
    with core_on(passthrough_bundle(KEY, lowered=passthrough(change=change)), KEY) as core:
        try:
            core.open()
        except CoreError as error:
            assert core.is_wiped()
            return error.status
        sample = np.random.default_rng(0).random((SMALL.height, SMALL.width, SMALL.channels), np.float32)
        for _ in range(2):
            np.testing.assert_array_equal(core.run(sample), sample)
    return c.TT_OK


@pytest.mark.parametrize("name", BAD_LOOPS)
def test_a_bad_loop(name: str) -> None:
    assert opened(BAD_LOOPS[name]) == c.TT_ERROR_PROGRAM


@pytest.mark.parametrize("name", BAD_SPILLS)
def test_a_bad_spill(name: str) -> None:
    assert opened(BAD_SPILLS[name]) == c.TT_ERROR_PROGRAM


def test_the_program_as_it_is() -> None:
    assert opened(lambda records: None) == c.TT_OK
