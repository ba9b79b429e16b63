"""Images of the SGX enclave: where its pages lie, what they measure to (MRENCLAVE), and its signature (SIGSTRUCT).

Layouts and numbers are those of Intel's SDM, volume 3D, and of ports/sgx/include/tinytee_enclave.h. The loader in
ports/sgx/host gives an image's pages to the processor in the order in which they stand here.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinytee.bundle import abi
from tinytee.errors import BundleError

ffi, constants = abi.parse_headers(("ports/sgx/include/tinytee_enclave.h",), ("TTE_",))

PAGE = constants.TTE_PAGE_BYTES
READ, WRITE, EXECUTE, TCS, REGULAR = 1, 2, 4, 0x100, 0x200
MODE64BIT = 4
XFRM = {"avx2": 0x7, "avx512": 0xE7, "avx512vnni": 0xE7}
"""Processor state that each enclave's kernels use: x87, SSE and AVX, or those of AVX-512, too."""

_CHUNK_BYTES, _BLOCK_BYTES = 256, 64
_RSA_BYTES = 384
_LARGEST_HEAP = (1 << 32) - PAGE
_RELATIVE = 8  # R_X86_64_RELATIVE


@dataclass(frozen=True)
class Image:
    """An enclave, ready to be loaded.

    Attributes:
        data: the file.
        measurement: MRENCLAVE, 32 bytes: what attestation says is running.
        signer: MRSIGNER, 32 bytes.
        secure_bytes: of enclave memory that its pages take: code, stack, heap, all of it.
        heap_bytes: of which a bundle's arena may take a little less.
    """

    data: bytes
    measurement: bytes
    signer: bytes
    secure_bytes: int
    heap_bytes: int


@dataclass(frozen=True)
class _Run:
    """Pages that are alike, from ``offset`` on: the contents, and zeroes after them."""

    offset: int
    size: int
    flags: int
    contents: bytes = b""

    def pages(self) -> Iterator[tuple[int, bytes]]:
        for at in range(0, self.size, PAGE):
            yield self.offset + at, self.contents[at : at + PAGE].ljust(PAGE, b"\0")


