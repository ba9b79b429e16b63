"""Keys sealed to an enclave on a processor."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

import numpy as np
import pytest

import tinytee
from tinytee.errors import AuthenticationError
from tinytee.runtime import sgx
from tinytee.runtime.provisioning import SealedKey, fingerprint
from trusted.provisioning import *  # noqa: F403
from trusted.support import KEY, Feeder, Open, feed_of

from .support import FEEDER

OTHERS = ((sgx.DEVICE_VARIABLE, "device-2"), (sgx.HEAP_VARIABLE, "1MiB"), (sgx.PRODUCTION_VARIABLE, "1"))
"""Another processor, and two other enclaves on this one."""


def test_the_identity_is_made_anew_and_stays(backend_name: str, sealed_key: SealedKey, feeder: Feeder) -> None:
    """It is stored nowhere: every one of these is another process."""
    assert tinytee.device_key(backend_name) == sealed_key.device_key
    assert feeder.run("--identity") == (0, sealed_key.device_key.hex() + "\n")


@pytest.mark.parametrize(("variable", "value"), OTHERS)
def test_keys_for_another(
    open_session: Open,
    backend_name: str,
    bundle: tinytee.Bundle,
    sealed_key: SealedKey,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    """Another processor's key, or another enclave's, is neither this one's nor taken by it."""
    monkeypatch.setenv(variable, str(home / value) if variable == sgx.DEVICE_VARIABLE else value)
    other = tinytee.device_key(backend_name)
    assert other != sealed_key.device_key
    said = f"for device {fingerprint(sealed_key.device_key)}, this is device {fingerprint(other)}"
    with pytest.raises(AuthenticationError, match=said):
        open_session(bundle, sealed_key)
    relabelled = bytearray(sealed_key.record)
    relabelled[8:40] = other
    with pytest.raises(AuthenticationError, match="the sealed key is not for this device"):
        open_session(bundle, SealedKey.parse(bytes(relabelled)))
    open_session(bundle, tinytee.provision(KEY, other)).close()


def test_the_emulated_processors_secret(backend_name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made when it is first needed, for its owner alone to read."""
    monkeypatch.delenv(sgx.DEVICE_VARIABLE)
    secret = home / "tinytee" / "sgx" / "device"
    assert not secret.exists()
    made = tinytee.device_key(backend_name)
    assert (secret.stat().st_size, stat.S_IMODE(secret.stat().st_mode)) == (32, 0o600)
    assert tinytee.device_key(backend_name) == made
    secret.write_bytes(bytes(32))
    assert tinytee.device_key(backend_name) != made


@pytest.mark.parametrize("backend", ["sgx", "optee"])
def test_a_feeder_elsewhere(
    bundle: tinytee.Bundle,
    sealed_key: SealedKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    """A command that runs the feeder, as ssh does: with an image of its own, behind a shell of its own."""
    image, device = tmp_path / "its own.enclave", os.environ[sgx.DEVICE_VARIABLE]
    image.write_bytes(sgx.chosen_image().read_bytes())
    variables = {sgx.IMAGE_VARIABLE: str(image), sgx.PROCESSOR_VARIABLE: "emulated", sgx.DEVICE_VARIABLE: device}
    remote = shlex.join(["exec", "env", *(f"{name}={value}" for name, value in variables.items()), str(FEEDER)])
    monkeypatch.setenv("TINYTEE_FEEDER", shlex.join(["sh", "-c", f'{remote} "$@"', "sh"]))
    monkeypatch.setenv(sgx.IMAGE_VARIABLE, "none here")
    feed = feed_of("lenet5")
    with (
        tinytee.Session(bundle, key=KEY) as here,
        tinytee.Session(bundle, sealed_key=sealed_key, backend=backend) as there,
    ):
        assert np.array_equal(here.run(feed)["output"], there.run(feed)["output"])
