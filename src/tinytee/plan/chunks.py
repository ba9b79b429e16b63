"""The chunks of a bundle that follow the program: parts of the program, weights that are loaded, blocks of streams."""

from __future__ import annotations

from typing import Any

from tinytee.plan import weights
from tinytee.plan.layout import Layout
from tinytee.plan.network import Network
from tinytee.plan.partition import Choice
from tinytee.plan.schedule import piece_rows, stream_geometry

ONE_PIECE_BYTES = 1 << 30


def shared_piece_bytes(threads: int) -> int:
    """Of the pieces that loads, parts of the program and blocks that are opened first are sealed in."""
    return weights.PIECE_BYTES if threads > 1 else ONE_PIECE_BYTES


class Chunks:
    """The chunks that follow the program: what each holds, weights made when they are asked for."""

    def __init__(self, network: Network, choices: list[Choice], layout: Layout) -> None:
        self.network, self.choices, self.layout = network, choices, layout
        self.sizes: list[int] = []
        self.piece_bytes: list[int] = []
        """Of the pieces that each is sealed in."""
        self._makers: list[tuple[Any, ...]] = []
        self._cached: tuple[int, bytes] | None = None

    def add_part(self) -> int:
        """A part of the program, whose bytes are known later. Returns its chunk number, as the others do."""
        return self._add(0, ())

    def set_part(self, chunk: int, content: bytes) -> None:
        self.sizes[chunk - 1] = len(content)
        self._makers[chunk - 1] = ("part", content)

    def add_resident(self, segment: int, begin: int, end: int) -> int:
        return self._add(end - begin, ("resident", segment, begin, end))

    def _add(self, size_bytes: int, maker: tuple[Any, ...], piece_bytes: int = 0) -> int:
        self.sizes.append(size_bytes)
        self.piece_bytes.append(piece_bytes or shared_piece_bytes(self.network.threads))
        self._makers.append(maker)
        return len(self.sizes)

    def add_stream(self, segment: int, node: int) -> int:
        """All blocks of a streamed convolution, in the core's order. Returns the first one's chunk number."""
        info = self.network.nodes[node]
        op: Any = info.op
        first = len(self.sizes) + 1
        per_block, rows, blocks = stream_geometry(self.network, self.choices[segment], node)
        opened_rows = piece_rows(self.network, self.choices[segment], node)
        piece = weights.panel_bytes(op, info.panel, opened_rows) if opened_rows else 0
        panels, splits = weights.panel_count(op, info.panel), -(-info.depth // rows)
        for block in range(blocks):
            panel, row = block // splits * per_block, block % splits * rows
            last_panel, last_row = min(panel + per_block, panels), min(row + rows, info.depth)
            each = weights.panel_bytes(op, info.panel, last_row - row)
            self._add((last_panel - panel) * each, ("stream", node, panel, last_panel, row, last_row), piece)
        return first

    def make(self, number: int) -> bytes:
        """The content of chunk number + 1."""
        maker = self._makers[number]
        if maker[0] == "part":
            return maker[1]
        if maker[0] == "resident":
            _, segment, begin, end = maker
            return self._resident(segment)[begin:end]
        _, node, panel, last_panel, row, last_row = maker
        info = self.network.nodes[node]
        op: Any = info.op
        return weights.pack_bytes(op, info.panel, (panel, last_panel), (row, last_row), info.method)

    def _resident(self, segment: int) -> bytes:
        """All weights that are loaded together: a segment's resident ones, or (-1) the pinned ones."""
        if self._cached is None or self._cached[0] != segment:
            if segment < 0:
                nodes, streamed = sorted(self.layout.pinned), ()
            else:
                choice = self.choices[segment]
                nodes = [n for n in range(choice.segment.first, choice.segment.last + 1) if n not in self.layout.pinned]
                streamed = choice.weights.streamed
            self._cached = (segment, b"".join(self._node_bytes(n, n not in streamed) for n in nodes))
        return self._cached[1]

    def _node_bytes(self, node: int, with_stream: bool) -> bytes:
        info = self.network.nodes[node]
        if info.op is None or not info.weight_bytes:
            return b""
        parts = [
            weights.as_bytes(piece) for piece in weights.small_pieces(info.op, info.panel, info.zero_point, info.method)
        ]
        if with_stream and isinstance(info.op, weights.AnyConv):
            panels = weights.panel_count(info.op, info.panel)
            whole = ((0, panels), (0, info.depth))
            parts.append(weights.pack_bytes(info.op, info.panel, *whole, info.method))
        return b"".join(part + bytes(-len(part) % weights.ALIGN) for part in parts)
