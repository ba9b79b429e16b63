"""Writes one of the zoo's networks as an ONNX file, to try the command line with.

python examples/python/write_network.py mobilenet_v2 mobilenet.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

from tinytee import zoo


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in zoo.NETWORKS:
        print(
            f"usage: write_network.py NETWORK FILE, where NETWORK is one of {', '.join(zoo.NETWORKS)}", file=sys.stderr
        )
        return 2
    network = zoo.NETWORKS[arguments[0]]
    onnx.save(network.build(), Path(arguments[1]))
    shape = "x".join(map(str, network.input_shape))
    print(f"{arguments[1]}: {network.name}, input '{network.input_name}' {shape}; {network.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
