"""HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. Only to seal: a device
opens."""

from __future__ import annotations

ENC_BYTES = 32
"""The encapsulated key comes first; ciphertext and tag follow."""


def seal(public_key: bytes, plain: bytes, info: bytes) -> bytes:
    """Seals a message to an X25519 public key of 32 bytes, bound to ``info``.

    Returns:
        The encapsulated key (32 bytes), the ciphertext, and its tag (16 bytes).

    Raises:
        ValueError: the public key is none, or the installed package ``cryptography`` has no HPKE.
    """
    try:
        from cryptography.hazmat.primitives import hpke  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey  # noqa: PLC0415
    except ImportError:
        raise ValueError("sealing to a device needs HPKE: pip install 'cryptography>=47'") from None
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
    return suite.encrypt(plain, X25519PublicKey.from_public_bytes(public_key), info=info)
