"""What the tests of the SGX port share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinytee.bundle.enclave import constants, ffi
from tinytee.runtime import sgx

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "sgx"
FEEDER = BUILT / "tinytee-feeder-sgx"


@contextlib.contextmanager
def production() -> Iterator[None]:
    """Images made here take sealed keys only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sgx.PRODUCTION_VARIABLE, "1")
        yield


def _record(kind: str, data: bytes, at: int) -> Any:
    made = ffi.new(f"{kind} *")
    ffi.buffer(made)[:] = data[at : at + ffi.sizeof(kind)]
    return made


def header_of(image: bytes) -> Any:
    """The tte_image at an image's start."""
    return _record("tte_image", image, 0)


def sigstruct_of(image: bytes) -> bytes:
    """Its SIGSTRUCT."""
    at = ffi.offsetof("tte_image", "sigstruct")
    return image[at : at + constants.TTE_SIGSTRUCT_BYTES]


def runs_of(image: bytes) -> list[Any]:
    """Its tte_run records."""
    first, size = ffi.sizeof("tte_image"), ffi.sizeof("tte_run")
    return [_record("tte_run", image, first + i * size) for i in range(header_of(image).run_count)]
