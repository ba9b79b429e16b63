"""The public face: ``compile``. The compiler's rooms are imported when it is called, so that a device that only runs
bundles needs none of their dependencies."""

from __future__ import annotations

import functools
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tinytee.bundle import Bundle, Manifest, Preprocessing, TensorSpec
from tinytee.errors import BudgetError
from tinytee.runtime.images import infer_preprocessing, load_image
from tinytee.runtime.session import check_key
from tinytee.sizes import parse_size

if TYPE_CHECKING:
    import onnx
    from numpy.typing import ArrayLike

    from tinytee.ir.coding import CodingKind
    from tinytee.ir.graph import Graph
    from tinytee.passes.code_weights import CodedWeight
    from tinytee.plan.entropy import Entropy
    from tinytee.plan.measure import Runner
    from tinytee.plan.profile import Profile
    from tinytee.quantize import Quantized

__all__ = ["compile", "load_graph", "load_image", "quantize_model"]

M = TypeVar("M", bound="str | os.PathLike[str] | bytes | onnx.ModelProto")
Progress = Callable[[str, float], None]
"""Told what is being done, and which fraction of it is."""


def fix_inputs(model: M, values: Mapping[str, ArrayLike] | None) -> M | onnx.ModelProto:
    """The model itself if no values are given; else a proto of it in which the inputs that have one are constants.

    Raises:
        TinyteeError: the model has no such input, a value does not fit it, or the file is no model.
    """
    from tinytee.importer import fix_inputs  # noqa: PLC0415

    return fix_inputs(model, values) if values else model


