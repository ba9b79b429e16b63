"""The graph as the planner sees it: units with row maps, tensors with the lives that they lead.

The model's inputs and outputs become nodes of their own, so that feeding, computing and taking are planned alike: an
input node produces y-planes, an output node consumes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tinytee.bundle.abi import constants
from tinytee.ir.graph import Binary, Concat, Conv, DepthwiseConv, Graph, LayerNorm, Lrn, Op, Shape, Unary
from tinytee.ir.quantized import QBinary, QConv, QDepthwiseConv, QLrn, QLut
from tinytee.plan import products, quantized, rowmap, scans, weights
from tinytee.plan.cost import (
    WinogradReading,
    conv_seconds,
    op_seconds,
    strassen_seconds,
    winograd_reading,
    winograd_seconds,
    winograd_size,
    winograd_tiles,
)
from tinytee.plan.profile import Profile
from tinytee.plan.rowmap import RowMap
from tinytee.plan.scans import Loop
from tinytee.plan.weights import Method

BLOCK_BYTES = 32 * 1024
"""Row blocks of float32 that cross the boundary are about this large (at least one y-plane); uint8: a quarter."""

NARROW_BLOCK_BYTES = 4 * 1024
"""The same where every byte counts, for float32 and uint8."""


@dataclass(frozen=True)
class Way:
    """How a convolution is computed, other than directly, and in panels how wide."""

    method: Method
    panel: int


@dataclass(frozen=True, eq=False)
class TensorInfo:
    """A feature map.

    elem_bytes: 4 for float32, 1 for uint8, with its zero point. row_bytes: of a slot, padding included; block_rows:
    y-planes that cross the boundary together, so that they have at most block_bytes or are one.
    """

    name: str
    shape: Shape
    elem_bytes: int
    zero_point: int
    pad_left: int
    pad_right: int
    producer: int
    consumers: tuple[int, ...]
    block_bytes: int

    @cached_property
    def row_bytes(self) -> int:
        return (self.pad_left + self.shape.width + self.pad_right) * self.shape.channels * self.elem_bytes

    @cached_property
    def whole_bytes(self) -> int:
        return weights.aligned(self.row_bytes * self.shape.height)

    @cached_property
    def block_rows(self) -> int:
        return max(1, min(self.shape.height, self.block_bytes // self.row_bytes))

    @property
    def blocks(self) -> int:
        return -(-self.shape.height // self.block_rows)

    @cached_property
    def last_use(self) -> int:
        return max(self.consumers, default=self.producer)


@dataclass(frozen=True, eq=False)
class Node:
    """One unit sequence: an operator, or the feeding of an input (op None, no inputs), or the taking of an output.

    Attributes:
        op: the operator, None for inputs and outputs.
        port: position in the graph's inputs or outputs, -1 for operators.
        inputs, output: positions in Network.tensors; output is -1 for an output node.
        height: units.
        maps: one row map for each operand.
        small_bytes: weights that must be whole in the arena while it runs.
        stream_bytes: a convolution's packed weights, which may be fed block by block; 0 for others.
        panel: a convolution's panel width.
        depth: rows of its panels.
        method: how it is computed.
        workspace_bytes: what that needs besides.
        whole_panels: whether streamed panels must not be split.
        kept_row_bytes, most_kept_bytes: sums of an integer convolution's y-plane, which are kept while its panels are
            fed in parts, and how many bytes of them may be.
        zero_point: of its first operand.
        seconds: predicted arithmetic (or sealing) time.
        step_seconds: predicted time to decode or transform its weights, which every step takes.
        piece_rows: rows of the pieces that its panels are sealed in when they are streamed, if whoever computes with
            them opens them; 0: blocks are opened first.
        reading: by Winograd's method, what transforming its input takes; part of ``seconds`` for weights in the arena.
    """

    op: Op | None
    port: int
    inputs: tuple[int, ...]
    output: int
    height: int
    maps: tuple[RowMap, ...]
    small_bytes: int = 0
    stream_bytes: int = 0
    panel: int = 0
    depth: int = 0
    method: Method = "direct"
    workspace_bytes: int = 0
    whole_panels: bool = False
    kept_row_bytes: int = 0
    most_kept_bytes: int = 0
    zero_point: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    piece_rows: int = 0
    reading: WinogradReading | None = None

    @property
    def weight_bytes(self) -> int:
        return self.small_bytes + self.stream_bytes


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in order of execution, and the tensors between them.

    threads: how many share a run; cache_bytes: of the profile.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    tensors: tuple[TensorInfo, ...]
    threads: int
    cache_bytes: int

    @cached_property
    def live(self) -> tuple[tuple[int, ...], ...]:
        """For every cut c (before node c): the tensors produced before it and used at or after it."""
        return tuple(
            tuple(t for t, info in enumerate(self.tensors) if info.producer < cut <= info.last_use)
            for cut in range(len(self.nodes) + 1)
        )

    @cached_property
    def loop_of(self) -> dict[int, Loop]:
        """The loop of every node that is in one: all of it is in one segment, and goes y-plane by y-plane."""
        loops = scans.find_loops((reader, info.producer) for info in self.tensors for reader in info.consumers)
        return {node: loop for loop in loops for node in range(loop[0], loop[1] + 1)}

    @cached_property
    def joined(self) -> dict[int, tuple[int, int]]:
        """Tensors that a convolution may write among the channels of the one concatenation that reads them, instead of
        their being copied there: to that one's output, and their first channel in it."""
        found = {}
        for number, node in enumerate(self.nodes):
            if not isinstance(node.op, Concat) or node.op.axis != "c" or number in self.loop_of:
                continue
            channel = 0
            for tensor in node.inputs:
                info = self.tensors[tensor]
                writer = self.nodes[info.producer]
                is_alone = node.inputs.count(tensor) == 1 and info.consumers == (number,)
                writes = isinstance(writer.op, Conv | QConv) and len(writer.inputs) == 1
                if is_alone and writes and info.producer not in self.loop_of:
                    found[tensor] = (node.output, channel)
                channel += info.shape.channels
        return found

    def is_within_loop(self, cut: int) -> bool:
        """Whether a cut before the node of that number would divide a loop."""
        return cut > self.loop_of.get(cut, (cut, cut))[0]

    def runs(self, node: int, steps: int) -> int:
        """How often a node is run in so many steps."""
        return self.nodes[node].height if node in self.loop_of else steps


