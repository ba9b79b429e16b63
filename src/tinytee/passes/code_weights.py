"""Replaces the weights of convolutions and fully connected layers by codes of fewer bits (``ir.coding``)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinytee.errors import UnsupportedModelError
from tinytee.ir.coding import check_group, encode, known_kind
from tinytee.ir.graph import Conv, Graph, Op, Scan

LEAST_WEIGHTS = 4096
"""Smaller weights stay float32: their scales would outweigh what the codes save."""


@dataclass(frozen=True)
class CodedWeight:
    """What coding did to one operator's weights: how many there are, and the signal-to-noise ratio in decibels."""

    name: str
    count: int
    snr: float


def code_weights(graph: Graph, kind: str, group: int | None = None) -> tuple[Graph, list[CodedWeight]]:
    """Codes every convolution's weights (also Gemm, MatMul and recurrent layers) but small ones and those of integer
    operators.

    Arithmetic stays in float32. The graph's weights become what the codes stand for, so that every room computes alike.

    Raises:
        UnsupportedModelError: a weight cannot be coded.
        ValueError: there is no such coding, or the group is odd or out of bounds.
    """
    known = known_kind(kind)
    check_group(known, group)
    done: list[CodedWeight] = []

    def coded(op: Op) -> Op:
        if isinstance(op, Scan):
            return replace(op, body=tuple(map(coded, op.body)))
        if not isinstance(op, Conv) or op.weight.size < LEAST_WEIGHTS:
            return op
        try:
            coding = encode(op.weight, known, group)
        except ValueError as error:
            raise UnsupportedModelError(f"{op.name}: {error}") from error
        weight = coding.decoded().reshape(op.weight.shape)
        noise = float(np.square(weight.astype(np.float64) - op.weight).sum())
        signal = float(np.square(op.weight.astype(np.float64)).sum())
        snr = 10 * np.log10(signal / noise) if noise and signal else float("inf")
        done.append(CodedWeight(op.name, op.weight.size, float(snr)))
        return replace(op, weight=weight, coding=coding)

    return replace(graph, ops=tuple(map(coded, graph.ops))), done
