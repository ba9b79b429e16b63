"""What a session measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SessionStats:
    """What a session measured since it was opened. Bytes of what crosses the boundary are counted sealed.

    Attributes:
        peak_secure_memory_bytes: end of the last byte of the arena that the program can touch, as the core has
            validated it.
        arena_bytes: secure memory handed to the core; an access past it faults.
        touched_bytes: end of the last byte of the arena that holds anything now: a lower bound, by inspection.
        arena_kind: "secret" (memfd_secret), "locked", or "unlocked" (may be swapped).
        isa: instruction set of the kernels.
        suite: AEAD suite.
        runs: complete runs, one a sample.
        chunks, chunk_bytes: of the bundle, fed.
        inputs, input_bytes, outputs, output_bytes: row blocks of inputs fed, of outputs taken.
        spills, spill_bytes, fetches, fetch_bytes: row blocks parked in untrusted memory, and fed back.
        spill_memory_bytes: untrusted memory that holds them.
        open_seconds, run_seconds, last_run_seconds: wall time of opening, of all runs, of the last.
        aead_seconds: of these, in the core's AEAD.
    """

    peak_secure_memory_bytes: int
    arena_bytes: int
    touched_bytes: int
    arena_kind: str
    isa: str
    suite: str
    runs: int
    chunks: int
    chunk_bytes: int
    inputs: int
    input_bytes: int
    outputs: int
    output_bytes: int
    spills: int
    spill_bytes: int
    fetches: int
    fetch_bytes: int
    spill_memory_bytes: int
    open_seconds: float
    run_seconds: float
    last_run_seconds: float
    aead_seconds: float
