"""Compiles a network into a sealed bundle, runs it in 1 MiB of secure memory, and compares with ONNX Runtime.

python examples/python/compile_and_run.py [NETWORK] [MEMORY]
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

import tinytee
from tinytee import zoo
from tinytee.zoo.rival import Rival, error_of_range


def main(name: str = "mobilenet_v2", memory: str = "1MiB") -> None:
    network = zoo.NETWORKS[name]
    model = network.build()
    x = zoo.reference_input(network)
    key = secrets.token_bytes(32)

    bundle = tinytee.compile(model, secure_memory=memory, key=key)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.tt"
        bundle.save(path)
        with tinytee.Session(path, key=key) as session:
            outputs = session.run({network.input_name: x})
            peak = session.stats.peak_secure_memory_bytes
        try:
            tinytee.Session(path, key=secrets.token_bytes(32))
        except tinytee.AuthenticationError as error:
            print(f"with another key: {error}")

    expected = Rival(model).run({network.input_name: x})
    error = error_of_range(outputs[network.output_name], expected[network.output_name])
    print(f"{name}: {peak:,} bytes of secure memory, largest error {error:.1e} of the output's range")


if __name__ == "__main__":
    main(*sys.argv[1:])
