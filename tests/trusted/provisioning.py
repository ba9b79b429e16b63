"""Keys sealed to the device: what its trusted application opens, and what it refuses."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import tinytee
from tamper.programs import passthrough, passthrough_bundle
from tinytee.bundle.abi import constants
from tinytee.errors import AuthenticationError, EngineError
from tinytee.ir.graph import Quant
from tinytee.ir.quantized import dequantize, quantize
from tinytee.runtime import provisioning
from tinytee.runtime.provisioning import SealedKey
from tinytee.runtime.trusted import TrustedBackend
from tinytee.runtime.wire import ffi, numbers, record
from trusted.support import (
    ACCESS_DENIED,
    BAD_PARAMETERS,
    BAD_STATE,
    COMMANDS,
    KEY,
    REPLY_BYTES,
    SUCCESS,
    Compile,
    Feeder,
    Open,
    answer_here,
    check_close,
    feed_of,
    run,
)

SMALL_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    (325606250916557431795983626356110631294008115727848805560023387167927233504).to_bytes(32, "little"),
    (39382357235489614581723060781553021112529911719440698176882885853963445705823).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
)
"""Points of small order of Curve25519 (RFC 7748, section 6.1): whatever the private key, they agree on zeroes."""


@pytest.fixture
def bundle(compile_network: Compile) -> tinytee.Bundle:
    return compile_network("lenet5", "300KiB")


@pytest.fixture
def session(open_session: Open, bundle: tinytee.Bundle, sealed_key: SealedKey) -> Iterator[TrustedBackend]:
    opened = open_session(bundle, sealed_key)
    yield opened
    opened.close()


def _identify(session: TrustedBackend) -> Any:
    """A fresh challenge, as the normal world gets it."""
    types = COMMANDS[numbers.TTA_IDENTITY]
    slots = [(ffi.sizeof("tta_identity"), 1), (0, 0), (REPLY_BYTES, 1), (0, 0)]
    result, written = session.invoke(numbers.TTA_IDENTITY, types, slots)
    assert result.result == SUCCESS
    return record("tta_identity", written)


def _open(session: TrustedBackend, preamble: bytes, opening: bytes) -> tuple[int, int]:
    """The call's result, and the core's status in its reply."""
    slots = [(len(preamble), 1), (len(opening), 1), (REPLY_BYTES, 1), (0, 0)]
    result, written = session.invoke(numbers.TTA_OPEN, COMMANDS[numbers.TTA_OPEN], slots, preamble + opening)
    return int(result.result), record("tta_reply", written).status if result.result == SUCCESS else -1


def _preamble(bundle: tinytee.Bundle) -> bytes:
    return bytes(bundle.sealed()[: bundle.preamble.total_bytes])


def _opening(session: TrustedBackend, sealed_key: SealedKey, preamble: bytes) -> bytes:
    return provisioning.make_opening(sealed_key, _identify(session), preamble, secrets.token_bytes(32))


@pytest.mark.filterwarnings("error:.* in development mode")
@pytest.mark.parametrize("suite", ["chacha20-poly1305", "aes-256-gcm"])
def test_round_trip(
    backend_name: str, compile_network: Compile, tmp_path: Path, sealed_key: SealedKey, tolerance: float, suite: str
) -> None:
    bundle = compile_network("mobilenet_v1_025_128", "300KiB", suite)
    path = tmp_path / "device.key"
    path.write_bytes(sealed_key.record)
    feed = feed_of("mobilenet_v1_025_128")
    expected = answer_here(bundle, feed)
    for given in (path, str(path), sealed_key, sealed_key.record):
        with tinytee.Session(bundle, sealed_key=given, backend=backend_name) as there:
            (found,) = there.run(feed).values()
            check_close(found.reshape(-1), expected, tolerance)


def test_another_devices_key(open_session: Open, bundle: tinytee.Bundle, sealed_key: SealedKey) -> None:
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    foreign = tinytee.provision(KEY, other)
    here = provisioning.fingerprint(sealed_key.device_key)
    with pytest.raises(AuthenticationError, match=f"for device .*, this is device {here}.*'tinytee provision'"):
        open_session(bundle, foreign)


def test_a_foreign_key_that_is_relabelled(open_session: Open, bundle: tinytee.Bundle, sealed_key: SealedKey) -> None:
    """Sealed to another device, but claiming to be for this one."""
    foreign = bytearray(tinytee.provision(KEY, X25519PrivateKey.generate().public_key().public_bytes_raw()).record)
    foreign[8:40] = sealed_key.device_key
    with pytest.raises(AuthenticationError, match="the sealed key is not for this device or not this bundle's key"):
        open_session(bundle, SealedKey.parse(bytes(foreign)))


def test_another_models_key(open_session: Open, bundle: tinytee.Bundle, sealed_key: SealedKey) -> None:
    other = tinytee.provision(bytes(32), sealed_key.device_key)
    with pytest.raises(AuthenticationError, match="not this bundle's key"):
        open_session(bundle, other)


def test_changed_sealed_key(session: TrustedBackend, bundle: tinytee.Bundle, sealed_key: SealedKey) -> None:
    """A flipped bit anywhere in what the normal world carries is refused; afterwards all is well."""
    preamble = _preamble(bundle)
    size = ffi.sizeof("tta_opening")
    for place in (0, 4, 8, 39, 40, 71, 72, 103, 104, 119, 120, 151, 152, 183, 184, 215, 216, size - 1):
        opening = bytearray(_opening(session, sealed_key, preamble))
        opening[place] ^= 0x10
        assert _open(session, preamble, bytes(opening)) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION), place
    assert _open(session, preamble, _opening(session, sealed_key, preamble)) == (SUCCESS, constants.TT_OK)


def test_replayed_opening(session: TrustedBackend, bundle: tinytee.Bundle, sealed_key: SealedKey) -> None:
    """An I/O key is good for one opening: else outputs of two runs would be sealed under one nonce."""
    preamble = _preamble(bundle)
    opening = _opening(session, sealed_key, preamble)
    assert _open(session, preamble, opening) == (SUCCESS, constants.TT_OK)
    assert _open(session, preamble, opening) == (BAD_STATE, -1)  # the challenge is spent
    _identify(session)
    assert _open(session, preamble, opening) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)
    first = _opening(session, sealed_key, preamble)
    _identify(session)  # a newer challenge takes the place of the older
    assert _open(session, preamble, first) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)


def test_opening_for_another_session(
    open_session: Open, session: TrustedBackend, bundle: tinytee.Bundle, sealed_key: SealedKey
) -> None:
    preamble = _preamble(bundle)
    other = open_session(bundle, sealed_key)
    opening = _opening(other, sealed_key, preamble)
    _identify(session)
    assert _open(session, preamble, opening) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)
    assert _open(other, preamble, opening) == (SUCCESS, constants.TT_OK)
    other.close()


def test_opening_for_another_bundle(
    session: TrustedBackend, bundle: tinytee.Bundle, compile_network: Compile, sealed_key: SealedKey
) -> None:
    """Of the same model key: the client's I/O key is for the bundle that the client has seen."""
    mine, other = _preamble(bundle), _preamble(compile_network("lenet5", "310KiB"))
    assert _open(session, other, _opening(session, sealed_key, mine)) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)
    assert _open(session, other, _opening(session, sealed_key, other)) == (SUCCESS, constants.TT_OK)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_points_of_small_order(
    session: TrustedBackend, bundle: tinytee.Bundle, sealed_key: SealedKey, point: bytes
) -> None:
    """They would make the shared secret known to everybody. Refused, and no panic."""
    preamble = _preamble(bundle)
    for place, ignored in ((40, 0), (152, 0), (152, 0x80)):
        opening = bytearray(_opening(session, sealed_key, preamble))
        opening[place : place + 32] = point
        opening[place + 31] |= ignored
        assert _open(session, preamble, bytes(opening)) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)


