"""What tests of the trusted application share, whichever TEE it runs in.

A folder of such tests provides these fixtures:

    open_session, open_production  open a bundle with a key; the latter in an application that takes sealed keys only
    sealed_key, production_key     KEY, sealed to the device behind either
    backend_name                   of open_session
    heap_bytes                     of its application
    heap_overhead_bytes            what the largest arena is smaller than the heap, at most
    profile_name                   of the device that bundles are compiled for
    tolerance                      of answers, in parts of their range, against those of the process backend
    feeder                         see Feeder
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

import tinytee
from tinytee import zoo
from tinytee.plan import profile
from tinytee.runtime.provisioning import SealedKey
from tinytee.runtime.trusted import TrustedBackend
from tinytee.runtime.wire import ffi, numbers

KEY = secrets.token_bytes(32)

NONE, VALUE_IN, VALUE_OUT, VALUE_INOUT, MEMREF_IN, MEMREF_OUT, MEMREF_INOUT = 0, 1, 2, 3, 5, 6, 7
SUCCESS, ACCESS_DENIED, BAD_PARAMETERS, BAD_STATE = 0, 0xFFFF0001, 0xFFFF0006, 0xFFFF0007
NOT_SUPPORTED, SHORT_BUFFER = 0xFFFF000A, 0xFFFF0010
REPLY_BYTES = ffi.sizeof("tta_reply")

COMMANDS: dict[int, tuple[int, int, int, int]] = {
    numbers.TTA_OPEN: (MEMREF_IN, MEMREF_IN, MEMREF_OUT, NONE),
    numbers.TTA_START: (MEMREF_IN, MEMREF_OUT, MEMREF_OUT, NONE),
    numbers.TTA_EXCHANGE: (MEMREF_IN, MEMREF_OUT, MEMREF_OUT, NONE),
    numbers.TTA_INFO: (VALUE_OUT, NONE, MEMREF_OUT, NONE),
    numbers.TTA_IDENTITY: (MEMREF_OUT, NONE, MEMREF_OUT, NONE),
}
"""Parameter types of every command, as tinytee_ta.h documents them."""

Open = Callable[[tinytee.Bundle, bytes | SealedKey], TrustedBackend]


class Feeder(Protocol):
    """tinytee-feeder alone, without Python.

    Attributes:
        folder: where it runs.
    """

    folder: Path

    def run(self, *arguments: str) -> tuple[int, str]:
        """Its exit status, and all that it said."""
        ...


class Compiler:
    """Compiles for a profile, with KEY; a network of the zoo once."""

    def __init__(self, profile_name: str) -> None:
        self._profile = profile.load(profile_name)
        self.network = cache(self._network)

    def _network(self, name: str, budget: str, suite: str | None = None) -> tinytee.Bundle:
        return self.model(zoo.NETWORKS[name].build(), budget, suite)

    def model(self, model: Any, budget: str, suite: str | None = None) -> tinytee.Bundle:
        return tinytee.compile(model, budget, KEY, profile=self._profile, suite=suite)


Compile = Callable[..., tinytee.Bundle]


@pytest.fixture(scope="session")
def compiler(profile_name: str) -> Compiler:
    return Compiler(profile_name)


@pytest.fixture(scope="session")
def compile_network(compiler: Compiler) -> Compile:
    return compiler.network


@pytest.fixture(scope="session")
def compile_model(compiler: Compiler) -> Compile:
    return compiler.model


def feed_of(name: str, seed: int = 0) -> dict[str, Any]:
    network = zoo.NETWORKS[name]
    return {network.input_name: zoo.reference_input(network, seed)}


def answer_here(bundle: tinytee.Bundle, feed: dict[str, Any]) -> NDArray[Any]:
    """The process backend's only output, flat."""
    with tinytee.Session(bundle, key=KEY) as here:
        (answer,) = here.run(feed).values()
    return answer.reshape(-1)


def run(session: TrustedBackend, feed: dict[str, Any]) -> NDArray[np.float32]:
    """The output of a network of one input and one output, flat."""
    (image,) = feed.values()
    spec = session.manifest.outputs[0]
    found = np.zeros(spec.height * spec.width * spec.channels, np.float32)
    session.run([np.ascontiguousarray(image[0].transpose(1, 2, 0)).reshape(-1)], [found])
    return found


def check_close(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    assert np.abs(found - expected).max() <= tolerance * np.ptp(expected)


def slots_of(types: Sequence[int], size: int = REPLY_BYTES, there: int = 1) -> list[tuple[int, int]]:
    return [(size, there) if kind >= MEMREF_IN else (0, 0) for kind in types]


def _input_bytes(types: Sequence[int], slots: Sequence[tuple[int, int]]) -> bytes:
    kinds = zip(types, slots, strict=True)
    return b"".join(b"\xa5" * size for kind, (size, there) in kinds if kind in (MEMREF_IN, MEMREF_INOUT) and there)


def invoke(session: TrustedBackend, command: int, types: Sequence[int], slots: Sequence[tuple[int, int]]) -> int:
    """The result of a call whose memory that is read has bytes without a meaning."""
    return int(session.invoke(command, types, slots, _input_bytes(types, slots))[0].result)
