"""Writes docs/results.md and its pictures from what the benchmarks measured (bench/results/*.json).

python bench/report.py [--results FOLDER] [--page FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from harness import RESULTS
from kernels import describe_peaks
from pictures import plot_kernels, plot_paging, plot_predictions, plot_zoo
from tinytee.bench import ONNX_RUNTIME, ONNX_RUNTIME_FP32, OPENVINO, prediction_errors
from tinytee.sizes import format_size
from trustzone_report import neon, trustzone

RESULTS_PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
SGX_FAULT_CYCLES = 40_000
"""Of a page swap, driver included: Taassori, Shafiee, Balasubramonian, "VAULT", ASPLOS 2018."""

Measured = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON files are")
    parser.add_argument("--page", type=Path, default=RESULTS_PAGE, help="pictures go to images/ beside it")
    options = parser.parse_args()

    page: Path = options.page
    sections = [
        "# Results",
        "Written by `bench/report.py` from the files in `bench/results/`, which `make bench` measures anew (`make"
        " bench-all`: every network at every budget). For a network of your own: `tinytee bench model.onnx --memory"
        " 1MiB,2MiB,4MiB`.",
    ]
    writers = {
        "floors": _floors,
        "paging": _paging,
        "zoo": _zoo,
        "zoo-avx2": _zoo_avx2,
        "kernels": _kernels,
        "trustzone": trustzone,
        "neon": neon,
        "sgx": _sgx,
    }
    for name, write in writers.items():
        path = options.results / f"{name}.json"
        if path.exists():
            sections += write(json.loads(path.read_text(encoding="utf-8")), page.parent / "images")
    if len(sections) == 2:
        print("nothing measured yet: run make bench", file=sys.stderr)
        return 1
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    print(f"wrote {page}")
    return 0


def _machine_line(measured: Measured) -> str:
    return "Measured on: " + ", ".join(f"{key} {value}" for key, value in measured["machine"].items()) + "."


def _rows_table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _milliseconds(times: dict[str, float]) -> str:
    """Median, and the quartiles in brackets."""
    digits = 2 if times["median"] < 1e-2 else 1
    low, high = (f"{1e3 * times[key]:.{digits}f}" for key in ("lower_quartile", "upper_quartile"))
    return f"{1e3 * times['median']:.{digits}f} [{low}, {high}]"


def _floors(measured: Measured, images: Path) -> list[str]:
    del images
    floors: dict[str, dict[str, Any]] = {}
    for row in measured["rows"]:
        floors.setdefault(row["network"], {})[row["precision"]] = row
    rows = []
    for name, found in floors.items():
        fp32, int8 = (found[kind]["floor_bytes"] if kind in found else 0 for kind in ("fp32", "int8"))
        either = next(iter(found.values()))
        figures = [
            f"{fp32:,}" if fp32 else "",
            f"{int8:,}" if int8 else "",
            f"{int8 / fp32:.2f}" if int8 and fp32 else "",
        ]
        rows.append([name, *figures, format_size(either["required_bytes"]), either["source"]])
    return [
        "## The least secure memory",
        "Everything counts: engine, program, weights, activations, staging, input and output. A program is as long in"
        " int8 as in float32 and a channel's constants are longer, so that most least sizes shrink by less than four."
        " `bench/floors.py`.",
        _rows_table(["network", "least bytes", "in int8", "of float32's", "goal", "topology and weights"], rows),
    ]


def _paging(measured: Measured, images: Path) -> list[str]:
    rows = measured["rows"]
    plot_paging(rows, images / "results-paging.png")
    lines = []
    for row in rows:
        found = row["contenders"]
        line = [row["network"], format_size(row["budget_bytes"]), f"{1e3 * found['unprotected']['median']:.1f}"]
        line.append(f"{found['tinytee']['ratio']:.2f}")
        for name in ("layerwise", ONNX_RUNTIME):
            line += [f"{found[name]['ratio']:.2f}", f"{found[name]['faults']:,}"] if name in found else ["", ""]
        lines.append(line)
    header = ["network", "secure memory", "unprotected ms", "tinytee", "layer by layer, paged", "its faults"]
    header += ["ONNX Runtime, paged", "its faults"]
    fault = rows[0]["fault"]
    worst = max(found["ratio"] for row in rows for name, found in row["contenders"].items() if name != "tinytee")
    ours = [row["contenders"]["tinytee"]["ratio"] for row in rows]
    cycles = fault["seconds"] * fault["cycles_per_second"]
    rounds = sorted({row["rounds"] for row in rows})
    suites = ", ".join(sorted({row["suite"] for row in rows}))
    return [
        "## Without tinytee: what paging costs",
        "![latency against secure memory](images/results-paging.png)",
        "The problem of Truong et al. (arXiv 2104.15109), on any Linux machine (`bench/paging.py`). The figures"
        " are multiples"
        " of the latency of ONNX Runtime, unprotected and with all the memory it wants. Where an enclave is larger than"
        f" its secure memory and the operating system pages it, latency grows up to {worst:.1f} times; tinytee's stays"
        f" between {min(ours):.2f} and {max(ours):.2f} times ({suites}), from"
        f" {format_size(rows[0]['budget_bytes'])} on.",
        _rows_table(header, lines),
        f"Medians of {' to '.join(map(str, [rounds[0], *rounds[1:][-1:]]))} rounds, in turns, one thread each.",
        "**What runs.** *ONNX Runtime, paged*: the unmodified package; a preloaded allocator puts what it"
        " allocates in blocks of"
        " 16 KiB or more (weights, packed weights, feature maps, scratch) into the emulated secure memory."
        " *Layer by layer,"
        " paged*: tinytee's own kernels, each layer over whole feature maps, all weights decrypted once and kept in the"
        " arena, which lies in the emulated memory: this isolates what the schedule does from what the kernels"
        " do. *tinytee*:"
        " the usual compiler and the usual process backend within as many bytes as the others have; every weight"
        " that is"
        " not pinned is decrypted in every run, and that is in its time.",
        "**What is emulated.** `bench/pager` keeps at most so many 4 KiB pages of a region in plain. A fault"
        " (userfaultfd) opens and verifies the page that is wanted, as ELDU does; where the memory is full, 16"
        " pages are"
        " first sealed with AES-256-GCM under fresh counters, as the driver's batches of EWB do. A queue with a second"
        " chance by refault distance stands for the driver's clock over accessed bits, which user space cannot read; on"
        " scans longer than the memory both are LRU.",
        "**What is not.** No memory encryption engine slows cache misses, and no enclave is entered or left;"
        " ONNX Runtime's code,"
        " stack, small objects, input and output live outside for free; freed memory is not paged out. A fault costs a"
        " signal and three or four system calls in place of AEX, driver and ERESUME: measured,"
        f" {1e6 * fault['seconds']:.1f} µs"
        f" ({1e6 * fault['crypto_seconds']:.1f} µs of it in AES-GCM), or {cycles:,.0f} cycles of this machine's nominal"
        f" clock, where SGX takes about {SGX_FAULT_CYCLES:,} (VAULT, ASPLOS 2018). All this favours the paged"
        " runtimes.",
        _machine_line(measured),
    ]


def _sgx(measured: Measured, images: Path) -> list[str]:
    del images
    rows = measured["rows"]
    ours = ("enclave", "enclave without client", "process", ONNX_RUNTIME)
    lines = []
    for row in rows:
        medians = row["medians"]
        line = [row["network"], row["precision"], format_size(row["budget_bytes"]), f"{row['enclave_bytes']:,}"]
        line += [f"{1e3 * medians[name]:.1f}" for name in ours]
        line += [f"{medians[name] / medians[ONNX_RUNTIME]:.2f}" for name in ours[:3]]
        lines.append([*line, f"{medians[ours[1]] / medians['process']:.2f}", str(row["rounds"]), f"{row['error']:.0e}"])
    header = ["network", "precision", "budget", "enclave's bytes"]
    header += [f"{name} ms" for name in ("enclave", "without client", "process", "ONNX Runtime")]
    header += [f"{name} / ONNX Runtime" for name in ("enclave", "without client", "process")]
    header += ["without client / process", "rounds", "error"]
    fixed = max(row["fixed_bytes"] for row in rows)
    kinds = {"sgx-emulated": "an emulated processor", "sgx": "a processor with SGX"}
    places = " and ".join(kinds[name] for name in sorted({row["backend"] for row in rows}))
    return [
        "## SGX",
        f"Networks in enclaves, by {places} ([sgx.md](sgx.md)), AES-256-GCM, one thread, every weight opened in every"
        " run that is not pinned (`bench/enclave.py`). *Enclave's bytes* is all the memory that the enclave has: code,"
        f" stack and constants are {fixed:,} of it, the rest is the heap in which the bundle's arena lies. The client"
        " is in another process, seals inputs and opens outputs; *without client* is what the enclave and its feeder"
        " take. Medians of rounds in turns with the process port and ONNX Runtime. An emulated processor runs the"
        " enclave's code as it is: what a real one takes for entering an enclave and for encrypting its memory is in"
        " none of these figures; what the emulation takes, some 20 µs a call, is.",
        _rows_table(header, lines),
        _machine_line(measured),
    ]


def _zoo(measured: Measured, images: Path) -> list[str]:
    rows = measured["rows"]
    float_rows = [row for row in rows if row["threads"] == 1 and row.get("precision", "fp32") == "fp32"]
    plot_zoo(float_rows or rows, images / "results-zoo.png")
    plot_predictions(rows, images / "results-predictions.png")
    return [
        "## Latency",
        "![multiples of ONNX Runtime's latency](images/results-zoo.png)",
        "`bench/zoo.py`: wall time around the call, from arrays to arrays, all contenders with as many threads and in"
        " turns. Medians, with"
        " the quartiles in brackets; a ratio is the median of the ratios of neighbouring runs. The rivals are"
        " unprotected"
        " and have all the memory they want. Peaks are bytes of secure memory, as the core counts them. Shares"
        " are of the"
        " engine's own time: opening weights, inputs and outputs; sealing and opening spills (by their part of"
        " the bytes);"
        " the rest. The limit is physical: every multiplication that the plan makes at the"
        " peak rate of this machine's vectors, every byte at that of its AEAD, nothing else. The error is the largest"
        " one, as a fraction of an output's range." + _steadiness(rows),
        _machine_line(measured),
        _latencies(rows),
        *_prediction_section(rows),
    ]


def _zoo_avx2(measured: Measured, images: Path) -> list[str]:
    """The same on a machine without AVX-512."""
    del images
    rows = measured["rows"]
    errors = prediction_errors(rows)
    return [
        "## Latency without AVX-512",
        "The same on a processor with AVX2 and without VNNI, planned with the profile `x86-64-avx2`. Its int8 products"
        " are exact, as everywhere: 16-bit ones, at most 1.5 times as fast as float32's. ONNX Runtime's int8 is its"
        " exact one as well; its default there saturates (docs/quantization.md). The predicted time is off by"
        f" {statistics.median(errors):.0%} in the median. Rows may be of different times, and so of"
        " different clocks, and of others' use of the caches that cores share, which the probe does not see: compare"
        " within a row." + _steadiness(rows),
        _machine_line(measured),
        _latencies(rows),
    ]


def _steadiness(rows: list[Measured]) -> str:
    """In how many rounds the machine is known to have been undisturbed; nothing if none was probed."""
    probed = [row for row in rows if row.get("steady_rounds") is not None]
    if not probed:
        return ""
    steady, counted = (sum(row[name] for row in probed) for name in ("steady_rounds", "rounds"))
    return (
        f" A probe found nobody else's work on the same cores before and after {steady:,} of the {counted:,} rounds"
        " that count; where it did, rounds were measured again as long as there was time (`tinytee.zoo.steady`)."
    )


def _latencies(rows: list[Measured]) -> str:
    """A table of bench/zoo.py's rows."""
    with_openvino = any(OPENVINO in row.get("rivals", {}) for row in rows)
    header = ["network", "precision", "threads", "suite", "budget", "peak", "tinytee ms", "ONNX Runtime ms", "ratio"]
    header += ["its fp32 ms", "ratio"]
    header += ["OpenVINO ms", "ratio"] if with_openvino else []
    header += ["predicted ms", "limit ms", "AEAD", "spills", "compute and all else", "error"]
    lines = []
    for row in rows:
        head = [
            row["network"],
            row.get("precision", "fp32"),
            str(row["threads"]),
            row["suite"] or "",
            format_size(row["budget_bytes"]),
        ]
        if "failure" in row:
            lines.append([*head, row["failure"], *[""] * (len(header) - 6)])
            continue
        line = [f"{row['measured_peak_bytes']:,}", _milliseconds(row["tinytee"])]
        for name in (ONNX_RUNTIME, ONNX_RUNTIME_FP32, *([OPENVINO] if with_openvino else [])):
            times = row["rivals"].get(name)
            line += [_milliseconds(times), f"{times['ratio']:.2f}"] if times else ["", ""]
        predicted = row["predicted_seconds"]
        line.append(f"{1e3 * predicted:.3g}" if predicted else "")
        line.append(f"{1e3 * row['limit_seconds']:.3g}")
        weights = row["aead_share"] - row["spill_share"]
        line += [f"{share:.0%}" for share in (weights, row["spill_share"], 1 - row["aead_share"])]
        lines.append([*head, *line, f"{row['error']:.0e}"])
    return _rows_table(header, lines)


