"""From a plan to the core's records and the plaintext of the chunks.

A program is one part, or many: a part for each segment, fed when its turn comes, so that the records of one segment
alone are in memory at a time (decision 0016).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytee.bundle.abi import constants, ffi, record_bytes
from tinytee.errors import UnsupportedModelError
from tinytee.ir.graph import Graph, Port, Quant, Shape
from tinytee.plan import arena, loops, weights
from tinytee.plan.chunks import Chunks, shared_piece_bytes
from tinytee.plan.layout import Layout
from tinytee.plan.lowered import Lowered
from tinytee.plan.network import Network
from tinytee.plan.partition import Choice
from tinytee.plan.products import MapConv
from tinytee.plan.records import attributes, number
from tinytee.plan.schedule import LoadStep, RowStep, RunStep, Step, piece_rows, stream_geometry, unroll

_SETUP = -1
"""The segment to which the pinned weights belong."""


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


@dataclass(eq=False)
class _Part:
    """Records of some segments. Offsets are relative to the data part until ``encode`` knows where it begins."""

    chunk: int
    """0: chunk 0, with the program's head."""
    tensors: list[dict[str, int]] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)
    loads: list[dict[str, int]] = field(default_factory=list)
    instrs: list[int] = field(default_factory=list)
    ports: list[dict[str, float]] = field(default_factory=list)
    operands: list[int] = field(default_factory=list)
    tables: list[bytes] = field(default_factory=list)
    tensor_of: dict[int, int] = field(default_factory=dict)
    """Instance to its record; so for nodes, and for those that are inputs and outputs."""
    op_of: dict[int, int] = field(default_factory=dict)
    port_of: dict[tuple[str, int], int] = field(default_factory=dict)
    _places: dict[bytes, int] = field(default_factory=dict)
    _table_count: int = 0

    def add_table(self, *arrays: np.ndarray) -> int:
        """Appends arrays (integers as int32, floats as float32) to the tables, each distinct content once."""
        whole = b"".join(
            np.ascontiguousarray(a, "<f4" if np.issubdtype(a.dtype, np.floating) else "<i4").tobytes() for a in arrays
        )
        if whole not in self._places:
            self._places[whole] = self._table_count
            self.tables.append(whole)
            self._table_count += len(whole) // 4
        return self._places[whole]

    def add_instr(self, code: int, index: int, arg: int) -> None:
        if index > constants.TT_INSTR_MAX_INDEX or arg > constants.TT_INSTR_MAX_ARG:
            raise UnsupportedModelError(
                f"the network is too large for a program: {index} operators or tensors ({constants.TT_INSTR_MAX_INDEX}"
                f" are possible), or {arg} y-planes or row blocks ({constants.TT_INSTR_MAX_ARG} are possible)"
            )
        self.instrs.append(code | index << constants.TT_INSTR_INDEX_SHIFT | arg << constants.TT_INSTR_ARG_SHIFT)

    def finish(self) -> None:
        """Rolls the instructions; after it, nothing can be added."""
        self.instrs = loops.roll(self.instrs)
        self.operands += [0] * (len(self.operands) % 2)

    @property
    def _sections(self) -> list[tuple[str, list[Any]]]:
        instrs = [{"bits": bits} for bits in self.instrs]
        sections = [("tt_tensor", self.tensors), ("tt_op", self.ops), ("tt_load", self.loads), ("tt_instr", instrs)]
        return [*sections, ("tt_port_tensor", self.ports), ("uint16_t", self.operands)]

    @property
    def bytes(self) -> int:
        sections = sum(ffi.sizeof(kind) * len(records) for kind, records in self._sections)
        return ffi.sizeof("tt_part") + sections + 4 * self._table_count

    def encode(self, data: int, following: _Part | None) -> bytes:
        """The part's bytes. data: where tensors and weights begin."""
        for record in (*self.tensors, *self.loads):
            record["offset"] += data
        for record in self.ops:
            for place in ("weights", "bias", "workspace"):
                record[place] = record.get(place, 0) + data
        head = {
            "next_chunk": following.chunk if following else 0,
            "next_bytes": following.bytes if following else 0,
            "instr_count": len(self.instrs),
            "table_count": self._table_count,
            "tensor_count": len(self.tensors),
            "op_count": len(self.ops),
            "load_count": len(self.loads),
            "port_count": len(self.ports),
            "operand_count": len(self.operands),
        }
        encoded = [record_bytes(ffi.new("tt_part *", head))]
        encoded += [record_bytes(ffi.new(f"{kind}[]", records)) for kind, records in self._sections if records]
        return b"".join([*encoded, *self.tables])


