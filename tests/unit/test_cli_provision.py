"""The command that seals a model key to a device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import tinytee
from tinytee.runtime import provisioning
from unit.conftest import Run

PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()


def test_offline(run: Run) -> None:
    """As a vendor does, with a device's key that came from the factory."""
    run("keygen", "model.key")
    code, out, err = run("provision", "--key-file", "model.key", "--device-key", PUBLIC.hex(), "-o", "device.key")
    assert (code, err) == (0, "")
    assert provisioning.fingerprint(PUBLIC) in out
    assert tinytee.SealedKey.load("device.key").device_key == PUBLIC
    assert [path.name for path in sorted(Path().iterdir())] == ["device.key", "model.key"]


@pytest.mark.parametrize("raw", [True, False])
def test_device_keys_from_files(run: Run, raw: bool) -> None:
    Path("device.pub").write_bytes(PUBLIC if raw else PUBLIC.hex().encode())
    code, out, _ = run("provision", "--device-key", "device.pub", "--json", "--write-device-key", "copy.pub")
    assert code == 0
    shown = {"device_key": PUBLIC.hex(), "fingerprint": provisioning.fingerprint(PUBLIC), "sealed_key": None}
    assert json.loads(out) == shown
    assert Path("copy.pub").read_text() == PUBLIC.hex() + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--backend, to ask a device, or --device-key, or --quote"),
        (("--backend", "optee", "--device-key", "x"), "--backend, to ask a device, or --device-key, or --quote"),
        (("--backend", "process"), "not 'process'"),
        (("--device-key", PUBLIC.hex(), "-o", "x.key"), "both --key-file and --output"),
        (("--device-key", PUBLIC.hex()[:-2] + "zz"), "not hexadecimal digits"),
        (("--device-key", "nothing.pub"), "nothing.pub: No such file"),
    ],
)
def test_slips(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("provision", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_run_takes_one_key(run: Run) -> None:
    run("keygen", "model.key")
    for keys in ((), ("--key-file", "model.key", "--sealed-key", "model.key")):
        code, _, err = run("run", "model.tt", "--input", "x.npy", *keys)
        assert code == 2
        assert "either --key-file, or, in a TEE, --sealed-key" in err
