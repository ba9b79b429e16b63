"""The public part of a bundle: header, manifest, table of lengths, wrapped key. See docs/bundle.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytee.bundle import suites
from tinytee.bundle.abi import constants, ffi, record_bytes
from tinytee.bundle.manifest import Manifest
from tinytee.errors import BundleError

MAGIC = b"tinytee\0"
HEADER_BYTES: int = ffi.sizeof("tt_bundle_header")
WRAPPED_BYTES: int = constants.TT_KEY_BYTES + constants.TT_TAG_BYTES


@dataclass(frozen=True)
class Preamble:
    """A preamble, read and checked, but not authenticated.

    Attributes:
        suite: name of the AEAD suite.
        arena_bytes: secure memory that a session needs.
        bundle_id: 16 random bytes.
        sealed_bytes: length of every chunk in the file, tag included; chunk 0 is the program.
        total_bytes: length of the preamble itself.
    """

    suite: str
    arena_bytes: int
    bundle_id: bytes
    manifest: Manifest
    sealed_bytes: tuple[int, ...]
    total_bytes: int

    @property
    def bundle_bytes(self) -> int:
        """Length of the whole bundle."""
        return self.total_bytes + sum(self.sealed_bytes)


def pack_unwrapped(
    suite: str, arena_bytes: int, bundle_id: bytes, wrap_nonce: bytes, manifest: bytes, sealed_bytes: Sequence[int]
) -> bytes:
    """The preamble up to the wrapped key: what the wrapped key authenticates."""
    header = ffi.new(
        "tt_bundle_header *",
        {
            "magic": list(MAGIC),
            "version": constants.TT_BUNDLE_VERSION,
            "suite": suites.suite_number(suite),
            "header_bytes": HEADER_BYTES,
            "manifest_bytes": len(manifest),
            "chunk_count": len(sealed_bytes),
            "arena_bytes": arena_bytes,
            "bundle_id": list(bundle_id),
            "wrap_nonce": list(wrap_nonce),
        },
    )
    return record_bytes(header) + manifest + np.asarray(sealed_bytes, "<u4").tobytes()


def parse_preamble(data: Any, file_bytes: int) -> Preamble:
    """Reads the public part of a bundle that may be hostile.

    Args:
        data: the bundle's bytes (any buffer), from its begin and at least its preamble, if the file is that long.
        file_bytes: length of the whole file, which the chunks must fill exactly.

    Raises:
        BundleError: it is not a bundle, truncated, longer than it says, or of another version.
    """
    data = memoryview(data)
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise BundleError("this is not a tinytee bundle")
    if len(data) < HEADER_BYTES:
        raise BundleError("the bundle is truncated in its header")
    header = ffi.new("tt_bundle_header *")
    ffi.buffer(header)[:] = bytes(data[:HEADER_BYTES])
    if header.version != constants.TT_BUNDLE_VERSION or header.header_bytes != HEADER_BYTES:
        raise BundleError(f"the bundle has version {header.version}, this tinytee reads {constants.TT_BUNDLE_VERSION}")
    if header.suite not in suites.NAMES:
        raise BundleError(f"the bundle's suite {header.suite} is unknown to this tinytee")
    if (
        header.manifest_bytes > constants.TTH_MAX_MANIFEST_BYTES
        or not 1 <= header.chunk_count <= constants.TTH_MAX_CHUNKS
        or header.arena_bytes < constants.TT_ENGINE_BYTES
    ):
        raise BundleError("the bundle's header is out of bounds")
    table_offset = HEADER_BYTES + header.manifest_bytes
    total_bytes = table_offset + 4 * header.chunk_count + WRAPPED_BYTES
    if len(data) < total_bytes:
        raise BundleError("the bundle is truncated in its preamble")
    sealed_bytes = np.frombuffer(data, "<u4", header.chunk_count, table_offset)
    if int(sealed_bytes.min()) < constants.TT_TAG_BYTES:
        raise BundleError("the bundle's table of lengths is malformed")
    preamble = Preamble(
        suite=suites.NAMES[header.suite],
        arena_bytes=header.arena_bytes,
        bundle_id=bytes(header.bundle_id),
        manifest=Manifest.from_json(bytes(data[HEADER_BYTES:table_offset])),
        sealed_bytes=tuple(sealed_bytes.tolist()),
        total_bytes=total_bytes,
    )
    if file_bytes < preamble.bundle_bytes:
        raise BundleError(f"the bundle is truncated: {file_bytes:,} bytes of {preamble.bundle_bytes:,}")
    if file_bytes > preamble.bundle_bytes:
        raise BundleError(f"{file_bytes - preamble.bundle_bytes:,} bytes follow the bundle's end")
    return preamble
