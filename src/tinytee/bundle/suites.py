"""AEAD suites by name and number, and sealing under them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from tinytee.bundle.abi import constants
from tinytee.errors import AuthenticationError

NUMBERS: dict[str, int] = {
    "aes-256-gcm": constants.TT_SUITE_AES256GCM,
    "chacha20-poly1305": constants.TT_SUITE_CHACHA20POLY1305,
    "aegis-256x4": constants.TT_SUITE_AEGIS256X4,
}
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}

Seal = Callable[[bytes, bytes, bytes], bytes]
"""(nonce of 32 bytes, plaintext, associated data) -> ciphertext, then the tag of 16 bytes."""


def suite_number(name: str) -> int:
    """The suite's TT_SUITE_* number.

    Raises:
        ValueError: there is no suite of that name.
    """
    if name not in NUMBERS:
        raise ValueError(f"there is no suite '{name}'; there are {', '.join(NUMBERS)}")
    return NUMBERS[name]


def is_available(name: str) -> bool:
    """Whether this Python can seal under the suite."""
    module = "pyaegis" if suite_number(name) == constants.TT_SUITE_AEGIS256X4 else "cryptography"
    return importlib.util.find_spec(module) is not None


def sealer(name: str, key: bytes) -> Seal:
    """A function that seals under ``key`` (32 bytes).

    Raises:
        ValueError: there is no suite of that name, or the package that carries it is not installed.
    """
    number = suite_number(name)
    if not is_available(name):
        package = "pyaegis" if number == constants.TT_SUITE_AEGIS256X4 else "cryptography"
        raise ValueError(f"suite {name} needs the package {package}: pip install {package}")
    if number == constants.TT_SUITE_AEGIS256X4:
        from pyaegis import Aegis256X4  # noqa: PLC0415

        aegis = Aegis256X4(tag_size=constants.TT_TAG_BYTES)
        return lambda nonce, plain, associated: bytes(aegis.encrypt(key, nonce, plain, associated))

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305  # noqa: PLC0415

    cipher = AESGCM(key) if number == constants.TT_SUITE_AES256GCM else ChaCha20Poly1305(key)
    return lambda nonce, plain, associated: cipher.encrypt(nonce[:12], plain, associated)


def opener(name: str, key: bytes) -> Seal:
    """A function that opens what aes-256-gcm or chacha20-poly1305 has sealed: (nonce, ciphertext and tag, associated
    data) -> plaintext. It raises AuthenticationError if anything was changed.

    Raises:
        ValueError: there is no such suite, or the package that carries it is not installed.
    """
    if suite_number(name) == constants.TT_SUITE_AEGIS256X4 or not is_available(name):
        raise ValueError(f"suite {name} cannot be opened by Python here")
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305  # noqa: PLC0415

    cipher = AESGCM(key) if suite_number(name) == constants.TT_SUITE_AES256GCM else ChaCha20Poly1305(key)

    def open_sealed(nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
        try:
            return cipher.decrypt(nonce[:12], sealed, associated)
        except InvalidTag:
            raise AuthenticationError("something sealed did not authenticate") from None

    return open_sealed
