"""A process that computes in the emulated enclave page cache. It reads a command a line, and answers each in JSON.

python -m pager.worker {onnxruntime|layerwise} NETWORK

    {"do": "resize", "bytes": n}  how much may be resident from now on
    {"do": "run"}                 one inference: its seconds, and what the pager counted meanwhile
    {"do": "result"}              the first elements of the last inference's output

For onnxruntime, libepc.so has to be preloaded: its malloc puts what ONNX Runtime allocates into the region.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytee import zoo
from tinytee.api import load_graph
from tinytee.bundle import Bundle, Manifest, TensorSpec
from tinytee.bundle.sealing import Unsealed
from tinytee.plan.api import lower, make_plan
from tinytee.zoo.rival import Rival

from .engine import Engine
from .native import Pager

Feed = dict[str, NDArray[Any]]
Run = Callable[[Feed], dict[str, NDArray[Any]]]

REGION_BYTES = 8 << 30
SETUP_BYTES = 4 << 30
"""What may be resident until the first resize: both rivals are set up without paging."""

STEERED_BYTES = 16 << 10
"""Allocations from here on go into the region; what is smaller (biases, objects) stays outside, for free."""

LARGEST_ARENA_BYTES = (1 << 32) - 64
PRINTED_ELEMS = 4096
SUITE = "aes-256-gcm"


def open_onnxruntime(network: zoo.Network, pager: Pager) -> Run:
    """ONNX Runtime, with all that it allocates in the region."""
    model = network.build()
    importlib.import_module("onnxruntime")  # a system call cannot read files into the region
    pager.steer(STEERED_BYTES)
    rival = Rival(model)
    pager.stop_steering()

    def run(feed: Feed) -> dict[str, NDArray[Any]]:
        pager.steer(STEERED_BYTES)
        try:
            return rival.run(feed)
        finally:
            pager.stop_steering()

    return run


def open_layerwise(network: zoo.Network, pager: Pager) -> Run:
    """tinytee's own engine with whole feature maps and all weights in the region, which is its arena."""
    graph = load_graph(network.build())
    plan = make_plan(graph, LARGEST_ARENA_BYTES, suite=SUITE, schedule="layerwise")
    lowered, key = lower(graph, plan), os.urandom(32)
    manifest = Manifest(
        inputs=tuple(TensorSpec.of(*port) for port in lowered.inputs),
        outputs=tuple(TensorSpec.of(*port) for port in lowered.outputs),
        budget_bytes=LARGEST_ARENA_BYTES,
        predicted_seconds=plan.predicted_seconds,
    )
    engine = Engine(Bundle(unsealed=Unsealed(lowered, manifest, SUITE, key), plan=plan), key, pager.address)
    return engine.run


OPENERS = {"onnxruntime": open_onnxruntime, "layerwise": open_layerwise}


def serve(run: Run, feed: Feed, pager: Pager) -> None:
    """Answers commands until the input ends."""
    result: dict[str, NDArray[Any]] = {}
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "resize":
            pager.resize(command["bytes"])
        elif command["do"] == "run":
            before, start = pager.counters(), time.perf_counter()
            result = run(feed)
            answer["seconds"] = time.perf_counter() - start
            after = pager.counters()
            counted = ("faults", "fresh", "loads", "evictions", "crypto_seconds", "serving_seconds")
            answer |= {name: after[name] - before[name] for name in counted}
            answer |= {name: after[name] for name in ("foreign", "failed_allocations", "resident_pages")}
        elif command["do"] == "result":
            answer["values"] = np.concatenate([value.ravel() for value in result.values()])[:PRINTED_ELEMS].tolist()
        print(json.dumps(answer), flush=True)


def main() -> int:
    kind, name = sys.argv[1:]
    network = zoo.NETWORKS[name]
    pager = Pager(REGION_BYTES, SETUP_BYTES)
    run = OPENERS[kind](network, pager)
    feed = {network.input_name: zoo.reference_input(network)}
    run(feed)
    print(json.dumps({"ready": True, **pager.counters()}), flush=True)
    serve(run, feed, pager)
    sys.stdout.flush()
    os._exit(0)  # what lies in the region must not be freed one by one


if __name__ == "__main__":
    sys.exit(main())
