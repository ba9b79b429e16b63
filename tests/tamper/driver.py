"""Drives the core through tt_* alone, from a host that may lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tinytee.bundle import Bundle
from tinytee.bundle.abi import constants as c
from tinytee.bundle.abi import ffi
from tinytee.runtime import library

IO_KEY = bytes(range(32))


class CoreError(Exception):
    """The core gave a status other than TT_OK."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Core:
    """The core on an arena of its own, with the host port's hooks; AES-256-GCM only.

    Args:
        bundle: that is run.
        key: it was sealed with.
        threads: that the port lends the core.

    Attributes:
        tamper: given what the core wants and the sealed bytes about to be fed; returns what is fed instead.
        watch: given what the core wanted and the sealed bytes just taken.
    """

    def __init__(self, bundle: Bundle, key: bytes, threads: int = 1) -> None:
        self.library = library.load()
        self.bundle = bundle
        self.tamper: Callable[[Any, bytes], bytes] = lambda want, sealed: sealed
        self.watch: Callable[[Any, bytes], None] = lambda want, sealed: None
        self.spills: dict[int, bytes] = {}
        self._sealed = bytes(bundle.sealed())
        self._arena = ffi.new("tth_arena *")
        assert self.library.tth_arena_open(self._arena, bundle.peak_secure_memory_bytes) == 0
        self._port = self.library.tth_port_open(ffi.new("tth_options *", {"threads": threads}))
        self._key = key
        self._client = AESGCM(IO_KEY)
        self.engine = ffi.NULL

    def open(self, preamble: bytes | None = None) -> None:
        """tt_open, then everything up to TT_READY."""
        if preamble is None:
            preamble = self._sealed[: self.bundle.preamble.total_bytes]
        found = ffi.new("tt_engine **")
        hooks = self.library.tth_port_hooks(self._port)
        count = self.bundle.peak_secure_memory_bytes
        self._check(
            self.library.tt_open(self._arena.memory, count, hooks, preamble, len(preamble), self._key, IO_KEY, found)
        )
        self.engine = found[0]
        self._pump(None)

    def run(self, sample: np.ndarray) -> np.ndarray:
        """One run on a feature map [height, width, channels]."""
        self._check(self.library.tt_start(self.engine))
        return self._pump(sample)

    def poll(self) -> Any:
        want = ffi.new("tt_want *")
        self._check(self.library.tt_poll(self.engine, want))
        return want

    def feed(self, sealed: bytes) -> None:
        """After a hint at memory that is not there, of which nothing may come."""
        self.library.tt_expect(self.engine, ffi.cast("void *", 1 << 20), 1 << 30)
        self._check(self.library.tt_feed(self.engine, sealed, len(sealed)))

    def take(self, count: int) -> bytes:
        taken = ffi.new("uint8_t[]", count)
        self._check(self.library.tt_take(self.engine, taken, count))
        return bytes(ffi.buffer(taken))

    def chunk(self, index: int) -> bytes:
        """Sealed chunk of the bundle."""
        sizes = self.bundle.preamble.sealed_bytes
        begin = self.bundle.preamble.total_bytes + sum(sizes[:index])
        return self._sealed[begin : begin + sizes[index]]

    def arena(self) -> bytes:
        return bytes(ffi.buffer(self._arena.memory, self._arena.bytes))

    def is_wiped(self) -> bool:
        """Whether nothing is left in the arena but the engine's status."""
        arena = self.arena()
        state, rest = arena[: c.TT_ENGINE_BYTES], arena[c.TT_ENGINE_BYTES :]
        return not any(rest) and sum(byte != 0 for byte in state) <= 24

    def close(self) -> None:
        if self.engine:
            self.library.tt_close(self.engine)
        self.library.tth_port_close(self._port)
        self.library.tth_arena_close(self._arena)

    def serve(self, want: Any, sample: np.ndarray | None, result: np.ndarray) -> None:
        """Does what is wanted, as an honest host, tampering apart."""
        event, index = want.event, want.index
        nonce = bytes(want.nonce)[:12]
        if event == c.TT_WANT_CHUNK:
            self.feed(self.tamper(want, self.chunk(index)))
        elif event == c.TT_WANT_INPUT:
            assert sample is not None
            self.feed(self.tamper(want, b"".join(self.pieces(want, sample[want.row : want.row + want.rows]))))
        elif event == c.TT_WANT_FETCH:
            self.feed(self.tamper(want, self.spills[index]))
        elif event == c.TT_GIVE_SPILL:
            self.spills[index] = self.take(want.bytes)
            self.watch(want, self.spills[index])
        else:
            sealed = self.take(want.bytes)
            self.watch(want, sealed)
            rows = np.frombuffer(self._client.decrypt(nonce, sealed, None), np.float32)
            result[want.row : want.row + want.rows] = rows.reshape(want.rows, *result.shape[1:])

    def pieces(self, want: Any, rows: np.ndarray) -> Iterator[bytes]:
        """Rows of an input that are wanted, each piece sealed."""
        for number, begin in enumerate(range(0, want.rows, want.piece_rows)):
            nonce = bytearray(bytes(want.nonce)[:12])
            nonce[1] = number
            yield self._client.encrypt(nonce, rows[begin : begin + want.piece_rows].tobytes(), None)

    def _pump(self, sample: np.ndarray | None) -> np.ndarray:
        result = np.zeros_like(sample) if sample is not None else np.zeros((0, 0, 0), np.float32)
        while (want := self.poll()).event != c.TT_READY:
            self.serve(want, sample, result)
        return result

    def _check(self, status: int) -> None:
        if status != c.TT_OK:
            raise CoreError(status)


@contextmanager
def core_on(bundle: Bundle, key: bytes, threads: int = 1) -> Iterator[Core]:
    core = Core(bundle, key, threads)
    try:
        yield core
    finally:
        core.close()