def _separate_outputs(graph: Graph) -> Graph:
    """Gives an output its own tensor where other operators read it too, so that it needs no padding."""
    read = {name for op in graph.ops if not isinstance(op, scans.Delay) for name in op.inputs}
    ops, shapes, quants, ports = list(graph.ops), dict(graph.shapes), dict(graph.quants), []
    for number, port in enumerate(graph.outputs):
        if port.tensor in read:
            name = f"{port.tensor}:out{number}"
            position = next((i for i, op in enumerate(ops) if op.output == port.tensor), -1)
            _, position = scans.loops_of(ops).get(position, (position, position))
            ops.insert(position + 1, Unary(name=port.name, inputs=(port.tensor,), output=name))
            shapes[name] = shapes[port.tensor]
            if port.tensor in quants:
                quants[name] = quants[port.tensor]
            ports.append(replace(port, tensor=name))
        else:
            ports.append(port)
    return replace(graph, ops=tuple(ops), shapes=shapes, quants=quants, outputs=tuple(ports))


def _padding(graph: Graph, ways: dict[str, Way]) -> dict[str, tuple[int, int]]:
    """Padding columns (left, right) that each tensor's rows carry for the convolutions that read it."""
    found = {name: (0, 0) for name in graph.shapes}
    for op in graph.ops:
        if isinstance(op, Conv | DepthwiseConv | QConv | QDepthwiseConv):
            kernel_x = op.weight.shape[2 if isinstance(op, Conv | QConv) else 1]
            left = op.pads[1]
            last = (graph.shapes[op.output].width - 1) * op.strides[1] - left + (kernel_x - 1) * op.dilations[1]
            if op.output in ways and ways[op.output].method in weights.BY_WINOGRAD:
                # whole tiles of 4 outputs, 6 inputs
                last = 4 * winograd_tiles(graph.shapes[op.output]) + 1 - left
            right = max(0, last - (graph.shapes[op.inputs[0]].width - 1))
            had = found[op.inputs[0]]
            found[op.inputs[0]] = (max(had[0], left), max(had[1], right))
    return found


