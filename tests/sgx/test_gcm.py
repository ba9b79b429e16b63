"""The enclave's AES-256-GCM by either library, beside that of the package cryptography."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PORTS = Path(__file__).resolve().parents[2] / "ports"


@pytest.fixture(scope="module", params=["BearSSL", "intel-ipsec-mb"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gcm") / "gcm_cases"
    sources = [Path(__file__).with_name("gcm_cases.c"), PORTS / "sgx/enclave/gcm.c"]
    options = [f"-I{PORTS / room}" for room in ("sgx/enclave", "optee/crypto")]
    options.append(f"-DTINYTEE_ENCLAVE_IPSEC_MB={int(request.param == 'intel-ipsec-mb')}")
    libraries = ["-Wl,-Bstatic", "-lIPSec_MB", "-lbearssl", "-Wl,-Bdynamic"]
    subprocess.run(["gcc", "-O2", *options, *sources, "-o", path, *libraries], check=True)
    return path


@pytest.mark.parametrize("associated", [0, 1, 16, 100, 5000])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 127, 128, 4095, 4096, 4097, 70001])
def test_as_others_do(program: Path, size: int, associated: int) -> None:
    rng = np.random.default_rng((size, associated))
    key, nonce, data, text = (rng.bytes(count) for count in (32, 12, associated, size))
    given = key + nonce + struct.pack("<II", associated, size) + data + text
    ran = subprocess.run([program], input=given, capture_output=True, check=False)
    assert ran.returncode == 0
    assert ran.stdout == AESGCM(key).encrypt(nonce, text, data)
