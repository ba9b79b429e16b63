"""Sealed keys and openings, opened here in the device's place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import tinytee
from tinytee.errors import AuthenticationError
from tinytee.runtime import provisioning
from tinytee.runtime.wire import ffi, record

SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
DEVICE = X25519PrivateKey.generate()
PUBLIC = DEVICE.public_key().public_bytes_raw()
KEY = bytes(range(32))


def test_a_sealed_key_is_its_documented_record() -> None:
    """docs/bundle.md: magic, version, the device's key; encapsulated key, ciphertext and tag, bound to those."""
    sealed = tinytee.provision(KEY, PUBLIC)
    assert sealed.device_key == PUBLIC
    assert len(sealed.record) == 120
    assert sealed.record[:8] == b"TTEK" + (1).to_bytes(4, "little")
    assert sealed.record[8:40] == PUBLIC
    assert SUITE.decrypt(sealed.record[40:], DEVICE, info=sealed.record[:40]) == KEY
    assert KEY not in sealed.record
    assert tinytee.provision(KEY, PUBLIC).record != sealed.record


def test_sealed_keys_are_read_back(tmp_path: Path) -> None:
    sealed = tinytee.provision(KEY, PUBLIC)
    path = tmp_path / "device.key"
    path.write_bytes(sealed.record)
    for source in (sealed, sealed.record, path, str(path)):
        assert tinytee.SealedKey.load(source) == sealed


def test_what_is_no_sealed_key(tmp_path: Path) -> None:
    good = tinytee.provision(KEY, PUBLIC).record
    for bad in (b"", good[:-1], good + b"\0", b"X" + good[1:], good[:4] + b"\2" + good[5:]):
        with pytest.raises(ValueError, match="'tinytee provision' makes one"):
            tinytee.SealedKey.parse(bad)
    path = tmp_path / "no.key"
    path.write_bytes(KEY)
    with pytest.raises(ValueError, match=r"no\.key: not a sealed key"):
        tinytee.SealedKey.load(path)


def test_openings_are_bound_to_challenge_and_bundle() -> None:
    sealed = tinytee.provision(KEY, PUBLIC)
    identity = ffi.new("tta_identity *", {"public_key": PUBLIC, "challenge": bytes(range(32, 64))})
    preamble, io_key = b"the bundle's public part", bytes(reversed(range(32)))
    opening = record("tta_opening", provisioning.make_opening(sealed, identity, preamble, io_key))
    assert bytes(ffi.buffer(ffi.addressof(opening, "model"))) == sealed.record
    hashed = hashlib.sha256(preamble).digest()
    assert bytes(opening.preamble_sha256) == hashed
    info = b"TTES" + (1).to_bytes(4, "little") + bytes(range(32, 64)) + hashed
    assert SUITE.decrypt(bytes(opening.io_enc) + bytes(opening.io_sealed), DEVICE, info=info) == io_key


def test_openings_are_for_the_device_that_the_key_names() -> None:
    """Whatever public key the normal world says the device has."""
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    identity = ffi.new("tta_identity *", {"public_key": other})
    with pytest.raises(AuthenticationError, match=r"for device .*, this is device"):
        provisioning.make_opening(tinytee.provision(KEY, PUBLIC), identity, b"", bytes(32))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_wrong_lengths(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        tinytee.provision(key, PUBLIC)
    with pytest.raises(ValueError, match="32 bytes"):
        tinytee.provision(KEY, key)


def test_sessions_take_one_key(tmp_path: Path) -> None:
    sealed = tinytee.provision(KEY, PUBLIC)
    with pytest.raises(TypeError, match="either the key, or a sealed_key"):
        tinytee.Session(tmp_path / "x.tt")
    with pytest.raises(TypeError, match="either the key, or a sealed_key"):
        tinytee.Session(tmp_path / "x.tt", key=KEY, sealed_key=sealed)
    with pytest.raises(ValueError, match="a sealed key is for a TEE"):
        tinytee.Session(tmp_path / "x.tt", sealed_key=sealed)


def test_devices_are_asked_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="not 'process'"):
        tinytee.device_key("process")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(tinytee.EngineError, match="make -C ports/optee/host"):
        tinytee.device_key("optee")
