"""libtinytee.so, loaded through its public headers."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

from tinytee.bundle.abi import constants, ffi
from tinytee.errors import EngineError

_PACKAGE = Path(__file__).resolve().parents[1]

PLACES = (_PACKAGE / "_lib" / "libtinytee.so", _PACKAGE.parents[1] / "build" / "libtinytee.so")
"""Where the library is looked for: in the installed package, then in the source tree's build."""


@functools.cache
def load() -> Any:
    """The library, with the functions of tinytee.h and tinytee_host.h.

    Raises:
        EngineError: it is not built, or cannot be loaded.
    """
    place = next((place for place in PLACES if place.exists()), None)
    if place is None:
        raise EngineError(
            "libtinytee.so is not built: run 'cmake -S . -B build -G Ninja && cmake --build build' in tinytee's"
            f" source tree (looked for {' and '.join(str(place) for place in PLACES)})"
        )
    try:
        return ffi.dlopen(str(place))
    except OSError as error:
        raise EngineError(f"{place} cannot be loaded: {error}") from error


def best_isa() -> str:
    """The instruction set that kernels use on this processor unless another is asked for."""
    found = load()
    port = found.tth_port_open(ffi.NULL)
    if not port:
        raise EngineError("there is no memory")
    try:
        return ffi.string(found.tth_port_isa(port)).decode()
    finally:
        found.tth_port_close(port)


@functools.cache
def aegis_functions() -> dict[str, Any]:
    """The fields of a ``tth_aegis``: libaegis' functions, out of the pyaegis wheel; empty where it is not installed."""
    try:
        extension = importlib.import_module("pyaegis._aegis_ffi")
    except ImportError:
        return {}
    from cffi import FFI  # noqa: PLC0415

    finder = FFI()
    fields = dict(ffi.typeof("tth_aegis").fields)
    finder.cdef("".join(f"int aegis256x4_{name}();" for name in fields))
    carrier: Any = finder.dlopen(extension.__file__)
    try:
        addresses = {name: finder.addressof(carrier, f"aegis256x4_{name}") for name in fields}
        state_bytes = extension.ffi.sizeof("aegis256x4_state")
    except AttributeError:
        return {}
    if state_bytes > constants.TTH_AEGIS_STATE_BYTES:
        return {}
    _carriers.append(carrier)
    return {name: ffi.cast(fields[name].type, int(finder.cast("uintptr_t", at))) for name, at in addresses.items()}


_carriers: list[Any] = []  # cffi unloads a library with its last reference
