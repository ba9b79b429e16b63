"""Runs bundles: ``Session`` and its backends. Imports nothing of the compiler side."""

from tinytee.runtime.attestation import Attested, make_quote, verify_quote
from tinytee.runtime.backends import device_key
from tinytee.runtime.provisioning import SealedKey, provision
from tinytee.runtime.session import Session
from tinytee.runtime.stats import SessionStats

__all__ = [
    "Attested",
    "SealedKey",
    "Session",
    "SessionStats",
    "device_key",
    "make_quote",
    "provision",
    "verify_quote",
]
