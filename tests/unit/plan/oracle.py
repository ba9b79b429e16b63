"""An oracle for programs: replays one run over a map of the arena that knows what every byte holds.

It reads nothing but the program's bytes and shares no code with the planner: which y-planes an operator reads it
finds from the operator's definition, one tap at a time. It fails if a byte is read that does not hold what it
should: never written, overwritten by something else that lives there, or not yet produced.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from tinytee.bundle.abi import constants as C
from tinytee.bundle.abi import ffi
from tinytee.plan.lowered import Lowered


class Instruction:
    def __init__(self, bits: int) -> None:
        self.code, self.index, self.arg = bits & 15, bits >> 4 & 0xFFF, bits >> 16


def unroll(words: list[int]) -> Iterator[Instruction]:
    """The instructions of a run, loops gone through."""
    at = 0
    while at < len(words):
        found = Instruction(words[at])
        at += 1
        if found.code != C.TT_INSTR_REPEAT:
            yield found
            continue
        body = words[at : at + found.index]
        at += found.index
        packed = words[at : at + (found.index + 1) // 2]
        at += len(packed)
        adds = [word >> shift & 0xFFFF for word in packed for shift in (0, 16)]
        for time in range(found.arg):
            for bits, add in zip(body, adds, strict=False):
                instr = Instruction(bits)
                instr.arg += time * add
                yield instr


class Reader:
    """Takes records from bytes, in the order of the header's text."""

    def __init__(self, data: bytes) -> None:
        self.keep = ffi.from_buffer(data)
        self.at, self.end = 0, len(data)

    def take(self, kind: str, count: int) -> list[Any]:
        array = ffi.cast(f"{kind} *", self.keep + self.at)
        self.at += ffi.sizeof(kind) * count
        return [array[i] for i in range(count)]


class Part:
    """The records of a part, decoded."""

    def __init__(self, data: Reader) -> None:
        self.keep = data
        self.begin = data.at
        h = self.head = data.take("tt_part", 1)[0]
        self.tensors = data.take("tt_tensor", h.tensor_count)
        self.ops = data.take("tt_op", h.op_count)
        self.loads = data.take("tt_load", h.load_count)
        self.instrs = [instr.bits for instr in data.take("tt_instr", h.instr_count)]
        self.ports = data.take("tt_port_tensor", h.port_count)
        self.operands = data.take("uint16_t", h.operand_count)
        self.tables = data.take("int32_t", h.table_count)
        self.bytes = data.at - self.begin
        assert data.at == data.end


