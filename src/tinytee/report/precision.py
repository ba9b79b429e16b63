"""What of a quantized network runs in integers, what in float32, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from tinytee.ir import quantized as q
from tinytee.ir.graph import Constant, Graph
from tinytee.passes.fuse_quantized import why_float

_MOST_NAMES = 4


@dataclass(frozen=True)
class Precision:
    """Operators of a quantized network; conversions between integers and float32 count as neither.

    Attributes:
        integer_ops, float_ops: how many there are.
        reasons: why operators run in float32, and the nodes of which that holds.
    """

    integer_ops: int
    float_ops: int
    reasons: dict[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


def precision_of(graph: Graph) -> Precision | None:
    """Counts the operators of an optimized graph; None where nothing in it is quantized."""
    return _count(graph) if graph.quants else None


def operator_counts(graph: Graph) -> tuple[int, int]:
    """Operators that compute in integers, and in float32."""
    found = _count(graph)
    return found.integer_ops, found.float_ops


def _count(graph: Graph) -> Precision:
    integers, floats = 0, 0
    reasons: dict[str, list[str]] = {}
    for op in graph.ops:
        if isinstance(op, (q.Quantize, q.Dequantize, Constant)):
            continue
        reason = why_float(op, graph)
        if reason is None:
            integers += 1
            continue
        floats += 1
        reasons.setdefault(reason, []).append(op.name)
    return Precision(integers, floats, {reason: tuple(names) for reason, names in reasons.items()})


def precision_table(found: Precision) -> Table:
    """Counts and reasons."""
    title = f"{found.integer_ops} operators run in integers, {found.float_ops} in float32"
    table = Table(title=title, title_justify="left", show_header=bool(found.reasons))
    table.add_column("in float32 because")
    table.add_column("operators", justify="right")
    table.add_column("nodes", overflow="fold")
    for reason, names in found.reasons.items():
        more = ", ..." if len(names) > _MOST_NAMES else ""
        table.add_row(escape(reason), str(len(names)), escape(", ".join(names[:_MOST_NAMES])) + more)
    return table
