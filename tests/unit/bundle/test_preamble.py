"""The public part of a bundle: what is read is what was written, and nothing else is read."""

from __future__ import annotations

import contextlib
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamper.programs import passthrough, passthrough_bundle
from tinytee.bundle import Bundle, Manifest, Preprocessing, TensorSpec
from tinytee.bundle.abi import constants as c
from tinytee.bundle.abi import ffi, record_bytes
from tinytee.bundle.manifest import DTYPES
from tinytee.bundle.preamble import HEADER_BYTES, parse_preamble
from tinytee.errors import BundleError
from tinytee.ir.graph import Quant

KEY = bytes(range(32))
SEALED = passthrough_bundle(
    KEY, preprocessing=Preprocessing((7, 5), mean=(1.0, 2.0, 3.0), scale=(4.0,)), class_names=("cat", "dög")
).to_bytes()
PREAMBLE_BYTES = Bundle.parse(SEALED).preamble.total_bytes


def with_manifest(change: Any) -> bytes:
    """The bundle with another manifest, lengths made to agree."""
    length = struct.unpack_from("<I", SEALED, 20)[0]
    found = json.loads(SEALED[HEADER_BYTES : HEADER_BYTES + length])
    changed = change(found)
    text = changed if isinstance(changed, bytes) else json.dumps(changed if changed is not None else found).encode()
    return SEALED[:20] + struct.pack("<I", len(text)) + SEALED[24:HEADER_BYTES] + text + SEALED[HEADER_BYTES + length :]


def test_what_was_written_is_read() -> None:
    lowered = passthrough()
    bundle = Bundle.parse(SEALED)
    manifest = bundle.manifest
    assert manifest.inputs == tuple(TensorSpec.of(*found) for found in lowered.inputs)
    assert manifest.outputs == tuple(TensorSpec.of(*found) for found in lowered.outputs)
    assert manifest.preprocessing == Preprocessing((7, 5), mean=(1.0, 2.0, 3.0), scale=(4.0,))
    assert manifest.class_names == ("cat", "dög")
    assert manifest.budget_bytes == 1 << 20
    assert bundle.suite == "aes-256-gcm"
    assert bundle.peak_secure_memory_bytes == lowered.arena_bytes
    weights = (n + 16 * -(-n // size) for n, size in zip(lowered.chunk_bytes, lowered.piece_bytes, strict=True))
    assert bundle.preamble.sealed_bytes == (len(lowered.program) + 16, *weights)
    assert bundle.preamble.bundle_bytes == len(SEALED)
    assert bundle.plan is None


def test_header_has_the_documented_layout() -> None:
    """docs/bundle.md's table, against the C record."""
    magic, version, suite, header_bytes, _, chunk_count, arena_bytes = struct.unpack_from("<8s6I", SEALED)
    assert (magic, version, suite) == (b"tinytee\0", 14, 1)
    assert (header_bytes, chunk_count, arena_bytes) == (80, 4, passthrough().arena_bytes)


@given(st.integers(0, len(SEALED) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(BundleError):
        Bundle.parse(SEALED[:length])


@given(st.integers(0, PREAMBLE_BYTES - 1), st.integers(1, 255))
def test_flipped_bytes_are_refused_or_parse(place: int, mask: int) -> None:
    """Never another exception. (What parses is refused at open: see tests/tamper.)"""
    changed = bytearray(SEALED)
    changed[place] ^= mask
    with contextlib.suppress(BundleError):
        Bundle.parse(bytes(changed))


@given(st.binary(max_size=300))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    for candidate in (data, SEALED[:8] + data, SEALED[:16] + data):
        with pytest.raises(BundleError):
            Bundle.parse(candidate)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6))
def test_absurd_headers_are_refused(words: list[int]) -> None:
    changed = SEALED[:8] + struct.pack("<6I", *words) + SEALED[32:]
    if changed != SEALED:
        with pytest.raises(BundleError):
            parse_preamble(changed, len(changed) + 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 1, "version 1"),
        ("header_bytes", 84, "version"),
        ("suite", 9, "suite 9"),
        ("suite", 0, "suite 0"),
        ("manifest_bytes", 2**32 - 1, "out of bounds"),
        ("chunk_count", 0, "out of bounds"),
        ("chunk_count", 2**32 - 1, "out of bounds"),
        ("arena_bytes", 0, "out of bounds"),
    ],
)
def test_wrong_header_fields_are_named(field: str, value: int, message: str) -> None:
    header = ffi.new("tt_bundle_header *")
    ffi.buffer(header)[:] = SEALED[:HEADER_BYTES]
    setattr(header, field, value)
    with pytest.raises(BundleError, match=message):
        Bundle.parse(record_bytes(header) + SEALED[HEADER_BYTES:])


