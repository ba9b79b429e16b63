"""Keys sealed to the device: what its secure world opens, and what it refuses."""

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
from tinytee.runtime.optee import OpteeBackend
from tinytee.runtime.optee_machine import Build, Machine
from tinytee.runtime.wire import ffi, numbers, record

from .conftest import KEY, Compile, feed_of
from .test_hostile_normal_world import COMMANDS, REPLY_BYTES, SUCCESS

BAD_STATE, ACCESS_DENIED = 0xFFFF0007, 0xFFFF0001
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


@pytest.fixture(scope="module")
def sealed_key(machine: Machine) -> provisioning.SealedKey:
    del machine
    return tinytee.provision(KEY, tinytee.device_key("optee-qemu"))


@pytest.fixture
def session(machine: Machine, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey) -> Iterator[OpteeBackend]:
    opened = OpteeBackend(bundle, sealed_key, machine)
    yield opened
    opened.close()


def _identify(session: OpteeBackend) -> Any:
    """A fresh challenge, as the normal world gets it."""
    types = COMMANDS[numbers.TTA_IDENTITY]
    slots = [(ffi.sizeof("tta_identity"), 1), (0, 0), (REPLY_BYTES, 1), (0, 0)]
    result, written = session.invoke(numbers.TTA_IDENTITY, types, slots)
    assert result.result == SUCCESS
    return record("tta_identity", written)


def _open(session: OpteeBackend, preamble: bytes, opening: bytes) -> tuple[int, int]:
    """The call's result, and the core's status in its reply."""
    slots = [(len(preamble), 1), (len(opening), 1), (REPLY_BYTES, 1), (0, 0)]
    result, written = session.invoke(numbers.TTA_OPEN, COMMANDS[numbers.TTA_OPEN], slots, preamble + opening)
    return int(result.result), record("tta_reply", written).status if result.result == SUCCESS else -1


def _preamble(bundle: tinytee.Bundle) -> bytes:
    return bytes(bundle.sealed()[: bundle.preamble.total_bytes])


def _opening(session: OpteeBackend, sealed_key: provisioning.SealedKey, preamble: bytes) -> bytes:
    return provisioning.make_opening(sealed_key, _identify(session), preamble, secrets.token_bytes(32))


@pytest.mark.filterwarnings("error:OP-TEE in development mode")
@pytest.mark.parametrize("suite", ["chacha20-poly1305", "aes-256-gcm"])
def test_round_trip(compile_network: Compile, tmp_path: Path, sealed_key: provisioning.SealedKey, suite: str) -> None:
    bundle = compile_network("mobilenet_v1_025_128", "300KiB", suite)
    path = tmp_path / "device.key"
    path.write_bytes(sealed_key.record)
    feed = feed_of("mobilenet_v1_025_128")
    with tinytee.Session(bundle, key=KEY) as here:
        expected = here.run(feed)["output"]
    for given in (path, str(path), sealed_key, sealed_key.record):
        with tinytee.Session(bundle, sealed_key=given, backend="optee-qemu") as there:
            assert np.abs(there.run(feed)["output"] - expected).max() <= 1e-5 * np.ptp(expected)


def test_the_identity_outlives_the_machine(machine: Machine, sealed_key: provisioning.SealedKey) -> None:
    with Machine(machine.build) as other:
        assert other.shell("tinytee-feeder --identity") == (0, sealed_key.device_key.hex())


def test_another_devices_key(machine: Machine, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey) -> None:
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    foreign = tinytee.provision(KEY, other)
    here = provisioning.fingerprint(sealed_key.device_key)
    with pytest.raises(AuthenticationError, match=f"for device .*, this is device {here}.*'tinytee provision'"):
        OpteeBackend(bundle, foreign, machine)


def test_a_foreign_key_that_is_relabelled(
    machine: Machine, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey
) -> None:
    """Sealed to another device, but claiming to be for this one."""
    foreign = bytearray(tinytee.provision(KEY, X25519PrivateKey.generate().public_key().public_bytes_raw()).record)
    foreign[8:40] = sealed_key.device_key
    with pytest.raises(AuthenticationError, match="the sealed key is not for this device or not this bundle's key"):
        OpteeBackend(bundle, provisioning.SealedKey.parse(bytes(foreign)), machine)


def test_another_models_key(machine: Machine, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey) -> None:
    other = tinytee.provision(bytes(32), sealed_key.device_key)
    with pytest.raises(AuthenticationError, match="not this bundle's key"):
        OpteeBackend(bundle, other, machine)


def test_changed_sealed_key(session: OpteeBackend, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey) -> None:
    """A flipped bit anywhere in what the normal world carries is refused; afterwards all is well."""
    preamble = _preamble(bundle)
    size = ffi.sizeof("tta_opening")
    for place in (0, 4, 8, 39, 40, 71, 72, 103, 104, 119, 120, 151, 152, 183, 184, 215, 216, size - 1):
        opening = bytearray(_opening(session, sealed_key, preamble))
        opening[place] ^= 0x10
        assert _open(session, preamble, bytes(opening)) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION), place
    assert _open(session, preamble, _opening(session, sealed_key, preamble)) == (SUCCESS, constants.TT_OK)


def test_replayed_opening(session: OpteeBackend, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey) -> None:
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
    machine: Machine, session: OpteeBackend, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey
) -> None:
    preamble = _preamble(bundle)
    other = OpteeBackend(bundle, sealed_key, machine)
    opening = _opening(other, sealed_key, preamble)
    _identify(session)
    assert _open(session, preamble, opening) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)
    assert _open(other, preamble, opening) == (SUCCESS, constants.TT_OK)
    other.close()


