"""Programs in parts: what a host may not do with them, and what the validator refuses of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tamper.driver import CoreError, core_on
from tamper.programs import passthrough_bundle
from tinytee.bundle.abi import constants as c
from tinytee.bundle.abi import ffi
from tinytee.ir.graph import Activation, Conv, Graph, Port, Shape, Unary
from tinytee.plan.api import least_budget, make_plan
from tinytee.plan.lower import lower
from tinytee.plan.lowered import Lowered

KEY = bytes(range(32, 64))
SHAPE = Shape(24, 16, 8)


def network() -> Graph:
    """Three convolutions and a residual addition: maps that stay from part to part, and in their least memory leave."""
    rng = np.random.default_rng(0)

    def conv(name: str, *inputs: str) -> Conv:
        weight = (rng.standard_normal((8, 3, 3, 8)) / 8).astype(np.float32)
        return Conv(
            name=name, inputs=inputs, output=name, weight=weight, bias=np.zeros(8, np.float32), pads=(1, 1, 1, 1)
        )

    ops = (
        conv("a", "x"),
        Unary(name="b", inputs=("a",), output="b", activation=Activation("relu")),
        conv("c", "b"),
        conv("d", "c", "b"),
    )
    ports = [Port(n, n, (SHAPE.height, SHAPE.width, SHAPE.channels), "float32", (0, 1, 2), False) for n in "xd"]
    return Graph((ports[0],), (ports[1],), dict.fromkeys("xabcd", SHAPE), ops)


def in_parts() -> Lowered:
    graph = network()
    plan = make_plan(graph, least_budget(graph))
    lowered = lower(plan.network, plan.choices, plan.layout, in_parts=True)
    assert len(lowered.part_bytes) > 2
    return lowered


LOWERED = in_parts()
SAMPLE = np.random.default_rng(1).standard_normal((SHAPE.height, SHAPE.width, SHAPE.channels)).astype(np.float32)


def part_chunks(lowered: Lowered) -> list[int]:
    """Chunk numbers of the parts that a run is fed, as each names the one that follows it."""
    head = ffi.cast("tt_program *", ffi.from_buffer(lowered.program))
    at = ffi.sizeof("tt_program") + ffi.sizeof("tt_spill") * head.spill_count
    found, data = [], lowered.program[at:]
    while following := ffi.cast("tt_part *", ffi.from_buffer(data)).next_chunk:
        found.append(following)
        data = lowered.chunk(following - 1)
    return found


def changed(which: int, change: Callable[[Any, bytearray], None]) -> Lowered:
    """With the part 'which' changed: change gets its counts and its bytes."""
    chunk = part_chunks(LOWERED)[which] - 1
    data = bytearray(LOWERED.chunk(chunk))
    change(ffi.cast("tt_part *", ffi.from_buffer(data)), data)
    return replace(LOWERED, chunk=lambda k: bytes(data) if k == chunk else LOWERED.chunk(k))


def status_of(lowered: Lowered, tamper: Callable[[Any, bytes], bytes] | None = None) -> int:
    """How two runs end."""
    with core_on(passthrough_bundle(KEY, lowered=lowered), KEY) as core:
        core.open()
        if tamper:
            core.tamper = tamper
        try:
            answers = [core.run(SAMPLE) for _ in range(2)]
        except CoreError as error:
            assert core.is_wiped()
            return error.status
    np.testing.assert_array_equal(answers[0], answers[1])
    assert answers[0].any()
    return c.TT_OK


def test_as_it_is() -> None:
    chunks = part_chunks(LOWERED)
    assert chunks == sorted(chunks)
    assert [LOWERED.chunk_bytes[k - 1] for k in chunks] == list(LOWERED.part_bytes)
    assert status_of(LOWERED) == c.TT_OK


def test_its_answer_is_that_of_a_whole_program() -> None:
    graph = network()
    plan = make_plan(graph, least_budget(graph))
    whole = lower(plan.network, plan.choices, plan.layout)
    assert not whole.part_bytes
    assert whole.arena_bytes > LOWERED.arena_bytes
    answers = []
    for lowered in (LOWERED, whole):
        with core_on(passthrough_bundle(KEY, lowered=lowered), KEY) as core:
            core.open()
            answers.append(core.run(SAMPLE))
    np.testing.assert_array_equal(answers[0], answers[1])


def counts(**fields: int) -> Callable[[Any, bytearray], None]:
    def change(part: Any, data: bytearray) -> None:
        for name, value in fields.items():
            setattr(part, name, value)

    return change


def tensor(**fields: int) -> Callable[[Any, bytearray], None]:
    """Fields of the first tensor."""

    def change(part: Any, data: bytearray) -> None:
        record = ffi.cast("tt_tensor *", ffi.from_buffer(data, require_writable=True) + ffi.sizeof("tt_part"))
        for name, value in fields.items():
            setattr(record, name, value)

    return change


BAD_PARTS = {
    "more tensors than it holds": counts(tensor_count=500),
    "fewer instructions than it holds": counts(instr_count=0),
    "an odd number of operands": counts(operand_count=1),
    "that is followed by itself": counts(next_chunk=part_chunks(LOWERED)[0]),
    "that is followed by the program": counts(next_chunk=0),
    "that is followed by what there is not": counts(next_chunk=1 << 20),
    "that is followed by more than its place holds": counts(next_bytes=1 << 20),
    "that writes over the program": tensor(offset=c.TT_ENGINE_BYTES),
    "that writes beyond the arena": tensor(offset=LOWERED.arena_bytes),
    "with a counter that there is not": tensor(home=0xFFFF),
    "that reads a map of which nothing is kept": tensor(home=0),
}


@pytest.mark.parametrize("name", BAD_PARTS)
def test_a_bad_part(name: str) -> None:
    which = len(LOWERED.part_bytes) - 1 if "nothing is kept" in name else 0
    assert status_of(changed(which, BAD_PARTS[name])) in (c.TT_ERROR_PROGRAM, c.TT_ERROR_AUTHENTICATION)


@pytest.mark.parametrize("how", ["flipped", "the first again"])
def test_a_part_that_is_not_the_one(how: str) -> None:
    """Each is sealed as the chunk that it is."""
    chunks = part_chunks(LOWERED)
    seen: list[bytes] = []

    def tamper(want: Any, sealed: bytes) -> bytes:
        if want.event != c.TT_WANT_CHUNK or want.index not in chunks:
            return sealed
        seen.append(sealed)
        if how == "flipped":
            return bytes([sealed[0] ^ 1]) + sealed[1:]
        return sealed if len(seen) == 1 else (seen[0] + bytes(len(sealed)))[: len(sealed)]

    assert status_of(LOWERED, tamper) == c.TT_ERROR_AUTHENTICATION