def test_lengths_of_openings(session: TrustedBackend, bundle: tinytee.Bundle, sealed_key: SealedKey) -> None:
    preamble = _preamble(bundle)
    opening = _opening(session, sealed_key, preamble)
    for size in (0, 1, 63, 65, len(opening) - 1, len(opening) + 1):
        assert _open(session, preamble, (opening + b"\0")[:size])[0] == BAD_PARAMETERS


def test_feeder_alone(feeder: Feeder, bundle: tinytee.Bundle, sealed_key: SealedKey, tolerance: float) -> None:
    """tinytee-feeder without Python: its answer is the process backend's, and its errors are one line each."""
    feed = feed_of("lenet5")
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    for name, content in (
        ("model.tt", bundle.to_bytes()),
        ("device.key", sealed_key.record),
        ("other.key", tinytee.provision(KEY, other).record),
        ("image.f32", feed["input"].astype("<f4").tobytes()),
    ):
        (feeder.folder / name).write_bytes(content)
    arguments = ("--input", "image.f32", "--output", "answer.f32")
    status, said = feeder.run("model.tt", "--sealed-key", "device.key", *arguments)
    assert status == 0, said
    assert "inputs and outputs are known to the normal world" in said
    check_close(np.fromfile(feeder.folder / "answer.f32", "<f4"), answer_here(bundle, feed), tolerance)
    status, said = feeder.run("model.tt", "--sealed-key", "other.key", *arguments)
    assert (status, said.count("another device")) == (1, 1)
    status, said = feeder.run("model.tt", "--sealed-key", "model.tt", *arguments)
    assert (status, said.count("not a sealed key")) == (1, 1)


