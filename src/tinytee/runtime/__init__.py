"""Runs bundles: ``Session`` and its backends. Imports nothing of the compiler side."""

from tinytee.runtime.session import Session
from tinytee.runtime.stats import SessionStats

__all__ = ["Session", "SessionStats"]
