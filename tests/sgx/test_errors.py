"""What a user can do wrong: one line each, which says what to do."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import tinytee
from tinytee.bundle import enclave
from tinytee.errors import BundleError, EngineError
from tinytee.runtime import library, sgx
from trusted.support import KEY, Compile
from unit.conftest import Run

from .support import FEEDER

pytestmark = pytest.mark.filterwarnings("ignore:SGX in development mode")


@pytest.fixture
def bundle(compile_network: Compile) -> tinytee.Bundle:
    return compile_network("lenet5", "300KiB")


def test_no_such_image(bundle: tinytee.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sgx.IMAGE_VARIABLE, str(tmp_path / "none.enclave"))
    with pytest.raises(FileNotFoundError, match=r"none\.enclave"):
        tinytee.Session(bundle, key=KEY, backend="sgx-emulated")
    with pytest.raises(EngineError, match=r"none\.enclave: No such file"):
        tinytee.device_key("sgx-emulated")


@pytest.mark.parametrize("is_bundle", [True, False])
def test_another_file(bundle: tinytee.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_bundle: bool) -> None:
    path = tmp_path / "other.enclave"
    path.write_bytes(bundle.to_bytes() if is_bundle else b"")
    monkeypatch.setenv(sgx.IMAGE_VARIABLE, str(path))
    with pytest.raises(BundleError, match=r"other\.enclave is no enclave.*'tinytee sgx build'"):
        tinytee.Session(bundle, key=KEY, backend="sgx-emulated")
    with pytest.raises(EngineError, match=r"other\.enclave is no enclave: 'tinytee sgx build' makes one"):
        tinytee.device_key("sgx-emulated")


def test_the_feeder_without_an_image() -> None:
    ran = subprocess.run([FEEDER, "--identity"], env=dict(os.environ), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "set TINYTEE_ENCLAVE to an image that 'tinytee sgx build' made" in ran.stderr


@pytest.mark.skipif(Path("/dev/sgx_enclave").exists(), reason="this machine has SGX")
def test_no_sgx(bundle: tinytee.Bundle) -> None:
    says = r"there is no SGX here: /dev/sgx_enclave: .*'sgx-emulated' needs none"
    with pytest.raises(EngineError, match=says):
        tinytee.Session(bundle, key=KEY, backend="sgx")
    with pytest.raises(EngineError, match=says):
        tinytee.device_key("sgx")


@pytest.mark.parametrize(
    ("heap", "says"),
    [("4MB", "'4MB' is not a size"), ("0", "'0' is out of range"), ("5GiB", "'5GiB' is out of range")],
)
def test_no_such_heap(monkeypatch: pytest.MonkeyPatch, heap: str, says: str) -> None:
    monkeypatch.setenv(sgx.HEAP_VARIABLE, heap)
    with pytest.raises(ValueError, match=says):
        tinytee.device_key("sgx-emulated")


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        ("nowhere/tinytee-feeder", EngineError, "the feeder cannot be run: .*nowhere/tinytee-feeder"),
        ("false", EngineError, "the feeder is gone"),
        ("ssh 'board", ValueError, "TINYTEE_FEEDER=ssh 'board: No closing quotation"),
    ],
)
@pytest.mark.parametrize("backend", ["sgx", "optee"])
def test_feeders_that_are_none(
    monkeypatch: pytest.MonkeyPatch, backend: str, command: str, error: type[Exception], says: str
) -> None:
    monkeypatch.setenv("TINYTEE_FEEDER", command)
    with pytest.raises(error, match=says):
        tinytee.device_key(backend)


def test_a_secret_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / "short"
    short.write_bytes(bytes(31))
    monkeypatch.setenv(sgx.DEVICE_VARIABLE, str(short))
    with pytest.raises(EngineError, match="short: too short; TINYTEE_SGX_DEVICE names another file"):
        tinytee.device_key("sgx-emulated")
    monkeypatch.setenv(sgx.DEVICE_VARIABLE, str(tmp_path / "nowhere" / "device"))
    with pytest.raises(EngineError, match="nowhere/device: No such file or directory; TINYTEE_SGX_DEVICE"):
        tinytee.device_key("sgx-emulated")


@pytest.mark.parametrize("is_development", [True, False])
def test_the_command_builds_what_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch, is_development: bool) -> None:
    options = ["--development"] if is_development else []
    code, out, err = run("sgx", "build", "-o", "made.enclave", "--heap", "256KiB", "--json", *options)
    assert (code, err) == (0, "")
    said = json.loads(out)
    image = sgx.build_image("256KiB", library.best_isa(), sgx.own_signing_key(), is_development=is_development)
    assert (said["measurement"], said["signer"]) == (image.measurement.hex(), image.signer.hex())
    assert said["largest_arena_bytes"] == 256 * 1024 - sgx.HEAP_OVERHEAD_BYTES
    monkeypatch.setenv(sgx.IMAGE_VARIABLE, "made.enclave")
    assert enclave.read_isa(sgx.chosen_image()) == library.best_isa()
    assert len(tinytee.device_key("sgx-emulated")) == 32


def test_an_own_signing_key(run: Run, signing_key: Any) -> None:
    Path("own.pem").write_bytes(enclave.signing_key_bytes(signing_key))
    code, out, err = run("sgx", "build", "-o", "made.enclave", "--heap", "64KiB", "--signing-key", "own.pem")
    assert (code, err) == (0, "")
    image = sgx.build_image("64KiB", library.best_isa(), signing_key, is_development=False)
    assert image.measurement.hex() in out
    assert image.signer.hex() in out


def _key_on_no_curve() -> bytes:
    known = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    prime256v1 = bytes.fromhex("2a8648ce3d030107")
    unknown = base64.encodebytes(known.replace(prime256v1, prime256v1[:-1] + b"\x09"))
    return b"-----BEGIN PRIVATE KEY-----\n" + unknown + b"-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--isa", "neon"], "no enclave for 'neon'; there are avx2, avx512, avx512vnni"),
        (["--heap", "x"], "'x' is not a size"),
        (["--heap", "0"], "4 GiB"),
        (["--heap", "8GiB"], "4 GiB"),
        (["--signing-key", "none.pem"], "none.pem: No such file"),
        (["--signing-key", "garbage.pem"], "--signing-key garbage.pem: not a signing key in PEM"),
        (["--signing-key", "unknown.pem"], "--signing-key unknown.pem: not a signing key in PEM"),
        (["--signing-key", "."], ".: Is a directory"),
    ],
)
def test_wrong_options(run: Run, options: list[str], says: str) -> None:
    Path("garbage.pem").write_text("nothing")
    Path("unknown.pem").write_bytes(_key_on_no_curve())
    code, out, err = run("sgx", "build", "-o", "made.enclave", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert {path.name for path in Path().iterdir()} == {"garbage.pem", "unknown.pem"}


def test_an_image_that_has_no_place(run: Run) -> None:
    code, _, err = run("sgx", "build", "-o", "nowhere/made.enclave", "--heap", "64KiB")
    assert (code, err.count("\n")) == (2, 1)
    assert "nowhere" in err
