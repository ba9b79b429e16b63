"""Seals a lowered network into a bundle: see docs/bundle.md for the layout and the nonces."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from tinytee.bundle import suites
from tinytee.bundle.abi import constants
from tinytee.bundle.manifest import Manifest
from tinytee.bundle.preamble import WRAPPED_BYTES, pack_unwrapped

if TYPE_CHECKING:
    from tinytee.plan.lowered import Lowered

Progress = Callable[[str, float], None]
"""Told what is being done, and which fraction of it is."""


def nonce(domain: int, run: int, index: int) -> bytes:
    """The nonce {domain, run, index, 0, ...} of tinytee_program.h, 32 bytes."""
    return np.array([domain, run, index], "<u4").tobytes() + bytes(constants.TT_NONCE_BYTES - 12)


@dataclass(frozen=True)
class Unsealed:
    """A lowered network with what it takes to seal it, once: its chunks are made only once."""

    lowered: Lowered
    manifest: Manifest
    suite: str
    key: bytes

    @property
    def arena_bytes(self) -> int:
        """Secure memory that a session needs: the program's, but at least what the core needs to read the preamble."""
        public = len(self._public(bytes(16), bytes(constants.TT_NONCE_BYTES), 0)) + WRAPPED_BYTES
        return max(self.lowered.arena_bytes, constants.TT_ENGINE_BYTES + public)

    def _public(self, bundle_id: bytes, wrap_nonce: bytes, arena_bytes: int) -> bytes:
        manifest = self.manifest.to_json()
        return pack_unwrapped(self.suite, arena_bytes, bundle_id, wrap_nonce, manifest, self.sealed_bytes)

    @property
    def sealed_bytes(self) -> list[int]:
        tag, pieces = constants.TT_TAG_BYTES, zip(self.lowered.chunk_bytes, self.lowered.piece_bytes, strict=True)
        weights = [count + -(-count // size) * tag for count, size in pieces]
        return [len(self.lowered.program) + tag, *weights]

    def write(self, stream: BinaryIO, progress: Progress | None = None) -> None:
        """Seals everything under a fresh bundle key, chunk after chunk, into the stream.

        Raises:
            ValueError: the suite is not available, or a chunk has not the length it was said to have.
        """
        wrap = suites.sealer(self.suite, self.key)
        bundle_key = os.urandom(constants.TT_KEY_BYTES)
        seal = suites.sealer(self.suite, bundle_key)
        wrap_nonce = os.urandom(constants.TT_NONCE_BYTES)
        sealed_bytes = self.sealed_bytes
        public = self._public(os.urandom(16), wrap_nonce, self.arena_bytes)
        stream.write(public)
        stream.write(wrap(wrap_nonce, bundle_key, public))
        for index, expected in enumerate(sealed_bytes):
            plain = bytes(self.lowered.program if index == 0 else self.lowered.chunk(index - 1))
            size = self.lowered.piece_bytes[index - 1] if index else len(plain)
            pieces = [plain[at : at + size] for at in range(0, len(plain), size)]
            numbered = enumerate(pieces)
            sealed = b"".join(seal(nonce(constants.TT_DOMAIN_CHUNK, i, index), piece, b"") for i, piece in numbered)
            if len(sealed) != expected:
                raise ValueError(f"chunk {index} has {len(sealed)} bytes, sealed, and should have {expected}")
            stream.write(sealed)
            if progress:
                progress("sealing", (index + 1) / len(sealed_bytes))