def test_feeder_alone_takes_floats(feeder: Feeder, sealed_key: SealedKey) -> None:
    """Of a network whose inputs and outputs are bytes."""
    lowered = passthrough(quant=Quant(0.5, 120))
    bundle = passthrough_bundle(KEY, "chacha20-poly1305", lowered=lowered)
    values = np.random.default_rng(5).normal(0, 40, 105).astype("<f4")
    for name, content in (
        ("model.tt", bundle.to_bytes()),
        ("device.key", sealed_key.record),
        ("x.f32", values.tobytes()),
    ):
        (feeder.folder / name).write_bytes(content)
    arguments = ("--sealed-key", "device.key", "--input", "x.f32", "--output", "y.f32", "--runs", "2")
    status, said = feeder.run("model.tt", *arguments)
    assert status == 0, said
    expected = dequantize(quantize(values, Quant(0.5, 120)), Quant(0.5, 120))
    np.testing.assert_array_equal(np.fromfile(feeder.folder / "y.f32", "<f4"), expected)


def test_production_refuses_plain_keys(
    open_production: Open, bundle: tinytee.Bundle, production_key: SealedKey
) -> None:
    with (
        pytest.warns(RuntimeWarning, match="development mode"),
        pytest.raises(EngineError, match=r"takes sealed keys only: .*'tinytee provision'"),
    ):
        open_production(bundle, KEY)
    session = open_production(bundle, production_key)
    assert _open(session, _preamble(bundle), KEY + bytes(32)) == (ACCESS_DENIED, -1)
    session.close()


@pytest.mark.parametrize("suite", ["chacha20-poly1305", "aes-256-gcm"])
def test_networks_in_production(
    open_production: Open, compile_network: Compile, production_key: SealedKey, tolerance: float, suite: str
) -> None:
    """Spills included."""
    bundle = compile_network("mobilenet_v1_025_128", "140KiB", suite)
    feed = feed_of("mobilenet_v1_025_128")
    expected = answer_here(bundle, feed)
    session = open_production(bundle, production_key)
    for _ in range(2):
        check_close(run(session, feed), expected, tolerance)
    assert session.stats().spills > 0
    session.close()
