"""Decoders of coded weights: how fast they are, and how much smaller entropy coding makes real and pruned weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from compiled import build_library, load_library
from tinytee.api import code_weights, load_graph
from tinytee.bundle.abi import constants
from tinytee.ir import entropy
from tinytee.ir.coding import DEFAULT_GROUPS, encode
from tinytee.ir.graph import Conv, Graph
from tinytee.plan import profile, weights
from tinytee.plan.entropy import code_entropy
from tinytee.zoo.efficientnet import build_efficientnet_lite0

REPEATS = 2000
ROWS, PANEL = 128, 32
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]
AVX2 = ["-mavx2", "-mfma", "-fno-gcse", "-fno-gcse-after-reload"]
FLAGS = {"avx2": AVX2, "avx512": AVX512, "avx512vnni": [*AVX512, "-mavx512vnni", "-mavx512vbmi"]}
"""As in CMakeLists.txt."""
PRUNED = 0.8


def decoder_rows(isa: str, cache_copy: float) -> list[dict[str, Any]]:
    """A row for each coding, as bench/kernels.py has them: one group of normally distributed weights of one panel."""
    here = Path(__file__).resolve().parent
    core = here.parent / "core"
    sources = [here / "decoders.c", core / "kernels" / "f32.c", core / "kernels" / "i8.c"]
    flags = ["-O3", "-ffreestanding", "-fno-math-errno", "-fno-trapping-math", f"-DTTI_ISA={isa}", *FLAGS.get(isa, [])]
    flags += ["-I", str(core), "-I", str(core / "include")]
    headers = [here / "decoders.h", *(core / "kernels").glob("*.h")]
    ffi, library = load_library(build_library(f"libdecoders-{isa}.so", sources, headers, flags), here / "decoders.h")
    weight = np.random.default_rng(0).standard_normal((PANEL, 1, 1, ROWS)).astype(np.float32)
    conv = Conv(name="c", inputs=("x",), output="y", weight=weight, bias=np.zeros(PANEL, np.float32))
    out, scales = np.zeros((ROWS, PANEL), np.float32), np.ones((ROWS, PANEL), np.float32)

    def pointer(kind: str, data: Any) -> Any:
        return ffi.cast(kind, ffi.from_buffer(data))

    results = pointer("float *", out), REPEATS
    rows = []
    for kind, number in (
        ("fp16", constants.TT_CODING_F16),
        ("int8", constants.TT_CODING_I8),
        ("int4", constants.TT_CODING_I4),
    ):
        coding = encode(weight, kind, ROWS if kind != "fp16" else None)  # type: ignore[arg-type]
        coded = replace(conv, coding=coding)
        packed = weights.pack_bytes(coded, PANEL, (0, 1), (0, ROWS), "direct")
        codes = packed[0 if kind == "fp16" else 4 * PANEL :]
        seconds = library.decode_codes(
            number, pointer("unsigned char *", codes), pointer("float *", scales), ROWS, PANEL, *results
        )
        rows.append(_row(f"decode {kind}", seconds, len(codes), cache_copy))
        if kind == "fp16":
            continue
        streams = entropy.encode_panels(weights.symbols_of(coded, coding, PANEL), DEFAULT_GROUPS["int4"])
        assert streams is not None
        count = streams.rows
        head, alphabet = streams.head(0, 0, count), streams.alphabet.to_bytes()
        low = pointer("unsigned char *", codes) if kind == "int8" else ffi.NULL
        seconds = library.decode_streams(
            pointer("unsigned char *", alphabet), pointer("unsigned char *", head), streams.words(count), streams.rate,
            pointer("float *", scales), low, count, ROWS, PANEL, *results,
        )  # fmt: skip
        assert seconds > 0, "the stream is malformed"
        low_bytes = ROWS * PANEL // 2 if kind == "int8" else 0
        rows.append(_row(f"decode entropy-coded {kind}", seconds * ROWS / count, len(head) + low_bytes, cache_copy))
    return rows


def _row(name: str, seconds: float, code_bytes: int, cache_copy: float) -> dict[str, Any]:
    """Bytes are those of the codes read and of the float32 weights written."""
    rate = (code_bytes + 4 * ROWS * PANEL) / seconds
    row = {"kernel": name, "shape": [1, ROWS, PANEL], "seconds": seconds, "rate": rate, "unit": "GB/s"}
    return row | {"peak": "cache_copy", "share": rate / cache_copy, "weights_per_second": ROWS * PANEL / seconds}


def ratios() -> Iterator[dict[str, Any]]:
    """Bytes of EfficientNet-Lite0's coded weights with entropy coding over those without, as trained and pruned."""
    graph, device = load_graph(build_efficientnet_lite0()), profile.load()
    for zeros in (0.0, PRUNED):
        for kind in ("int8", "int4"):
            coded = code_weights(_pruned(graph, zeros), kind)[0]
            denser = code_entropy(coded, device, device.suite, "always")
            pairs = [
                (before, after)
                for before, after in zip(coded.ops, denser.ops, strict=True)
                if isinstance(before, Conv) and isinstance(after, Conv) and before.coding
            ]
            sizes = [[_bytes(op, after) for op in (before, after)] for before, after in pairs]
            before, after = (sum(side) for side in zip(*sizes, strict=True))
            yield {"kind": kind, "zeros": zeros, "bytes": before, "entropy_coded_bytes": after, "ratio": after / before}


def _bytes(op: Conv, like: Conv) -> int:
    """Of an operator's weights, in panels as another's are."""
    streams = like.coding.streams if like.coding else None
    panel = streams.panel if streams else 32
    return weights.panel_count(op, panel) * weights.panel_bytes(op, panel, weights.conv_depth(op))


def _pruned(graph: Graph, share: float) -> Graph:
    """The smallest weights of each convolution set to zero."""

    def of(weight: np.ndarray) -> np.ndarray:
        least = np.partition(np.abs(weight), int(share * weight.size), axis=None)[math.floor(share * weight.size)]
        return np.where(np.abs(weight) < least, np.float32(0), weight)

    ops = tuple(replace(op, weight=of(op.weight)) if isinstance(op, Conv) and share else op for op in graph.ops)
    return replace(graph, ops=ops)


def ratio_table(found: list[dict[str, Any]]) -> Table:
    table = Table(title="entropy coding of EfficientNet-Lite0's weights", title_justify="left")
    for title in ("weights", "zeros", "coded bytes", "entropy-coded", "ratio"):
        table.add_column(title, justify="left" if title == "weights" else "right")
    for row in found:
        sizes = (f"{row['bytes']:,}", f"{row['entropy_coded_bytes']:,}", f"{row['ratio']:.3f}")
        table.add_row(row["kind"], f"{row['zeros']:.0%}", *sizes)
    return table