def test_opening_for_another_bundle(
    session: OpteeBackend, bundle: tinytee.Bundle, compile_network: Compile, sealed_key: provisioning.SealedKey
) -> None:
    """Of the same model key: the client's I/O key is for the bundle that the client has seen."""
    mine, other = _preamble(bundle), _preamble(compile_network("lenet5", "310KiB"))
    assert _open(session, other, _opening(session, sealed_key, mine)) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)
    assert _open(session, other, _opening(session, sealed_key, other)) == (SUCCESS, constants.TT_OK)


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_points_of_small_order(
    session: OpteeBackend, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey, point: bytes
) -> None:
    """They would make the shared secret known to everybody. Refused, and no panic."""
    preamble = _preamble(bundle)
    for place, ignored in ((40, 0), (152, 0), (152, 0x80)):
        opening = bytearray(_opening(session, sealed_key, preamble))
        opening[place : place + 32] = point
        opening[place + 31] |= ignored
        assert _open(session, preamble, bytes(opening)) == (SUCCESS, constants.TT_ERROR_AUTHENTICATION)


def test_lengths_of_openings(session: OpteeBackend, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey) -> None:
    preamble = _preamble(bundle)
    opening = _opening(session, sealed_key, preamble)
    for size in (0, 1, 63, 65, len(opening) - 1, len(opening) + 1):
        assert _open(session, preamble, (opening + b"\0")[:size])[0] == 0xFFFF0006


def test_feeder_alone(
    machine: Machine, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey, tmp_path: Path
) -> None:
    """tinytee-feeder without Python: its answer is the process backend's, and its errors are one line each."""
    feed = feed_of("lenet5")
    (machine.folder / "model.tt").write_bytes(bundle.to_bytes())
    (machine.folder / "device.key").write_bytes(sealed_key.record)
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    (machine.folder / "other.key").write_bytes(tinytee.provision(KEY, other).record)
    (machine.folder / "image.f32").write_bytes(feed["input"].astype("<f4").tobytes())
    arguments = "--input /host/image.f32 --output /host/answer.f32"
    status, said = machine.shell(f"tinytee-feeder /host/model.tt --sealed-key /host/device.key {arguments}")
    assert status == 0, said
    assert "inputs and outputs are known to the normal world" in said
    with tinytee.Session(bundle, key=KEY) as here:
        expected = here.run(feed)["output"].reshape(-1)
    assert np.abs(np.fromfile(machine.folder / "answer.f32", "<f4") - expected).max() < 1e-5
    status, said = machine.shell(f"tinytee-feeder /host/model.tt --sealed-key /host/other.key {arguments}")
    assert (status, said.count("another device")) == (1, 1)
    status, said = machine.shell(f"tinytee-feeder /host/model.tt --sealed-key /host/model.tt {arguments}")
    assert (status, said.count("not a sealed key")) == (1, 1)
    del tmp_path


def test_feeder_alone_takes_floats(machine: Machine, sealed_key: provisioning.SealedKey) -> None:
    """Of a network whose inputs and outputs are bytes."""
    lowered = passthrough(quant=Quant(0.5, 120))
    bundle = passthrough_bundle(KEY, "chacha20-poly1305", lowered=lowered)
    values = np.random.default_rng(5).normal(0, 40, 105).astype("<f4")
    for name, content in (
        ("model.tt", bundle.to_bytes()),
        ("device.key", sealed_key.record),
        ("x.f32", values.tobytes()),
    ):
        (machine.folder / name).write_bytes(content)
    arguments = "--sealed-key /host/device.key --input /host/x.f32 --output /host/y.f32 --runs 2"
    status, said = machine.shell(f"tinytee-feeder /host/model.tt {arguments}")
    assert status == 0, said
    expected = dequantize(quantize(values, Quant(0.5, 120)), Quant(0.5, 120))
    np.testing.assert_array_equal(np.fromfile(machine.folder / "y.f32", "<f4"), expected)


@pytest.fixture(scope="module")
def production() -> Iterator[Machine]:
    """A trusted application as for a device: no keys in the clear. Its cryptography is BearSSL's."""
    with Machine(Build(crypto="bearssl", is_development=False)) as booted:
        yield booted


def test_production_refuses_plain_keys(
    production: Machine, bundle: tinytee.Bundle, sealed_key: provisioning.SealedKey
) -> None:
    with (
        pytest.warns(RuntimeWarning, match="development mode"),
        pytest.raises(EngineError, match=r"takes sealed keys only: .*'tinytee provision'"),
    ):
        OpteeBackend(bundle, KEY, production)
    session = OpteeBackend(bundle, sealed_key, production)
    assert _open(session, _preamble(bundle), KEY + bytes(32)) == (ACCESS_DENIED, -1)
    session.close()
    assert "DEVELOPMENT" not in production.logs()["secure"]


@pytest.mark.parametrize("suite", ["chacha20-poly1305", "aes-256-gcm"])
def test_production_by_bearssl(
    production: Machine, compile_network: Compile, sealed_key: provisioning.SealedKey, suite: str
) -> None:
    """Spills included: BearSSL seals in place."""
    bundle = compile_network("mobilenet_v1_025_128", "300KiB", suite)
    feed = feed_of("mobilenet_v1_025_128")
    with tinytee.Session(bundle, key=KEY) as here:
        expected = here.run(feed)["output"].reshape(-1)
    session = OpteeBackend(bundle, sealed_key, production)
    found = np.zeros(expected.size, np.float32)
    rows = np.ascontiguousarray(feed["input"][0].transpose(1, 2, 0)).reshape(-1)
    for _ in range(2):
        session.run([rows], [found])
        assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)
    session.close()
