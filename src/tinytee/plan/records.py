"""What an operator's record says of what it computes (``tt_op`` in tinytee_program.h)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytee.bundle.abi import constants
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
    QLrn,
    QLut,
    QPool,
    Quantize,
    addition,
    product_ratio,
    quantized_fill,
)
from tinytee.plan.quantized import FedConv, Requantize, ScaledMean, products_in_16_bits
from tinytee.plan.scans import Delay

_KINDS: dict[type[Op], str] = {
    Conv: "CONV",
    DepthwiseConv: "DEPTHWISE",
    Reduce: "REDUCE",
    Unary: "UNARY",
    Binary: "BINARY",
    Concat: "CONCAT",
    Gather: "GATHER",
    Delay: "GATHER",
    Resize: "RESIZE",
    DepthToSpace: "DEPTH_TO_SPACE",
    SpaceToDepth: "SPACE_TO_DEPTH",
    Permute: "PERMUTE",
    Lrn: "LRN",
    QLrn: "LRN",
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

_FIT = {1: 0, 2: constants.TT_FLAG_TWO_FIT, 4: constants.TT_FLAG_FOUR_FIT}
"""Flags of a convolution on uint8, by how many products fit 16 bits."""


def number(prefix: str, name: str) -> int:
    return getattr(constants, f"TT_{prefix}_{name.upper()}")


def attributes(op: Op, graph: Graph, add_table: Callable[..., int]) -> dict[str, Any]:
    """The fields of ``tt_op`` by which each kind of operator says what it computes.

    add_table: puts arrays (integers as int32, floats as float32) into the program's tables; returns their place.
    """
    kind = _KINDS.get(type(op)) or ("MAX_POOL" if op.kind == "max" else "AVERAGE_POOL")  # type: ignore[attr-defined]
    record: dict[str, Any] = {"kind": number("OP", kind)}
    out, quant = graph.shapes[op.output], graph.quants.get(op.output)
    match op:
        case Conv() | QConv():
            record |= _window(op.weight.shape[1:3], op.strides, op.dilations, op.pads)
            record |= {"groups": op.groups, "flags": _conv_flags(op)}
        case DepthwiseConv() | QDepthwiseConv():
            record |= _window(op.weight.shape[:2], op.strides, op.dilations, op.pads)
        case Pool() | QPool():
            record |= _window(op.kernel, op.strides, op.dilations, op.pads)
            record["flags"] = constants.TT_FLAG_COUNT_INCLUDE_PAD if op.count_include_pad else 0
        case Reduce():
            record["variant"] = number("REDUCE", op.kind)
        case Binary() | QBinary():
            record["variant"] = number("BINARY", "sub" if op.kind == "sum" else op.kind)
            if op.constant is not None:
                height, width, channels = op.constant.shape
                first = constants.TT_FLAG_CONSTANT_FIRST if op.constant_first else 0
                record |= {"flags": constants.TT_FLAG_CONSTANT | first, "kernel_y": height, "kernel_x": width}
                record["groups"] = 0 if channels == out.channels else channels
        case Concat():
            record["variant"] = number("CONCAT", op.axis)
        case Gather():
            axes = [(op.rows, out.height), (op.cols, out.width), (op.chans, out.channels)]
            index = [np.arange(n) if given is None else np.asarray(given) for given, n in axes]
            record |= {
                "table": add_table(*index),
                "p0": op.fill if quant is None else quantized_fill(op, quant),
            }
        case Resize():
            record |= {"kernel_y": op.row_index.shape[1], "kernel_x": op.col_index.shape[1]}
            record["table"] = add_table(op.row_index, op.row_weights, op.col_index, op.col_weights)
        case DepthToSpace():
            record |= {"kernel_y": op.block, "variant": constants.TT_DCR if op.mode == "DCR" else constants.TT_CRD}
        case SpaceToDepth():
            record["kernel_y"] = op.block
        case Permute():
            lead = constants.TT_PERMUTE_DIMS - len(op.dims)
            record["table"] = add_table(np.array([1] * lead + list(op.dims) + [0] * lead + list(op.strides)))
        case Lrn() | QLrn():
            record |= {"kernel_x": op.size, "p0": op.alpha, "p1": op.beta, "p2": op.bias}
            if isinstance(op, QLrn):
                scales = [graph.quants[name].scale for name in (op.inputs[0], op.output)]
                record["table"] = add_table(np.array(scales, np.float32))
        case Softmax():
            record["flags"] = constants.TT_FLAG_LOG if op.log else 0
        case LayerNorm():
            record["p0"] = op.epsilon
        case ArgMax():
            record["flags"] = constants.TT_FLAG_SELECT_LAST if op.select_last else 0
    return record | _quantized_attributes(op, graph)


def _conv_flags(op: Conv | QConv) -> int:
    if isinstance(op, Conv):
        return constants.TT_FLAG_RESIDUAL if len(op.inputs) > 1 else 0
    return _FIT[products_in_16_bits(op)] | (constants.TT_FLAG_FED_CONSTANTS if isinstance(op, FedConv) else 0)


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
