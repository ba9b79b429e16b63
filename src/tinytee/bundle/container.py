"""The bundle as an object: a file, bytes, or a network that is sealed when it is first asked for."""

from __future__ import annotations

import io
import mmap
import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tinytee.bundle.manifest import Manifest
from tinytee.bundle.preamble import Preamble, parse_preamble
from tinytee.errors import BundleError

if TYPE_CHECKING:
    from tinytee.bundle.sealing import Progress, Unsealed


class Bundle:
    """A compiled network, sealed.

    Made by :func:`tinytee.compile`, :meth:`load` or :meth:`parse`. What is fresh from the compiler is sealed once,
    under a key and nonces of its own, when it is first saved or used.

    Attributes:
        manifest: what the bundle says about itself; authentic only once a session is open on it.
        suite: name of the AEAD suite.
        peak_secure_memory_bytes: secure memory that a session needs, all included.
        plan: the planner's decisions, fresh from the compiler, else None.
    """

    def __init__(
        self,
        *,
        sealed: memoryview | None = None,
        is_shared: bool = False,
        unsealed: Unsealed | None = None,
        plan: Any = None,
    ) -> None:
        self._sealed = sealed
        self._is_shared = is_shared
        self._unsealed = unsealed
        self._preamble: Preamble | None = None
        self._lock = threading.RLock()
        self.plan = plan
        if unsealed is not None:
            self.manifest: Manifest = unsealed.manifest
            self.suite: str = unsealed.suite
            self.peak_secure_memory_bytes: int = unsealed.arena_bytes
        else:
            self.manifest = self.preamble.manifest
            self.suite = self.preamble.suite
            self.peak_secure_memory_bytes = self.preamble.arena_bytes

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Bundle:
        """A bundle from its bytes, whose public part is checked.

        Raises:
            BundleError: it is not a bundle, truncated, longer than it says, or of another version.
        """
        return cls(sealed=memoryview(data).cast("B"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """A bundle from a file, which is mapped, not read; its public part is checked.

        Raises:
            BundleError: it is not a bundle, truncated, longer than it says, or of another version.
            OSError: the file cannot be read.
        """
        return cls(sealed=_map(path), is_shared=True)

    @property
    def preamble(self) -> Preamble:
        """The public part, as it stands in the bundle."""
        if self._preamble is None:
            sealed = self.sealed()
            self._preamble = parse_preamble(sealed, len(sealed))
        return self._preamble

    @property
    def is_shared(self) -> bool:
        """Whether others can write the bundle's memory: it is a mapped file."""
        return self._is_shared

    def sealed(self) -> memoryview:
        """The sealed bytes, without a copy."""
        with self._lock:
            if self._sealed is None:
                stream = io.BytesIO()
                self._write_once(stream, None)
                self._sealed = stream.getbuffer()
            return self._sealed

    def to_bytes(self) -> bytes:
        """The whole bundle, as :meth:`save` writes it."""
        return bytes(self.sealed())

    def save(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Writes the bundle aside, then renames it: ``path`` holds all of it or is left as it was.

        Args:
            path: the file to write.
            progress: told what is being done, and which fraction of it is.

        Raises:
            OSError: it cannot be written.
        """
        target = Path(path)
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a directory; name a file")
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with aside.open("xb") as stream:
                if self._unsealed is not None:
                    self._write_once(stream, progress)
                else:
                    stream.write(self.sealed())
                stream.flush()
                os.fsync(stream.fileno())
            if self._sealed is None:
                self._sealed, self._is_shared = _map(aside), True
            aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)

    def _write_once(self, stream: BinaryIO, progress: Progress | None) -> None:
        if self._unsealed is None:
            raise BundleError("sealing was interrupted; compile the network again")
        unsealed, self._unsealed = self._unsealed, None
        unsealed.write(stream, progress)

    def __repr__(self) -> str:
        names = ", ".join(str(tensor) for tensor in self.manifest.inputs)
        return f"<Bundle {names}; {self.suite}; {self.peak_secure_memory_bytes:,} bytes of secure memory>"


def _map(path: str | os.PathLike[str]) -> memoryview:
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise BundleError(f"{os.fspath(path)} is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
