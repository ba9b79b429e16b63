"""Which coded weights are entropy-coded as well."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tinytee.bundle.abi import constants
from tinytee.ir import entropy
from tinytee.ir.graph import Conv, Graph
from tinytee.plan import weights
from tinytee.plan.network import choose_panel
from tinytee.plan.profile import Profile

SYMBOL_BITS = 4

Entropy = Literal["auto", "always", "never"]


def known_entropy(how: str) -> Entropy:
    """The way of that name.

    Raises:
        ValueError: there is none.
    """
    for known in ("auto", "always", "never"):
        if known == how:
            return known
    raise ValueError(f"weights are entropy-coded auto, always or never, not {how}")


def code_entropy(graph: Graph, profile: Profile, suite: str, how: Entropy) -> Graph:
    """The same network with int8 and int4 weights entropy-coded: all that become smaller ("always"), or those that are
    opened faster by more than decoding them takes longer ("auto")."""
    ops = (_coded(op, graph, profile, suite, how) if isinstance(op, Conv) else op for op in graph.ops)
    return replace(graph, ops=tuple(ops))


def is_entropy_coded(graph: Graph) -> bool:
    return any(coding is not None and coding.streams is not None for coding in map(weights.coding_of, graph.ops))


def _coded(op: Conv, graph: Graph, profile: Profile, suite: str, how: Entropy) -> Conv:
    coding = op.coding
    if coding is None or coding.kind == "fp16" or how == "never":
        return op
    preferred, depth = choose_panel(op, graph.shapes[op.output], profile, suite), weights.conv_depth(op)
    slower = max(0.0, profile.entropy_seconds - profile.decode_seconds) if how == "auto" else 0.0
    bits_saved = 8 * slower * profile.aead_bytes_per_second[suite]
    if bits_saved >= SYMBOL_BITS:
        return op
    # Streams of narrow panels are shorter, and so keep to their window where those of wide ones do not.
    for panel in sorted((p for p in profile.panels if p <= preferred), reverse=True):
        symbols = weights.symbols_of(op, coding, panel)
        streams = entropy.encode_panels(symbols, coding.group)
        if streams is None:
            continue
        made = replace(op, coding=replace(coding, streams=streams))
        before, after = (weights.panel_count(op, panel) * weights.panel_bytes(o, panel, depth) for o in (op, made))
        if 8 * (before - after - constants.TT_ALPHABET_BYTES) > bits_saved * symbols.size:
            return made
    return op
