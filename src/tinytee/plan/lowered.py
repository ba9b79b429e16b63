"""What the compiler hands to the bundle room: a program and the plaintext of its chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinytee.ir.graph import Port, Quant, Shape


@dataclass(frozen=True)
class Lowered:
    """A network as the core runs it, not yet sealed.

    Attributes:
        program: chunk 0, the program's head and its first part.
        chunk_bytes: plaintext length of every chunk of weights or a part of the program, in order (chunk k + 1 of the
            bundle).
        piece_bytes: of each, that of the pieces that it is sealed in, at most.
        chunk: makes the plaintext of that chunk (called once each, in order, so that weights need not be
            in memory twice).
        arena_bytes: secure memory that a session needs, engine and program included.
        inputs, outputs: the signature, each with the shape of its tensor, and its quant where it is uint8.
    """

    program: bytes
    chunk_bytes: Sequence[int]
    piece_bytes: Sequence[int]
    chunk: Callable[[int], bytes]
    arena_bytes: int
    inputs: tuple[tuple[Port, Shape, Quant | None], ...]
    outputs: tuple[tuple[Port, Shape, Quant | None], ...]
    part_bytes: Sequence[int] = ()
    """Of the parts of the program that a run is fed."""

    def in_plaintext(self, inputs: Sequence[bytes], output_bytes: Sequence[int]) -> bytes:
        """A file that runs without a cipher and without a host: the program, all chunks, and inputs in one, after how
        many there are of each and how long each is (uint32; see tests/emulated/run_program.c).

        inputs: as they cross the boundary; output_bytes: likewise.
        """
        chunks = [self.chunk(k) for k in range(len(self.chunk_bytes))]
        counts = [len(self.program), len(chunks), len(inputs), len(output_bytes)]
        sizes = [*map(len, chunks), *map(len, inputs), *output_bytes]
        return np.array(counts + sizes, "<u4").tobytes() + b"".join([self.program, *chunks, *inputs])
