"""Sessions on a hand-written program."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import resource
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamper.programs import passthrough, passthrough_bundle
from tinytee import AuthenticationError, BundleError, EngineError, Session
from tinytee.bundle.abi import constants, ffi
from tinytee.ir.graph import Port, Quant, Shape
from tinytee.ir.quantized import dequantize, quantize
from tinytee.runtime import library

KEY = bytes(range(32))
SUITES = ("aes-256-gcm", "chacha20-poly1305", "aegis-256x4")


def sample(count: int = 1) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 7, 5)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    passthrough_bundle(KEY).save(tmp_path / "model.tt")
    return tmp_path / "model.tt"


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("count", [1, 4])
def test_runs_sample_by_sample(tmp_path: Path, suite: str, mapped: bool, count: int) -> None:
    bundle = passthrough_bundle(KEY, suite)
    if mapped:
        bundle.save(tmp_path / "model.tt")
    with Session(tmp_path / "model.tt" if mapped else bundle, key=KEY) as session:
        for _ in range(2):
            outputs = session.run({"x": sample(count)})
            assert list(outputs) == ["y"]
            np.testing.assert_array_equal(outputs["y"], sample(count))
        assert session.stats.runs == 2 * count
        assert session.stats.suite == suite


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("shape", [Shape(7, 5, 3), Shape(1, 1, 1), Shape(64, 3, 130)])
def test_row_blocks_of_any_size(shape: Shape, rows: int) -> None:
    port = Port("x", "t", (shape.height, shape.width, shape.channels), "float32", (0, 1, 2), False)
    bundle = passthrough_bundle(KEY, lowered=passthrough(shape, min(rows, shape.height), port))
    x = np.random.default_rng(0).standard_normal(port.shape).astype(np.float32)
    with Session(bundle, key=KEY) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], x)


@pytest.mark.parametrize("quant", [None, Quant(0.02, 120)], ids=["float32", "uint8"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", [1, -1, 2])
@pytest.mark.parametrize("suite", SUITES)
def test_inputs_of_any_strides(suite: str, step: int, order: str, channels: int, quant: Quant | None) -> None:
    """They are read where they lie, whichever way that is."""
    quant = quant and replace(quant, scale=float(np.float32(quant.scale)))
    shape = Shape(6, 9, channels)
    port = Port("x", "t", (channels, 6, 9), "float32", (1, 2, 0), False)
    wide = np.random.default_rng(0).standard_normal((channels * 2, 12, 18)).astype(np.float32)
    x = np.asarray(wide, order=order)[::step, ::step, ::step][:channels, :6, :9]  # type: ignore[call-overload]
    kept = x.copy()
    expected = kept if quant is None else dequantize(quantize(kept, quant), quant)
    lowered = passthrough(shape, 4, port, quant=quant)
    with Session(passthrough_bundle(KEY, suite, lowered=lowered), key=KEY) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], expected)
        np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("quant", [None, Quant(0.02, 120)], ids=["float32", "uint8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("axes", [(1, 2, 0), (0, 1, 2)], ids=["channels first", "channels last"])
@pytest.mark.parametrize("suite", SUITES)
def test_inputs_that_threads_seal_in_pieces(
    suite: str, axes: tuple[int, int, int], step: int, order: str, quant: Quant | None
) -> None:
    quant = quant and replace(quant, scale=float(np.float32(quant.scale)))
    shape = (3, 41, 400) if axes[0] else (41, 400, 3)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x = np.asarray(x, order=order)[:, ::step]  # type: ignore[call-overload]
    expected = x if quant is None else dequantize(quantize(x, quant), quant)
    lowered = passthrough(Shape(41, 400, 3), 35, Port("x", "t", shape, "float32", axes, False), quant=quant, workers=2)
    bundle = passthrough_bundle(KEY, suite, lowered=lowered, threads=2)
    with Session(bundle, key=KEY, threads=2) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], expected)
        tag_bytes = session.stats.input_bytes - x.size * (1 if quant else 4)
        assert tag_bytes == 3 * constants.TT_TAG_BYTES, "35 y-planes are divided, 6 are not"


@pytest.mark.parametrize("isa", ["portable", None])
def test_bytes_at_the_boundary(isa: str | None) -> None:
    """Rounded to even, cut, and NaN the least; whatever the kernels."""
    quant, numbers = Quant(0.25, 3), np.arange(-40, 1100).astype(np.float32) / 8
    x = np.concatenate([numbers, [np.nan, np.inf, -np.inf, 1e30, -1e30, -0.0]]).astype(np.float32)
    port = Port("x", "t", x.shape, "float32", (0,), False)
    lowered = passthrough(Shape(1, 1, x.size), 1, port, quant=quant)
    with Session(passthrough_bundle(KEY, lowered=lowered), key=KEY, isa=isa) as session:
        found = session.run({"x": x})["y"]
        assert session.stats.input_bytes == session.stats.output_bytes == x.size + constants.TT_TAG_BYTES
    np.testing.assert_array_equal(found, dequantize(quantize(x, quant), quant))
    np.testing.assert_array_equal(found[-6:], [-0.75, 63, -0.75, 63, -0.75, 0])


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("elems", [1, 31, 255, 256, 257, 1023, 1024, 1025, 1280, 1281, 20_001])
def test_texts_of_any_length(suite: str, elems: int) -> None:
    """A long text is opened in steps."""
    port = Port("x", "t", (elems,), "float32", (0,), False)
    x = np.random.default_rng(elems).standard_normal(elems).astype(np.float32)
    with Session(passthrough_bundle(KEY, suite, lowered=passthrough(Shape(1, 1, elems), 1, port)), key=KEY) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], x)


def _as_they_come(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same values in arrays that are to be read as they lie, and in others."""
    readonly = x.copy()
    readonly.setflags(write=False)
    unaligned = np.frombuffer(b"-" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    reversed_rows = x[:, :, ::-1].copy()[:, :, ::-1]
    masked = np.ma.MaskedArray(x)
    return {
        "dense": x,
        "readonly": readonly,
        "unaligned": unaligned,
        "reversed": reversed_rows,
        "fortran": np.asfortranarray(x),
        "big-endian": x.astype(">f4"),
        "masked": masked,
    }


@pytest.mark.parametrize("kind", _as_they_come(sample()))
def test_arrays_as_they_come(path: Path, kind: str) -> None:
    given = _as_they_come(sample())
    with Session(path, key=KEY) as session:
        for _ in range(2):
            found, dense = [session.run({"x": given[k]})["y"] for k in (kind, "dense")]
            np.testing.assert_array_equal(found, sample())
            assert (dense.shape, dense.dtype, dense.flags.carray) == (found.shape, found.dtype, found.flags.carray)
            assert not np.shares_memory(found, dense)
            np.testing.assert_array_equal(found, dense)


def test_a_list_is_of_float64(path: Path) -> None:
    with Session(path, key=KEY) as session:
        with pytest.raises(TypeError, match="float64"):
            session.run({"x": sample().tolist()})
        np.testing.assert_array_equal(session.run({"x": sample()})["y"], sample())


def test_a_session_ends_with_its_last_reference(path: Path) -> None:
    """It wipes its memory then, not when rings of references are looked for."""
    session = Session(path, key=KEY)
    session.run({"x": sample()})
    backend = weakref.ref(session._backend)
    gc.disable()
    try:
        del session
        assert backend() is None
    finally:
        gc.enable()


def test_peak_is_the_compilers_figure(path: Path) -> None:
    with Session(path, key=KEY) as session:
        session.run({"x": sample()})
        stats = session.stats
    assert stats.peak_secure_memory_bytes == stats.arena_bytes == passthrough().arena_bytes
    assert stats.touched_bytes <= stats.arena_bytes
    assert stats.touched_bytes > stats.arena_bytes - 256
    assert stats.arena_kind in ("secret", "locked", "unlocked")
    assert (stats.chunks, stats.inputs, stats.outputs, stats.spills, stats.fetches) == (4, 3, 3, 3, 3)
    assert stats.spill_bytes == stats.fetch_bytes == 7 * 5 * 3 * 4
    assert stats.input_bytes == stats.output_bytes == 7 * 5 * 3 * 4 + 3 * 16
    assert 0 < stats.last_run_seconds <= stats.run_seconds
    assert 0 < stats.aead_seconds < stats.open_seconds + stats.run_seconds


def test_a_callers_slip_leaves_the_session_alive(path: Path) -> None:
    with Session(path, key=KEY) as session:
        with pytest.raises(TypeError, match="float64"):
            session.run({"x": np.zeros((1, 3, 7, 5))})
        with pytest.raises(ValueError, match="no input 'z'"):
            session.run({"z": sample()})
        np.testing.assert_array_equal(session.run({"x": sample()})["y"], sample())


def test_closing(path: Path) -> None:
    session = Session(path, key=KEY)
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": sample()})
    with pytest.raises(EngineError, match="closed"):
        _ = session.stats
    Session(path, key=KEY)  # never closed: collected
    gc.collect()


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_keys_of_another_length(path: Path, key: bytes) -> None:
    with pytest.raises(ValueError, match="a key is 32 bytes"):
        Session(path, key=key)


def test_keys_of_another_type(path: Path) -> None:
    with pytest.raises(TypeError, match="a key is 32 bytes, not str"):
        Session(path, key="0" * 32)  # type: ignore[arg-type]


def test_a_wrong_key(path: Path) -> None:
    with pytest.raises(AuthenticationError, match=r"^the key is not this bundle's key, or the bundle was changed$"):
        Session(path, key=bytes(32))


def test_unknown_backends_and_instruction_sets(path: Path) -> None:
    with pytest.raises(ValueError, match="no backend 'moon'"):
        Session(path, key=KEY, backend="moon")
    with pytest.raises(EngineError, match="'sse9' is not available"):
        Session(path, key=KEY, isa="sse9")


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512", "avx512vnni", "neon", "neondot"])
def test_instruction_sets_can_be_chosen(path: Path, isa: str) -> None:
    try:
        with Session(path, key=KEY, isa=isa) as session:
            np.testing.assert_array_equal(session.run({"x": sample()})["y"], sample())
            assert session.stats.isa == isa
    except EngineError as error:
        assert isa != "portable"
        assert "not available" in str(error)


def test_files_that_are_no_bundles(tmp_path: Path) -> None:
    (tmp_path / "text.tt").write_text("hello, I am not a bundle at all, but long enough to look like one " * 10)
    with pytest.raises(BundleError, match="not a tinytee bundle"):
        Session(tmp_path / "text.tt", key=KEY)
    with pytest.raises(FileNotFoundError):
        Session(tmp_path / "nowhere.tt", key=KEY)
    with pytest.raises(IsADirectoryError):
        Session(tmp_path, key=KEY)


def test_threads_wait_for_one_another(path: Path) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        x = np.full((1, 3, 7, 5), number, np.float32)
        for _ in range(50):
            if not np.array_equal(session.run({"x": x})["y"], x):
                wrong.append(number)

    with Session(path, key=KEY) as session:
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert session.stats.runs == 200
    assert not wrong


def test_sessions_side_by_side(path: Path) -> None:
    with Session(path, key=KEY) as first, Session(path, key=KEY) as second:
        np.testing.assert_array_equal(first.run({"x": sample(2)})["y"], sample(2))
        np.testing.assert_array_equal(second.run({"x": sample(1)})["y"], sample(1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_has_no_secure_memory_and_may_exit_cleanly(path: Path) -> None:
    with Session(path, key=KEY) as session:
        session.run({"x": sample()})
        child = os.fork()
        if child == 0:
            session.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        np.testing.assert_array_equal(session.run({"x": sample()})["y"], sample())


def _dies(touch: int) -> bool:
    """Whether a child that reads the arena at that offset dies of it."""
    loaded, arena = library.load(), ffi.new("tth_arena *")
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        if loaded.tth_arena_open(arena, 5000) != 0:
            os._exit(2)
        os._exit(arena.memory[touch] != 0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -11, -7)
    return os.waitstatus_to_exitcode(status) != 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pages_around_the_arena_fault() -> None:
    assert not _dies(0)
    assert not _dies(5055)
    assert _dies(5056)  # 5000 rounded up to 64
    assert _dies(5056 - 8192 - 1)  # the pages that hold them begin there


def test_arenas_are_aligned_zero_and_closed_twice() -> None:
    loaded, arena = library.load(), ffi.new("tth_arena *")
    for count in (1, 64, 4096, 100_001):
        assert loaded.tth_arena_open(arena, count) == 0
        assert int(ffi.cast("uintptr_t", arena.memory)) % 64 == 0
        assert arena.bytes == -(-count // 64) * 64
        assert not any(bytes(ffi.buffer(arena.memory, arena.bytes)))
        loaded.tth_arena_close(arena)
        loaded.tth_arena_close(arena)
    assert loaded.tth_arena_open(arena, 0) == -1
    assert loaded.tth_arena_open(arena, 1 << 33) == -1


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer makes mlock do nothing")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_where_nothing_may_be_locked_memory_is_ordinary_and_says_so() -> None:
    loaded, arena = library.load(), ffi.new("tth_arena *")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.getuid() == 0:
            os.setuid(65534)
        opened = loaded.tth_arena_open(arena, 100_000) == 0
        if opened:
            ffi.buffer(arena.memory, arena.bytes)[:] = b"x" * arena.bytes
        os._exit(0 if opened and arena.kind == constants.TTH_ARENA_UNLOCKED else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("asked", [False, True])
def test_the_process_can_be_made_not_dumpable(path: Path, asked: bool) -> None:
    get_dumpable = 3
    child = os.fork()
    if child == 0:
        Session(path, key=KEY, not_dumpable=asked).close()
        os._exit(ctypes.CDLL(None).prctl(get_dumpable, 0, 0, 0, 0))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if asked else 1)


def test_a_missing_library_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(library, "PLACES", (path.parent / "libtinytee.so",))
    library.load.cache_clear()
    try:
        with pytest.raises(EngineError, match="cmake --build build"):
            Session(path, key=KEY)
    finally:
        monkeypatch.undo()
        library.load.cache_clear()