def _up(size: int, unit: int = PAGE) -> int:
    return -(-size // unit) * unit


def build(elf: bytes, isa: str, heap_bytes: int, signing_key: Any, *, is_development: bool) -> Image:
    """Lays out an enclave, measures and signs it.

    Args:
        elf: the enclave as it was linked, tinytee-enclave-ISA.
        isa: its instruction set, one of :data:`XFRM`.
        heap_bytes: of the trusted application's heap; rounded up to pages.
        signing_key: of RSA, 3072 bits, exponent 3 (:func:`make_signing_key`).
        is_development: whether it takes keys in the clear; this is measured, too.

    Raises:
        ValueError: there is no such instruction set, the size is beyond 4 GiB, the key is another one, or the ELF is no
            enclave.
    """
    if isa not in XFRM:
        raise ValueError(f"there is no enclave for '{isa}'; there are {', '.join(XFRM)}")
    if not 0 < heap_bytes <= _LARGEST_HEAP:
        raise ValueError(f"an enclave's heap is less than 4 GiB, not {heap_bytes} bytes")
    numbers = _check_signing_key(signing_key)
    runs, tcs_offset, size = _lay_out(elf, _up(heap_bytes), is_development)
    measurement = _measure(runs, size)
    modulus = numbers.n.to_bytes(_RSA_BYTES, "little")
    image = ffi.new("tte_image *")
    image.magic, image.version = constants.TTE_IMAGE_MAGIC, constants.TTE_IMAGE_VERSION
    image.enclave_bytes, image.tcs_offset = size, tcs_offset
    image.attributes, image.xfrm = MODE64BIT, XFRM[isa]
    image.run_count = len(runs)
    image.isa = isa.encode()
    image.sigstruct = _sign(measurement, modulus, numbers.n, signing_key, image.attributes, image.xfrm)
    return Image(
        data=_write(image, runs),
        measurement=measurement,
        signer=hashlib.sha256(modulus).digest(),
        secure_bytes=sum(run.size for run in runs),
        heap_bytes=_up(heap_bytes),
    )


def _lay_out(elf: bytes, heap_bytes: int, is_development: bool) -> tuple[list[_Run], int, int]:
    """The pages in order, where the TCS lies, and the enclave's size."""
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    parsed = ELFFile(io.BytesIO(elf))
    segments = [segment for segment in parsed.iter_segments() if segment["p_type"] == "PT_LOAD"]
    thread = _up(max(segment["p_vaddr"] + segment["p_memsz"] for segment in segments))
    stack = thread + PAGE + constants.TTE_GAP_BYTES
    frames = stack + constants.TTE_STACK_BYTES
    tcs = frames + constants.TTE_SSA_FRAMES * PAGE
    heap = tcs + PAGE
    size = 1 << (heap + heap_bytes - 1).bit_length()
    layout = {
        "enclave_bytes": size,
        "stack_top": frames,
        "heap_offset": heap,
        "heap_bytes": heap_bytes,
        "is_development": is_development,
    }
    patch = abi.record_bytes(ffi.new("tte_layout *", layout))
    here = _layout_address(parsed, len(patch))
    runs = [_segment_run(segment, here, patch) for segment in segments]
    runs += [
        _Run(thread, PAGE, REGULAR | READ | WRITE),
        _Run(stack, constants.TTE_STACK_BYTES, REGULAR | READ | WRITE),
        _Run(frames, constants.TTE_SSA_FRAMES * PAGE, REGULAR | READ | WRITE),
        _Run(tcs, PAGE, TCS, _tcs(frames, parsed.header["e_entry"], thread)),
        _Run(heap, heap_bytes, REGULAR | READ | WRITE),
    ]
    return runs, tcs, size


def _layout_address(parsed: Any, size: int) -> int:
    """Where the enclave wants to be told its layout.

    Raises:
        ValueError: it is none of this version, or the linker has left more to do than it does at its start.
    """
    here = parsed.get_section_by_name(".tinytee")
    if here is None or here["sh_size"] != size or here["sh_type"] != "SHT_PROGBITS":
        raise ValueError("the ELF is no enclave of this version: build it again")
    dynamic = {tag.entry.d_tag for tag in parsed.get_section_by_name(".dynamic").iter_tags()}
    relocations = {r["r_info_type"] for r in parsed.get_section_by_name(".rela.dyn").iter_relocations()}
    if relocations - {_RELATIVE} or dynamic & {"DT_RELR", "DT_JMPREL", "DT_TEXTREL"}:
        raise ValueError("the enclave was linked with options that it cannot be started with: build it again")
    return here["sh_addr"]


def _segment_run(segment: Any, here: int, patch: bytes) -> _Run:
    address = segment["p_vaddr"]
    start = address // PAGE * PAGE
    contents = bytearray(address - start) + segment.data()
    if start == 0:  # where the linker says that sections are described, which depends on what was stripped
        contents[0x28:0x30], contents[0x3A:0x40] = bytes(8), bytes(6)
    if address <= here < address + segment["p_filesz"]:
        contents[here - start : here - start + len(patch)] = patch
    permissions = segment["p_flags"]
    flags = READ * (permissions >> 2 & 1) | WRITE * (permissions >> 1 & 1) | EXECUTE * (permissions & 1)
    return _Run(start, _up(address + segment["p_memsz"]) - start, REGULAR | flags, bytes(contents))


def _tcs(frames: int, entry: int, thread: int) -> bytes:
    """STATE, FLAGS, OSSA, CSSA, NSSA, OENTRY, AEP, OFSBASGX, OGSBASGX, FSLIMIT, GSLIMIT."""
    # Limits of segments count in 32-bit enclaves only: with these, the same pages cannot be one.
    return struct.pack("<QQQIIQQQQII", 0, 0, frames, 0, constants.TTE_SSA_FRAMES, entry, 0, thread, thread, 0, 0)


def _block(name: bytes, *fields: bytes) -> bytes:
    return b"".join((name.ljust(8, b"\0"), *fields)).ljust(_BLOCK_BYTES, b"\0")


def _measure(runs: list[_Run], size: int) -> bytes:
    """ECREATE, then for every page EADD and, for its every 256 bytes, EEXTEND."""
    hashed = hashlib.sha256(_block(b"ECREATE", struct.pack("<IQ", 1, size)))
    for run in runs:
        for offset, page in run.pages():
            hashed.update(_block(b"EADD", struct.pack("<QQ", offset, run.flags)))
            for at in range(0, PAGE, _CHUNK_BYTES):
                hashed.update(_block(b"EEXTEND", struct.pack("<Q", offset + at)))
                hashed.update(page[at : at + _CHUNK_BYTES])
    return hashed.digest()


_SIGNED_HEAD = bytes.fromhex("06000000e10000000000010000000000")
_SIGNED_HEAD_2 = bytes.fromhex("01010000600000006000000001000000")
_ALL_BITS = 0xFFFFFFFF


def _sign(measurement: bytes, modulus: bytes, n: int, signing_key: Any, attributes: int, xfrm: int) -> bytes:
    """A SIGSTRUCT. Of attributes and XFRM every bit counts."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = time.time() if epoch is None else int(epoch)
    today = int(datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime("%Y%m%d"), 16)
    head = struct.pack("<16sII16sI84x", _SIGNED_HEAD, 0, today, _SIGNED_HEAD_2, 0)
    body = struct.pack(
        "<II20xQQQQ32s32xHH",
        0,
        _ALL_BITS,
        attributes,
        xfrm,
        2**64 - 1,
        2**64 - 1,
        measurement,
        0,
        0,
    )
    signature = int.from_bytes(signing_key.sign(head + body, padding.PKCS1v15(), hashes.SHA256()), "big")
    first, rest = divmod(signature * signature, n)
    second = rest * signature // n
    numbers = [number.to_bytes(_RSA_BYTES, "little") for number in (signature, first, second)]
    return b"".join((head, modulus, struct.pack("<I", 3), numbers[0], body, bytes(12), *numbers[1:]))


def _read_head(path: Path, kind: str, offset: int = 0, count: int = 1) -> Any:
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(count * ffi.sizeof(kind))
    if len(head) != count * ffi.sizeof(kind):
        raise BundleError(f"{path} is no enclave: 'tinytee sgx build' makes one")
    records = ffi.new(f"{kind}[]", count)
    ffi.buffer(records)[:] = head
    return records


def read_head(path: Path) -> Any:
    """The tte_image of an image's file.

    Raises:
        BundleError: it is no image, or of another version.
        OSError: it cannot be read.
    """
    image = _read_head(path, "tte_image")[0]
    if image.magic != constants.TTE_IMAGE_MAGIC or image.version != constants.TTE_IMAGE_VERSION:
        raise BundleError(f"{path} is no enclave, or of another version: 'tinytee sgx build' makes one")
    return image


def read_isa(path: Path) -> str:
    """The instruction set of the kernels in an image. Raises as :func:`read_head`."""
    return bytes(read_head(path).isa).rstrip(b"\0").decode("ascii", "replace")


def read_secure_bytes(path: Path) -> int:
    """The enclave memory that an image takes. Raises as :func:`read_head`."""
    count = min(read_head(path).run_count, constants.TTE_MAX_RUNS)
    return sum(run.bytes for run in _read_head(path, "tte_run", ffi.sizeof("tte_image"), count))


def _write(image: Any, runs: list[_Run]) -> bytes:
    offset = ffi.sizeof("tte_image") + len(runs) * ffi.sizeof("tte_run")
    parts = [abi.record_bytes(image)]
    for run in runs:
        contents = len(run.contents)
        fields = {"offset": run.offset, "bytes": run.size, "secinfo_flags": run.flags}
        parts.append(
            abi.record_bytes(ffi.new("tte_run *", {**fields, "contents_offset": offset, "contents_bytes": contents}))
        )
        offset += contents
    return b"".join((*parts, *(run.contents for run in runs)))


def make_signing_key() -> Any:
    """A fresh RSA key as SGX wants it."""
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    return rsa.generate_private_key(public_exponent=3, key_size=8 * _RSA_BYTES)


def load_signing_key(data: bytes) -> Any:
    """A signing key from its PEM file.

    Raises:
        ValueError: it is none that SGX takes.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(data, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a signing key in PEM, without a password: {error}") from None
    _check_signing_key(key)
    return key


def signing_key_bytes(key: Any) -> bytes:
    """A signing key as a PEM file."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _check_signing_key(key: Any) -> Any:
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        if key.key_size == 8 * _RSA_BYTES and numbers.e == 3:
            return numbers
    raise ValueError("SGX wants enclaves signed with RSA of 3072 bits and exponent 3: openssl genrsa -3 3072")