def _prediction_section(rows: list[Measured]) -> list[str]:
    errors = prediction_errors(rows)
    if not errors:
        return []
    within = sum(error <= 0.15 for error in errors) / len(errors)
    return [
        "### The cost model",
        "![predicted against measured](images/results-predictions.png)",
        f"The predicted time is off by {statistics.median(errors):.0%} in the median, by {max(errors):.0%} at most;"
        f" {within:.0%} of the predictions are within 15%.",
    ]


def _kernels(measured: Measured, images: Path) -> list[str]:
    rows = measured["rows"]
    plot_kernels(rows, images / "results-kernels.png")
    names = {
        "flops": "multiply-accumulates",
        "dots": "int8 products",
        "memory_read": "reading memory",
        "cache_copy": "copying in the cache",
    }
    lines = [
        [
            row["kernel"],
            " x ".join(map(str, row["shape"])),
            f"{1e6 * row['seconds']:,.0f}" if row["seconds"] else "",
            f"{row['rate'] / 1e9:,.1f} {row['unit']}",
            f"{row['share']:.0%} of {names[row['peak']]}",
        ]
        for row in rows
    ]
    peaks = describe_peaks(rows[0]["peaks"])
    return [
        "## Kernels",
        "![share of the machine's peak](images/results-kernels.png)",
        f"`bench/kernels.py`: inside the engine, weights decrypted beforehand. {peaks[0].upper()}{peaks[1:]}; the"
        " peaks are"
        " measured by `bench/peak.c` in the same run. Operations are those of a direct convolution: Winograd's"
        " need up to 2.25 times fewer, so that they can pass"
        " the peak. Bytes are those of the map read and the map written, wherever they lie; of a decoder those of the"
        " codes and of the float32 weights.",
        _machine_line(measured),
        _rows_table(["kernel", "y x c", "µs", "rate", "of peak"], lines),
        *_entropy(rows),
    ]


def _entropy(rows: list[dict[str, Any]]) -> list[str]:
    """What entropy coding takes off real weights, if that was measured."""
    found = [ratio for row in rows for ratio in row.get("entropy_ratios", ())]
    if not found:
        return []
    lines = [
        [
            row["kind"],
            f"{row['zeros']:.0%}",
            f"{row['bytes']:,}",
            f"{row['entropy_coded_bytes']:,}",
            f"{row['ratio']:.3f}",
        ]
        for row in found
    ]
    return [
        "EfficientNet-Lite0's coded weights, as trained and with the smallest of each layer set to zero:",
        _rows_table(["weights", "zeros", "bytes", "entropy-coded", "ratio"], lines),
    ]


if __name__ == "__main__":
    sys.exit(main())
