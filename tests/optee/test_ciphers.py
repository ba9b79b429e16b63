"""The trusted application's ChaCha20-Poly1305, by either library, is that of RFC 8439."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tinytee.runtime.optee_machine import Machine, cache_folder

ROOT = Path(__file__).parents[2]
LIBRARIES = {"nettle": ("nettle", "crypto"), "bearssl": ("bearssl",)}

SIZES = [*range(35), 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 4095, 4096, 4097, 8192, 8255, 70001]
"""Around the blocks of Poly1305, ChaCha20 and the pieces in which they are used."""

Case = tuple[bytes, bytes, bytes, bytes]
"""Key, nonce, associated data, plaintext."""

SUNSCREEN: Case = (
    bytes(range(0x80, 0xA0)),
    bytes.fromhex("070000004041424344454647"),
    bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future,"
    b" sunscreen would be it.",
)
SUNSCREEN_SEALED = bytes.fromhex(
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
    "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
    "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
    "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd060"
    "0691"
)
"""RFC 8439, section 2.8.2: ciphertext and tag."""


def _build(crypto: str, folder: Path) -> Path:
    root, room = cache_folder() / "arm64", ROOT / "ports" / "optee" / "crypto"
    sources = [ROOT / "tests" / "optee" / "aead_cases.c", room / "crypto.c", room / f"crypto_{crypto}.c"]
    libraries = [root / "usr" / "lib" / "aarch64-linux-gnu" / f"lib{name}.a" for name in LIBRARIES[crypto]]
    command = [
        "aarch64-linux-gnu-gcc",
        "-std=c11",
        "-O2",
        "-static",
        "-I",
        room,
        "-idirafter",
        root / "usr" / "include",
    ]
    subprocess.run([*command, *sources, *libraries, "-o", folder / "aead_cases"], check=True)
    return folder / "aead_cases"


def _cases() -> list[Case]:
    rng = np.random.default_rng(0)
    lengths = [(size, 13 * i % 50) for i, size in enumerate(SIZES)]
    return [SUNSCREEN, *((rng.bytes(32), rng.bytes(12), rng.bytes(other), rng.bytes(size)) for size, other in lengths)]


@pytest.mark.parametrize("crypto", LIBRARIES)
def test_chacha20_poly1305(machine: Machine, crypto: str, tmp_path: Path) -> None:
    cases = _cases()
    (machine.folder / "aead_cases").write_bytes(_build(crypto, tmp_path).read_bytes())
    (machine.folder / "cases").write_bytes(
        b"".join(
            np.array([len(associated), len(plain)], "<u4").tobytes() + key + nonce + associated + plain
            for key, nonce, associated, plain in cases
        )
    )
    run = "cp /host/aead_cases /tmp/ && chmod +x /tmp/aead_cases && /tmp/aead_cases </host/cases >/host/answers"
    status, said = machine.shell(run)
    assert status == 0, said
    answers = (machine.folder / "answers").read_bytes()
    assert answers.startswith(SUNSCREEN_SEALED)
    expected = [ChaCha20Poly1305(key).encrypt(nonce, plain, other) for key, nonce, other, plain in cases]
    assert answers == b"".join(expected)
