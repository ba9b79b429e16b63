"""Entropy-coded weights: the same answers, in fewer bytes, where that is faster."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from rich.console import Console

from tinytee import Bundle, BundleError, Session, zoo
from tinytee.api import compile_graph
from tinytee.bundle.sealing import Unsealed
from tinytee.importer import load
from tinytee.ir.graph import Conv, Graph
from tinytee.passes import code_weights as coding_pass
from tinytee.passes import optimize
from tinytee.passes.code_weights import code_weights
from tinytee.plan import api, entropy, profile, weights
from tinytee.plan.api import Planner, lower, make_plan
from tinytee.report import bundle_table
from unit.plan.graphs import graphs
from unit.plan.oracle import Oracle
from unit.plan.test_coded_weights import dense
from unit.plan.test_plans import ISAS, KEY, PROFILE, budgets_of, quick

SLOW_AEAD = replace(PROFILE, aead_bytes_per_second={PROFILE.suite: 2e6})


@pytest.fixture(autouse=True)
def code_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding_pass, "LEAST_WEIGHTS", 1)


def pruned(rng: np.random.Generator, outputs: int, inputs: int, share: float = 0.8) -> np.ndarray:
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
    weight[rng.random(weight.shape) < share] = 0
    return weight


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("group", [2, 32, 256])
@pytest.mark.parametrize("isa", ISAS)
def test_the_core_decodes_to_the_bit(kind: str, group: int, isa: str | None) -> None:
    """One input at a time is one: each output is one weight, as the codes say. In parts of a panel, and whole."""
    weight = pruned(np.random.default_rng(group), 70, 2100)
    graph = dense(weight, kind, group)
    probed = [0, 1, 31, 1023, 1024, 2047, 2099]
    inputs = np.zeros((len(probed), 2100), np.float32)
    inputs[range(len(probed)), probed] = 1
    for budget in (96 << 10, 1 << 20):
        bundle = compile_graph(graph, budget, KEY, entropy="always")
        assert bundle.plan.entropy_coded == ("dense",)
        with Session(bundle, key=KEY, isa=isa) as session:
            found = session.run({"x": inputs})["y"]
        np.testing.assert_array_equal(found, graph.ops[0].coding.decoded().T[probed])  # type: ignore[attr-defined]


@settings_of(parent=quick, max_examples=40)
@given(
    graphs(),
    st.sampled_from(["int8", "int4"]),
    st.sampled_from([2, 6, 32, 256]),
    st.floats(0, 1),
    st.floats(0, 0.99),
    st.sampled_from(ISAS),
    st.integers(0, 99),
)
def test_answers_are_the_same_to_the_bit(
    graph: Graph, kind: str, group: int, share: float, zeros: float, isa: str | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ops = [
        replace(op, weight=np.where(rng.random(op.weight.shape) < zeros, 0, op.weight)) if isinstance(op, Conv) else op
        for op in graph.ops
    ]
    coded, _ = code_weights(replace(graph, ops=tuple(ops)), kind, group)
    with pytest.MonkeyPatch.context() as patch:  # Winograd's method rounds otherwise
        patch.setattr(api, "METHOD_BYTES", (0,))
        low, high = budgets_of(coded)
        budget = int(low * (high / low) ** share) + (64 << 10)
        inputs = {port.name: rng.standard_normal(port.shape).astype(np.float32) for port in graph.inputs}
        answers = []
        for how in ("never", "always"):
            with Session(compile_graph(coded, budget, KEY, entropy=how), key=KEY, isa=isa) as session:
                session.run(inputs)
                answers.append(session.run(inputs))
        for name, found in answers[0].items():
            np.testing.assert_array_equal(answers[1][name], found)
        lowered = lower(coded, make_plan(coded, budget, PROFILE, entropy="always"))
        assert Oracle(lowered).run() <= lowered.arena_bytes <= budget


def test_threads_share_it() -> None:
    graph = dense(pruned(np.random.default_rng(3), 300, 3000), "int4", 32)
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 3000)).astype(np.float32)}
    answers = []
    for threads in (1, 2):
        bundle = compile_graph(graph, 1 << 20, KEY, entropy="always", threads=threads)
        with Session(bundle, key=KEY, threads=threads) as session:
            answers.append(session.run(inputs)["y"])
    np.testing.assert_array_equal(*answers)


def test_a_bundle_says_so() -> None:
    graph = dense(pruned(np.random.default_rng(3), 70, 900), "int4", 32)
    for how, count in (("never", 0), ("always", 1)):
        bundle = Bundle.parse(compile_graph(graph, 1 << 20, KEY, entropy=entropy.known_entropy(how)).to_bytes())
        assert bundle.manifest.entropy_coded == count
        console = Console(file=io.StringIO(), width=200)
        console.print(bundle_table(bundle, "a bundle"))
        assert ("weights entropy-coded" in console.file.getvalue()) == bool(count)  # type: ignore[attr-defined]


# ---- malformed streams


def spoiled(bundle: Bundle, change: int, value: int) -> Bundle:
    """The same bundle, sealed with a byte of its only chunk of weights changed, as its owner could."""
    unsealed = bundle._unsealed
    assert unsealed is not None
    lowered = unsealed.lowered

    def chunk(number: int) -> bytes:
        data = bytearray(lowered.chunk(number))
        data[change] ^= value
        return bytes(data)

    made = Unsealed(replace(lowered, chunk=chunk), unsealed.manifest, unsealed.suite, unsealed.key)
    return Bundle(unsealed=made, plan=bundle.plan)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_malformed_stream_ends_in_an_error(kind: str, isa: str | None) -> None:
    """Any byte of states, place, words that are read and alphabet: no answer leaves. Others are weights themselves."""
    graph = dense(pruned(np.random.default_rng(7), 16, 600), kind, 32)
    bundle = compile_graph(graph, 256 << 10, KEY, entropy="always")
    op = bundle.plan.network.graph.ops[0]
    assert isinstance(op, Conv)
    assert op.coding is not None
    streams = op.coding.streams
    assert streams is not None
    bias = weights.aligned(weights.small_pieces(op, streams.panel, 0)[0].nbytes)
    alphabet = 4 * streams.panel
    rows, words = min(streams.rows, 600), len(streams.coded[0][0][1])
    first = bias + 4 * streams.panel * -(-rows // 32)
    read = first + 36 + 2 * (streams.words(rows) - words)
    places = [first, first + 13, first + 31, first + 32, first + 35, read, read + words, read + 2 * words - 1]
    occurring = int(np.argmax(streams.alphabet.frequencies))
    places += [alphabet + 32 + occurring, alphabet + 48 + occurring]
    inputs = {"x": np.ones((1, 600), np.float32)}
    for place in places:
        for value in (1, 0x80, 0xFF):
            with (
                Session(spoiled(bundle, place, value), key=KEY, isa=isa) as session,
                pytest.raises(BundleError, match="malformed"),
            ):
                session.run(inputs)


# ---- when it pays


@pytest.fixture(scope="module")
def mobilenet() -> Graph:
    rng = np.random.default_rng(0)
    graph = optimize(load(zoo.NETWORKS["mobilenet_v1_025_128"].build()))
    ops = [
        replace(op, weight=np.where(rng.random(op.weight.shape) < 0.8, 0, op.weight)) if isinstance(op, Conv) else op
        for op in graph.ops
    ]
    return code_weights(replace(graph, ops=tuple(ops)), "int4")[0]


def test_a_slow_cipher_makes_it_pay(mobilenet: Graph) -> None:
    with_it = make_plan(mobilenet, 320 << 10, SLOW_AEAD)
    without = make_plan(mobilenet, 320 << 10, SLOW_AEAD, entropy="never")
    assert with_it.entropy_coded
    assert not without.entropy_coded
    assert with_it.predicted_seconds < without.predicted_seconds


@pytest.mark.parametrize("name", ["x86-64-avx512", "x86-64-avx2", "raspberry-pi-3"])
@pytest.mark.parametrize("suite", ["aes-256-gcm", "chacha20-poly1305"])
def test_no_shipped_profile_gets_slower(mobilenet: Graph, name: str, suite: str) -> None:
    device = profile.load(name)
    for budget in (384 << 10, 2 << 20):
        times = [
            make_plan(mobilenet, budget, device, suite=suite, entropy=how).predicted_seconds
            for how in ("auto", "never")
        ]
        assert times[0] <= times[1]


def test_fast_ciphers_leave_it_off(mobilenet: Graph) -> None:
    assert not make_plan(mobilenet, 512 << 10, PROFILE).entropy_coded


@settings_of(parent=quick, max_examples=6)
@given(graphs(), st.sampled_from(["int8", "int4"]))
def test_it_never_makes_a_plan_slower(graph: Graph, kind: str) -> None:
    coded, _ = code_weights(graph, kind)
    low, high = budgets_of(coded)
    before, after = (Planner(coded, SLOW_AEAD, None, high + 65536, how) for how in ("never", "auto"))
    for share in (0.0, 0.7):
        budget = int(low * (high / low) ** share) + 65536
        assert after.plan(budget).predicted_seconds <= before.plan(budget).predicted_seconds + 1e-12


def test_always_is_smallest(mobilenet: Graph) -> None:
    sizes = [
        sum(lower(mobilenet, make_plan(mobilenet, 16 << 20, PROFILE, entropy=how)).chunk_bytes)
        for how in ("always", "never")
    ]
    assert sizes[0] < 0.75 * sizes[1]


def test_other_ways_are_refused() -> None:
    with pytest.raises(ValueError, match="auto, always or never, not maybe"):
        entropy.known_entropy("maybe")
