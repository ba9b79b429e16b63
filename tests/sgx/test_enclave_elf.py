"""What shows in an enclave without running it: instructions that an enclave may not execute would be its end."""

from __future__ import annotations

import bisect
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from tinytee.bundle import enclave

from .support import BUILT

ISAS = [isa for isa in enclave.XFRM if (BUILT / f"tinytee-enclave-{isa}").exists()]

FAULTING = re.compile(
    r"(?:(?:rep\w*|lock|data16|addr32|[c-gs]s)\s+)*"
    r"(?:(?:cpuid|getsec|rdpmc|rdtscp?|sgdt|sidt|sldt|str|smsw|vmcall|vmfunc|encls|enclv"
    r"|syscall|sysenter|sysretq?|sysexit|int|int1|int3|icebp|into|iretq?|in|out|insb|insw|insl|outsb|outsw|outsl|hlt"
    r"|ljmp|lcall|lretq?|l[defgs]s)\b|pop\s+%[defgs]s|mov\s+[^,]*,%[defgs]s$|.*\(bad\))"
)
"""Intel SDM, volume 3D, "Illegal Instructions", RDTSC of the first generation among them; and what is a kernel's."""

UNUSED = re.compile(r"br_aes_x86ni_supported|br_\w+_get")
"""BearSSL's functions that ask the processor what it can do. They come with those that are used."""

REFERENCE = re.compile(r"^(?:call|j\w+|xbegin)\s+(?:\w+ )?([0-9a-f]+) <|# ([0-9a-f]+) <")
ENDS = re.compile(r"(jmp|ret|ud2|notrack jmp)")


@dataclass(frozen=True)
class Function:
    name: str
    start: int
    instructions: tuple[str, ...]


def path_of(isa: str) -> Path:
    return BUILT / f"tinytee-enclave-{isa}"


@cache
def functions_of(isa: str) -> list[Function]:
    """By address: what is between two symbols."""
    said = subprocess.run(
        ["objdump", "-d", "-w", "--no-show-raw-insn", path_of(isa)], capture_output=True, text=True, check=True
    )
    found: list[tuple[int, str, list[str]]] = []
    for line in said.stdout.splitlines():
        if head := re.fullmatch(r"([0-9a-f]+) <(.*)>:", line):
            found.append((int(head[1], 16), head[2], []))
        elif line.startswith(" "):
            found[-1][2].append(line.partition("\t")[2].strip())
    return [Function(name, start, tuple(instructions)) for start, name, instructions in found]


@cache
def relocations_of(isa: str) -> list[tuple[int, int]]:
    """Types and addends."""
    with path_of(isa).open("rb") as file:
        elf: Any = ELFFile(file)
        tables = [section for section in elf.iter_sections() if section["sh_type"] in ("SHT_RELA", "SHT_REL")]
        return [(each["r_info_type"], each["r_addend"]) for table in tables for each in table.iter_relocations()]


def reachable(isa: str) -> set[int]:
    """Where functions start that are entered, called, jumped or run into, or have their address taken somewhere."""
    functions = functions_of(isa)
    starts = [function.start for function in functions]

    def index_of(address: int) -> int:
        return bisect.bisect_right(starts, address) - 1

    with path_of(isa).open("rb") as file:
        elf: Any = ELFFile(file)
        entry, text = elf.header["e_entry"], elf.get_section_by_name(".text")
        inside = range(text["sh_addr"], text["sh_addr"] + text["sh_size"])
    to_do = [index_of(at) for at in (entry, *(addend for _, addend in relocations_of(isa))) if at in inside]
    seen: set[int] = set()
    while to_do:
        at = to_do.pop()
        if at in seen:
            continue
        seen.add(at)
        instructions = functions[at].instructions
        for found in filter(None, map(REFERENCE.search, instructions)):
            target = int(found[1] or found[2], 16)
            if target in inside:
                to_do.append(index_of(target))
        if not ENDS.match(instructions[-1]) and at + 1 < len(functions):
            to_do.append(at + 1)
    return {functions[at].start for at in seen}


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_faults(isa: str) -> None:
    faulting = [each for each in functions_of(isa) if any(map(FAULTING.match, each.instructions))]
    assert [each.name for each in faulting if not UNUSED.fullmatch(each.name)] == []
    used = reachable(isa)
    names = {each.name for each in functions_of(isa) if each.start in used}
    assert {"tte_entry", "tte_enter", "TA_InvokeCommandEntryPoint", "tt_feed", "br_poly1305_ctmulq_run"} <= names
    assert [each.name for each in faulting if each.start in used] == []


@pytest.mark.parametrize(
    "instruction",
    [
        "cpuid",
        "syscall",
        "int    $0x80",
        "in     (%dx),%al",
        "rdtsc",
        "mov    %eax,%ds",
        "pop    %fs",
        "rep outsb %ds:(%rsi),(%dx)",
    ],
)
def test_what_is_looked_for(instruction: str) -> None:
    assert FAULTING.match(instruction)


@pytest.mark.parametrize(
    "instruction", ["inc    %rsi", "mov    %ds,0x8(%rsp)", "mov    %fs:0x28,%rax", "insertps $0,%xmm0,%xmm1"]
)
def test_what_is_not_looked_for(instruction: str) -> None:
    assert not FAULTING.match(instruction)


@pytest.mark.parametrize("isa", ISAS)
def test_the_ways_out(isa: str) -> None:
    """ENCLU is where it is meant to be."""
    out = {each.name for each in functions_of(isa) if any(said.startswith("enclu") for said in each.instructions)}
    assert out == {"leave", "tte_ereport", "tte_egetkey"}


@pytest.mark.parametrize("isa", ISAS)
def test_segments(isa: str) -> None:
    with path_of(isa).open("rb") as file:
        segments = [(each["p_type"], each["p_flags"], each["p_memsz"]) for each in ELFFile(file).iter_segments()]
    assert {kind for kind, _, _ in segments} <= {
        "PT_LOAD",
        "PT_DYNAMIC",
        "PT_GNU_EH_FRAME",
        "PT_GNU_STACK",
        "PT_NOTE",
        "PT_GNU_PROPERTY",
    }
    assert [flags & 3 for _, flags, _ in segments if flags & 3 == 3] == []  # written and executed
    assert sum(kind == "PT_LOAD" and flags & 1 for kind, flags, _ in segments) == 1


@pytest.mark.parametrize("isa", ISAS)
def test_relocations(isa: str) -> None:
    relative = 8
    assert {kind for kind, _ in relocations_of(isa)} == {relative}
