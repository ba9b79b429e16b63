"""The sections of docs/results.md about OP-TEE: what bench/trustzone.py and bench/neon.py measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Measured = dict[str, Any]

REFERENCE, NORMAL, OURS, LAYERWISE = ("tinytee", "2MiB"), "normal world", "tinytee", "layer by layer"
PAPER_SPEEDUP, PAPER_ENERGY_SAVED = 3.13, 0.665
"""Xie et al., arXiv 2403.12568: against the same networks without memory optimization."""


def _table(header: list[str], rows: list[list[str]], texts: int) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * texts + " ---: |" * (len(header) - texts)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _one(
    rows: list[Measured],
    network: str,
    how: str,
    heap: str | None = None,
    suite: str | None = None,
    precision: str = "fp32",
) -> Measured:
    """The measurement, or an empty one."""
    wanted = {"network": network, "how": how, "heap": heap, "suite": suite}
    chosen = {key: value for key, value in wanted.items() if value is not None}
    same = (row for row in rows if _precision(row) == precision)
    return next((row for row in same if all(row[key] == value for key, value in chosen.items())), {})


def _precision(row: Measured) -> str:
    return row.get("precision", "fp32")


def _ratio(row: Measured, other: Measured) -> str:
    if not row.get("instructions") or not other.get("instructions"):
        return ""
    return f"{row['instructions'] / other['instructions']:.2f}"


def trustzone(measured: Measured, images: Path) -> list[str]:
    """Instructions inside OP-TEE."""
    del images
    rows = measured["rows"]
    lines = []
    for row in rows:
        precision = _precision(row)
        line = [row["network"], precision, row["how"], row["heap"], row["suite"]]
        if row["failure"]:
            lines.append([*line, row["failure"], *[""] * 7])
            continue
        line += [f"{row['arena_bytes']:,}", f"{row['instructions'] / 1e6:,.1f}"]
        line.append(f"{row['instructions'] / row['multiplies']:.2f}")
        line.append(_ratio(row, _one(rows, row["network"], *REFERENCE, precision=precision)))
        line.append(_ratio(row, _one(rows, row["network"], NORMAL, precision=precision)))
        lines.append([*line, f"{row['calls']}", f"{row['streamed_bytes']:,}", f"{row['spilled_bytes']:,}"])
    header = [
        "network",
        "precision",
        "how",
        "heap",
        "AEAD",
        "arena, bytes",
        "10^6 instructions",
        "a multiply-accumulate",
    ]
    header += ["of tinytee at 2 MiB", "of the normal world", "calls", "weights opened, bytes", "spilled, bytes"]
    return [
        "## TrustZone",
        "`bench/trustzone.py`: instructions of one run, counted by QEMU's clock (`-icount shift=0,sleep=off`) in"
        " a genuine OP-TEE on one emulated Cortex-A53; calls into the secure world, the feeder and the kernel's part"
        " included. They are exact for what is executed, and say nothing of cache misses or of a board's seconds."
        " *Layer by layer* runs the same core and kernels with whole feature maps, and opens a layer's weights in every"
        " run (a layer whose weights alone do not fit streams them); with *naive kernels*, plain loops, too,"
        " and weights resident where they fit. *normal world* is the same core in an ordinary process with all the"
        " memory that it wants and weights in the clear. *pinned*: no weights are opened in a run; where they do not"
        " fit the largest heap, the row says what they need. *--weights*: weights stored smaller where that is faster,"
        " and decoded just before use; all else is float32. Multiply-accumulates are those of direct convolutions."
        " Ratios are to rows of the same precision. Calls are a run's from the second on: in the first, which is not"
        " counted, the feeder learns what a run wants, and makes more of them.",
        _table(header, lines, 5),
        *_energy(rows),
    ]


def _energy(rows: list[Measured]) -> list[str]:
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        ours = _one(rows, network, *REFERENCE)
        others = [_one(rows, network, LAYERWISE, "12MiB", suite) for suite in ("chacha20-poly1305", "aes-256-gcm")]
        others.append(_one(rows, network, "layer by layer, naive kernels"))
        if not ours.get("instructions"):
            continue
        ratios = [_ratio(other, ours) for other in others]
        moved = [
            f"{(other['streamed_bytes'] + other['spilled_bytes']) / 1e6:.1f}" if other.get("instructions") else ""
            for other in (ours, *others)
        ]
        lines.append([network, *ratios, " / ".join(moved)])
    if not lines:
        return []
    header = [
        "network",
        "layer by layer, same cipher",
        "layer by layer, TEE's AES-GCM",
        "layer by layer, naive kernels",
    ]
    header.append("10^6 bytes of weights and spills opened: tinytee / those three")
    return [
        "### Energy, by proxy",
        "No energy was measured: there is no board. On an in-order core of fixed clock, instructions and the bytes that"
        " cross the boundary are what can be counted. Multiples of tinytee's instructions at 2 MiB:",
        _table(header, lines, 1),
        f"Xie et al. (arXiv 2403.12568) report {PAPER_SPEEDUP} times less time and {PAPER_ENERGY_SAVED:.1%} less"
        " energy than without memory optimization, on a Raspberry Pi 3B+:"
        f" 1 / (1 - {PAPER_ENERGY_SAVED}) = {1 / (1 - PAPER_ENERGY_SAVED):.2f} times less energy for {PAPER_SPEEDUP}"
        " times less time, so that there energy followed time. That is the reason to set a ratio of instructions beside"
        " theirs. The reasons not to: theirs are seconds and joules with caches and DRAM, ours are neither; their"
        " networks' weights and their library are others; their optimized side enlarges the secure memory to 200 MiB,"
        " where tinytee stays at 2 MiB; and their baseline is another program, where that of the first column shares"
        " tinytee's kernels, cipher and streaming, so that the schedule alone is left between the two. The second"
        " column changes the cipher, too, the third the kernels instead"
        " ([decision 0012](decisions/0012-what-trustzone-can-reach.md)).",
    ]


def neon(measured: Measured, images: Path) -> list[str]:
    """Instructions a multiply-accumulate."""
    del images
    lines = [
        [
            row["kernel"],
            " x ".join(map(str, row["shape"])),
            f"{row['instructions']:.3f}",
            f"{row['bound']:.3f}",
            "Winograd" if row["winograd"] else f"{row['instructions'] / row['bound']:.2f}",
        ]
        for row in measured["rows"]
    ]
    return [
        "## NEON kernels",
        "`bench/neon.py`: instructions a multiply-accumulate on AArch64 without dot products, as the difference between"
        " a chain of five equal operators and one of them, counted likewise. The bound is what the arithmetic and the"
        " loads of the register tile take at least: fmla does four, a tile of 8 pixels by 8 channels loads 16 vectors"
        " for 64 of them; in int8, smull, smlal and sadalp do sixteen, and inputs are spread over registers first."
        " Rows outside the map are left out, and count as multiply-accumulates all the same: maps of 7 x 7 may lie"
        " below the bound. Where Winograd's method runs, multiply-accumulates are still those of the direct"
        " convolution, and the bound is the direct one's.",
        _table(["kernel", "y x c", "instructions", "bound", "of the bound"], lines, 2),
    ]
