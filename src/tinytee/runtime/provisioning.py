"""Keys for a device: a model key sealed to the key pair that the device's secure world made and keeps.

A sealed key is the record tta_sealed_key of ports/optee/include/tinytee_ta.h, which also says what it is bound to.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinytee.bundle import hpke
from tinytee.bundle.abi import constants
from tinytee.errors import AuthenticationError
from tinytee.runtime.wire import ffi, numbers, record

DEVICE_KEY_BYTES = 32


@dataclass(frozen=True)
class SealedKey:
    """A model key that only one device can open.

    Attributes:
        device_key: the device's public key, 32 bytes.
        record: the sealed key as it stands in its file.
    """

    device_key: bytes
    record: bytes

    @classmethod
    def parse(cls, data: bytes) -> SealedKey:
        """A sealed key from its bytes.

        Raises:
            ValueError: it is none, or of another version.
        """
        if len(data) == ffi.sizeof("tta_sealed_key"):
            found = record("tta_sealed_key", data)
            if found.magic == numbers.TTA_SEALED_KEY_MAGIC and found.version == numbers.TTA_KEY_VERSION:
                return cls(bytes(found.device), bytes(data))
        raise ValueError("not a sealed key, or of another version: 'tinytee provision' makes one")

    @classmethod
    def load(cls, source: SealedKey | bytes | str | os.PathLike[str]) -> SealedKey:
        """A sealed key from itself, its bytes, or its file.

        Raises:
            ValueError: it is none.
            OSError: the file cannot be read.
        """
        if isinstance(source, SealedKey):
            return source
        if isinstance(source, bytes | bytearray | memoryview):
            return cls.parse(bytes(source))
        try:
            return cls.parse(Path(source).read_bytes())
        except ValueError as error:
            raise ValueError(f"{os.fspath(source)}: {error}") from None


def check_device_key(key: bytes) -> bytes:
    """A device's public key as bytes.

    Raises:
        TypeError: it is not bytes.
        ValueError: it has not 32 bytes.
    """
    if not isinstance(key, bytes | bytearray | memoryview):
        raise TypeError(f"a device's public key is {DEVICE_KEY_BYTES} bytes, not {type(key).__name__}")
    if len(bytes(key)) != DEVICE_KEY_BYTES:
        raise ValueError(f"a device's public key is {DEVICE_KEY_BYTES} bytes, not {len(bytes(key))}")
    return bytes(key)


def fingerprint(device_key: bytes) -> str:
    """The first 16 bytes of the SHA-256 of a device's public key, for people to compare.

    >>> fingerprint(bytes(32))
    '6668 7aad f862 bd77 6c8f c18b 8e9f 8e20'
    """
    text = hashlib.sha256(check_device_key(device_key)).hexdigest()[:32]
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def provision(key: bytes, device_key: bytes) -> SealedKey:
    """Seals a model key to a device. Only its trusted application can open it; nobody else learns anything from it.

    Args:
        key: the model key, 32 bytes.
        device_key: the device's public key, 32 bytes (:func:`tinytee.device_key`), from a source that is trusted.

    Raises:
        TypeError, ValueError: they are no such keys, or the installed ``cryptography`` has no HPKE.
    """
    if len(key) != constants.TT_KEY_BYTES:
        raise ValueError(f"a key is {constants.TT_KEY_BYTES} bytes, not {len(key)}")
    fields = {"magic": numbers.TTA_SEALED_KEY_MAGIC, "version": numbers.TTA_KEY_VERSION}
    made = ffi.new("tta_sealed_key *", {**fields, "device": check_device_key(device_key)})
    info = bytes(ffi.buffer(made))[: ffi.offsetof("tta_sealed_key", "enc")]
    sealed = hpke.seal(bytes(device_key), bytes(key), info)
    made.enc, made.sealed = sealed[: hpke.ENC_BYTES], sealed[hpke.ENC_BYTES :]
    return SealedKey(bytes(device_key), bytes(ffi.buffer(made)))


def make_opening(sealed_key: SealedKey, identity: Any, preamble: bytes, io_key: bytes) -> bytes:
    """A tta_opening: the I/O key sealed to the device, for one challenge and one bundle.

    Args:
        sealed_key: of the model; its device's key is the one that is trusted.
        identity: the tta_identity that the device is said to have answered.
        preamble: the bundle's public part.
        io_key: 32 fresh random bytes.

    Raises:
        AuthenticationError: the sealed key is for another device.
    """
    here = bytes(identity.public_key)
    if here != sealed_key.device_key:
        raise AuthenticationError(
            f"the sealed key is for device {fingerprint(sealed_key.device_key)}, this is device {fingerprint(here)}:"
            " seal the model key to this one with 'tinytee provision'"
        )
    hashed = hashlib.sha256(preamble).digest()
    fields = {"magic": numbers.TTA_BINDING_MAGIC, "version": numbers.TTA_KEY_VERSION}
    binding = {**fields, "challenge": bytes(identity.challenge), "preamble_sha256": hashed}
    info = bytes(ffi.buffer(ffi.new("tta_binding *", binding)))
    sealed = hpke.seal(sealed_key.device_key, io_key, info)
    made = ffi.new("tta_opening *", {"preamble_sha256": hashed})
    made.io_enc, made.io_sealed = sealed[: hpke.ENC_BYTES], sealed[hpke.ENC_BYTES :]
    ffi.buffer(made)[: len(sealed_key.record)] = sealed_key.record
    return bytes(ffi.buffer(made))
