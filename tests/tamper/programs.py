"""A tiny program, written by hand: it needs no planner, and passes its input through every kind of boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinytee.bundle import Bundle, Manifest, Preprocessing, TensorSpec
from tinytee.bundle.abi import constants as c
from tinytee.bundle.abi import ffi, record_bytes
from tinytee.bundle.sealing import Unsealed
from tinytee.ir.graph import Port, Quant, Shape
from tinytee.plan.lowered import Lowered

CHUNK_BYTES = 256
PIECE_BYTES = 96
"""A chunk is sealed in three of them."""
SMALL = Shape(7, 5, 3)


def _round_up(count: int) -> int:
    return -(-count // c.TT_ALIGN) * c.TT_ALIGN


def _instr(code: int, index: int, arg: int) -> dict[str, int]:
    return {"bits": code | index << c.TT_INSTR_INDEX_SHIFT | arg << c.TT_INSTR_ARG_SHIFT}


def _repeat(length: int, times: int, adds: list[int]) -> tuple[dict[str, int], list[dict[str, int]]]:
    """The words before and behind a loop's instructions."""
    padded = [*adds, *[0] * (len(adds) % 2)]
    return _instr(c.TT_INSTR_REPEAT, length, times), [
        {"bits": low | high << 16} for low, high in zip(padded[::2], padded[1::2], strict=True)
    ]


def passthrough(
    shape: Shape = SMALL,
    rows: int = 3,
    port: Port | None = None,
    change: Callable[[dict[str, Any]], None] = lambda records: None,
    quant: Quant | None = None,
    workers: int = 1,
) -> Lowered:
    """Input -> (spill, fetch back into another tensor, row block by row block) -> output; three chunks, one pinned.

    Chunks 1 (pinned), 2 and 3 are loaded, and not used. Spills and fetches are loops. change may spoil the records:
    "head", "spills", "part", "tensors", "loads", "instrs", "ports". quant: the elements are uint8. workers: pieces of
    a row block.
    """
    elem_bytes = 1 if quant else 4
    row_bytes = shape.row_elems * elem_bytes
    begins = range(0, shape.height, rows)
    instrs = [_instr(c.TT_INSTR_LOAD, 0, 0), _instr(c.TT_INSTR_LOAD, 0, 1)]
    instrs += [_instr(c.TT_INSTR_INPUT, 0, min(shape.height, y + rows)) for y in begins]
    repeat, adds = _repeat(1, len(begins), [1])
    instrs += [repeat, _instr(c.TT_INSTR_SPILL, 0, 0), *adds]
    instrs.append(_instr(c.TT_INSTR_LOAD, 0, 2))
    instrs += [repeat, _instr(c.TT_INSTR_FETCH, 1, 0), *adds]
    instrs += [_instr(c.TT_INSTR_OUTPUT, 1, y) for y in begins]

    sizes = (("tt_program", 1), ("tt_spill", 1), ("tt_part", 1), ("tt_tensor", 2), ("tt_load", 3))
    sizes += (("tt_instr", len(instrs)), ("tt_port_tensor", 2))
    data_offset = c.TT_ENGINE_BYTES + sum(ffi.sizeof(name) * count for name, count in sizes)
    data_offset = _round_up(data_offset + c.TT_TAG_BYTES * workers * len(begins))
    map_bytes = _round_up(shape.height * row_bytes)
    weights_offset = data_offset + 2 * map_bytes
    head = {
        "magic": c.TT_PROGRAM_MAGIC,
        "version": c.TT_PROGRAM_VERSION,
        "arena_bytes": weights_offset + 3 * CHUNK_BYTES,
        "data_offset": data_offset,
        "spill_count": 1,
        "tag_count": len(begins),
        "chunk_count": 4,
        "setup_count": 1,
        "workers": workers,
        "piece_bytes": PIECE_BYTES,
    }
    tensor = {"row_bytes": row_bytes, "height": shape.height, "width": shape.width, "channels": shape.channels}
    tensor |= {"elem_bytes": elem_bytes, "capacity": shape.height, "home": 1}
    tensor |= {"zero_point": quant.zero_point} if quant else {}
    scale = quant.scale if quant else 0
    offsets = [data_offset, data_offset + map_bytes]
    loads = [{"chunk": k + 1, "offset": weights_offset + k * CHUNK_BYTES, "bytes": CHUNK_BYTES} for k in range(3)]
    records: dict[str, Any] = {
        "head": head,
        "part": {"tensor_count": 2, "load_count": 3, "instr_count": len(instrs), "port_count": 2},
        "tensors": [{**tensor, "offset": offset} for offset in offsets],
        "loads": loads,
        "spills": [{"rows": rows, "height": shape.height}],
        "instrs": instrs,
        "ports": [{"tensor": k, "rows_per_chunk": rows, "scale": scale} for k in range(2)],
    }
    change(records)
    kinds = {"head": "tt_program *", "spills": "tt_spill[]", "part": "tt_part *", "tensors": "tt_tensor[]"}
    kinds |= {"loads": "tt_load[]", "instrs": "tt_instr[]", "ports": "tt_port_tensor[]"}
    if port is None:
        nchw = (0, shape.channels, shape.height, shape.width)
        port = Port("x", "t", nchw, "float32", (0, 2, 3, 1), True)
    given = Port("y", port.tensor, port.shape, port.dtype, port.perm, port.batched)
    return Lowered(
        program=b"".join(record_bytes(ffi.new(kind, records[name])) for name, kind in kinds.items()),
        chunk_bytes=[CHUNK_BYTES] * 3,
        piece_bytes=[PIECE_BYTES] * 3,
        chunk=lambda k: bytes([k + 1]) * CHUNK_BYTES,
        arena_bytes=head["arena_bytes"],
        inputs=((port, shape, quant),),
        outputs=((given, shape, quant),),
    )


def passthrough_bundle(
    key: bytes,
    suite: str = "aes-256-gcm",
    lowered: Lowered | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: tuple[str, ...] = (),
    threads: int = 1,
) -> Bundle:
    lowered = lowered or passthrough()
    manifest = Manifest(
        inputs=tuple(TensorSpec.of(*found) for found in lowered.inputs),
        outputs=tuple(TensorSpec.of(*found) for found in lowered.outputs),
        budget_bytes=1 << 20,
        predicted_seconds=0.001,
        preprocessing=preprocessing,
        class_names=class_names,
        threads=threads,
    )
    return Bundle(unsealed=Unsealed(lowered, manifest, suite, key))
