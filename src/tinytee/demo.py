"""``tinytee demo``: a real network recognizes a real photograph inside 1 MiB of secure memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import tinytee
from tinytee.api import Progress as Report
from tinytee.bundle import enclave
from tinytee.report import plot_memory
from tinytee.runtime import optee_machine, sgx
from tinytee.runtime.provisioning import fingerprint
from tinytee.sizes import format_size, parse_size
from tinytee.zoo import efficientnet
from tinytee.zoo.rival import Rival, measure_side_by_side

BUDGET = "1MiB"
ROUNDS = 15
TOP = 5

PROTECTION = (
    "[bold]What protected this run, and what did not.[/bold]\n"
    "The bundle on disk and everything else outside the secure memory was sealed: without the key nobody reads the"
    " network, and nobody changes it unnoticed. Weights and activations were in clear only inside the arena of {arena},"
    " {kept}. The picture and the answer are this program's own, and in clear with it.\n"
    "This was the [bold]process backend[/bold]: an ordinary process. It guards against whoever gets hold of files, swap"
    " or dumps. It does [bold]not[/bold] guard against this machine's administrator or kernel, a debugger, or other"
    " code in the process: they can get at the key. For those there are TEEs, which run the same bundle;"
    " docs/threat-model.md says what guards against what."
)

KEPT = {
    "secret": "which goes neither to swap nor to core dumps, and which even the kernel's own mapping leaves out",
    "locked": "which goes neither to swap nor to core dumps",
    "unlocked": "which is kept out of core dumps, but not out of swap: this system does not let it be locked",
}
"""What is true of each kind of arena that the port may get."""


def main(out: Path = Path("out")) -> None:
    """Runs the demonstration, and writes the bundle and a picture of its secure memory into ``out``.

    Raises:
        MissingPackageError: one of the packages that carry its data is not installed.
    """
    console = Console(highlight=False)
    names = efficientnet.class_names()
    photograph = efficientnet.photograph()
    picture = tinytee.load_image(photograph, efficientnet.PREPROCESSING)
    model = efficientnet.build_efficientnet_lite0()
    rival = Rival(model)
    key = secrets.token_bytes(32)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "efficientnet-lite0.tt"

    console.print(f"EfficientNet-Lite0, ImageNet weights, {format_size(model.ByteSize())} of ONNX; a fresh key.")
    with _progress(console) as report:
        bundle = tinytee.compile(
            model,
            BUDGET,
            key,
            preprocessing=efficientnet.PREPROCESSING,
            class_names=names,
            progress=report,
        )
    bundle.save(path)

    feed = {"images": picture}
    with tinytee.Session(path, key=key) as session:
        found = session.run(feed)["probabilities"][0]
        expected = rival.run(feed)["probabilities"][0]
        seconds = measure_side_by_side(
            {"tinytee": lambda: session.run(feed), "rival": lambda: rival.run(feed)}, rounds=ROUNDS
        ).seconds
        stats = session.stats

    console.print(_top_table(photograph, names, found, expected))
    error = float(np.max(np.abs(found - expected)))
    console.print(f"largest difference over all {len(names):,} classes: {error:.1e}\n")

    ours, theirs = median(seconds["tinytee"]) * 1e3, median(seconds["rival"]) * 1e3
    facts = Table.grid(padding=(0, 2))
    budget = parse_size(BUDGET)
    facts.add_row("secure memory, peak", f"{stats.peak_secure_memory_bytes:,} of {budget:,} bytes, all included")
    facts.add_row("compiler's figure", f"{bundle.peak_secure_memory_bytes:,} bytes")
    facts.add_row("latency in tinytee", f"{ours:.1f} ms ({stats.isa}, {stats.suite}, one thread)")
    facts.add_row("in ONNX Runtime", f"{theirs:.1f} ms (unprotected, unlimited memory, one thread)")
    facts.add_row("ratio", f"{ours / theirs:.2f} (medians of {ROUNDS} runs, taken in turns)")
    drawing = out / "efficientnet-lite0-memory.png"
    plot_memory(bundle.plan, drawing)
    facts.add_row("bundle", str(path))
    facts.add_row("its secure memory over time", str(drawing))
    console.print(facts)
    kept = KEPT[stats.arena_kind]
    console.print("\n" + PROTECTION.format(arena=format_size(stats.arena_bytes), kept=kept))


def main_optee(profile: Any, budget: str = "1900KiB") -> None:
    """The same network and photograph, as a trusted application of a genuine OP-TEE in QEMU.

    Args:
        profile: of the device to plan for.
        budget: secure memory; it has to fit the trusted application's heap.

    Raises:
        MissingPackageError: one of the packages that carry the demonstration's data is not installed.
        EngineError: the machine cannot be prepared or booted.
    """
    console = Console(highlight=False)
    console.print("booting OP-TEE in QEMU's emulated TrustZone")
    machine = optee_machine.shared_machine(optee_machine.chosen_build())
    try:
        stats = _recognize_in(console, "optee-qemu", profile, budget, rounds=1)[0]
    finally:
        machine.release()
    console.print(f"secure memory: {stats.peak_secure_memory_bytes:,} bytes of the trusted application's heap")
    console.print(
        f"{stats.last_run_seconds:.1f} s in an emulated Cortex-A53: an emulator's speed says nothing of a board's"
    )


def main_sgx(backend: str, profile: Any, budget: str = "2MiB") -> None:
    """The same network and photograph, in an SGX enclave.

    Args:
        backend: "sgx", or "sgx-emulated".
        profile: of the processor to plan for.
        budget: secure memory; it has to fit the enclave's heap.

    Raises:
        MissingPackageError: one of the packages that carry the demonstration's data is not installed.
        EngineError: there is no SGX here, or the enclave is not built.
    """
    console = Console(highlight=False)
    image = sgx.chosen_image()
    stats, seconds = _recognize_in(console, backend, profile, budget, ROUNDS)
    console.print(
        f"enclave memory: {enclave.read_secure_bytes(image):,} bytes, all included; of its heap the bundle takes"
        f" {stats.peak_secure_memory_bytes:,}"
    )
    ours, theirs = median(seconds["tinytee"]) * 1e3, median(seconds["rival"]) * 1e3
    console.print(
        f"{ours:.1f} ms; ONNX Runtime, unprotected, {theirs:.1f} ms: {ours / theirs:.2f} (medians of {ROUNDS} runs, in"
        " turns)"
    )
    if backend == "sgx-emulated":
        console.print(
            "The processor was emulated: the enclave's own code ran natively, but in ordinary memory, without its"
            " encryption and without the cost of entering an enclave. Nothing was protected from this machine."
        )


def _recognize_in(
    console: Console, backend: str, profile: Any, budget: str, rounds: int
) -> tuple[tinytee.SessionStats, dict[str, list[float]]]:
    """Compiles the network, seals its key to the backend's device, and recognizes the photograph there, so many times
    in turns with ONNX Runtime. Returns the session's statistics, and everybody's seconds."""
    names = efficientnet.class_names()
    photograph = efficientnet.photograph()
    model = efficientnet.build_efficientnet_lite0()
    rival = Rival(model)
    feed = {"images": tinytee.load_image(photograph, efficientnet.PREPROCESSING)}
    key = secrets.token_bytes(32)
    console.print(f"EfficientNet-Lite0, ImageNet weights, {format_size(model.ByteSize())} of ONNX; a fresh key.")
    bundle = tinytee.compile(model, budget, key, profile=profile)
    sealed = tinytee.provision(key, tinytee.device_key(backend))
    console.print(f"the key, sealed to device {fingerprint(sealed.device_key)}")
    with tinytee.Session(bundle, sealed_key=sealed, backend=backend) as session:
        found = session.run(feed)["probabilities"][0]
        seconds: dict[str, list[float]] = {}
        if rounds > 1:
            seconds = measure_side_by_side(
                {"tinytee": lambda: session.run(feed), "rival": lambda: rival.run(feed)}, rounds=rounds
            ).seconds
        stats = session.stats
    expected = rival.run(feed)["probabilities"][0]
    console.print(_top_table(photograph, names, found, expected))
    console.print(f"largest difference over all {len(names):,} classes: {float(np.max(np.abs(found - expected))):.1e}")
    return stats, seconds


def _top_table(photograph: Path, names: list[str], found: NDArray[np.float32], expected: NDArray[np.float32]) -> Table:
    table = Table(title=f"What is in {photograph.name}?", title_justify="left")
    table.add_column("tinytee")
    table.add_column("", justify="right")
    table.add_column("ONNX Runtime")
    table.add_column("", justify="right")
    for ours, theirs in zip(found.argsort()[::-1][:TOP], expected.argsort()[::-1][:TOP], strict=True):
        table.add_row(names[ours], f"{found[ours]:.4f}", names[theirs], f"{expected[theirs]:.4f}")
    return table


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    columns = (TextColumn("compiling for " + BUDGET + ": {task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, fraction: bar.update(task, description=what, completed=fraction)