def load_graph(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """Imports and optimizes a model.

    Args:
        model: path, bytes or proto of an ONNX model.
        input_shapes: shapes of inputs by name, to bind symbolic dimensions.

    Raises:
        UnsupportedModelError: the model asks for something that tinytee does not run.
        OSError: the file cannot be read.
    """
    from tinytee.importer import load  # noqa: PLC0415
    from tinytee.passes import optimize  # noqa: PLC0415

    shapes = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
    return optimize(load(model, shapes or None))


def find_profile(profile: Profile | str | os.PathLike[str] | None) -> Profile | None:
    """A device profile by its name or out of a file; None and profiles stay what they are.

    Raises:
        ValueError: there is no such profile, or the file is not one.
    """
    if not isinstance(profile, str | os.PathLike):
        return profile
    from tinytee.plan.profile import load  # noqa: PLC0415

    return load(os.fspath(profile))


def quantize_model(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    photographs: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing | None = None,
    method: str = "minmax",
    rounding: str = "output",
    keep_float: Sequence[str] = (),
    short_sums: str = "auto",
    profile: Profile | str | os.PathLike[str] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Makes an int8 model of a float32 one, calibrated on a folder of photographs. Needs ONNX Runtime.

    Two photographs in five are held out: crops and mirror images of them tell what quantization costs.

    Args:
        model: path, bytes or proto of an ONNX model whose only input is an image.
        photographs: a folder; folders in it count, hidden files do not.
        preprocessing: how an image becomes the input; None: as 'tinytee run' would do it.
        method: how ranges are chosen: "minmax", "percentile" or "entropy".
        rounding: "output": weights so that results of their layers are near; "nearest": each weight, faster.
        keep_float: names of nodes that stay in float32; "auto" chooses those that harm most.
        short_sums: whether weights get coarser where sums of four products would not fit 16 bits: "auto", for a device
            whose processors have no dot products; "always"; "never".
        profile: the device: a built-in profile's name, a file, or a profile; None: x86-64 with AVX-512.
        input_shapes: shapes of inputs by name, to bind symbolic dimensions.
        progress: told what is being done, and which fraction of it is.

    Returns:
        ``model``, which ``compile`` takes, and ``accuracy``.

    Raises:
        UnsupportedModelError: the model asks for something that tinytee does not run.
        TinyteeError: ONNX Runtime is not installed, or does not take the model; the model is quantized already.
        ValueError: the folder holds fewer than two photographs, or other files; the input is no image; an argument
            is no such thing.
        OSError: a file or the folder cannot be read.
    """
    from tinytee import quantize as room  # noqa: PLC0415

    short = wants_short_sums(short_sums, find_profile(profile))
    ports = load_graph(model, input_shapes).inputs
    if len(ports) != 1:
        raise ValueError(f"photographs calibrate networks of one input, an image; this one has {len(ports)} inputs")
    how = preprocessing or infer_preprocessing(ports[0].shape, {})
    if progress is not None:
        progress("reading photographs", 0.0)
    found = room.read_photographs(photographs, how)
    calibration, held_out = (
        [{ports[0].name: picture} for picture in pictures] for pictures in (found.calibration, found.held_out)
    )
    made = room.quantize(
        room.bind(room.read_proto(model), input_shapes or {}),
        calibration,
        held_out,
        method=method,
        rounding=rounding,
        keep_float=keep_float,
        short_sums=short,
        progress=progress,
    )
    counts = {"photographs": len(found.held_out_files), "calibration_photographs": len(found.calibration_files)}
    return replace(made, accuracy=replace(made.accuracy, **counts))


def wants_short_sums(how: str, profile: Profile | None) -> bool:
    """Whether to quantize for processors without dot products: "auto" asks the profile.

    Raises:
        ValueError: ``how`` is neither auto nor always nor never.
    """
    if how not in ("auto", "always", "never"):
        raise ValueError(f"short sums '{how}': there are auto, always and never")
    return how == "always" or (how == "auto" and profile is not None and not profile.dot_products)


def compile(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    secure_memory: str | int,
    key: bytes,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    input_values: Mapping[str, ArrayLike] | None = None,
    suite: str | None = None,
    profile: Profile | str | os.PathLike[str] | None = None,
    threads: int | None = None,
    weights: CodingKind | None = None,
    weight_group: int | None = None,
    entropy: Entropy = "auto",
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
    progress: Progress | None = None,
) -> Bundle:
    """Compiles a model into a bundle that runs whole within so much secure memory.

    Args:
        model: path, bytes or proto of an ONNX model.
        secure_memory: "512KiB", "1MiB", or a number of bytes: the arena, everything included.
        key: 32 bytes; whoever runs the bundle needs them.
        input_shapes: shapes of inputs by name, to bind symbolic dimensions.
        input_values: inputs that are to be constants, as a sampling rate; one number fills an input of known shape.
        suite: "aes-256-gcm", "chacha20-poly1305" or "aegis-256x4"; None: the profile's, or aes-256-gcm.
        profile: the device to plan for: a built-in profile's name ("raspberry-pi-3", "x86-64-avx2", ...), a file of
            ``tinytee profile``, or a profile; None: x86-64 with AVX-512.
        threads: most threads that may share a run; None: as the profile says, one unless it was made for more.
        weights: "fp16", "int8" or "int4": store weights in so many bits where that is faster than float32; arithmetic
            stays in float32.
        weight_group: weights of a channel that share a scale, an even number; None: 128 for int8, 32 for int4.
        entropy: whether weights stored as int8 or int4 are entropy-coded as well: "auto", where that is faster;
            "always", wherever it makes them smaller; "never". The answers are the same.
        preprocessing: how an image becomes the first input; stored in the bundle.
        class_names: names of the first output's channels; stored in the bundle.
        progress: told what is being done, and which fraction of it is.

    Raises:
        UnsupportedModelError: the model asks for something that tinytee does not run; all such places are listed.
        BudgetError: the network does not fit; it says what would do.
        ValueError, TypeError: an argument is no such thing.
        OSError: the file cannot be read.
    """
    check_key(key)
    budget, device = parse_size(secure_memory), find_profile(profile)
    graph = load_graph(fix_inputs(model, input_values), input_shapes)
    if weights is not None:
        graph = code_weights(graph, weights, weight_group)[0]
    return compile_graph(
        graph,
        budget,
        key,
        suite=suite,
        profile=device,
        threads=threads,
        entropy=entropy,
        preprocessing=preprocessing,
        class_names=class_names,
        progress=progress,
    )


def code_weights(graph: Graph, kind: str, group: int | None = None) -> tuple[Graph, list[CodedWeight]]:
    """Stores a graph's weights in fewer bits: see ``passes.code_weights``.

    Raises:
        ValueError: there is no such coding, or the group is odd or out of bounds.
        UnsupportedModelError: a weight cannot be coded.
    """
    from tinytee.passes.code_weights import code_weights  # noqa: PLC0415

    return code_weights(graph, kind, group)


def known_entropy(how: str) -> Entropy:
    """The way to entropy-code of that name.

    Raises:
        ValueError: there is none.
    """
    from tinytee.plan.entropy import known_entropy  # noqa: PLC0415

    return known_entropy(how)


def compile_graph(
    graph: Graph,
    budget_bytes: int,
    key: bytes,
    *,
    suite: str | None = None,
    profile: Profile | None = None,
    threads: int | None = None,
    entropy: Entropy = "auto",
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
    progress: Progress | None = None,
) -> Bundle:
    """The second half of :func:`compile`: plans, lowers and wraps up an imported graph."""
    from tinytee.bundle import suites  # noqa: PLC0415
    from tinytee.bundle.sealing import Unsealed  # noqa: PLC0415
    from tinytee.plan.api import Plan, lower, make_plan  # noqa: PLC0415
    from tinytee.plan.profile import load as load_profile  # noqa: PLC0415
    from tinytee.report.precision import operator_counts  # noqa: PLC0415

    chosen = choose_suite(suite, profile)
    if not suites.is_available(chosen):
        suites.sealer(chosen, key)
    device = profile or load_profile()
    if threads is not None:
        device = device.with_threads(threads)
    check_preprocessing(graph, preprocessing)
    told = None if progress is None else lambda fraction: progress("planning", fraction)
    integer_operators, float_operators = operator_counts(graph)

    def plan_for(budget: int) -> tuple[Plan, Unsealed]:
        plan = make_plan(graph, budget, device, suite=chosen, progress=told, entropy=entropy)
        lowered = lower(graph, plan)
        manifest = Manifest(
            inputs=tuple(TensorSpec.of(*port) for port in lowered.inputs),
            outputs=tuple(TensorSpec.of(*port) for port in lowered.outputs),
            budget_bytes=budget,
            predicted_seconds=float(plan.predicted_seconds),
            preprocessing=preprocessing,
            class_names=tuple(class_names),
            threads=device.threads,
            integer_operators=integer_operators,
            float_operators=float_operators,
            entropy_coded=len(plan.entropy_coded),
        )
        return plan, Unsealed(lowered, manifest, chosen, bytes(key))

    plan, unsealed = plan_for(budget_bytes)
    if unsealed.arena_bytes <= budget_bytes:
        return Bundle(unsealed=unsealed, plan=plan)
    # The network would fit, but not the public part, which the core authenticates in the arena: class names, mostly.
    needed_bytes = unsealed.arena_bytes
    while (larger_bytes := plan_for(needed_bytes)[1].arena_bytes) > needed_bytes:
        needed_bytes = larger_bytes
    raise BudgetError(needed_bytes, budget_bytes)


def choose_suite(suite: str | None, profile: Any) -> str:
    """The suite asked for, else the profile's, else aes-256-gcm.

    Raises:
        ValueError: there is no suite of that name.
    """
    from tinytee.bundle import suites  # noqa: PLC0415

    chosen = suite or getattr(profile, "suite", None) or "aes-256-gcm"
    suites.suite_number(chosen)
    return chosen


def check_preprocessing(graph: Graph, how: Preprocessing | None) -> None:
    """Refuses preprocessing that cannot make the graph's first input.

    Raises:
        ValueError: shape or dtype do not agree.
    """
    if how is None:
        return
    if not graph.inputs:
        raise ValueError("the network has no input that an image could be")
    port = graph.inputs[0]
    channels = how.channel_count
    made = (channels, *how.size) if how.layout == "NCHW" else (*how.size, channels)
    if port.dtype != "float32" or len(port.shape) != 4 or port.shape[1:] != made:
        raise ValueError(
            f"images of {how.layout} {list(made)} do not fit input '{port.name}': {port.dtype} {list(port.shape)}"
        )


def measuring_runner(profile: Profile | None = None) -> Runner:
    """What ``tinytee.plan.measure`` runs graphs by: each compiled once for a device, and run in a session of its
    own."""
    from tinytee.runtime.session import Session  # noqa: PLC0415

    key = os.urandom(32)

    @functools.lru_cache(maxsize=1)  # measured several times in a row, and planning takes longer than running
    def compiled(graph: Graph, suite: str, budget_bytes: int) -> Bundle:
        return compile_graph(graph, budget_bytes, key, suite=suite, profile=profile, entropy="always")

    def run(graph: Graph, suite: str, budget_bytes: int) -> tuple[float, float, int]:
        inputs = {port.name: np.ones(port.shape, np.float32) for port in graph.inputs}
        with Session(compiled(graph, suite, budget_bytes), key=key) as session:
            seconds = []
            for _ in range(7):
                session.run(inputs)
                seconds.append(session.stats.last_run_seconds)
            before = session.stats
            session.run(inputs)
            after = session.stats
        opened = after.chunk_bytes - before.chunk_bytes
        return statistics.median(seconds), after.aead_seconds - before.aead_seconds, opened

    return run


def measure_profile(progress: Progress | None = None) -> Profile:
    """Measures this machine for the planner's predictions, with every AEAD suite that is available here.

    Args:
        progress: told what is being measured, and which fraction of the whole is done.
    """
    from tinytee import processor  # noqa: PLC0415
    from tinytee.bundle import suites  # noqa: PLC0415
    from tinytee.plan import measure, profile  # noqa: PLC0415
    from tinytee.runtime import library  # noqa: PLC0415

    base = profile.for_isa(library.best_isa(), processor.vendor())
    known = [suite for suite in base.aead_bytes_per_second if suites.is_available(suite)]
    found = measure.measure(measuring_runner(replace(base, strassen_channels=0)), known, base, progress)
    return replace(found, dot_products=library.best_isa() != "neon")
