"""Tampering with a network that the compiler made, at its floor, where weights stream and activations spill."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import tinytee
from tamper.driver import CoreError, core_on
from tinytee import AuthenticationError, Bundle, BundleError, Session
from tinytee.bundle.abi import constants as c
from tinytee.errors import BudgetError
from tinytee.zoo import NETWORKS, reference_input

KEY = bytes(range(60, 92))
NETWORK = NETWORKS["mobilenet_v1_025_128"]
FEED = {NETWORK.input_name: reference_input(NETWORK)}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    model = NETWORK.build()
    with pytest.raises(BudgetError) as refused:
        tinytee.compile(model, 4096, KEY)
    return Bundle.parse(tinytee.compile(model, refused.value.needed_bytes, KEY).to_bytes())


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> np.ndarray:
    with Session(bundle, key=KEY) as session:
        found = session.run(FEED)[NETWORK.output_name]
        assert session.stats.spills > 0
        assert session.stats.fetches > 0
        return found


def test_the_core_alone_gives_the_sessions_answer(bundle: Bundle, expected: np.ndarray) -> None:
    """Through tt_*, outputs gathered by hand."""
    spec = bundle.manifest.inputs[0]
    sample = np.ascontiguousarray(FEED[spec.name][0].transpose(1, 2, 0)).reshape(spec.height, spec.width, spec.channels)
    with core_on(bundle, KEY) as core:
        core.open()
        out = bundle.manifest.outputs[0]
        for _ in range(2):
            core._check(core.library.tt_start(core.engine))
            result = np.zeros((out.height, out.width, out.channels), np.float32)
            while (want := core.poll()).event != c.TT_READY:
                core.serve(want, sample, result)
            np.testing.assert_array_equal(result.ravel(), expected.ravel())
        assert core.library.tt_peak_bytes(core.engine) == bundle.peak_secure_memory_bytes


@pytest.mark.parametrize("name", ["mobilenet_v1_025_128", "shufflenet", "unet_resized"])
def test_no_spill_is_sealed_twice_in_a_run(name: str) -> None:
    """Its nonce names the run and the block: two row blocks under one number would share a nonce."""
    model = NETWORKS[name].build()
    with pytest.raises(BudgetError) as refused:
        tinytee.compile(model, 4096, KEY)
    bundle = tinytee.compile(model, refused.value.needed_bytes, KEY)
    spec, out = bundle.manifest.inputs[0], bundle.manifest.outputs[0]
    sample = np.zeros((spec.height, spec.width, spec.channels), np.float32)
    sealed: list[int] = []
    with core_on(bundle, KEY) as core:
        core.open()
        core._check(core.library.tt_start(core.engine))
        result = np.zeros((out.height, out.width, out.channels), np.float32)
        while (want := core.poll()).event != c.TT_READY:
            if want.event == c.TT_GIVE_SPILL:
                sealed.append(want.index)
            core.serve(want, sample, result)
    assert sorted(sealed) == list(range(len(sealed)))
    assert sealed


def test_sampled_bytes(bundle: Bundle) -> None:
    """The first, the last and some bytes of every chunk, and of the preamble."""
    data = bundle.to_bytes()
    generator = np.random.default_rng(0)
    edges = np.cumsum([0, bundle.preamble.total_bytes, *bundle.preamble.sealed_bytes])
    places = {int(k) for begin, end in pairwise(edges) for k in (begin, end - 1)}
    places |= {int(k) for k in generator.integers(0, len(data), 100)}
    for place in sorted(places):
        changed = bytearray(data)
        changed[place] ^= 1 << int(generator.integers(8))
        with pytest.raises((AuthenticationError, BundleError)), Session(Bundle.parse(changed), key=KEY) as session:
            session.run(FEED)


def test_any_two_chunks_swapped(bundle: Bundle) -> None:
    data = bundle.to_bytes()
    sizes = bundle.preamble.sealed_bytes
    begins = np.cumsum([bundle.preamble.total_bytes, *sizes])
    pairs = [(a, b) for a in range(len(sizes)) for b in range(a) if sizes[a] == sizes[b]]
    assert pairs
    for a, b in pairs[:: max(1, len(pairs) // 40)]:
        swapped = bytearray(data)
        first, second = (slice(begins[k], begins[k] + sizes[k]) for k in (a, b))
        swapped[first], swapped[second] = data[second], data[first]
        with pytest.raises(AuthenticationError), Session(Bundle.parse(swapped), key=KEY) as session:
            session.run(FEED)


def test_every_step_of_a_run_can_be_the_one_that_is_tampered_with(bundle: Bundle) -> None:
    """Whatever is fed, at whatever point: a flipped bit ends the run, and the arena is wiped."""
    spec = bundle.manifest.inputs[0]
    sample = np.ascontiguousarray(FEED[spec.name][0].transpose(1, 2, 0)).reshape(spec.height, spec.width, spec.channels)
    out = bundle.manifest.outputs[0]
    step, ended = 0, False
    while not ended:
        with core_on(bundle, KEY) as core:
            fed = 0

            def tamper(want: object, sealed: bytes, at: int = step) -> bytes:
                nonlocal fed
                fed += 1
                return sealed if fed != at + 1 else bytes([sealed[0] ^ 1]) + sealed[1:]

            core.tamper = tamper
            try:
                core.open()
                core._check(core.library.tt_start(core.engine))
                result = np.zeros((out.height, out.width, out.channels), np.float32)
                while (want := core.poll()).event != c.TT_READY:
                    core.serve(want, sample, result)
                ended = True
            except CoreError as error:
                assert error.status == c.TT_ERROR_AUTHENTICATION
                assert core.is_wiped()
        step += 1
    assert step > len(bundle.preamble.sealed_bytes)
