"""The emulated enclave page cache: what is written is read again, what does not fit is sealed, changes are noticed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
MIB, PAGE = 1 << 20, 4096


@pytest.fixture(scope="module")
def native() -> Iterator[Any]:
    """bench/pager/native.py, whose folder is no package of the tests."""
    sys.path.append(str(BENCH))
    try:
        spec = importlib.util.spec_from_file_location("pager_native", BENCH / "pager" / "native.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            module.Pager(MIB, MIB).close()
        except module.PagerError as error:
            pytest.skip(str(error))
        yield module
    finally:
        sys.path.remove(str(BENCH))


def test_memory_keeps_what_was_written(native: Any) -> None:
    with native.Pager(4 * MIB, MIB // 2) as pager:
        memory = np.frombuffer(pager.view(), np.uint8)
        rng, mirror = np.random.default_rng(0), np.zeros(4 * MIB, np.uint8)
        for _ in range(5000):
            place, value = int(rng.integers(0, memory.size)), int(rng.integers(0, 256))
            memory[place] = mirror[place] = value
        assert np.array_equal(memory, mirror)
        counted = pager.counters()
        assert counted["resident_pages"] <= counted["capacity_pages"] == MIB // 2 // PAGE
        assert counted["faults"] == counted["fresh"] + counted["loads"]
        assert counted["fresh"] == 4 * MIB // PAGE
        assert counted["loads"] > 0
        assert counted["foreign"] == 0
        del memory


def test_what_is_evicted_is_sealed_anew_each_time(native: Any) -> None:
    with native.Pager(MIB, MIB // 4) as pager:
        memory = pager.view()
        memory[: 4 * PAGE] = b"plain" * (4 * PAGE // 5) + b"plain"[: 4 * PAGE % 5]
        found = set()
        for _ in range(3):
            pager.touch(MIB)
            found.add(bytes(pager.backing(0)))
        assert len(found) == 3
        assert not any(b"plain" in sealed for sealed in found)
        memory.release()


def test_a_working_set_that_fits_does_not_fault(native: Any) -> None:
    with native.Pager(MIB, MIB // 2) as pager:
        pager.touch(MIB // 2)
        before = pager.counters()["faults"]
        pager.touch(MIB // 2)
        assert pager.counters()["faults"] == before


def test_a_page_that_is_read_often_stays(native: Any) -> None:
    """One page read after every page of a scan is loaded far less often than it would be in order of arrival alone."""
    with native.Pager(MIB, MIB // 4) as pager:
        memory = np.frombuffer(pager.view(), np.uint8)
        pager.touch(MIB)
        before = pager.counters()["loads"]
        for _ in range(8):
            for page in range(1, MIB // PAGE):
                memory[page * PAGE] += memory[0]
        scanned = 8 * (MIB // PAGE - 1)
        hot = pager.counters()["loads"] - before - scanned
        assert hot < scanned / (MIB // 4 // PAGE) / 3
        del memory


def test_resize_and_discard(native: Any) -> None:
    with native.Pager(MIB, MIB) as pager:
        memory = np.frombuffer(pager.view(), np.uint8)
        memory[:] = 7
        pager.resize(MIB // 8)
        assert pager.counters()["resident_pages"] == MIB // 8 // PAGE
        pager.discard(0, MIB // 2)
        assert not memory[: MIB // 2].any()
        assert (memory[MIB // 2 :] == 7).all()
        del memory


def test_a_changed_page_ends_the_process(native: Any) -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from pager.native import Pager
with Pager(1 << 20, 1 << 18) as pager:
    pager.touch(1 << 20)
    sealed = pager.backing(0)
    sealed[100] ^= 1
    pager.touch(4096)
    print("unnoticed")
"""
    ran = subprocess.run([sys.executable, "-c", program, str(BENCH)], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "does not authenticate" in ran.stderr
    assert "unnoticed" not in ran.stdout
    assert native.PAGE_BYTES == PAGE