class _Program:
    """Collects a program's records, step by step."""

    def __init__(self, network: Network, choices: list[Choice], layout: Layout, *, in_parts: bool) -> None:
        self.network, self.choices, self.layout, self.in_parts = network, choices, layout, in_parts
        self.chunks = Chunks(network, choices, layout)
        self.parts = [_Part(0)]
        self.setup_count = 0
        self._segment = _SETUP
        self._spilled = _Spilled(network, choices)
        self._step = 0
        self._instances: list[list[int]] = [[] for _ in choices]
        for (segment, _), instance in sorted(layout.instance_of.items(), key=lambda found: found[1]):
            self._instances[segment].append(instance)
        counts = np.bincount([i for instances in self._instances for i in instances])
        crossing = [int(i) for i in np.flatnonzero(counts > 1) if in_parts]
        kept = [i for i in crossing if not self._spilled.number(layout.instances[i].tensor)]
        self._kept = {instance: place for place, instance in enumerate(kept)}
        if len(self._spilled.tensors) + len(self._kept) > np.iinfo(np.uint16).max:
            raise UnsupportedModelError("the network is too large for a program: more than 65,535 feature maps")

    def add_step(self, step: Step) -> None:
        while self._segment < step.segment:
            self._segment += 1
            self._begin_segment(self._segment)
        self._step += 1
        part = self.parts[-1]
        if isinstance(step, LoadStep):
            self._add_load(step)
        elif isinstance(step, RunStep):
            code = constants.TT_INSTR_STREAM if step.streamed else constants.TT_INSTR_RUN
            part.add_instr(code, part.op_of[step.node], step.units)
        elif step.kind == "input":
            part.add_instr(constants.TT_INSTR_INPUT, self._port(step), step.end)
        elif step.kind == "output":
            part.add_instr(constants.TT_INSTR_OUTPUT, self._port(step), step.begin)
        else:
            code = constants.TT_INSTR_SPILL if step.kind == "spill" else constants.TT_INSTR_FETCH
            tensor = part.tensor_of[self.layout.instance_of[step.segment, step.tensor]]
            self._spilled.touch(step.tensor, self._step)
            part.add_instr(code, tensor, step.begin // self.network.tensors[step.tensor].block_rows)

    def _begin_segment(self, segment: int) -> None:
        if self.in_parts:
            self.parts.append(_Part(self.chunks.add_part()))
        part = self.parts[-1]
        for instance in self._instances[segment]:
            if instance not in part.tensor_of:
                part.tensor_of[instance] = len(part.tensors)
                part.tensors.append(self._tensor_record(instance))
        for node in range(self.choices[segment].segment.first, self.choices[segment].segment.last + 1):
            if self.network.nodes[node].op is not None:
                part.op_of[node] = len(part.ops)
                part.ops.append(self._op_record(part, segment, node))

    def _tensor_record(self, instance: int) -> dict[str, int]:
        placed = self.layout.instances[instance]
        info = self.network.tensors[placed.tensor]
        home = self._spilled.number(placed.tensor)
        if instance in self._kept:
            home = len(self._spilled.tensors) + 1 + self._kept[instance]
        whole, first = self.network.joined[placed.tensor] if placed.is_joined else (placed.tensor, 0)
        around = self.network.tensors[whole]
        return {
            "offset": self.layout.offsets[placed.buffer] + first * info.elem_bytes,
            "row_bytes": around.row_bytes,
            "height": info.shape.height,
            "width": info.shape.width,
            "channels": info.shape.channels,
            "capacity": placed.capacity,
            "pad_left": around.pad_left,
            "pad_right": around.pad_right,
            "elem_bytes": info.elem_bytes,
            "zero_point": info.zero_point,
            "home": home,
        }

    def _op_record(self, part: _Part, segment: int, position: int) -> dict[str, Any]:
        network, layout = self.network, self.layout
        node = network.nodes[position]
        op = node.op
        assert op is not None

        def operand(tensor: int) -> int:
            return part.tensor_of[layout.instance_of[segment, tensor]]

        operands = node.inputs[:1] if isinstance(op, MapConv) else node.inputs
        record: dict[str, Any] = {
            "activation": number("ACT", op.activation.kind),
            "alpha": op.activation.alpha,
            "beta": op.activation.beta,
            "output": operand(node.output),
            "operand_count": len(operands),
            "first_operand": len(part.operands),
        }
        part.operands += [operand(tensor) for tensor in operands]
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
                    record["stream_rows"] = piece_rows(network, self.choices[segment], position)
                    record["first_chunk"] = self.chunks.add_stream(segment, position)
                record["panel"] = node.panel
            if isinstance(op, MapConv):
                panels = layout.instances[layout.instance_of[segment, node.inputs[1]]]
                record |= {"bias": base, "weights": layout.offsets[panels.buffer], "panel": op.panel}
        described = op.with_weights if isinstance(op, MapConv) else op
        record |= attributes(described, network.graph, part.add_table)
        coding = weights.coding_of(op)
        if coding:
            codes = {"fp16": "F16", "int8": "I8", "int4": "I4"}
            record["table"] = coding.group
            if coding.streams is None:
                record["variant"] = number("CODING", codes[coding.kind])
            else:
                streams = coding.streams
                record["variant"] = number("CODING", codes[coding.kind] + "_RANS")
                record |= {"stream_rows": streams.rows, "stream_rate": streams.rate, "stream_base": streams.base}
        for flag in node.method.split("_") if node.method != "direct" else ():  # winograd_together is two
            record["flags"] |= number("FLAG", flag)
        if layout.workspaces[segment] >= 0:
            record["workspace"] = layout.workspaces[segment]
        return record

    def _port(self, step: RowStep) -> int:
        part = self.parts[-1]
        if (step.kind, step.port) not in part.port_of:
            part.port_of[step.kind, step.port] = len(part.ports)
            tensor = part.tensor_of[self.layout.instance_of[step.segment, step.tensor]]
            info = self.network.tensors[step.tensor]
            quant = self.network.graph.quants.get(info.name)
            record = {"tensor": tensor, "port": step.port, "rows_per_chunk": info.block_rows}
            part.ports.append(record | ({"scale": quant.scale} if quant else {}))
        return part.port_of[step.kind, step.port]

    def _add_load(self, step: LoadStep) -> None:
        if step.segment == _SETUP:
            base = min(self.layout.pinned.values())
            self.setup_count += 1
        else:
            base = min(offset for (s, _), offset in self.layout.weights.items() if s == step.segment)
        chunk = self.chunks.add_resident(step.segment, step.begin, step.end)
        part = self.parts[-1]
        part.add_instr(constants.TT_INSTR_LOAD, 0, len(part.loads))
        part.loads.append({"chunk": chunk, "offset": base + step.begin, "bytes": step.end - step.begin})

    def encode(self) -> tuple[bytes, int]:
        """Chunk 0 and the arena that the program needs; sets the chunks of the other parts."""
        for part in self.parts:
            part.finish()
        spills, tag_count = self._spilled.records()
        size = ffi.sizeof("tt_program") + ffi.sizeof("tt_spill") * len(spills) + max(part.bytes for part in self.parts)
        size += -(-len(self._kept) // 2) * 4 + tag_count * self.network.threads * constants.TT_TAG_BYTES
        data = weights.aligned(constants.TT_ENGINE_BYTES + size)
        head = {
            "magic": constants.TT_PROGRAM_MAGIC,
            "version": constants.TT_PROGRAM_VERSION,
            "arena_bytes": data + self.layout.peak_bytes,
            "data_offset": data,
            "spill_count": len(spills),
            "tag_count": tag_count,
            "kept_count": len(self._kept),
            "chunk_count": len(self.chunks.sizes) + 1,
            "setup_count": self.setup_count,
            "workers": self.network.threads,
            "piece_bytes": shared_piece_bytes(self.network.threads),
        }
        encoded = [part.encode(data, after) for part, after in zip(self.parts, [*self.parts[1:], None], strict=True)]
        for part, content in zip(self.parts[1:], encoded[1:], strict=True):
            self.chunks.set_part(part.chunk, content)
        spilled = record_bytes(ffi.new("tt_spill[]", spills)) if spills else b""
        return record_bytes(ffi.new("tt_program *", head)) + spilled + encoded[0], head["arena_bytes"]


def _signature(graph: Graph, ports: Iterable[Port]) -> Iterator[tuple[Port, Shape, Quant | None]]:
    return ((port, graph.shapes[port.tensor], graph.quants.get(port.tensor)) for port in ports)


def lower(network: Network, choices: list[Choice], layout: Layout, *, in_parts: bool = False) -> Lowered:
    """Encodes a placed partition, its program as one part or a part for each segment."""
    program = _Program(network, choices, layout, in_parts=in_parts)
    for step in unroll(network, choices, layout):
        program.add_step(step)
    encoded, arena_bytes = program.encode()
    graph = network.graph
    return Lowered(
        program=encoded,
        piece_bytes=program.chunks.piece_bytes,
        chunk_bytes=program.chunks.sizes,
        chunk=program.chunks.make,
        arena_bytes=arena_bytes,
        inputs=tuple(_signature(graph, graph.inputs)),
        outputs=tuple(_signature(graph, graph.outputs)),
        part_bytes=[part.bytes for part in program.parts[1:]],
    )
