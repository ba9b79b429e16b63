"""Enclaves on an emulated processor, in folders of the tests' own, and what trusted.support asks for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tinytee
from tinytee.bundle import enclave
from tinytee.runtime import library, sgx
from tinytee.runtime.provisioning import SealedKey
from tinytee.sizes import parse_size
from trusted.support import KEY, Feeder, Open, compile_model, compile_network, compiler  # noqa: F401
from unit.conftest import run  # noqa: F401

from .support import FEEDER, production


@pytest.fixture(scope="session", autouse=True)
def _enclaves_run_here() -> None:
    if (isa := library.best_isa()) not in enclave.XFRM:
        pytest.skip(f"enclaves are for x86-64 with AVX2 or more; this machine has {isa}")
    if not FEEDER.exists():
        pytest.skip("the SGX port is not built: it needs BearSSL (libbearssl-dev) and cmake --build build")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of the user's folders."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module", autouse=True)
def _environment(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        patch.setenv(sgx.DEVICE_VARIABLE, str(home / "device"))
        for name in (sgx.IMAGE_VARIABLE, sgx.HEAP_VARIABLE, sgx.PRODUCTION_VARIABLE, sgx.PROCESSOR_VARIABLE):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def signing_key() -> Any:
    """Not the one that is made for a user."""
    return enclave.make_signing_key()


@pytest.fixture(scope="session")
def profile_name() -> str:
    return "x86-64-avx2"


@pytest.fixture(scope="session")
def backend_name() -> str:
    return "sgx-emulated"


@pytest.fixture(scope="session")
def tolerance() -> float:
    """The kernels are those of the process backend."""
    return 0.0


@pytest.fixture(scope="session")
def heap_bytes() -> int:
    return parse_size(sgx.DEFAULT_HEAP)


@pytest.fixture(scope="session")
def heap_overhead_bytes() -> int:
    return sgx.HEAP_OVERHEAD_BYTES


@pytest.fixture(scope="session")
def open_session(backend_name: str) -> Open:
    return lambda bundle, key: sgx.open_backend(backend_name, bundle, key)


@pytest.fixture(scope="module")
def sealed_key(backend_name: str) -> SealedKey:
    return tinytee.provision(KEY, tinytee.device_key(backend_name))


@pytest.fixture(scope="session")
def open_production(open_session: Open) -> Open:
    def open_it(bundle: tinytee.Bundle, key: bytes | SealedKey) -> sgx.TrustedBackend:
        with production():
            return open_session(bundle, key)

    return open_it


@pytest.fixture(scope="module")
def production_key(backend_name: str) -> SealedKey:
    """Another measurement, another identity."""
    with production():
        return tinytee.provision(KEY, tinytee.device_key(backend_name))


@dataclass
class _ProgramFeeder:
    folder: Path
    image: Path

    def run(self, *arguments: str) -> tuple[int, str]:
        environment = {sgx.IMAGE_VARIABLE: str(self.image), sgx.PROCESSOR_VARIABLE: "emulated"}
        ran = subprocess.run(
            [FEEDER, *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout


@pytest.fixture
def feeder(tmp_path: Path) -> Feeder:
    return _ProgramFeeder(tmp_path, sgx.chosen_image())
