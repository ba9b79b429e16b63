"""Keys sealed to a device with OP-TEE."""

from __future__ import annotations

import tinytee
from tinytee.runtime.optee_machine import Machine
from tinytee.runtime.provisioning import SealedKey
from trusted.provisioning import *  # noqa: F403
from trusted.support import Open


def test_the_identity_outlives_the_machine(machine: Machine, sealed_key: SealedKey) -> None:
    with Machine(machine.build) as other:
        assert other.shell("tinytee-feeder --identity") == (0, sealed_key.device_key.hex())


def test_production_does_not_speak_of_development(
    production: Machine, open_production: Open, bundle: tinytee.Bundle, production_key: SealedKey
) -> None:
    open_production(bundle, production_key).close()
    assert "DEVELOPMENT" not in production.logs()["secure"]
