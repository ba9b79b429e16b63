"""Copies over the enclave's boundary, which go by whole words."""

from __future__ import annotations

import subprocess
from pathlib import Path

PORTS = Path(__file__).resolve().parents[2] / "ports"


def test_copies_of_every_alignment_and_length(tmp_path: Path) -> None:
    includes = [f"-I{PORTS / room}" for room in ("sgx/include", "sgx/enclave", "optee/crypto")]
    names = {
        "sgx/enclave/memory.c": [
            "memcpy=enclave_copy",
            "memmove=enclave_move",
            "memset=enclave_set",
            "memcmp=enclave_compare",
        ],
        "optee/ta/memory.c": ["memcpy=tte_copy", "memmove=tte_move"],
    }
    objects = []
    for source, defined in names.items():
        target = tmp_path / f"{len(objects)}.o"
        options = ["-O2", "-ffreestanding", "-fno-tree-loop-distribute-patterns", *(f"-D{name}" for name in defined)]
        subprocess.run(["gcc", *options, *includes, "-c", str(PORTS / source), "-o", str(target)], check=True)
        objects.append(str(target))
    program = tmp_path / "cases"
    cases = str(Path(__file__).with_name("memory_cases.c"))
    subprocess.run(["gcc", "-O1", *includes, cases, *objects, "-o", str(program)], check=True)
    found = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
