"""``Session``: a bundle, open and ready to run."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee.bundle.abi import constants
from tinytee.bundle.container import Bundle
from tinytee.bundle.manifest import Manifest
from tinytee.errors import EngineError, TinyteeError
from tinytee.runtime import backends
from tinytee.runtime.process import DirectRun, ProcessBackend
from tinytee.runtime.provisioning import SealedKey
from tinytee.runtime.stats import SessionStats
from tinytee.runtime.tensors import check_inputs, from_core, to_core
from tinytee.runtime.trusted import TrustedBackend

BACKENDS = ("process", *backends.TRUSTED)

KEY_BYTES: int = constants.TT_KEY_BYTES


def check_key(key: bytes | None) -> bytes:
    """The key as bytes.

    Raises:
        TypeError: it is not bytes.
        ValueError: it has not 32 bytes.
    """
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"a key is {KEY_BYTES} bytes, not {type(key).__name__}")
    if len(bytes(key)) != KEY_BYTES:
        raise ValueError(f"a key is {KEY_BYTES} bytes, not {len(bytes(key))}")
    return bytes(key)


def _thread_count(asked: int | None, most: int) -> int:
    if asked is not None and (not isinstance(asked, int) or asked < 1):
        raise ValueError(f"threads is a number from 1, not {asked!r}")
    return min(most, asked or len(os.sched_getaffinity(0)))


class Session:
    """Runs a bundle. A context manager; closing it wipes the secure memory and the keys.

    Calls from several threads wait for one another. After an error of the engine the session is dead: its memory is
    wiped, and every later run raises EngineError.

    Args:
        bundle: a Bundle, or the path of one.
        key: the 32 bytes it was compiled with; in a TEE for development only, since the normal world learns it.
        sealed_key: in its place, in a TEE: that key sealed to the device by :func:`tinytee.provision`, or the path of
            such a file. Inputs and outputs are then sealed between here and the device whose public key is in it: take
            it from where it cannot be changed.
        backend: where the core runs: "process" is this process (see docs/threat-model.md), "optee" the trusted
            application on this device, "optee-qemu" the same in a machine that is booted for it (see docs/optee.md),
            "sgx" an enclave on this machine, "sgx-emulated" the same by an emulated processor (see docs/sgx.md).
        isa: instruction set of the kernels ("portable", "avx2", "avx512", "avx512vnni", "neon", "neondot"); None: the
            best there is.
        threads: that share a run in the process backend; at most as many as the bundle was compiled for are used.
            None: as many, or the processor's cores if they are fewer.
        not_dumpable: also make the whole process not dumpable, nor traceable by its own user.

    Raises:
        AuthenticationError: the key is not this bundle's key, or the bundle was changed.
        BundleError: it is not a bundle, truncated, or of another version.
        EngineError: the library is not built, the core refuses the bundle, or the backend is not to be had here.
        OSError: the file cannot be read.
        TypeError, ValueError: the key or the backend is no such thing.
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        key: bytes | None = None,
        *,
        sealed_key: SealedKey | bytes | str | os.PathLike[str] | None = None,
        backend: str = "process",
        isa: str | None = None,
        threads: int | None = None,
        not_dumpable: bool = False,
    ) -> None:
        self._backend: ProcessBackend | TrustedBackend | None = None
        self._direct: DirectRun | None = None
        self._lock = threading.Lock()
        if backend not in BACKENDS:
            raise ValueError(f"there is no backend '{backend}'; there are {', '.join(BACKENDS)}")
        if (key is None) == (sealed_key is None):
            raise TypeError("a session needs either the key, or a sealed_key")
        if backend == "process" and sealed_key is not None:
            raise ValueError("a sealed key is for a TEE: backend optee, optee-qemu, sgx or sgx-emulated")
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        if backend == "process":
            self._backend = ProcessBackend(
                opened,
                check_key(key),
                isa=isa,
                threads=_thread_count(threads, opened.manifest.threads),
                not_dumpable=not_dumpable,
            )
            self._direct = self._backend.run_direct
        else:
            given = check_key(key) if sealed_key is None else SealedKey.load(sealed_key)
            self._backend = backends.open_trusted(backend, opened, given)
        self.manifest: Manifest = self._backend.manifest

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Runs the network on arrays as the model's own signature names them.

        Args:
            inputs: an array by the name of every input, of its exact shape and dtype. A batched input's axis 0 may
                have any extent; the samples are run one by one.

        Returns:
            An array by the name of every output.

        Raises:
            ValueError: a name or shape is wrong, or an integer is beyond 2**24.
            TypeError: a dtype is wrong.
            AuthenticationError: the bundle was changed meanwhile.
            EngineError: the engine failed, or the session is closed.
        """
        with self._lock:
            try:
                if self._direct is not None and (found := self._direct(inputs)) is not None:
                    return found
                return self._run(inputs)
            except TinyteeError:
                self._close()
                raise

    def _run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        backend = self._open_backend()
        specs, results = self.manifest.inputs, self.manifest.outputs
        arrays, sample_count = check_inputs(specs, inputs)
        samples = [np.zeros((sample_count if spec.batched else 1, spec.elems), np.float32) for spec in results]
        for sample in range(sample_count):
            backend.run(
                [to_core(spec, arrays[spec.name], sample) for spec in specs],
                [rows[sample if spec.batched else 0] for spec, rows in zip(results, samples, strict=True)],
            )
        return {spec.name: from_core(spec, rows) for spec, rows in zip(results, samples, strict=True)}

    @property
    def stats(self) -> SessionStats:
        """What was measured since the session was opened.

        Raises:
            EngineError: the session is closed.
        """
        with self._lock:
            return self._open_backend().stats()

    def close(self) -> None:
        """Wipes everything; permitted more than once."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        backend, self._backend, self._direct = self._backend, None, None
        if backend is not None:
            backend.close()

    def _open_backend(self) -> ProcessBackend | TrustedBackend:
        if self._backend is None:
            raise EngineError("the session is closed; open the bundle again")
        return self._backend

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        backend = getattr(self, "_backend", None)
        if backend is not None:
            backend.close()
