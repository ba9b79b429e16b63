"""From a plan to the core's records and the plaintext of the chunks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytee.bundle.abi import constants, ffi, record_bytes
from tinytee.errors import UnsupportedModelError
from tinytee.ir.graph import (
    ArgMax,
    Binary,
    Concat,
    Constant,
    Conv,
    DepthToSpace,
    DepthwiseConv,
    Gather,
    Graph,
    LayerNorm,
    Lrn,
    Op,
    Permute,
    Pool,
    Reduce,
    Resize,
    Softmax,
    SpaceToDepth,
    Unary,
)
from tinytee.ir.quantized import (
    Dequantize,
    QBinary,
    QConv,
    QDepthwiseConv,
    QLut,
    QPool,
    Quantize,
    addition,
    product_ratio,
    quantized_fill,
)
from tinytee.plan import arena, loops, weights
from tinytee.plan.layout import Layout
from tinytee.plan.lowered import Lowered
from tinytee.plan.network import Network
from tinytee.plan.partition import Choice
from tinytee.plan.quantized import FedConv, Requantize, ScaledMean, products_in_16_bits
from tinytee.plan.schedule import LoadStep, RunStep, Step, stream_geometry, unroll

_KINDS: dict[type[Op], str] = {
    Conv: "CONV",
    DepthwiseConv: "DEPTHWISE",
    Reduce: "REDUCE",
    Unary: "UNARY",
    Binary: "BINARY",
    Concat: "CONCAT",
    Gather: "GATHER",
    Resize: "RESIZE",
    DepthToSpace: "DEPTH_TO_SPACE",
    SpaceToDepth: "SPACE_TO_DEPTH",
    Permute: "PERMUTE",
    Lrn: "LRN",
    Softmax: "SOFTMAX",
    LayerNorm: "LAYER_NORM",
    ArgMax: "ARG_MAX",
    Constant: "CONSTANT",
    QConv: "CONV",
    FedConv: "CONV",
    QDepthwiseConv: "DEPTHWISE",
    QBinary: "BINARY",
    QLut: "LOOKUP",
    ScaledMean: "REDUCE",
    Quantize: "CONVERT",
    Requantize: "CONVERT",
    Dequantize: "CONVERT",
}


SHARED_PIECE_BYTES = 64 * 1024
"""Pieces that a chunk is sealed in where several threads open it: small enough to spread, long enough for the AEAD."""

ONE_PIECE_BYTES = 1 << 30


def piece_bytes(threads: int) -> int:
    return SHARED_PIECE_BYTES if threads > 1 else ONE_PIECE_BYTES


_FIT = {1: 0, 2: constants.TT_FLAG_TWO_FIT, 4: constants.TT_FLAG_FOUR_FIT}
"""Flags of a convolution on uint8, by how many products fit 16 bits."""


def _number(prefix: str, name: str) -> int:
    return getattr(constants, f"TT_{prefix}_{name.upper()}")


class _Chunks:
    """The weight chunks: what each holds, made when asked for."""

    def __init__(self, network: Network, choices: list[Choice], layout: Layout) -> None:
        self.network, self.choices, self.layout = network, choices, layout
        self.sizes: list[int] = []
        self._makers: list[tuple[Any, ...]] = []
        self._cached: tuple[int, bytes] | None = None

    def add_resident(self, segment: int, begin: int, end: int) -> int:
        self.sizes.append(end - begin)
        self._makers.append(("resident", segment, begin, end))
        return len(self.sizes)

    def add_stream(self, segment: int, node: int) -> int:
        """All blocks of a streamed convolution, in the core's order. Returns the first one's chunk number."""
        info = self.network.nodes[node]
        first = len(self.sizes) + 1
        per_block, rows, blocks = stream_geometry(self.network, self.choices[segment], node)
        depth = info.depth
        panels = weights.panel_count(info.op, info.panel)  # type: ignore[arg-type]
        splits = -(-depth // rows)
        for block in range(blocks):
            panel, row = block // splits * per_block, block % splits * rows
            last_panel, last_row = min(panel + per_block, panels), min(row + rows, depth)
            each = weights.panel_bytes(info.op, info.panel, last_row - row)  # type: ignore[arg-type]
            self.sizes.append((last_panel - panel) * each)
            self._makers.append(("stream", node, panel, last_panel, row, last_row))
        return first

    def make(self, number: int) -> bytes:
        maker = self._makers[number]
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


class _Spilled:
    """The tensors that leave the arena sealed: their numbers, and the places of their blocks' tags."""

    def __init__(self, network: Network, choices: list[Choice]) -> None:
        self.tensors = sorted({tensor for choice in choices for tensor in choice.spilled})
        self.network = network
        self._lives: dict[int, tuple[int, int]] = {}

    def number(self, tensor: int) -> int:
        """1 + the number of a tensor's record; 0: it stays."""
        return self.tensors.index(tensor) + 1 if tensor in self.tensors else 0

    def touch(self, tensor: int, at: int) -> None:
        """The instruction 'at' spills or fetches a block."""
        self._lives[tensor] = (self._lives.get(tensor, (at, at))[0], at)

    def records(self) -> tuple[list[dict[str, int]], int]:
        """One for each, and how many tags there are place for: one place may serve several, one after the other."""
        infos = [self.network.tensors[tensor] for tensor in self.tensors]
        lives = [self._lives[tensor] for tensor in self.tensors]
        tags = [arena.Buffer(i.name, i.blocks, *life) for i, life in zip(infos, lives, strict=True)]
        places, tag_count = arena.place(tags)
        firsts = np.cumsum([0] + [info.blocks for info in infos])
        return [
            {"first": int(first), "tag": place, "rows": info.block_rows, "height": info.shape.height}
            for first, place, info in zip(firsts, places, infos, strict=False)
        ], tag_count


