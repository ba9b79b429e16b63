"""A host that lies to the application in an enclave. One that lies to the enclave is in test_hostile_host.py."""

from __future__ import annotations

from trusted.hostile import *  # noqa: F403
