"""Images of enclaves: what they measure to, what signs them, and that a changed one is not loaded."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tinytee.bundle import enclave
from tinytee.bundle.enclave import EXECUTE, PAGE, READ, TCS, WRITE, Image, constants, ffi
from tinytee.runtime import library, sgx

from .support import BUILT, FEEDER, header_of, runs_of, sigstruct_of

ISAS = [isa for isa in enclave.XFRM if (BUILT / f"tinytee-enclave-{isa}").exists()]

MODULUS, SIGNATURE, SIGNED, HASH = slice(128, 512), slice(516, 900), (slice(0, 128), slice(900, 1028)), slice(960, 992)
UNSIGNED, Q1, Q2 = slice(1028, 1040), slice(1040, 1424), slice(1424, 1808)
"""Of SIGSTRUCT, as the manual has it."""


@pytest.fixture(scope="module")
def image(signing_key: Any) -> Image:
    return sgx.build_image("64KiB", library.best_isa(), signing_key, is_development=False)


def test_the_measurement_is_of_what_is_loaded(image: Image, signing_key: Any) -> None:
    def build(heap: str = "64KiB", key: Any = signing_key, *, is_development: bool = False) -> Image:
        return sgx.build_image(heap, library.best_isa(), key, is_development=is_development)

    others = build(key=sgx.own_signing_key())
    assert build().measurement == others.measurement == image.measurement
    assert build("61KiB").measurement == image.measurement  # as many pages
    assert len({image.measurement, build("65KiB").measurement, build(is_development=True).measurement}) == 3
    assert build().signer == image.signer != others.signer


@pytest.mark.parametrize("isa", ISAS)
def test_pages(isa: str, signing_key: Any) -> None:
    """Nothing is both written and executed, the stack has a gap before it, and what is counted is what is added."""
    image = sgx.build_image("64KiB", isa, signing_key, is_development=True)
    header, runs = header_of(image.data), runs_of(image.data)
    assert not [run.offset for run in runs if run.secinfo_flags & (WRITE | EXECUTE) == WRITE | EXECUTE]
    assert [run.secinfo_flags & (READ | WRITE | EXECUTE) for run in runs if run.secinfo_flags & TCS] == [0]
    assert [run.offset for run in runs if run.secinfo_flags & TCS] == [header.tcs_offset]
    assert header.xfrm == enclave.XFRM[isa]
    pages = [offset for run in runs for offset in range(run.offset, run.offset + run.bytes, PAGE)]
    assert len(set(pages)) == len(pages)
    assert image.secure_bytes == PAGE * len(pages) < header.enclave_bytes
    stack = runs[-4]
    assert stack.bytes == constants.TTE_STACK_BYTES
    assert not set(pages) & set(range(stack.offset - constants.TTE_GAP_BYTES, stack.offset, PAGE))
    assert image.heap_bytes == 64 * 1024


def test_the_signature(image: Image) -> None:
    """By a library that did not make it, and the quotients that spare the processor divisions."""
    sigstruct = sigstruct_of(image.data)
    assert sigstruct[HASH] == image.measurement
    assert hashlib.sha256(sigstruct[MODULUS]).digest() == image.signer
    n, s, q1, q2 = (int.from_bytes(sigstruct[part], "little") for part in (MODULUS, SIGNATURE, Q1, Q2))
    signed = b"".join(sigstruct[part] for part in SIGNED)
    public = rsa.RSAPublicNumbers(3, n).public_key()
    public.verify(s.to_bytes(384, "big"), signed, padding.PKCS1v15(), hashes.SHA256())
    assert 0 <= s * s - q1 * n < n
    assert 0 <= s * (s * s - q1 * n) - q2 * n < n
    assert sigstruct[UNSIGNED] == bytes(12)


def identity(path: Path) -> tuple[int, str, str]:
    """The loader's answer: exit status, output, errors."""
    environment = {sgx.IMAGE_VARIABLE: str(path), sgx.PROCESSOR_VARIABLE: "emulated"}
    ran = subprocess.run(
        [FEEDER, "--identity"], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout, ran.stderr


def loaded(data: bytes) -> object:
    """All of an image that the processor is given or that says where it runs; None if there is no sense in it."""
    if len(data) < ffi.sizeof("tte_image"):
        return None
    header = header_of(data)
    if len(data) < ffi.sizeof("tte_image") + header.run_count * ffi.sizeof("tte_run"):
        return None
    sigstruct = sigstruct_of(data)
    pages = []
    for run in runs_of(data):
        contents = data[run.contents_offset : run.contents_offset + run.contents_bytes]
        if len(contents) != run.contents_bytes or run.contents_bytes > run.bytes or run.contents_offset > len(data):
            return None
        pages.append((run.offset, run.bytes, run.secinfo_flags, contents.rstrip(b"\0")))
    fields = (header.magic, header.version, header.enclave_bytes, header.tcs_offset, header.attributes, header.xfrm)
    return fields, sigstruct[: UNSIGNED.start], sigstruct[UNSIGNED.stop :], pages


def places(image: bytes) -> dict[str, range]:
    """Of an image's parts."""
    records, contents = ffi.sizeof("tte_image"), min(run.contents_offset for run in runs_of(image))
    sigstruct = ffi.offsetof("tte_image", "sigstruct")
    return {
        "head": range(sigstruct),
        "sigstruct": range(sigstruct, records),
        "runs": range(records, contents),
        "contents": range(contents, len(image)),
    }


@pytest.mark.parametrize("offset", [0, PAGE, 16 * PAGE])
def test_entry_at_no_tcs(image: Image, tmp_path: Path, offset: int) -> None:
    changed, at = bytearray(image.data), ffi.offsetof("tte_image", "tcs_offset")
    changed[at : at + 8] = struct.pack("<Q", offset)
    (tmp_path / "x.enclave").write_bytes(changed)
    status, out, err = identity(tmp_path / "x.enclave")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "no TCS" in err


@pytest.mark.parametrize(("part", "count"), [("head", 72), ("sigstruct", 100), ("runs", 100), ("contents", 80)])
def test_changed_images(image: Image, tmp_path: Path, part: str, count: int) -> None:
    """A byte anywhere. Refused in one line, unless what is loaded is the same: names for people, what is reserved."""
    path, rng = tmp_path / "changed.enclave", np.random.default_rng(sorted(places(image.data)).index(part))
    there = places(image.data)[part]
    path.write_bytes(image.data)
    right = identity(path)
    assert (right[0], len(right[1]), right[2]) == (0, 65, "")
    refused = 0
    for place in rng.choice(there, min(count, len(there)), replace=False):
        changed = bytearray(image.data)
        changed[place] ^= int(rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 255]))
        path.write_bytes(changed)
        status, out, err = answered = identity(path)
        if loaded(bytes(changed)) == loaded(image.data):
            assert answered == right, place
            continue
        refused += 1
        assert (status, out, err.count("\n")) == (1, "", 1), (place, answered)
    assert refused > count / 3


