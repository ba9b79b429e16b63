"""The library, built with the address and undefined-behaviour sanitizers, is tampered with in just the same way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "sanitize-host"
SUITES = ("tests/tamper/test_bundle_tampering.py", "tests/tamper/test_core_tampering.py")
SUITES += ("tests/tamper/test_compiled_tampering.py", "tests/unit/runtime/test_session.py")
LEFT_OUT = "not test_pages_around and not unet_resized"
"""The sanitizer has pages of its own; and one network of three takes a minute, whose operators the fuzzer has, too."""


def _cmake() -> str:
    """The environment's own, which a test run need not have on its path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("cmake", path=path)
    assert found, "cmake is not installed: pip install cmake"
    return found


def _runtime(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.mark.slow
def test_no_step_out_of_bounds() -> None:
    configure = [_cmake(), "-S", ROOT, "-B", BUILD, "-DTINYTEE_SANITIZE=ON", "-DTINYTEE_EXAMPLES=OFF"]
    configure += ["-DTINYTEE_IPSEC_MB=OFF"]  # the other tests have its AES-256-GCM; here it is libcrypto's
    has_avx512 = "avx512f" in Path("/proc/cpuinfo").read_text(encoding="ascii").split()
    configure += [f"-DTINYTEE_AVX512={'ON' if has_avx512 else 'OFF'}"]  # what cannot run here takes a minute to compile
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([_cmake(), "--build", BUILD, "--target", "tinytee", "-j2"], check=True, stdout=subprocess.DEVNULL)
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{_runtime('libasan.so')} {_runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", LEFT_OUT]
    command += ["--library", str(BUILD / "libtinytee.so"), *SUITES]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
