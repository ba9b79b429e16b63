"""A normal world that lies to OP-TEE's trusted application."""

from __future__ import annotations

import re

from tinytee.runtime.optee_machine import Machine
from trusted.hostile import *  # noqa: F403


def test_no_panic_was_seen(machine: Machine) -> None:
    """Runs last in this file."""
    said = machine.logs()["secure"]
    assert not re.findall(r".*(?:panicked|-abort at).*", said)