class Oracle:
    """Replays a program; ``run`` raises AssertionError at the first thing that is wrong."""

    def __init__(self, lowered: Lowered) -> None:
        self.lowered = lowered
        data = Reader(lowered.program)
        self.head = data.take("tt_program", 1)[0]
        self.spills = data.take("tt_spill", self.head.spill_count)
        self.part_place = C.TT_ENGINE_BYTES + data.at
        behind = self.head.tag_count * self.head.workers * C.TT_TAG_BYTES + (self.head.kept_count + 1) // 2 * 4
        self.part_end = self.head.data_offset - behind
        self.cells: np.ndarray = np.zeros(self.head.arena_bytes, np.int32)
        self.names: dict[tuple, int] = {}
        self.highest = self.head.data_offset
        self.number = -1
        self.enter(data)
        self.tags: dict[int, int] = {}
        """Of every place of a tag, the number of the block whose tag it is."""
        self.sealed: set[int] = set()
        self.taken: dict[int, list[int]] = {}
        self.heights: dict[int, int] = {}
        """Y-planes of every output that have left, and how many there are."""

    def enter(self, data: Reader) -> None:
        """The next part takes its place."""
        self.program = Part(data)
        assert self.part_place + self.program.bytes <= self.part_end, "the part is too large for its place"
        self.number += 1
        self.done = [0] * len(self.program.ops)
        self.produced = [0] * len(self.program.tensors)

    def leave(self) -> bool:
        """Goes on to the part that follows, if any does."""
        head = self.program.head
        assert all(t.home <= self.head.spill_count + self.head.kept_count for t in self.program.tensors)
        if not head.next_bytes:
            return False
        content = self.lowered.chunk(head.next_chunk - 1)
        assert len(content) == head.next_bytes == self.lowered.chunk_bytes[head.next_chunk - 1]
        self.enter(Reader(content))
        return True

    def height_of(self, op: Any) -> int:
        """Y-planes that an operator goes through."""
        reduces = op.kind == C.TT_OP_REDUCE
        return self.program.tensors[self.operands(op)[0] if reduces else op.output].height

    def map_name(self, tensor: int) -> tuple:
        """What names a tensor's map: within its part, or beyond."""
        home = self.program.tensors[tensor].home
        return ("kept", home) if home > self.head.spill_count else (self.number, tensor)

    def name(self, *key: Any) -> int:
        return self.names.setdefault(key, len(self.names) + 1)

    def write(self, offset: int, count: int, name: int) -> None:
        assert offset >= self.head.data_offset, "the program is overwritten"
        assert offset + count <= self.head.arena_bytes, "beyond the arena"
        self.highest = max(self.highest, offset + count)
        self.cells[offset : offset + count] = name

    def check(self, offset: int, count: int, name: int, what: str) -> None:
        assert (self.cells[offset : offset + count] == name).all(), f"{what} is not there"

    def slot(self, tensor: int, y: int) -> int:
        t = self.program.tensors[tensor]
        return t.offset + y % t.capacity * t.row_bytes

    def places(self, tensor: int, y: int) -> list[tuple[int, int]]:
        """(offset, bytes) of a y-plane: a slot, or its pixels' channels if it lies among those of another."""
        t, at = self.program.tensors[tensor], self.slot(tensor, y)
        step, pixel = t.row_bytes // (t.pad_left + t.width + t.pad_right), t.channels * t.elem_bytes
        if step == pixel:
            return [(at, t.row_bytes)]
        return [(at + (t.pad_left + x) * step, pixel) for x in range(t.width)]

    def write_row(self, tensor: int, y: int) -> None:
        row = self.name("row", self.map_name(tensor), y)
        for offset, count in self.places(tensor, y):
            self.write(offset, count, row)

    def check_row(self, tensor: int, y: int, why: str) -> None:
        name = self.name("row", self.map_name(tensor), y)
        for offset, count in self.places(tensor, y):
            self.check(offset, count, name, f"y-plane {y} of tensor {tensor} for {why}")

    def joined(self, op: Any) -> set[int]:
        """Operands of a concatenation that lie where they would be copied to."""
        found, before, out = set(), 0, self.program.tensors[op.output]
        for tensor in self.operands(op) if op.kind == C.TT_OP_CONCAT and op.variant == C.TT_CONCAT_C else ():
            t = self.program.tensors[tensor]
            if out.offset <= t.offset < out.offset + out.row_bytes:
                assert t.offset == out.offset + before, "it lies among other channels"
                assert (t.row_bytes, t.capacity) == (out.row_bytes, out.capacity), "its slots are others"
                assert (t.pad_left, t.pad_right) == (out.pad_left, out.pad_right), "its pixels are others"
                found.add(tensor)
            before += t.channels * t.elem_bytes
        return found

    def operands(self, op: Any) -> list[int]:
        return self.program.operands[op.first_operand : op.first_operand + op.operand_count]

    def rows_read(self, op: Any, which: int, unit: int) -> set[int]:
        """Y-planes that unit ``unit`` of an operator reads, from its definition."""
        tensor = self.program.tensors[self.operands(op)[which]]
        height = tensor.height
        windowed = (C.TT_OP_CONV, C.TT_OP_DEPTHWISE, C.TT_OP_MAX_POOL, C.TT_OP_AVERAGE_POOL)
        if op.kind in windowed and which == 0:
            rows = {unit * op.stride_y - op.pad_top + k * op.dilation_y for k in range(op.kernel_y)}
            return {y for y in rows if 0 <= y < height}
        if op.kind == C.TT_OP_PERMUTE:
            return set(range(height))
        if op.kind == C.TT_OP_BINARY and height == 1:
            return {0}
        if op.kind == C.TT_OP_CONCAT and op.variant == C.TT_CONCAT_Y:
            planes = [
                (t.height, t.width * t.channels // (out.width * out.channels))
                for out in [self.program.tensors[op.output]]
                for t in (self.program.tensors[operand] for operand in self.operands(op))
            ]
            at = unit - sum(prod(pair) for pair in planes[:which])
            return {at // planes[which][1]} if 0 <= at < prod(planes[which]) else set()
        if op.kind == C.TT_OP_GATHER:
            return {y for y in [self.program.tables[op.table + unit]] if y >= 0}
        if op.kind == C.TT_OP_RESIZE:
            return {self.program.tables[op.table + unit * op.kernel_y + tap] for tap in range(op.kernel_y)}
        if op.kind == C.TT_OP_DEPTH_TO_SPACE:
            return {unit // op.kernel_y}
        if op.kind == C.TT_OP_SPACE_TO_DEPTH:
            return {unit * op.kernel_y + i for i in range(op.kernel_y)}
        return {unit}

    def run_op(self, number: int, end: int, streamed: bool) -> None:
        op = self.program.ops[number]
        reduces = op.kind == C.TT_OP_REDUCE
        height = self.height_of(op)
        assert self.done[number] < end <= height, "units go up"
        if streamed:
            self.stream_weights(number, op)
            if op.k_per_block < self.conv_sizes(op)[1] and self.elem_bytes(op) == 1:
                sums = (end - self.done[number]) * self.program.tensors[op.output].width * op.panel
                self.write(op.workspace, sums * 4, self.name("workspace", number))
        if op.kind == C.TT_OP_LRN and self.elem_bytes(op) == 1:
            pixels = self.head.workers * 2 * self.program.tensors[op.output].channels
            self.write(op.workspace, pixels * 4, self.name("workspace", number))
        for unit in range(self.done[number], end):
            for which, tensor in enumerate(self.operands(op)):
                for y in self.rows_read(op, which, unit):
                    self.check_row(tensor, y, f"unit {unit} of operator {number}")
        self.check_weights(number, op)
        if op.kind == C.TT_OP_CONV and op.flags & C.TT_FLAG_WINOGRAD:
            tiles, channels = (
                -(-self.program.tensors[op.output].width // 4),
                self.program.tensors[self.operands(op)[0]].channels,
            )
            workspace = 6 * tiles * (op.kernel_y * channels + op.panel) * 4
            if op.flags & C.TT_FLAG_TOGETHER:
                workspace += self.head.workers * 4 * channels * op.panel * 4
            self.write(op.workspace, workspace, self.name("workspace", number))
        if op.kind == C.TT_OP_CONV and op.flags & C.TT_FLAG_STRASSEN and self.elem_bytes(op) == 4:
            out, channels = self.program.tensors[op.output], self.program.tensors[self.operands(op)[0]].channels
            pixels = max(1, min(112 // out.width, out.height // 2)) * out.width
            self.write(
                op.workspace, (4 * channels // 2 + 3 * op.panel // 2) * pixels * 4, self.name("workspace", number)
            )
        if op.kind == C.TT_OP_CONV and op.variant:
            unit = max(op.table, op.stream_rows)
            rows = min(C.TT_SLICE_BYTES // (4 * op.panel) // unit * unit, self.conv_sizes(op)[1])
            self.write(op.workspace, rows * op.panel * 4, self.name("workspace", number))
        for unit in [0] if reduces else range(self.done[number], end):
            self.write_row(op.output, unit)
        # What was read, and lies elsewhere, is still there when the writing is over.
        for unit, (which, tensor) in product(range(self.done[number], end), enumerate(self.operands(op))):
            same = self.program.tensors[tensor].offset == self.program.tensors[op.output].offset
            same = same or tensor in self.joined(op)
            for y in () if same else self.rows_read(op, which, unit):
                self.check_row(tensor, y, f"operator {number} itself")
        self.check_weights(number, op)
        self.done[number] = end

    def elem_bytes(self, op: Any) -> int:
        """Of the first operand: 1 where an operator works on uint8."""
        return self.program.tensors[self.operands(op)[0]].elem_bytes

    def conv_sizes(self, op: Any) -> tuple[int, int]:
        """(panels, depth) of a convolution; on uint8 depth counts fours."""
        channels = self.program.tensors[op.output].channels // op.groups
        ahead = op.flags & (C.TT_FLAG_WINOGRAD | C.TT_FLAG_TOGETHER) == C.TT_FLAG_WINOGRAD
        columns = 6 if op.kind == C.TT_OP_CONV and ahead else op.kernel_x
        in_group = self.program.tensors[self.operands(op)[0]].channels // op.groups
        depth = op.kernel_y * columns * in_group
        if self.elem_bytes(op) == 1:
            side_by_side = op.groups == 1 and (op.kernel_x == 1 or op.dilation_x == 1)
            length, count = (columns * in_group, 1) if side_by_side else (in_group, columns)
            depth = op.kernel_y * count * ((length + 3) // 4)
        return op.groups * -(-channels // op.panel), depth

    def stream_weights(self, number: int, op: Any) -> None:
        panels, depth = self.conv_sizes(op)
        parts = -(-depth // op.k_per_block)
        blocks = -(-panels // op.panels_per_block) * parts
        sizes = self.lowered.chunk_bytes[op.first_chunk - 1 : op.first_chunk - 1 + blocks]
        fed = panels * parts * op.panel * 4 * 3 if self.constants_are_fed(op) else 0
        assert sum(sizes) == panels * self.panel_bytes(op, depth) + fed, "the blocks are the weights"
        place = max(sizes)
        if op.stream_rows and not op.variant:  # a piece of each worker's, opened as it is used
            assert depth % op.stream_rows == 0 and parts == 1, "pieces are alike"
            place = self.head.workers * op.stream_rows * op.panel * 4
        self.write(op.weights, place, self.name("stream", self.number, number))

    def weight_places(self, number: int, op: Any) -> list[tuple[int, int]]:
        """(offset, bytes) of what must be loaded for an operator, but for streamed weights."""
        out = self.program.tensors[op.output]
        if op.kind == C.TT_OP_CONV:
            panels, depth = self.conv_sizes(op)
            alphabet = 64 if op.variant and op.stream_rows else 0
            places = [(op.bias, panels * op.panel * 4 * (3 if self.elem_bytes(op) == 1 else 1) + alphabet)]
            if self.constants_are_fed(op):
                places = []
            return places if op.first_chunk else [*places, (op.weights, panels * self.panel_bytes(op, depth))]
        if op.kind == C.TT_OP_DEPTHWISE and self.elem_bytes(op) == 1:
            taps = (op.kernel_y + 3) // 4 * 4 * op.kernel_x
            return [(op.weights, taps * out.channels), (op.bias, 2 * out.channels * 4)]
        if op.kind == C.TT_OP_LOOKUP:
            return [(op.weights, 256)]
        if op.kind == C.TT_OP_DEPTHWISE:
            return [(op.weights, op.kernel_y * op.kernel_x * out.channels * 4), (op.bias, out.channels * 4)]
        if op.kind == C.TT_OP_LAYER_NORM:
            return [(op.weights, out.channels * 4), (op.bias, out.channels * 4)]
        if op.kind == C.TT_OP_BINARY and op.flags & C.TT_FLAG_CONSTANT:
            return [(op.weights, op.kernel_y * op.kernel_x * (op.groups or out.channels) * out.elem_bytes)]
        return []

    def constants_are_fed(self, op: Any) -> bool:
        return self.elem_bytes(op) == 1 and bool(op.flags & C.TT_FLAG_FED_CONSTANTS)

    @staticmethod
    def panel_bytes(op: Any, rows: int) -> int:
        if op.variant in (C.TT_CODING_NONE, C.TT_CODING_F16):
            return rows * op.panel * (4 if op.variant == C.TT_CODING_NONE else 2)
        scales = (rows + op.table - 1) // op.table * 4 * op.panel
        if op.variant in (C.TT_CODING_I8, C.TT_CODING_I4):
            return scales + (rows if op.variant == C.TT_CODING_I8 else (rows + 1) // 2) * op.panel
        streams = 0
        for begin in range(0, rows, op.stream_rows):
            count = min(op.stream_rows, rows - begin)
            words = max(64, (count * op.panel // 8 * op.stream_rate >> 12) + op.stream_base)
            streams += 4 * 9 + 2 * (words + words % 2)
            streams += (count + 1) // 2 * op.panel if op.variant == C.TT_CODING_I8_RANS else 0
        return scales + streams

    def check_weights(self, number: int, op: Any) -> None:
        for offset, count in self.weight_places(number, op):
            held = self.cells[offset : offset + count]
            kinds = {self.kind_of(int(name)) for name in np.unique(held)}
            # a convolution's weights may be a map
            allowed = ({"load"}, {"row"}) if op.kind == C.TT_OP_CONV and offset == op.weights else ({"load"},)
            assert kinds in allowed, f"weights of operator {number} are not there or are overwritten: {kinds}"
        if op.first_chunk:
            self.check(op.weights, 4, self.name("stream", self.number, number), f"a weight block of operator {number}")

    def kind_of(self, name: int) -> str:
        return next((key[0] for key, value in self.names.items() if value == name), "nothing")

    def run_spill(self, instr: Instruction) -> None:
        spill = self.spills[self.program.tensors[instr.index].home - 1]
        block, place = spill.first + instr.arg, spill.tag + instr.arg
        assert place < self.head.tag_count
        for y in range(instr.arg * spill.rows, min((instr.arg + 1) * spill.rows, spill.height)):
            if instr.code == C.TT_INSTR_SPILL:
                self.check_row(instr.index, y, "a spill")
            else:
                self.write_row(instr.index, y)
        if instr.code == C.TT_INSTR_SPILL:
            assert block not in self.sealed, "its nonce would be used twice"
            self.sealed.add(block)
            self.tags[place] = block
        assert self.tags[place] == block, "its tag is not there"

    def run(self) -> int:
        """Replays the whole program. Returns the highest arena offset that was written."""
        while self.run_part():
            pass
        assert self.taken, "no output leaves"
        for port, rows in self.taken.items():
            assert rows == list(range(self.heights[port])), "every y-plane of every output leaves, in order"
        return self.highest

    def run_part(self) -> bool:
        """Replays a part. Returns whether another is there."""
        p = self.program
        for instr in unroll(p.instrs):
            if instr.code in (C.TT_INSTR_RUN, C.TT_INSTR_STREAM):
                self.run_op(instr.index, instr.arg, instr.code == C.TT_INSTR_STREAM)
            elif instr.code == C.TT_INSTR_LOAD:
                load = p.loads[instr.arg]
                assert load.bytes == self.lowered.chunk_bytes[load.chunk - 1]
                self.write(load.offset, load.bytes, self.name("load", load.chunk))
            elif instr.code == C.TT_INSTR_INPUT:
                tensor = p.ports[instr.index].tensor
                for y in range(self.produced[tensor], instr.arg):
                    self.write_row(tensor, y)
                self.produced[tensor] = instr.arg
            elif instr.code == C.TT_INSTR_OUTPUT:
                port = p.ports[instr.index]
                end = min(instr.arg + port.rows_per_chunk, p.tensors[port.tensor].height)
                for y in range(instr.arg, end):
                    self.check_row(port.tensor, y, "an output")
                    self.taken.setdefault(port.port, []).append(y)
                self.heights[port.port] = p.tensors[port.tensor].height
            else:
                self.run_spill(instr)
        return self.leave()
