"""The feeder's records, read from the C headers, and its requests. See ports/optee/include/tinytee_wire.h."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinytee.bundle.abi import constants, parse_headers
from tinytee.errors import AuthenticationError, BundleError, EngineError, TinyteeError

_HEADERS = ("ports/optee/include/tinytee_ta.h", "ports/optee/include/tinytee_wire.h")

ffi: Any
numbers: Any
ffi, numbers = parse_headers(_HEADERS, ("TTA_", "TTF_"))

_ERRORS: dict[int, type[TinyteeError]] = {
    constants.TT_ERROR_BUNDLE: BundleError,
    constants.TT_ERROR_AUTHENTICATION: AuthenticationError,
}


class Wire:
    """Requests over a byte stream, and their answers.

    Args:
        reader, writer: binary streams from and to the feeder.
        why: says why the other end is gone, for a message.
    """

    def __init__(self, reader: Any, writer: Any, why: Callable[[], str]) -> None:
        self._reader, self._writer, self._why = reader, writer, why

    def send(self, kind: int, session: int, *parts: Any) -> None:
        """Sends a request with these parts, one after another, as its bytes."""
        total = sum(memoryview(part).nbytes for part in parts)
        message = ffi.new("ttf_message *", {"kind": kind, "session": session, "bytes": total})
        try:
            self._writer.write(ffi.buffer(message))
            for part in parts:
                self._writer.write(part)
            self._writer.flush()
        except (OSError, ValueError) as error:
            raise self._gone() from error

    def receive(self) -> tuple[int, bytearray]:
        """The kind and the bytes of an answer.

        Raises:
            TinyteeError: the answer is an error, or there is none.
        """
        message = ffi.new("ttf_message *")
        ffi.buffer(message)[:] = self._read(ffi.sizeof("ttf_message"))
        data = self._read(message.bytes)
        if message.kind == numbers.TTF_ERROR:
            raise _ERRORS.get(message.value, EngineError)(data.decode("utf-8", "replace"))
        return message.kind, data

    def ask(self, kind: int, session: int, *parts: Any) -> bytearray:
        """Sends a request that has one answer, and waits for it."""
        self.send(kind, session, *parts)
        answered, data = self.receive()
        if answered != numbers.TTF_DONE:
            raise EngineError(f"the feeder answers {answered}, which is none: it is of another version")
        return data

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, at = memoryview(data), 0
        while at < size:
            try:
                got = self._reader.read(size - at)
            except (OSError, ValueError) as error:
                raise self._gone() from error
            if not got:
                raise self._gone()
            view[at : at + len(got)] = got
            at += len(got)
        return data

    def _gone(self) -> EngineError:
        return EngineError(f"the feeder is gone: {self._why()}")


def record(kind: str, data: Any) -> Any:
    """A record out of its bytes."""
    made = ffi.new(f"{kind} *")
    ffi.buffer(made)[:] = bytes(data[: ffi.sizeof(kind)])
    return made