def test_cut_images(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "cut.enclave"
    head, record = ffi.sizeof("tte_image"), ffi.sizeof("tte_run")
    sizes = [0, 1, 3, 4, 71, 72, head - 1, head, head + 1, head + record, *range(head + 8, len(image.data), 49999)]
    for size in (*sizes, len(image.data) - 1):
        path.write_bytes(image.data[:size])
        status, out, err = identity(path)
        assert (status, out, err.count("\n")) == (1, "", 1), size
        assert "'tinytee sgx build'" in err, (size, err)


@pytest.mark.parametrize("part", [MODULUS, SIGNATURE, Q1, Q2, slice(0, 1808)])
def test_numbers_that_are_none(image: Image, tmp_path: Path, part: slice) -> None:
    """There is no dividing by zero."""
    path, at = tmp_path / "zeroes.enclave", ffi.offsetof("tte_image", "sigstruct")
    for filling in (b"\0", b"\xff"):
        changed = bytearray(image.data)
        changed[at + part.start : at + part.stop] = filling * (part.stop - part.start)
        path.write_bytes(changed)
        status, out, err = identity(path)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "the enclave's signature is none" in err


def test_runs_that_make_no_sense(image: Image, tmp_path: Path) -> None:
    """Lengths and offsets beyond the file, beyond the enclave, and beyond 64 bits."""
    path, first = tmp_path / "runs.enclave", ffi.sizeof("tte_image")
    for field in ("offset", "bytes", "contents_offset", "contents_bytes"):
        for value in (2**64 - 1, 2**64 - PAGE, 2**40, len(image.data)):
            for index in range(header_of(image.data).run_count):
                changed, run = bytearray(image.data), runs_of(image.data)[index]
                at = first + index * ffi.sizeof("tte_run") + ffi.offsetof("tte_run", field)
                if field.startswith("contents") and run.contents_bytes == 0 and value == len(image.data):
                    continue
                changed[at : at + 8] = struct.pack("<Q", value)
                path.write_bytes(changed)
                status, out, err = identity(path)
                assert (status, out, err.count("\n")) == (1, "", 1), (field, value, index)
    counts = ffi.offsetof("tte_image", "run_count")
    for count in (0, 1, 64, 65, 2**16, 2**32 - 1):
        changed = bytearray(image.data)
        changed[counts : counts + 4] = struct.pack("<I", count)
        path.write_bytes(changed)
        status, out, err = identity(path)
        assert (status, out, err.count("\n")) == (1, "", 1), count


def pem_of(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_with_password(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


def wrong_keys(good: Any) -> dict[str, bytes]:
    return {
        "2048 bits": pem_of(rsa.generate_private_key(3, 2048)),
        "exponent 65537": pem_of(rsa.generate_private_key(65537, 3072)),
        "elliptic curve": pem_of(ec.generate_private_key(ec.SECP256R1())),
        "with a password": key_with_password(good),
        "public": good.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "cut": pem_of(good)[:-200],
        "no PEM": b"-----BEGIN PRIVATE KEY-----\nnot really\n-----END PRIVATE KEY-----\n",
        "nothing": b"",
    }


def test_signing_keys_that_sgx_does_not_take(signing_key: Any) -> None:
    for name, pem in wrong_keys(signing_key).items():
        with pytest.raises(ValueError, match=r"openssl genrsa -3 3072|not a signing key in PEM"):
            pytest.fail(f"{name} is taken: {enclave.load_signing_key(pem)}")


def test_a_signing_key_in_its_file(signing_key: Any) -> None:
    again = enclave.load_signing_key(enclave.signing_key_bytes(signing_key))
    assert again.private_numbers() == signing_key.private_numbers()


def test_building_with_a_key_that_sgx_does_not_take() -> None:
    for made in (rsa.generate_private_key(3, 2048), ec.generate_private_key(ec.SECP256R1()), None):
        with pytest.raises(ValueError, match="SGX wants enclaves signed with RSA of 3072 bits and exponent 3"):
            sgx.build_image("64KiB", library.best_isa(), made, is_development=True)


@pytest.mark.parametrize("heap_bytes", [0, -1, 2**32 + 1, 2**64])
def test_no_such_heap(signing_key: Any, heap_bytes: int) -> None:
    elf = (BUILT / f"tinytee-enclave-{ISAS[0]}").read_bytes()
    with pytest.raises(ValueError, match=f"an enclave's heap is .*4 GiB, not {heap_bytes} bytes"):
        enclave.build(elf, ISAS[0], heap_bytes, signing_key, is_development=True)


def test_no_such_instruction_set(signing_key: Any) -> None:
    with pytest.raises(ValueError, match="no enclave for 'neon'; there are avx2, avx512, avx512vnni"):
        sgx.build_image("64KiB", "neon", signing_key, is_development=True)
    with pytest.raises(ValueError, match="no enclave for 'neon'"):
        enclave.build(b"", "neon", 65536, signing_key, is_development=True)
