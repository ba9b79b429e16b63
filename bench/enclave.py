"""Measures networks in SGX enclaves, by an emulated processor or a real one, beside the process port and ONNX Runtime.

python bench/enclave.py [NETWORK ...] [--budgets 2MiB,4MiB] [--precisions fp32,int8] [--backend sgx-emulated]
                        [--rounds 15] [--seconds 5] [--json FILE] [--keep]

An enclave is made for each budget, of the least heap that holds it. All cross the boundary sealed with AES-256-GCM. An
emulated processor runs the enclave's code as it is, in ordinary memory: what SGX takes for entering an enclave and for
encrypting its memory is not in the times.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import tinytee
from harness import Rows, chosen_networks
from tinytee.bench import ONNX_RUNTIME
from tinytee.plan import profile
from tinytee.runtime import library, sgx
from tinytee.sizes import format_size, parse_size
from tinytee.zoo import Network, reference_input
from tinytee.zoo.quantized import quantized_network
from tinytee.zoo.rival import Rival, measure_side_by_side

NETWORKS = ("squeezenet", "mobilenet_v2", "efficientnet_lite0", "resnet50", "vgg19")
SUITE = "aes-256-gcm"
CASE = ("network", "precision", "budget_bytes", "backend")
TOLERANCE = {"fp32": 1e-4, "int8": 0.05}
"""Largest error of an output's range beside ONNX Runtime."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--budgets", default="2MiB,4MiB", help="comma-separated")
    parser.add_argument("--precisions", default="fp32,int8", help="comma-separated")
    parser.add_argument("--backend", default="sgx-emulated", help="or sgx")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one row's rounds; three rounds at least")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="rows of the JSON file that are not measured again stay")
    options = parser.parse_args()

    warnings.filterwarnings("ignore", message="SGX in development mode")
    rows = Rows(options.json, CASE, keep=options.keep)
    for network in chosen_networks(options.networks or NETWORKS):
        for precision in options.precisions.split(","):
            for budget in options.budgets.split(","):
                row = measure(network, precision, parse_size(budget), options)
                rows.add(row)
                print(_line(row), file=sys.stderr, flush=True)
    return 0 if all(row["error"] <= TOLERANCE[row["precision"]] for row in rows.measured) else 1


def measure(network: Network, precision: str, budget: int, options: Any) -> dict[str, Any]:
    """One row: an enclave, a process and ONNX Runtime in turns."""
    key, isa = secrets.token_bytes(32), library.best_isa()
    model = quantized_network(network.name) if precision == "int8" else network.build()
    planned = profile.load("sgx-avx512" if isa.startswith("avx512") else "sgx-avx2")
    bundle = tinytee.compile(model, budget, key, profile=planned, suite=SUITE)
    feed = {network.input_name: reference_input(network)}
    rival = Rival(model)
    heap = bundle.peak_secure_memory_bytes + sgx.HEAP_OVERHEAD_BYTES
    image = sgx.build_image(str(heap), isa, sgx.own_signing_key(), is_development=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "enclave"
        path.write_bytes(image.data)
        os.environ[sgx.IMAGE_VARIABLE] = str(path)
        inside = tinytee.Session(bundle, key=key, backend=options.backend)
    with inside, tinytee.Session(bundle, key=key, threads=1) as outside:
        found, expected = inside.run(feed), rival.run(feed)
        without_client: list[float] = []

        def run_inside() -> None:
            inside.run(feed)
            without_client.append(inside.stats.last_run_seconds)

        times = measure_side_by_side(
            {"enclave": run_inside, "process": lambda: outside.run(feed), ONNX_RUNTIME: lambda: rival.run(feed)},
            rounds=options.rounds,
            most_seconds=options.seconds,
        )
    medians = {name: statistics.median(seconds) for name, seconds in times.seconds.items()}
    medians["enclave without client"] = statistics.median(without_client[1:])
    return {
        "network": network.name,
        "precision": precision,
        "budget_bytes": budget,
        "backend": options.backend,
        "isa": isa,
        "suite": SUITE,
        "arena_bytes": bundle.peak_secure_memory_bytes,
        "enclave_bytes": image.secure_bytes,
        "fixed_bytes": image.secure_bytes - image.heap_bytes,
        "medians": medians,
        "ratio": medians["enclave"] / medians[ONNX_RUNTIME],
        "rounds": len(times.seconds["enclave"]),
        "error": max(float(np.max(np.abs(found[name] - expected[name])) / np.ptp(expected[name])) for name in expected),
    }


def _line(row: dict[str, Any]) -> str:
    times = ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in row["medians"].items())
    return (
        f"{row['network']} {row['precision']} at {format_size(row['budget_bytes'])}: {row['enclave_bytes']:,} bytes,"
        f" ms: {times}, {row['ratio']:.2f} of ONNX Runtime,"
        f" error {row['error']:.0e}, {row['rounds']} rounds"
    )


if __name__ == "__main__":
    sys.exit(main())
