"""libepc.so: built when it is older than its sources, loaded through its header."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from compiled import NativeError, build_library, load_library

_HERE = Path(__file__).resolve().parent
_SOURCES = ("epc.c", "steer.c")
_HEADERS = ("epc.h", "steer.h")
PAGE_BYTES = 4096
_ERROR_BYTES = 256


class PagerError(Exception):
    """The pager cannot be built here, or the kernel does not permit it."""


def build() -> Path:
    """Compiles libepc.so if need be.

    Raises:
        PagerError: there is no C compiler, or no OpenSSL to develop with.
    """
    sources, headers = ([_HERE / name for name in names] for names in (_SOURCES, _HEADERS))
    try:
        return build_library("libepc.so", sources, headers, ["-O2", "-pthread", "-lcrypto"])
    except NativeError as error:
        raise PagerError(str(error)) from error


class Pager:
    """A region of memory of which only so many bytes are resident, as epc.h says. A context manager.

    Raises:
        PagerError: it cannot be built, or the kernel does not permit it.
    """

    def __init__(self, region_bytes: int, resident_bytes: int) -> None:
        self._pager = None
        self._ffi, self._library = load_library(build(), _HERE / "epc.h")
        error = self._ffi.new("char[]", _ERROR_BYTES)
        opened = self._library.epc_open(region_bytes, resident_bytes, error, _ERROR_BYTES)
        if opened == self._ffi.NULL:
            text = self._ffi.string(error)
            raise PagerError(text.decode() if isinstance(text, bytes) else text)
        self._pager = opened

    @property
    def address(self) -> int:
        """Of the region's first byte; aligned to a page."""
        return int(self._ffi.cast("uintptr_t", self._library.epc_region(self._pager)))

    def view(self) -> memoryview:
        """The whole region, to read and write."""
        size = self._library.epc_region_bytes(self._pager)
        return memoryview(self._ffi.buffer(self._library.epc_region(self._pager), size))

    def backing(self, offset: int) -> memoryview:
        """The sealed page that holds the region's byte at an offset."""
        return memoryview(self._ffi.buffer(self._library.epc_backing(self._pager, offset), PAGE_BYTES))

    def resize(self, resident_bytes: int) -> None:
        self._library.epc_resize(self._pager, resident_bytes)

    def discard(self, offset: int, count_bytes: int) -> None:
        self._library.epc_discard(self._pager, offset, count_bytes)

    def steer(self, threshold_bytes: int) -> None:
        """This thread's allocations of at least so many bytes go into the region; this library must be preloaded."""
        self._library.epc_steer(self._pager, threshold_bytes)

    def stop_steering(self) -> None:
        self._library.epc_steer(self._ffi.NULL, 0)

    def touch(self, count_bytes: int) -> float:
        """Writes to every page of the region's first bytes; seconds."""
        return float(self._library.epc_touch(self._pager, count_bytes))

    def counters(self) -> dict[str, float]:
        """epc_counters by name."""
        found: Any = self._ffi.new("epc_counters *")
        self._library.epc_read_counters(self._pager, found)
        return {name: getattr(found, name) for name, _ in self._ffi.typeof("epc_counters").fields or ()}

    def close(self) -> None:
        """Permitted more than once."""
        pager, self._pager = self._pager, None
        if pager is not None:
            self._library.epc_close(pager)

    def __enter__(self) -> Pager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