def _set(path: list[Any], value: Any) -> Any:
    def change(found: Any) -> None:
        place = found
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"{",
        lambda _: b"\xff\xfe",
        lambda _: b"[" * 100_000,
        lambda _: b"1e999",
        lambda found: {**found, "surprise": 1},
        lambda found: {name: found[name] for name in found if name != "outputs"},
        _set(["inputs"], {}),
        _set(["inputs"], [1]),
        _set(["inputs", 0, "shape"], [0, 3, 7]),
        _set(["inputs", 0, "shape"], [0, 3, 7, -5]),
        _set(["inputs", 0, "shape"], [0, 3, 7, 2**80]),
        _set(["inputs", 0, "shape"], [0, 3, 7, 5.0]),
        _set(["inputs", 0, "shape"], [0, 3, 7, True]),
        _set(["inputs", 0, "perm"], [0, 1, 2, 2]),
        _set(["inputs", 0, "dtype"], "object"),
        _set(["inputs", 0, "dtype"], "float128"),
        _set(["inputs", 0, "name"], 3),
        _set(["inputs", 0, "height"], 8),
        _set(["inputs", 0, "batched"], "yes"),
        *(
            _set(["inputs", 0, "quant"], wrong)
            for wrong in (
                1,
                {"scale": 0.5},
                {"scale": 0.5, "zero_point": 3, "more": 1},
                *({"scale": scale, "zero_point": 3} for scale in (0, -0.5, 0.1, 1e39, 1e-60, "0.5")),
                *({"scale": 0.5, "zero_point": zero} for zero in (-1, 256, 3.5, True)),
            )
        ),
        _set(["budget_bytes"], -1),
        _set(["predicted_seconds"], "fast"),
        _set(["predicted_seconds"], -1),
        _set(["class_names"], [1]),
        _set(["preprocessing", "size"], [0, 5]),
        _set(["preprocessing", "scale"], [0.0]),
        _set(["preprocessing", "mean"], [1, 2]),
        _set(["preprocessing", "layout"], "CHWN"),
        _set(["preprocessing", "crop"], 0),
        lambda found: {**found, "inputs": found["inputs"] * 2},
    ],
)
def test_malformed_manifests_are_refused(change: Any) -> None:
    with pytest.raises(BundleError, match="manifest is malformed"):
        Bundle.parse(with_manifest(change))


def test_an_unchanged_manifest_is_read() -> None:
    Bundle.parse(with_manifest(lambda _: None))


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@st.composite
def tensors(draw: st.DrawFn) -> TensorSpec:
    height, width, channels = (draw(st.integers(1, 9)) for _ in range(3))
    perm = tuple(draw(st.permutations(range(4))))
    batched = draw(st.booleans())
    moved = draw(st.permutations([1, height, width, channels]))
    shape = tuple(moved)
    if batched:
        shape = (draw(st.integers(0, 4)), height, width, channels)
    scale = st.floats(2.0**-100, 2.0**100, width=32)
    quant = draw(st.none() | st.builds(Quant, scale, st.integers(0, 255)))
    return TensorSpec(draw(_NAMES), shape, draw(st.sampled_from(DTYPES)), perm, batched, height, width, channels, quant)


@given(
    st.lists(tensors(), max_size=3, unique_by=lambda tensor: tensor.name),
    st.integers(1, 2**32 - 1),
    st.none() | st.floats(0, 1e6),
    st.lists(_NAMES, max_size=3),
)
def test_manifests_round_trip(specs: list[TensorSpec], budget: int, seconds: float | None, names: list[str]) -> None:
    written = Manifest(tuple(specs), tuple(specs), budget, seconds, class_names=tuple(names))
    assert Manifest.from_json(written.to_json()) == written
    with_image = replace(written, preprocessing=Preprocessing((3, 4), crop=0.5, channels="BGR"))
    assert Manifest.from_json(with_image.to_json()) == with_image


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 1)},
        {"size": (1,)},
        {"scale": (0.0,)},
        {"mean": (1.0, 2.0)},
        {"mean": (float("nan"),)},
        {"layout": "CHW"},
        {"channels": "RGBA"},
        {"resize": "longer"},
        {"crop": 1.5},
        {"interpolation": "magic"},
    ],
)
def test_wrong_preprocessing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Preprocessing(**{"size": (2, 2), **wrong})


def test_constants_come_from_the_headers() -> None:
    assert c.TT_ENGINE_BYTES == 256
    assert ffi.sizeof("tt_bundle_header") == 80
