"""The process backend: the core in this process' own memory, driven by libtinytee.so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle.abi import constants, ffi
from tinytee.bundle.container import Bundle
from tinytee.bundle.manifest import TensorSpec
from tinytee.bundle.preamble import parse_preamble
from tinytee.errors import AuthenticationError, BundleError, EngineError, TinyteeError
from tinytee.runtime import library
from tinytee.runtime.stats import SessionStats
from tinytee.runtime.tensors import from_core, keeps_order, to_core

_ERRORS: dict[int, type[TinyteeError]] = {
    constants.TT_ERROR_BUNDLE: BundleError,
    constants.TT_ERROR_AUTHENTICATION: AuthenticationError,
}
_ARENA_KINDS = {
    constants.TTH_ARENA_SECRET: "secret",
    constants.TTH_ARENA_LOCKED: "locked",
    constants.TTH_ARENA_UNLOCKED: "unlocked",
}
_ERROR_TEXT_BYTES = 256

DirectRun = Callable[[Mapping[str, Any]], dict[str, NDArray[Any]] | None]


class ProcessBackend:
    """A session of libtinytee.so. Its manifest is the authenticated one.

    Raises:
        AuthenticationError: the key is not the bundle's key, or the bundle was changed.
        BundleError: the bundle is malformed.
        EngineError: the core or the port refuses it.
    """

    def __init__(self, bundle: Bundle, key: bytes, *, isa: str | None, threads: int, not_dumpable: bool) -> None:
        self._session = None
        self._library = library.load()
        self._suite = bundle.suite
        isa_text = ffi.NULL if isa is None else ffi.new("char[]", isa.encode())
        aegis: dict[str, Any] = {}
        if bundle.suite == "aegis-256x4":
            aegis = library.aegis_functions()
            if not aegis:
                raise EngineError("the bundle's suite is AEGIS-256X4, which needs pyaegis: pip install pyaegis")
        flags = constants.TTH_BUNDLE_SHARED if bundle.is_shared else 0
        if not_dumpable:
            flags |= constants.TTH_NOT_DUMPABLE
        options = ffi.new("tth_options *", {"isa": isa_text, "aegis": aegis, "flags": flags, "threads": threads})
        self._sealed = ffi.from_buffer("uint8_t[]", bundle.sealed())
        opened, error = ffi.new("tth_session **"), ffi.new("char[]", _ERROR_TEXT_BYTES)
        status = self._library.tth_session_open(
            self._sealed, len(self._sealed), key, options, opened, error, _ERROR_TEXT_BYTES
        )
        if status != constants.TT_OK:
            raise _ERRORS.get(status, EngineError)(ffi.string(error).decode())
        self._session = opened[0]
        size = ffi.new("size_t *")
        preamble = self._library.tth_session_preamble(self._session, size)
        self.manifest = parse_preamble(bytes(ffi.buffer(preamble, size[0])), len(self._sealed)).manifest
        self.run_direct = self._prepare_direct(self.manifest.inputs, self.manifest.outputs)

    def run(self, inputs: Sequence[NDArray[np.float32]], outputs: Sequence[NDArray[np.float32]]) -> None:
        """Runs one sample.

        Args:
            inputs: one array an input, [height, width, channels], of any strides.
            outputs: one array an output, C-contiguous, of as many elements, written.

        Raises:
            TinyteeError: the run failed; the session is dead.
        """
        given = [_strided(array) for array in inputs]
        taken = [(ffi.from_buffer("float[]", array, require_writable=True), array.size) for array in outputs]
        status = self._library.tth_session_run(
            self._session, ffi.new("tth_input[]", given), len(given), ffi.new("tth_output[]", taken), len(taken)
        )
        if status != constants.TT_OK:
            raise _failure(self._library, self._session, status)

    def _prepare_direct(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> DirectRun | None:
        """Runs one sample whose arrays are what the core reads: float32, dense, of the signature's shapes; None where
        the signature wants others. The function returns the outputs by name or, where it is given anything else, None,
        and has done nothing then.

        A run leaves little of the interpreter in the processor's caches, so that each object and each function touched
        before and after it takes its time: everything that does not depend on the arrays is prepared, here.
        MobileNetV3-Small takes .95 of the time that it takes through :meth:`run`.
        """
        if any(spec.dtype != "float32" for spec in inputs):
            return None
        given = ffi.new("tth_input[]", [_place(spec) for spec in inputs])
        taken = ffi.new("tth_output[]", [(ffi.NULL, spec.elems) for spec in outputs])
        read = [(spec.name, spec.sample_shape, given[i]) for i, spec in enumerate(inputs)]
        turned = [spec for spec in outputs if not keeps_order(spec)]
        shapes = [(1, spec.elems) if spec in turned else spec.sample_shape for spec in outputs]
        written = [(spec.name, shapes[i], taken[i]) for i, spec in enumerate(outputs)]
        library, session, count, of_floats = self._library, self._session, len(read), ffi.typeof("float[]")
        call = library.tth_session_run
        from_buffer, empty, ndarray, float32 = ffi.from_buffer, np.empty, np.ndarray, np.dtype(np.float32)

        def run(arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
            if len(arrays) != count:
                return None
            kept = []
            for name, shape, place in read:
                if name not in arrays:
                    return None
                array = arrays[name]
                if type(array) is not ndarray or array.dtype is not float32 or array.shape != shape:
                    return None
                if not array.flags.carray:
                    return None
                place.values = values = from_buffer(of_floats, array)
                kept.append(values)
            found = {}
            for name, shape, place in written:
                found[name] = array = empty(shape, float32)
                place.values = values = from_buffer(of_floats, array)
                kept.append(values)
            if status := call(session, given, count, taken, len(written)):
                raise _failure(library, session, status)
            for spec in turned:
                found[spec.name] = from_core(spec, found[spec.name])
            return found

        return run

    def stats(self) -> SessionStats:
        found: Any = ffi.new("tth_stats *")
        self._library.tth_session_stats(self._session, found)
        same = ("arena_bytes", "touched_bytes", "runs", "chunks", "chunk_bytes", "inputs", "input_bytes", "outputs")
        same += ("output_bytes", "spills", "spill_bytes", "fetches", "fetch_bytes", "spill_memory_bytes")
        same += ("open_seconds", "run_seconds", "last_run_seconds", "aead_seconds")
        return SessionStats(
            peak_secure_memory_bytes=found.peak_bytes,
            arena_kind=_ARENA_KINDS[found.arena_kind],
            isa=ffi.string(found.isa).decode(),
            suite=self._suite,
            **{name: getattr(found, name) for name in same},
        )

    def close(self) -> None:
        """Wipes the arena and the keys; permitted more than once."""
        session, self._session = self._session, None
        if session is not None:
            self._library.tth_session_close(session)


def _failure(library: Any, session: Any, status: int) -> TinyteeError:
    return _ERRORS.get(status, EngineError)(ffi.string(library.tth_session_error(session)).decode())


def _place(spec: TensorSpec) -> tuple[Any, ...]:
    """The ``tth_input`` of a sample that is dense in the order of the signature; its values are still to be set."""
    return ffi.NULL, *_strided(to_core(spec, np.empty(spec.sample_shape, np.float32), 0))[1:]


def _strided(array: NDArray[np.float32]) -> tuple[Any, ...]:
    """An array's ``tth_input``; the array must outlive it."""
    values = ffi.cast("float *", array.__array_interface__["data"][0])
    if array.flags.c_contiguous:
        return values, array.size
    return values, array.size, array.shape[2], *(stride // array.itemsize for stride in array.strides)
