"""Weights in fewer bits than the arithmetic: what a coded weight stands for, and how weights are coded.

Arithmetic stays in float32: the core turns codes into float32 weights just before it uses them. A code belongs to an
output channel and a row of its kernel (kernel_y, kernel_x, input channel, in that order); ``group`` rows share a scale.

- fp16: the code is the weight, IEEE 754 binary16.
- int8: weight = code * scale, code -127 .. 127.
- int4: weight = code * scale, code -7 .. 7.

Scales are max |weight| / largest code of their group, and for int4 the multiple of it, out of a few, that loses
least (symmetric round-to-nearest quantization with a searched clipping range).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinytee.ir.entropy import Streams

CodingKind = Literal["fp16", "int8", "int4"]

DEFAULT_GROUPS: dict[CodingKind, int] = {"fp16": 256, "int8": 128, "int4": 32}
"""Rows that share a scale unless one says otherwise; fp16 has none."""

MOST_GROUP = 256

_LARGEST = {"int8": 127, "int4": 7}
_CLIPS = {"int8": (1.0,), "int4": (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)}


@dataclass(frozen=True, eq=False)
class WeightCoding:
    """The codes of a weight.

    Attributes:
        kind: see above.
        group: rows that share a scale.
        codes: [out_channels, rows]: float16, or int8 (int4 in it, too).
        scales: [out_channels, ceil(rows / group)] float32; empty for fp16.
        streams: the codes of int8 or int4, entropy-coded; None: they are not.
    """

    kind: CodingKind
    group: int
    codes: NDArray
    scales: NDArray[np.float32]
    streams: Streams | None = None

    @property
    def unit(self) -> int:
        """Rows that a panel may be divided by."""
        return self.group if self.streams is None else max(self.group, self.streams.rows)

    def decoded(self) -> NDArray[np.float32]:
        """[out_channels, rows], as the core computes them: one rounded product each."""
        if self.kind == "fp16":
            return self.codes.astype(np.float32)
        spread = np.repeat(self.scales, self.group, axis=1)[:, : self.codes.shape[1]]
        return self.codes.astype(np.float32) * spread


def known_kind(kind: str) -> CodingKind:
    """The coding of that name.

    Raises:
        ValueError: there is none.
    """
    for known in DEFAULT_GROUPS:
        if known == kind:
            return known
    raise ValueError(
        f"weights are stored as {', '.join(DEFAULT_GROUPS)} or, without the option, float32; not as {kind}"
    )


def check_group(kind: CodingKind, group: int | None) -> int:
    """The group to use.

    Raises:
        ValueError: it is odd, or out of bounds.
    """
    chosen = DEFAULT_GROUPS[kind] if group is None else group
    if chosen % 2 or not 2 <= chosen <= MOST_GROUP:
        raise ValueError(
            f"a weight group is an even number of rows from 2 to {MOST_GROUP}, not {chosen}: two {kind} codes or rows"
            " go together"
        )
    return chosen


def encode(weight: NDArray[np.float32], kind: CodingKind, group: int | None = None) -> WeightCoding:
    """Codes a weight [out_channels, ...].

    Raises:
        ValueError: the group is odd or out of bounds; or a weight is not finite, or too large for fp16.
    """
    chosen = check_group(kind, group)
    rows = weight.reshape(len(weight), -1)
    if not np.isfinite(rows).all():
        raise ValueError("a weight is not finite")
    if kind == "fp16":
        if np.abs(rows).max(initial=0.0) > np.finfo(np.float16).max:
            raise ValueError("a weight is too large for fp16")
        return WeightCoding(kind, chosen, rows.astype(np.float16), np.zeros((len(rows), 0), np.float32))
    largest, clips = _LARGEST[kind], _CLIPS[kind]
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % chosen)))
    groups = padded.reshape(len(rows), -1, chosen)
    top = np.abs(groups).max(axis=2, keepdims=True)
    best_codes = np.zeros(groups.shape, np.int8)
    best_scales = np.zeros(top.shape, np.float32)
    best_loss = np.full(top.shape, np.inf, np.float32)
    for clip in clips:
        scales = (top * np.float32(clip / largest)).astype(np.float32)
        safe = np.where(scales > 0, scales, np.float32(1))
        codes = np.clip(np.rint(groups / safe), -largest, largest)
        loss = ((codes * scales - groups) ** 2).sum(axis=2, keepdims=True)
        better = loss < best_loss
        best_codes = np.where(better, codes.astype(np.int8), best_codes)
        best_scales = np.where(better, scales, best_scales)
        best_loss = np.where(better, loss, best_loss)
    codes = best_codes.reshape(len(rows), -1)[:, : rows.shape[1]]
    return WeightCoding(kind, chosen, np.ascontiguousarray(codes), np.ascontiguousarray(best_scales[..., 0]))
