"""Threads that share a run change its time, and nothing else."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from tinytee import AuthenticationError, Bundle, Session
from tinytee.api import compile_graph
from tinytee.ir.graph import (
    Activation,
    Conv,
    DepthwiseConv,
    Graph,
    Op,
    Permute,
    Pool,
    Port,
    Reduce,
    Shape,
    Softmax,
)
from tinytee.ir.reference import evaluate
from tinytee.plan import profile
from tinytee.plan.api import lower, make_plan
from tinytee.plan.weights import PIECE_BYTES

KEY = bytes(range(32))
BUDGETS = (700 * 1024, 2 << 20, 16 << 20)
INPUT = np.random.default_rng(0).standard_normal((1, 57, 46, 40)).astype(np.float32)


def network() -> Graph:
    """Every way in which work is shared, each large enough to be: convolutions of one and of several panels, of groups,
    by Winograd's method, in blocks of panels and of their rows; row by row operators; a fully connected layer."""
    rng = np.random.default_rng(1)
    shapes, ops = {"x": Shape(46, 40, 57)}, []

    def weight(*extents: int) -> Any:
        return (rng.standard_normal(extents) / np.sqrt(np.prod(extents[1:]))).astype(np.float32)

    def add(made: type[Op], output: str, shape: Shape, *inputs: str, **fields: Any) -> None:
        shapes[output] = shape
        ops.append(made(name=output, inputs=inputs, output=output, **fields))

    def conv(output: str, shape: Shape, source: str, side: int, *more: str, **fields: Any) -> None:
        depth = shapes[source].channels // fields.get("groups", 1)
        pads = (side // 2,) * 4
        count = shape.channels
        kernel = weight(count, side, side, depth)
        add(Conv, output, shape, source, *more, weight=kernel, bias=weight(count), pads=pads, **fields)

    map96, half = Shape(46, 40, 96), Shape(23, 20, 96)
    conv("narrow", Shape(46, 40, 20), "x", 3, activation=Activation("relu"))
    conv("wide", map96, "narrow", 5, activation=Activation("hard_swish"))
    conv("residual", map96, "wide", 3, "wide", activation=Activation("clip", -1.0, 1.0))
    pads, depthwise = (1, 1, 1, 1), weight(3, 3, 96)
    add(DepthwiseConv, "depthwise", map96, "residual", weight=depthwise, bias=weight(96), pads=pads)
    add(Pool, "pool", half, "depthwise", kind="max", kernel=(2, 2), strides=(2, 2))
    conv("groups", half, "pool", 3, groups=2, activation=Activation("tanh"))
    conv("large", Shape(23, 20, 160), "groups", 3)
    dims, strides = (23, 160, 20), (20 * 160, 1, 160)
    add(Permute, "turned", Shape(23, 160, 20), "large", dims=dims, strides=strides)
    conv("last", Shape(23, 160, 48), "turned", 1)
    add(Softmax, "soft", Shape(23, 160, 48), "last")
    add(Reduce, "mean", Shape(1, 1, 48), "soft", kind="mean")
    conv("dense", Shape(1, 1, 10_000), "mean", 1)
    ports = Port("x", "x", (1, 57, 46, 40), "float32", (0, 2, 3, 1), True)
    result = Port("y", "dense", (1, 10_000, 1, 1), "float32", (0, 2, 3, 1), True)
    return Graph((ports,), (result,), shapes, tuple(ops))


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return evaluate(network(), {"x": INPUT})["y"]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("isa", ["portable", None])
def test_any_number_of_threads_gives_the_same_bits(budget: int, isa: str | None, expected: np.ndarray) -> None:
    bundle = compile_graph(network(), budget, KEY, threads=5)
    answers = []
    for threads in (1, 2, 5):
        with Session(bundle, key=KEY, isa=isa, threads=threads) as session:
            answers += [session.run({"x": INPUT})["y"] for _ in range(3)]
            assert session.stats.peak_secure_memory_bytes == bundle.peak_secure_memory_bytes <= budget
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    np.testing.assert_allclose(answers[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_sessions_with_threads_live_side_by_side() -> None:
    bundle = compile_graph(network(), 2 << 20, KEY, threads=2)
    answers: list[np.ndarray] = []

    def work() -> None:
        with Session(bundle, key=KEY) as session:
            answers.extend(session.run({"x": INPUT})["y"] for _ in range(4))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(answers) == 12
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize("opened", ["before", "as used"])
def test_a_flipped_bit_in_any_piece_ends_the_run(opened: str) -> None:
    """Chunks that threads open together are sealed in pieces, whether these are opened before they are used, or by
    whoever uses them: each is authenticated, and bound to its place."""
    plan = make_plan(network(), 2 << 20, profile.load().with_threads(2))
    sizes = lower(network(), plan).piece_bytes
    alike = [k for k, size in enumerate(sizes, 1) if (size == PIECE_BYTES) == (opened == "before")]
    sealed = compile_graph(network(), 2 << 20, KEY, threads=2).to_bytes()
    preamble = Bundle.parse(sealed).preamble
    largest = max(alike, key=lambda k: preamble.sealed_bytes[k])
    piece = sizes[largest - 1] + 16
    assert preamble.sealed_bytes[largest] >= 3 * piece
    begin = preamble.total_bytes + int(sum(preamble.sealed_bytes[:largest]))
    end = begin + preamble.sealed_bytes[largest]
    for at in (begin, begin + piece + 5, begin + 2 * piece - 1, end - piece + 3, end - 1):
        changed = bytearray(sealed)
        changed[at] ^= 1
        refuse(bytes(changed))
    first, second = slice(begin, begin + piece), slice(begin + piece, begin + 2 * piece)
    swapped = bytearray(sealed)
    swapped[first], swapped[second] = sealed[second], sealed[first]
    refuse(bytes(swapped))


def refuse(sealed: bytes) -> None:
    with pytest.raises(AuthenticationError), Session(Bundle.parse(sealed), key=KEY, threads=2) as session:
        session.run({"x": INPUT})


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_odd_numbers_of_threads_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        compile_graph(network(), 2 << 20, KEY, threads=threads)
    with pytest.raises(ValueError, match="threads"):
        Session(compile_graph(network(), 2 << 20, KEY), key=KEY, threads=min(threads, 0))


def test_a_profile_of_threads_is_faster_and_comes_back() -> None:
    one = profile.load()
    four = one.with_threads(4)
    assert four.fma_seconds < one.fma_seconds / 3
    assert four.step_seconds > one.step_seconds
    back = four.with_threads(1)
    assert back.threads == 1
    assert back.fma_seconds == pytest.approx(one.fma_seconds)
    assert back.step_seconds == pytest.approx(one.step_seconds)
