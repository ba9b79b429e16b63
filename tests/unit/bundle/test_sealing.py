"""Sealed bundles, opened as docs/bundle.md says, without tinytee's own reader."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tamper.programs import CHUNK_BYTES, passthrough, passthrough_bundle
from tinytee.bundle import Bundle, suites
from tinytee.bundle.sealing import Unsealed
from tinytee.errors import BundleError

KEY = bytes(range(32))


def open_by_hand(data: bytes, key: bytes) -> list[bytes]:
    """The plaintext of every chunk."""
    suite, manifest_bytes, chunk_count = (struct.unpack_from("<I", data, at)[0] for at in (12, 20, 24))
    wrap_nonce = data[48:80]
    table = 80 + manifest_bytes
    sizes = struct.unpack_from(f"<{chunk_count}I", data, table)
    wrapped = table + 4 * chunk_count

    def opener(cipher_key: bytes):
        if suite == 3:
            from pyaegis import Aegis256X4  # noqa: PLC0415

            aegis = Aegis256X4(tag_size=16)
            return lambda nonce, sealed, associated: bytes(aegis.decrypt(cipher_key, nonce, sealed, associated))
        cipher = (AESGCM if suite == 1 else ChaCha20Poly1305)(cipher_key)
        return lambda nonce, sealed, associated: cipher.decrypt(nonce[:12], sealed, associated)

    bundle_key = opener(key)(wrap_nonce, data[wrapped : wrapped + 48], data[:wrapped])
    assert len(bundle_key) == 32
    unseal, at, plain = opener(bundle_key), wrapped + 48, []
    for index, size in enumerate(sizes):
        piece = struct.unpack_from("<I", plain[0], 40)[0] if index else size
        end, chunk, number = at + size, b"", 0
        while at < end:
            nonce = struct.pack("<3I", 1, number, index) + bytes(20)
            chunk += unseal(nonce, data[at : min(at + piece + 16, end)], b"")
            at, number = min(at + piece + 16, end), number + 1
        plain.append(chunk)
    assert at == len(data)
    return plain


@pytest.mark.parametrize("suite", list(suites.NUMBERS))
def test_the_documented_construction_opens_it(suite: str) -> None:
    lowered = passthrough()
    plain = open_by_hand(passthrough_bundle(KEY, suite).to_bytes(), KEY)
    assert plain == [lowered.program, *(lowered.chunk(k) for k in range(3))]
    assert all(len(chunk) == CHUNK_BYTES for chunk in plain[1:])


def test_the_reader_in_the_documentation_works() -> None:
    text = (Path(__file__).parents[3] / "docs" / "bundle.md").read_text(encoding="utf-8")
    documented: dict[str, Any] = {}
    exec(text.rsplit("```python\n", 1)[1].split("```", 1)[0], documented)
    lowered = passthrough()
    found = documented["open_bundle"](passthrough_bundle(KEY).to_bytes(), KEY)
    assert found == [lowered.program, *(lowered.chunk(k) for k in range(3))]


def test_another_key_does_not() -> None:
    with pytest.raises(InvalidTag):
        open_by_hand(passthrough_bundle(KEY).to_bytes(), bytes(32))


def test_every_seal_has_its_own_key_and_nonces() -> None:
    first, second = (passthrough_bundle(KEY) for _ in range(2))
    ours, theirs = first.to_bytes(), second.to_bytes()
    assert first.preamble.bundle_id != second.preamble.bundle_id
    assert ours[48:80] != theirs[48:80]
    begin = first.preamble.total_bytes
    assert ours[begin : begin + 64] != theirs[begin : begin + 64]


def test_chunks_are_made_once_each_in_order(tmp_path: Path) -> None:
    made: list[int] = []
    lowered = passthrough()
    counted = type(lowered)(**{**vars(lowered), "chunk": lambda k: made.append(k) or lowered.chunk(k)})
    bundle = passthrough_bundle(KEY, lowered=counted)
    bundle.save(tmp_path / "a.tt")
    bundle.save(tmp_path / "b.tt")
    assert bundle.to_bytes() == (tmp_path / "a.tt").read_bytes() == (tmp_path / "b.tt").read_bytes()
    assert made == [0, 1, 2]


def test_in_memory_first_then_saved(tmp_path: Path) -> None:
    bundle = passthrough_bundle(KEY)
    data = bundle.to_bytes()
    bundle.save(tmp_path / "a.tt")
    assert (tmp_path / "a.tt").read_bytes() == data
    assert not bundle.is_shared


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    passthrough_bundle(KEY).save(tmp_path / "a.tt", lambda what, fraction: told.append((what, fraction)))
    assert told[-1] == ("sealing", 1.0)
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)


def test_a_chunk_of_another_length_is_refused() -> None:
    lowered = passthrough()
    broken = type(lowered)(**{**vars(lowered), "chunk": lambda k: b"short"})
    with pytest.raises(ValueError, match="chunk 1 has"):
        passthrough_bundle(KEY, lowered=broken).to_bytes()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError, OSError])
def test_an_interrupted_save_leaves_nothing(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "a.tt"
    path.write_bytes(b"what was there before")
    lowered = passthrough()

    def chunk(index: int) -> bytes:
        if index == 1:
            raise kind
        return lowered.chunk(index)

    bundle = passthrough_bundle(KEY, lowered=type(lowered)(**{**vars(lowered), "chunk": chunk}))
    with pytest.raises(kind):
        bundle.save(path)
    assert path.read_bytes() == b"what was there before"
    assert os.listdir(tmp_path) == ["a.tt"]
    with pytest.raises(BundleError, match="interrupted"):
        bundle.save(path)


def test_saving_replaces_and_obeys_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a.tt"
    before = os.umask(0o027)
    try:
        passthrough_bundle(KEY).save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    passthrough_bundle(KEY, "chacha20-poly1305").save(path)
    assert Bundle.load(path).suite == "chacha20-poly1305"


def test_a_directory_is_no_place_for_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        passthrough_bundle(KEY).save(tmp_path)
    with pytest.raises(IsADirectoryError):
        Bundle.load(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tt").touch()
    with pytest.raises(BundleError, match="empty"):
        Bundle.load(tmp_path / "empty.tt")


def test_unknown_suites_are_refused() -> None:
    with pytest.raises(ValueError, match="rot13"):
        suites.sealer("rot13", KEY)


def test_memory_covers_the_preamble() -> None:
    """The core copies the public part into the arena to authenticate it: long class names count."""
    names = tuple(f"a class of some length, number {k}" for k in range(1000))
    bundle = passthrough_bundle(KEY, class_names=names)
    assert bundle.peak_secure_memory_bytes >= 256 + len(bundle.manifest.to_json())
    unsealed = bundle._unsealed
    assert isinstance(unsealed, Unsealed)
    assert bundle.peak_secure_memory_bytes > unsealed.lowered.arena_bytes
