"""The backends by name."""

from __future__ import annotations

from tinytee.bundle.container import Bundle
from tinytee.runtime import optee, sgx
from tinytee.runtime.provisioning import SealedKey
from tinytee.runtime.trusted import TrustedBackend

TRUSTED = {"optee": optee, "optee-qemu": optee, "sgx": sgx, "sgx-emulated": sgx}
"""Where the core is a trusted application."""


def open_trusted(name: str, bundle: Bundle, key: bytes | SealedKey) -> TrustedBackend:
    """A session of the trusted application behind a backend of :data:`TRUSTED`."""
    return TRUSTED[name].open_backend(name, bundle, key)


def device_key(backend: str = "optee") -> bytes:
    """The public key of this device, or of an emulated one: its trusted application's key pair.

    What the normal world answers can be a lie: ask where it is trusted, as in the factory, or compare fingerprints; of
    an enclave, ask for a quote (docs/sgx.md).

    Args:
        backend: "optee", "optee-qemu", "sgx" or "sgx-emulated".

    Returns:
        32 bytes, X25519.

    Raises:
        EngineError: there is no such TEE here, or no secure storage.
        ValueError: there is no such backend.
    """
    if backend not in TRUSTED:
        raise ValueError(f"a device's key is had from backend {', '.join(TRUSTED)}, not '{backend}'")
    return TRUSTED[backend].device_key(backend)