class _Records:
    """Collects a program's records; offsets are relative to the data part until ``encode`` knows where it begins."""

    def __init__(self, network: Network, choices: list[Choice], layout: Layout) -> None:
        self.network, self.choices, self.layout = network, choices, layout
        self.chunks = _Chunks(network, choices, layout)
        self.tensors: list[dict[str, int]] = []
        self.ops: list[dict[str, Any]] = []
        self.loads: list[dict[str, int]] = []
        self.instrs: list[int] = []
        self.operands: list[int] = []
        self.tables: list[np.ndarray] = []
        self.table_count = 0
        self.setup_count = 0
        self._op_of: dict[int, int] = {}
        self._known_tables: dict[bytes, int] = {}
        self._spilled = _Spilled(network, choices)
        for instance in layout.instances:
            self._add_tensor(instance)
        self.segment_of = {n: s for s, c in enumerate(choices) for n in range(c.segment.first, c.segment.last + 1)}
        for position, node in enumerate(network.nodes):
            if node.op is not None:
                self._add_op(position)

    def _add_tensor(self, instance: Any) -> None:
        info = self.network.tensors[instance.tensor]
        self.tensors.append(
            {
                "offset": self.layout.offsets[instance.buffer],
                "row_bytes": info.row_bytes,
                "height": info.shape.height,
                "width": info.shape.width,
                "channels": info.shape.channels,
                "capacity": instance.capacity,
                "pad_left": info.pad_left,
                "pad_right": info.pad_right,
                "elem_bytes": info.elem_bytes,
                "zero_point": info.zero_point,
                "spill": self._spilled.number(instance.tensor),
            }
        )

    def _add_op(self, position: int) -> None:
        network, layout = self.network, self.layout
        node, segment = network.nodes[position], self.segment_of[position]
        op = node.op
        assert op is not None
        record: dict[str, Any] = {
            "activation": _number("ACT", op.activation.kind),
            "alpha": op.activation.alpha,
            "beta": op.activation.beta,
            "output": layout.instance_of[segment, node.output],
            "operand_count": len(node.inputs),
            "first_operand": len(self.operands),
        }
        self.operands += [layout.instance_of[segment, t] for t in node.inputs]
        if node.weight_bytes:
            pinned = position in layout.pinned
            base = layout.pinned[position] if pinned else layout.weights[segment, position]
            pieces = weights.small_pieces(op, node.panel, node.zero_point)
            first, *rest = [weights.aligned(piece.nbytes) for piece in pieces] or [0]
            record["weights"], record["bias"] = base, base + (first if rest else 0)
            if isinstance(op, weights.AnyConv):
                record["bias"], record["weights"] = base, base + first
                if position in self.choices[segment].weights.streamed and not pinned:
                    record["weights"] = layout.staging[segment]
                    per_block, rows, _ = stream_geometry(network, self.choices[segment], position)
                    record |= {"panels_per_block": per_block, "k_per_block": rows}
                    record["first_chunk"] = self.chunks.add_stream(segment, position)
                record["panel"] = node.panel
        record |= self._attributes(op)
        coding = weights.coding_of(op)
        if coding:
            codes = {"fp16": "F16", "int8": "I8", "int4": "I4"}
            record["table"] = coding.group
            if coding.streams is None:
                record["variant"] = _number("CODING", codes[coding.kind])
            else:
                streams = coding.streams
                record["variant"] = _number("CODING", codes[coding.kind] + "_RANS")
                record |= {"stream_rows": streams.rows, "stream_rate": streams.rate, "stream_base": streams.base}
        if node.method != "direct":
            record["flags"] |= _number("FLAG", node.method)
        if layout.workspaces[segment] >= 0:
            record["workspace"] = layout.workspaces[segment]
        self._op_of[position] = len(self.ops)
        self.ops.append(record)

    def _attributes(self, op: Op) -> dict[str, Any]:
        """What each kind of operator says of itself."""
        kind = _KINDS.get(type(op)) or ("MAX_POOL" if op.kind == "max" else "AVERAGE_POOL")  # type: ignore[attr-defined]
        record: dict[str, Any] = {"kind": _number("OP", kind)}
        out, quant = self.network.graph.shapes[op.output], self.network.graph.quants.get(op.output)
        match op:
            case Conv():
                record |= _window(op.weight.shape[1:3], op.strides, op.dilations, op.pads)
                record |= {"groups": op.groups, "flags": constants.TT_FLAG_RESIDUAL if len(op.inputs) > 1 else 0}
            case QConv():
                record |= _window(op.weight.shape[1:3], op.strides, op.dilations, op.pads)
                fed = constants.TT_FLAG_FED_CONSTANTS if isinstance(op, FedConv) else 0
                record |= {"groups": op.groups, "flags": _FIT[products_in_16_bits(op)] | fed}
            case DepthwiseConv() | QDepthwiseConv():
                record |= _window(op.weight.shape[:2], op.strides, op.dilations, op.pads)
            case Pool() | QPool():
                record |= _window(op.kernel, op.strides, op.dilations, op.pads)
                record["flags"] = constants.TT_FLAG_COUNT_INCLUDE_PAD if op.count_include_pad else 0
            case Reduce():
                record["variant"] = _number("REDUCE", op.kind)
            case Binary() | QBinary():
                record["variant"] = _number("BINARY", "sub" if op.kind == "sum" else op.kind)
                if op.constant is not None:
                    height, width, channels = op.constant.shape
                    first = constants.TT_FLAG_CONSTANT_FIRST if op.constant_first else 0
                    record |= {"flags": constants.TT_FLAG_CONSTANT | first, "kernel_y": height, "kernel_x": width}
                    record["groups"] = 0 if channels == out.channels else channels
            case Concat():
                record["variant"] = _number("CONCAT", op.axis)
            case Gather():
                axes = [(op.rows, out.height), (op.cols, out.width), (op.chans, out.channels)]
                index = [np.arange(n) if given is None else np.asarray(given) for given, n in axes]
                record |= {
                    "table": self._add_table(*index),
                    "p0": op.fill if quant is None else quantized_fill(op, quant),
                }
            case Resize():
                record |= {"kernel_y": op.row_index.shape[1], "kernel_x": op.col_index.shape[1]}
                record["table"] = self._add_table(op.row_index, op.row_weights, op.col_index, op.col_weights)
            case DepthToSpace():
                record |= {"kernel_y": op.block, "variant": constants.TT_DCR if op.mode == "DCR" else constants.TT_CRD}
            case SpaceToDepth():
                record["kernel_y"] = op.block
            case Permute():
                lead = constants.TT_PERMUTE_DIMS - len(op.dims)
                record["table"] = self._add_table(np.array([1] * lead + list(op.dims) + [0] * lead + list(op.strides)))
            case Lrn():
                record |= {"kernel_x": op.size, "p0": op.alpha, "p1": op.beta, "p2": op.bias}
            case Softmax():
                record["flags"] = constants.TT_FLAG_LOG if op.log else 0
            case LayerNorm():
                record["p0"] = op.epsilon
            case ArgMax():
                record["flags"] = constants.TT_FLAG_SELECT_LAST if op.select_last else 0
        return record | _quantized_attributes(op, self.network.graph)

    def _add_table(self, *parts: np.ndarray) -> int:
        """Appends arrays (integers as int32, floats as float32) to the tables, each distinct content once."""
        whole = b"".join(
            np.ascontiguousarray(p, "<f4" if np.issubdtype(p.dtype, np.floating) else "<i4").tobytes() for p in parts
        )
        if whole not in self._known_tables:
            self._known_tables[whole] = self.table_count
            self.tables.append(np.frombuffer(whole, np.uint8))
            self.table_count += len(whole) // 4
        return self._known_tables[whole]

    def add_step(self, step: Step) -> None:
        if isinstance(step, LoadStep):
            self._add_load(step)
        elif isinstance(step, RunStep):
            code = constants.TT_INSTR_STREAM if step.streamed else constants.TT_INSTR_RUN
            self._add_instr(code, self._op_of[step.node], step.units)
        elif step.kind == "input":
            self._add_instr(constants.TT_INSTR_INPUT, step.port, step.end)
        elif step.kind == "output":
            self._add_instr(constants.TT_INSTR_OUTPUT, step.port, step.begin)
        else:
            code = constants.TT_INSTR_SPILL if step.kind == "spill" else constants.TT_INSTR_FETCH
            instance = self.layout.instance_of[step.segment, step.tensor]
            self._spilled.touch(step.tensor, len(self.instrs))
            self._add_instr(code, instance, step.begin // self.network.tensors[step.tensor].block_rows)

    def _add_instr(self, code: int, index: int, arg: int) -> None:
        if index > constants.TT_INSTR_MAX_INDEX or arg > constants.TT_INSTR_MAX_ARG:
            raise UnsupportedModelError(
                f"the network is too large for a program: {index} operators or tensors ({constants.TT_INSTR_MAX_INDEX}"
                f" are possible), or {arg} y-planes or row blocks ({constants.TT_INSTR_MAX_ARG} are possible)"
            )
        self.instrs.append(code | index << constants.TT_INSTR_INDEX_SHIFT | arg << constants.TT_INSTR_ARG_SHIFT)

    def _add_load(self, step: LoadStep) -> None:
        if step.segment < 0:
            base = min(self.layout.pinned.values())
            self.setup_count += 1
        else:
            base = min(offset for (s, _), offset in self.layout.weights.items() if s == step.segment)
        chunk = self.chunks.add_resident(step.segment, step.begin, step.end)
        self._add_instr(constants.TT_INSTR_LOAD, 0, len(self.loads))
        self.loads.append({"chunk": chunk, "offset": base + step.begin, "bytes": step.end - step.begin})

    def port_records(self) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
        ports: tuple[dict[int, dict[str, int]], dict[int, dict[str, int]]] = ({}, {})
        for position, node in enumerate(self.network.nodes):
            if node.op is None:
                tensor = node.output if node.output >= 0 else node.inputs[0]
                instance = self.layout.instance_of[self.segment_of[position], tensor]
                rows = self.network.tensors[tensor].block_rows
                ports[node.output < 0][node.port] = {"tensor": instance, "rows_per_chunk": rows}
        return [ports[0][n] for n in sorted(ports[0])], [ports[1][n] for n in sorted(ports[1])]

    def encode(self) -> tuple[bytes, int]:
        """The program's bytes and the arena that it needs."""
        self.operands += [0] * (len(self.operands) % 2)
        inputs, outputs = self.port_records()
        instrs = loops.roll(self.instrs)
        spills, tag_count = self._spilled.records()
        sections = [
            ("tt_tensor", self.tensors),
            ("tt_op", self.ops),
            ("tt_load", self.loads),
            ("tt_spill", spills),
            ("tt_instr", [{"bits": bits} for bits in instrs]),
            ("tt_port_tensor", inputs),
            ("tt_port_tensor", outputs),
        ]
        size = ffi.sizeof("tt_program") + 2 * len(self.operands) + 4 * self.table_count
        size += sum(ffi.sizeof(kind) * len(records) for kind, records in sections)
        data = weights.aligned(constants.TT_ENGINE_BYTES + size + tag_count * constants.TT_TAG_BYTES)
        for records in (self.tensors, self.loads):
            for record in records:
                record["offset"] += data
        for record in self.ops:
            for place in ("weights", "bias", "workspace"):
                record[place] = record.get(place, 0) + data
        arena_bytes = data + self.layout.peak_bytes
        head = {
            "magic": constants.TT_PROGRAM_MAGIC,
            "version": constants.TT_PROGRAM_VERSION,
            "arena_bytes": arena_bytes,
            "data_offset": data,
            "tensor_count": len(self.tensors),
            "op_count": len(self.ops),
            "load_count": len(self.loads),
            "spill_count": len(spills),
            "instr_count": len(instrs),
            "chunk_count": len(self.chunks.sizes) + 1,
            "setup_count": self.setup_count,
            "input_count": len(inputs),
            "output_count": len(outputs),
            "operand_count": len(self.operands),
            "table_count": self.table_count,
            "tag_count": tag_count,
            "workers": self.network.threads,
            "piece_bytes": piece_bytes(self.network.threads),
        }
        parts = [record_bytes(ffi.new("tt_program *", head))]
        parts += [record_bytes(ffi.new(f"{kind}[]", records)) for kind, records in sections if records]
        parts.append(np.array(self.operands, "<u2").tobytes())
        parts += [table.tobytes() for table in self.tables]
        return b"".join(parts), arena_bytes


def _window(kernel: Any, strides: Any, dilations: Any, pads: Any) -> dict[str, int]:
    return {
        "kernel_y": kernel[0],
        "kernel_x": kernel[1],
        "stride_y": strides[0],
        "stride_x": strides[1],
        "dilation_y": dilations[0],
        "dilation_x": dilations[1],
        "pad_top": pads[0],
        "pad_left": pads[1],
        "pad_bottom": pads[2],
        "pad_right": pads[3],
    }


def _quantized_attributes(op: Op, graph: Graph) -> dict[str, Any]:
    """Bounds of a uint8 result, and the factors p0, p1, p2 of ``tt_op``."""
    quants = [graph.quants.get(name) for name in op.inputs]
    source, target = quants[0] if quants else None, graph.quants.get(op.output)
    record: dict[str, Any] = {}
    if target is not None:
        record |= {"alpha": getattr(op, "low", 0), "beta": getattr(op, "high", 255)}
    match op:
        case Requantize():
            record["p0"] = 1.0
        case Quantize() if target:
            record["p0"] = target.scale
        case Dequantize() if source:
            record["p0"] = source.scale
        case ScaledMean():
            record |= {"variant": constants.TT_REDUCE_MEAN, "p0": op.factor}
        case QPool(kind="average") if source and target:
            record |= {"p0": source.scale, "p1": target.scale}
        case QBinary() if target:
            if op.constant_quant is not None:
                quants.insert(0 if op.constant_first else 1, op.constant_quant)
            left, right = (quant for quant in quants if quant is not None)
            if op.constant_quant is not None:
                record["table"] = op.constant_quant.zero_point
            if op.kind == "mul":
                record["p0"] = product_ratio(left, right, target)
            elif op.kind == "add":
                record |= dict(zip(("p0", "p1", "p2"), addition(left, right, target), strict=True))
            else:  # a sum is the difference of a negative scale
                record |= {"p0": left.scale, "p1": right.scale * (-1 if op.kind == "sum" else 1), "p2": target.scale}
        case _:
            pass
    return record


def lower(network: Network, choices: list[Choice], layout: Layout) -> Lowered:
    """Encodes a placed partition."""
    records = _Records(network, choices, layout)
    for step in unroll(network, choices, layout):
        records.add_step(step)
    program, arena_bytes = records.encode()
    graph = network.graph
    return Lowered(
        program=program,
        piece_bytes=piece_bytes(network.threads),
        chunk_bytes=records.chunks.sizes,
        chunk=records.chunks.make,
        arena_bytes=arena_bytes,
        inputs=tuple((port, graph.shapes[port.tensor]) for port in graph.inputs),
        outputs=tuple((port, graph.shapes[port.tensor]) for port in graph.outputs),
    )