def winograd_workspace(op: Conv, out: Shape, panel: int, threads: int, method: Method) -> int:
    """Bytes of the workspace that ``tt_op`` describes."""
    channels, size = op.weight.shape[3], winograd_size(op, out, method)
    inputs = (1 if size.together else threads) * size.inputs * channels
    elems = 6 * size.tiles * (inputs + threads * size.products * panel) + threads * size.kept_columns * channels * panel
    return weights.aligned(elems * 4)


def transform_seconds(op: Conv, profile: Profile, way: Way) -> float:
    """Time to transform a convolution's weights as they are used."""
    if way.method not in weights.TOGETHER:
        return 0.0
    taps = weights.panel_count(op, way.panel) * way.panel * weights.conv_depth(op)
    access_seconds = taps / profile.lanes * profile.depthwise_seconds
    if way.method not in weights.IN_PAIRS:
        return TRANSFORM_ACCESSES * access_seconds
    near_bytes = (9 + 6) * op.weight.shape[3] * way.panel * 4
    is_far = near_bytes > NEAR_SHARE * profile.cache_bytes
    return PAIRS_ACCESSES * access_seconds + is_far * 4 * taps / profile.far_bytes_per_second


def strassen_workspace(op: Conv, out: Shape, panel: int, threads: int) -> int:
    """Likewise, by Strassen's method."""
    pairs = max(1, min(constants.TT_STRASSEN_PIXELS // out.width, out.height // 2))
    return weights.aligned(pairs * out.width * (2 * op.weight.shape[3] + 3 * threads * panel // 2) * 4)


def choose_panel(op: weights.AnyConv, out: Shape, profile: Profile, suite: str, narrow: bool = False) -> int:
    """The panel width that is predicted to be fastest, with weights opened once; of uint8, the one that pads least, or
    the narrowest."""
    if not isinstance(op, Conv):
        return min(profile.panels) if narrow else weights.least_panel(op, profile)
    if op.coding and op.coding.streams:
        return op.coding.streams.panel
    depth, rate = weights.conv_depth(op), profile.aead_bytes_per_second[suite]

    def seconds(panel: int) -> tuple[float, int]:
        opened = weights.panel_count(op, panel) * weights.panel_bytes(op, panel, depth)
        return conv_seconds(op, out, profile, panel) + opened / rate, -panel

    return min(profile.panels, key=seconds)


def choose_ways(graph: Graph, profile: Profile, suite: str, most_bytes: int) -> dict[str, Way]:
    """Convolutions to compute by Winograd's method or Strassen's: by their outputs.

    Those for which it is predicted to be faster, with weights opened once, in as large blocks as fit, and for which a
    panel, which must be in the arena whole, and the workspace take at most so many bytes together.
    """
    chosen: dict[str, Way] = {}
    loops = scans.loops_of(graph.ops)
    for position, op in enumerate(graph.ops):
        if not isinstance(op, Conv) or position in loops:  # where each y-plane is alone
            continue
        out = graph.shapes[op.output]
        preferred = choose_panel(op, out, profile, suite)
        seconds: dict[Way | None, float] = {None: op_seconds(op, graph.shapes, profile, preferred)}
        for way in _by_winograd(op, out, preferred, profile, most_bytes):
            depth, fed = weights.conv_depth(op), weights.conv_depth(op, way.method)
            panels = weights.panel_count(op, way.panel)
            more_bytes = panels * (fed * way.panel * 4 - weights.panel_bytes(op, way.panel, depth))
            spent = more_bytes / profile.aead_bytes_per_second[suite] + transform_seconds(op, profile, way)
            room = most_bytes - winograd_workspace(op, out, way.panel, profile.threads, way.method)
            block = min(panels, room // (fed * way.panel * 4))
            seconds[way] = spent + winograd_seconds(op, out, profile, way.panel, way.method, block)
        if way := _by_strassen(op, out, profile, most_bytes):
            seconds[way] = strassen_seconds(op, out, profile, way.panel)
        if best := min(seconds, key=lambda way: seconds[way]):
            chosen[op.output] = best
    return chosen


TRANSFORM_ACCESSES = 4
"""Of a vector, for each vector of weights that are transformed as they are used: each is read for four columns and they
are written, with six of the nine additions and multiplications."""

PAIRS_ACCESSES = 8
"""The same in pairs, where four rows of six columns are made of the taps."""

NEAR_SHARE = 0.75
"""Of a core's own cache, what three rows of a panel's taps and the columns made of them should take at most: else each
of the four rows reads them from farther away."""

COLUMN_BYTES = 16 * 1024
"""Of a column of transformed weights: as much of them as the nearest cache keeps while pixels meet it."""


def _by_winograd(op: Conv, out: Shape, preferred_panel: int, profile: Profile, most_bytes: int) -> list[Way]:
    """In panels as wide as they may be and the nearest cache holds a column of, but of two vectors; of weights that are
    transformed as they are used, so wide."""
    found = []
    least = min((p for p in profile.panels if p >= 2 * profile.lanes), default=max(profile.panels))
    most = min(preferred_panel, max(least, COLUMN_BYTES // (4 * op.weight.shape[3])))
    for method in weights.BY_WINOGRAD:
        if not weights.can_be_winograd(op, method):
            continue
        row_bytes = weights.conv_depth(op, method) * 4
        panels = [least] if method in weights.TOGETHER else [p for p in profile.panels if p <= most]
        workspaces = {panel: winograd_workspace(op, out, panel, profile.threads, method) for panel in panels}
        fitting = [panel for panel in panels if workspaces[panel] + row_bytes * panel <= most_bytes]
        found += [Way(method, max(fitting))] if fitting else []
    return found


def _by_strassen(op: Conv, out: Shape, profile: Profile, most_bytes: int) -> Way | None:
    """Halves of a panel are as wide as panels are else."""
    panel, least = 2 * max(profile.panels), profile.strassen_channels
    if not least or min(op.weight.shape[0], op.weight.shape[3]) < least or not weights.can_be_strassen(op, panel):
        return None
    kept = strassen_workspace(op, out, panel, profile.threads) + panel * weights.conv_depth(op) * 4
    return Way("strassen", panel) if kept <= most_bytes else None


def expand(graph: Graph, profile: Profile, suite: str) -> Graph:
    """The graph in operators that the core has, for the device's panels."""
    graph = products.expand_products(graph, lambda op, out: choose_panel(op, out, profile, suite))
    return scans.expand_scans(graph)


MOST_MAPS = 2
"""Times as large as the weights that maps may be for these to be opened as they are used: the more they are, the more
threads share y-planes, for which each opens all panels."""


def _is_opened_as_used(op: Conv, shapes: dict[str, Shape], stream_bytes: int, method: Method, profile: Profile) -> bool:
    """Whether each of several threads is to open the panels that it computes with (decision 0026); where chunks cross
    the boundary in a window, blocks are small."""
    map_bytes = 4 * (shapes[op.inputs[0]].elems + shapes[op.output].elems)
    can_be = op.coding is None and (method == "direct" or method in weights.TOGETHER)
    return profile.threads > 1 and not profile.window_bytes and can_be and map_bytes <= MOST_MAPS * stream_bytes


NARROW_SECONDS = 1.35
"""Time of integer convolutions in narrow panels, with sums kept and panels fed in parts, over that predicted."""


def _op_node(
    op: Op,
    graph: Graph,
    index: dict[str, int],
    ways: dict[str, Way],
    profile: Profile,
    suite: str,
    *,
    narrow: bool,
    looped: bool,
) -> Node:
    shapes = graph.shapes
    if looped:  # each y-plane is computed alone
        shapes = {name: replace(shapes[name], height=1) for name in (*op.inputs, op.output)}
    method, panel = "direct", 0
    if way := ways.get(op.output):
        method, panel = way.method, way.panel
    elif isinstance(op, weights.AnyConv):
        panel = choose_panel(op, shapes[op.output], profile, suite, narrow)
    zero_point = quantized.zero_point_of(graph.quants.get(op.inputs[0]) if op.inputs else None)
    small = sum(weights.aligned(piece.nbytes) for piece in weights.small_pieces(op, panel, zero_point))
    depth = stream = workspace = kept = most_kept = 0
    seconds = op_seconds(op, shapes, profile, panel or max(profile.panels))
    if isinstance(op, weights.AnyConv):
        depth = weights.conv_depth(op, method)
        stream = weights.panel_count(op, panel) * weights.panel_bytes(op, panel, depth)
    if isinstance(op, QConv):
        kept = shapes[op.output].width * panel * 4
        most_kept = weights.panel_bytes(op, panel, depth) if narrow else quantized.KEPT_BYTES
        seconds *= NARROW_SECONDS if narrow else 1.0
    decoding, reading, piece_rows = 0.0, None, 0
    if isinstance(op, Conv) and op.coding:
        each = profile.entropy_seconds if op.coding.streams else profile.decode_seconds
        decoding = each * weights.panel_count(op, panel) * panel * depth
        workspace = weights.aligned(weights.slice_bytes(op, panel) * profile.threads)
    if isinstance(op, Conv) and method in weights.BY_WINOGRAD:
        seconds = winograd_seconds(op, shapes[op.output], profile, panel, method)
        workspace = winograd_workspace(op, shapes[op.output], panel, profile.threads, method)
        reading = winograd_reading(op, shapes[op.output], profile, panel, method)
        decoding = transform_seconds(op, profile, Way(method, panel))
    if isinstance(op, Conv) and method == "strassen":
        seconds = strassen_seconds(op, shapes[op.output], profile, panel)
        workspace = strassen_workspace(op, shapes[op.output], panel, profile.threads)
    if isinstance(op, Conv) and _is_opened_as_used(op, shapes, stream, method, profile) and not looped:
        piece_rows = weights.piece_rows(op, panel, method)
    if isinstance(op, QLrn):  # a pixel's values, before and after
        workspace = weights.aligned(2 * 4 * shapes[op.output].channels * profile.threads)
    if looped:
        seconds, decoding = graph.shapes[op.output].height * (seconds + decoding), 0.0
    return Node(
        op=op,
        port=-1,
        inputs=tuple(index[name] for name in op.inputs),
        output=index[op.output],
        height=rowmap.units(op, graph.shapes),
        maps=rowmap.row_maps(op, graph.shapes),
        small_bytes=small,
        stream_bytes=weights.aligned(stream),
        panel=panel,
        depth=depth,
        method=method,
        workspace_bytes=workspace,
        whole_panels=method != "direct",
        kept_row_bytes=kept,
        most_kept_bytes=most_kept,
        zero_point=zero_point,
        seconds=seconds,
        step_seconds=decoding,
        piece_rows=piece_rows,
        reading=reading,
    )


def build(
    graph: Graph,
    profile: Profile,
    suite: str,
    ways: dict[str, Way] | None = None,
    *,
    narrow: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Network:
    """The planner's view of a graph of the core's operators (``expand``), times predicted for a profile and a suite.

    ways: the convolutions to compute by Winograd's or Strassen's method (``choose_ways``).
    narrow: integer convolutions in the narrowest panels, their sums kept where a panel is larger than they, so that it
    can be fed in parts, constants fed with them where they are many, and small row blocks: slower, in less memory.
    block_bytes: row blocks of float32 are about this large.
    """
    quantized.check(graph)
    graph = quantized.split_means(_separate_outputs(graph))
    if narrow:
        graph = quantized.feed_constants(graph)
    ways = ways or {}
    shapes = graph.shapes
    unfed = list(range(len(graph.inputs)))
    order: list[tuple[str, int]] = []
    loops = scans.loops_of(graph.ops)
    for position in range(len(graph.ops)):
        first, last = loops.get(position, (position, position))
        together = graph.ops[first : last + 1]
        if position == first:
            read = {name for op in together for name in op.inputs}
            for number in [n for n in unfed if graph.inputs[n].tensor in read]:
                order.append(("input", number))
                unfed.remove(number)
        order.append(("op", position))
        if position == last:
            written = {op.output for op in together}
            order += [("output", n) for n, port in enumerate(graph.outputs) if port.tensor in written]
    order += [("input", n) for n in unfed]
    fed = {port.tensor for port in graph.inputs}
    order += [("output", n) for n, port in enumerate(graph.outputs) if port.tensor in fed]

    index = {name: i for i, name in enumerate(shapes)}
    producers, consumers = dict.fromkeys(shapes, -1), {name: [] for name in shapes}
    nodes: list[Node] = []
    for kind, number in order:
        at = len(nodes)
        if kind == "op":
            op = graph.ops[number]
            producers[op.output] = at
            for name in dict.fromkeys(op.inputs):
                consumers[name].append(at)
            looped = number in loops
            nodes.append(_op_node(op, graph, index, ways, profile, suite, narrow=narrow, looped=looped))
            continue
        name = (graph.inputs if kind == "input" else graph.outputs)[number].tensor
        shape = shapes[name]
        elem_bytes = graph.elem_bytes(name)
        chunks = -(-shape.height // max(1, min(shape.height, block_bytes // (shape.row_elems * 4))))
        seconds = profile.aead_seconds(suite, shape.elems * elem_bytes, chunks)
        if kind == "input":
            producers[name] = at
            nodes.append(Node(None, number, (), index[name], shape.height, (), seconds=seconds))
        else:
            consumers[name].append(at)
            maps = (rowmap.identity(shape.height),)
            nodes.append(Node(None, number, (index[name],), -1, shape.height, maps, seconds=seconds))

    padding = _padding(graph, ways)
    tensors = tuple(
        TensorInfo(
            name,
            shape,
            graph.elem_bytes(name),
            quantized.zero_point_of(graph.quants.get(name)),
            *padding[name],
            producers[name],
            tuple(consumers[name]),
            NARROW_BLOCK_BYTES if narrow else block_bytes * graph.elem_bytes(name) // 4,
        )
        for name, shape in shapes.items()
    )
    return _without_copies(Network(graph, tuple(nodes), tensors, profile.threads, profile.cache_bytes))


def _without_copies(network: Network) -> Network:
    """The same, concatenations taking no time for what is joined as it is computed."""
    nodes = list(network.nodes)
    for number in {network.tensors[whole].producer for whole, _ in network.joined.values()}:
        node = nodes[number]
        copied = sum(network.tensors[t].shape.elems for t in node.inputs if t not in network.joined)
        elems = network.tensors[node.output].shape.elems
        nodes[number] = replace(node, seconds=node.seconds * copied / elems)
    return replace(network, nodes=tuple(nodes))


LRN_IN_PLACE_SIZE = 9
"""Most channels that a local response normalization sums up and may still write over what it reads: up to four before
one, the narrowest vector (``lrn`` in kernels/f32.c)."""


def overwrites(network: Network, node: int) -> tuple[int, int] | None:
    """(operand, output) where a node may write its output over an operand that dies with it.

    Its y-plane y must depend on no other y-plane of that operand, and both must have the same slots.
    """
    info = network.nodes[node]
    op = info.op
    if isinstance(op, Conv):
        candidates = info.inputs[1:]
    elif (
        isinstance(op, Unary | Binary | LayerNorm | QBinary | QLut | QLrn)
        or (isinstance(op, DepthwiseConv) and op.weight.shape[:2] == (1, 1) and op.strides == (1, 1))
        or (isinstance(op, Lrn) and op.size <= LRN_IN_PLACE_SIZE)
    ):
        candidates = info.inputs
    else:
        return None
    output = network.tensors[info.output]
    for tensor in candidates:
        operand = network.tensors[tensor]
        same = (operand.shape, operand.pad_left, operand.pad_right) == (output.shape, output.pad_left, output.pad_right)
        if same and operand.last_use == node and info.inputs.count(tensor) == 1:
            return tensor, info.output
    return None


def block_floor(rows: np.ndarray, info: TensorInfo) -> np.ndarray:
    """Frontiers rounded down to whole row blocks; the last y-plane counts as a block's end."""
    whole = rows // info.block_rows * info.block_rows
    return np.where(rows >= info.shape.height, info.shape.height, whole)


def block_ceil(rows: np.ndarray, info: TensorInfo) -> np.ndarray:
    """Frontiers rounded up to whole row blocks."""
    return np.minimum(-(-rows // info.block_rows) * info.block_rows, info.shape.height)
