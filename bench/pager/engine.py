"""tinytee's core on an arena of the caller's, driven through its public C interface alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from tinytee.bundle import Bundle
from tinytee.bundle.abi import constants, ffi
from tinytee.runtime import library
from tinytee.runtime.tensors import from_core, from_wire, to_core, to_wire

Array = NDArray[Any]


class Engine:
    """A bundle of AES-256-GCM, open in memory at an address; pinned weights are read when it is made.

    Args:
        address: of at least ``bundle.peak_secure_memory_bytes``, aligned to 64. They must outlive the engine.

    Raises:
        RuntimeError: the core refuses something.
    """

    def __init__(self, bundle: Bundle, key: bytes, address: int) -> None:
        self._library = library.load()
        self._manifest = bundle.manifest
        self._sealed = ffi.from_buffer("uint8_t[]", bundle.sealed())
        preamble = bundle.preamble
        ends = np.cumsum([preamble.total_bytes, *preamble.sealed_bytes])
        self._chunks = [(int(begin), int(end - begin)) for begin, end in itertools.pairwise(ends)]
        io_key = AESGCM.generate_key(256)
        self._client = AESGCM(io_key)
        self._spills: dict[int, Any] = {}
        self._want = ffi.new("tt_want *")
        self._port = self._library.tth_port_open(ffi.NULL)
        found = ffi.new("tt_engine **")
        arena_bytes = bundle.peak_secure_memory_bytes
        memory, hooks = ffi.cast("void *", address), self._library.tth_port_hooks(self._port)
        self._check(
            self._library.tt_open(memory, arena_bytes, hooks, self._sealed, preamble.total_bytes, key, io_key, found)
        )
        self._engine = found[0]
        self._pump([], [])

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One sample, by the model's own names."""
        specs, results = self._manifest.inputs, self._manifest.outputs
        given = [np.ascontiguousarray(to_wire(spec, to_core(spec, inputs[spec.name], 0))) for spec in specs]
        taken = [np.zeros((spec.height, spec.width, spec.channels), spec.wire_dtype) for spec in results]
        self._check(self._library.tt_start(self._engine))
        self._pump(given, taken)
        pairs = zip(results, taken, strict=True)
        return {spec.name: from_core(spec, from_wire(spec, array).reshape(1, -1)) for spec, array in pairs}

    def close(self) -> None:
        self._library.tt_close(self._engine)
        self._library.tth_port_close(self._port)

    def _pump(self, given: list[Array], taken: list[Array]) -> None:
        want = self._want
        while True:
            self._check(self._library.tt_poll(self._engine, want))
            if want.event == constants.TT_READY:
                return
            self._serve(want, given, taken)

    def _serve(self, want: Any, given: list[Array], taken: list[Array]) -> None:
        nonce, rows = bytes(want.nonce)[:12], slice(want.row, want.row + want.rows)
        if want.event == constants.TT_WANT_CHUNK:
            begin, count = self._chunks[want.index]
            self._check(self._library.tt_feed(self._engine, self._sealed + begin, count))
        elif want.event == constants.TT_WANT_INPUT:
            sealed = self._client.encrypt(nonce, given[want.index][rows].tobytes(), None)
            self._check(self._library.tt_feed(self._engine, sealed, len(sealed)))
        elif want.event == constants.TT_WANT_FETCH:
            self._check(self._library.tt_feed(self._engine, self._spills[want.index], want.bytes))
        else:
            sealed = ffi.new("uint8_t[]", want.bytes)
            self._check(self._library.tt_take(self._engine, sealed, want.bytes))
            if want.event == constants.TT_GIVE_SPILL:
                self._spills[want.index] = sealed
            else:
                target = taken[want.index][rows]
                plain = np.frombuffer(self._client.decrypt(nonce, bytes(ffi.buffer(sealed)), None), target.dtype)
                target[...] = plain.reshape(target.shape)

    @staticmethod
    def _check(status: int) -> None:
        if status != constants.TT_OK:
            raise RuntimeError(f"the core gives status {status}")
