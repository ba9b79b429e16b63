"""HPKE against RFC 9180's own vectors (A.2.1: X25519, HKDF-SHA256, ChaCha20-Poly1305, base mode)."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinytee.bundle import hpke

SUITE = library.Suite(library.KEM.X25519, library.KDF.HKDF_SHA256, library.AEAD.CHACHA20_POLY1305)
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
PLAIN = bytes.fromhex("4265617574792069732074727574682c20747275746820626561757479")
PRIVATE = X25519PrivateKey.from_private_bytes(
    bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
)
PUBLIC = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
ENC = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
SEALED = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")


def test_the_library_meets_the_rfc() -> None:
    assert PRIVATE.public_key().public_bytes_raw() == PUBLIC
    opened = openssl.hpke._decrypt_with_aad(SUITE, ENC + SEALED, PRIVATE, info=INFO, aad=b"Count-0")
    assert opened == PLAIN


def test_what_is_sealed_is_opened() -> None:
    sealed = hpke.seal(PUBLIC, PLAIN, INFO)
    assert len(sealed) == hpke.ENC_BYTES + len(PLAIN) + 16
    assert SUITE.decrypt(sealed, PRIVATE, info=INFO) == PLAIN
    assert hpke.seal(PUBLIC, PLAIN, INFO) != sealed


@pytest.mark.parametrize("place", range(0, 77, 4))
def test_every_change_is_refused(place: int) -> None:
    sealed = bytearray(hpke.seal(PUBLIC, PLAIN, INFO))
    sealed[place] ^= 1
    with pytest.raises(InvalidTag):
        SUITE.decrypt(bytes(sealed), PRIVATE, info=INFO)
    with pytest.raises(InvalidTag):
        SUITE.decrypt(hpke.seal(PUBLIC, PLAIN, INFO), PRIVATE, info=INFO + b"x")


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_no_public_key(key: bytes) -> None:
    with pytest.raises(ValueError, match="32"):
        hpke.seal(key, PLAIN, INFO)
