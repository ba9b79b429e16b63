"""Runs bundles: ``Session`` and its backends. Imports nothing of the compiler side."""

from tinytee.runtime.backends import device_key
from tinytee.runtime.provisioning import SealedKey, provision
from tinytee.runtime.session import Session
from tinytee.runtime.stats import SessionStats

__all__ = ["SealedKey", "Session", "SessionStats", "device_key", "provision"]
