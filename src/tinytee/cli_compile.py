"""Commands of the model's owner: keygen, compile, plan, profile."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinytee import api
from tinytee import cli_common as common
from tinytee.errors import BudgetError
from tinytee.report import (
    accuracy_tables,
    check_picture,
    plan_table,
    plot_accuracy,
    plot_memory,
    plot_sweep,
    precision_of,
    precision_table,
    sweep_table,
)
from tinytee.runtime.images import infer_preprocessing
from tinytee.runtime.session import KEY_BYTES
from tinytee.sizes import format_size, parse_size

if TYPE_CHECKING:
    import onnx

    from tinytee.quantize import Quantized

SWEEP = "256KiB,512KiB,1MiB,2MiB,4MiB,8MiB,16MiB,32MiB,64MiB"


def keygen(
    path: Annotated[Path, typer.Argument(help="The key file to write; it must not exist.", show_default=False)],
) -> None:
    """Make a model key: 32 random bytes, in a file that only you can read."""
    common.write_key(path, secrets.token_bytes(KEY_BYTES))
    common.output.print(
        f"wrote {path}: whoever has it can run your bundles; keep a copy where others cannot read it", soft_wrap=True
    )


def compile_model(
    model: common.ModelPath,
    memory: common.Memory,
    key_file: common.KeyFile,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="The bundle to write. [default: MODEL.tt]")] = None,
    input_shape: common.InputShapes = None,
    input_value: common.InputValues = None,
    suite: common.Suite = None,
    profile: common.ProfileName = None,
    threads: common.Threads = None,
    class_names: Annotated[
        Path | None, typer.Option("--class-names", help="Names of the first output's channels, one a line.")
    ] = None,
    image: Annotated[bool, typer.Option("--image", help="The input is an image: store how to prepare one.")] = False,
    size: common.ImageSize = None,
    resize: common.ImageResize = None,
    crop: common.ImageCrop = None,
    interpolation: common.ImageInterpolation = None,
    mean: common.ImageMean = None,
    scale: common.ImageScale = None,
    layout: common.ImageLayout = None,
    channels: common.ImageChannels = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Store float32 weights as fp16, int8 or int4 where that pays.")
    ] = None,
    weight_group: Annotated[
        int | None,
        typer.Option("--weight-group", help="Weights that share a scale, an even number. [default: int8 128, int4 32]"),
    ] = None,
    entropy: Annotated[
        str,
        typer.Option(
            "--entropy", help="Entropy-code int8 and int4 weights: auto, where that is faster; always; never."
        ),
    ] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="fp32: as the model is. int8: quantize it.")] = "fp32",
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", help="With int8: a folder of photographs.", show_default=False)
    ] = None,
    calibration: Annotated[
        str, typer.Option("--calibration", help="With int8: minmax, percentile or entropy.")
    ] = "minmax",
    rounding: Annotated[
        str,
        typer.Option("--rounding", help="With int8: output: weights for near results. nearest: each weight, faster."),
    ] = "output",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-float",
            help="With int8: a node that stays in float32, or 'auto'. May be repeated.",
            show_default=False,
        ),
    ] = None,
    short_sums: Annotated[
        str | None,
        typer.Option(
            "--short-sums",
            help="With int8: weights whose products add up in 16 bits: auto, where the profile's device has no dot"
            " products; always; never. [default: auto]",
            show_default=False,
        ),
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option(
            "--accuracy",
            help="With int8: write the accuracy report, a .json file, or draw it, a .png, .svg or .pdf file.",
            show_default=False,
        ),
    ] = None,
    quantized_model: Annotated[
        Path | None, typer.Option("--quantized-model", help="With int8: keep the quantized model, an .onnx file.")
    ] = None,
) -> None:
    """Compile a model into a sealed bundle that runs whole within so much secure memory.

    Any image option (--size to --channels, or --image) stores how an image becomes the first input, so that
    'tinytee run photo.png' works. With --precision int8 a float32 model is quantized, calibrated on --calibrate; a
    model that is quantized already runs in int8 as it is.
    """
    _check_quantization(precision, calibrate, keep_float, short_sums, accuracy, quantized_model)
    if weight_group is not None and weights is None:
        raise ValueError("--weight-group goes with --weights")
    if api.known_entropy(entropy) == "always" and weights not in ("int8", "int4"):
        raise ValueError("--entropy always goes with --weights int8 or int4")
    key, budget = common.read_key(key_file), parse_size(memory)
    device = api.find_profile(profile)
    api.wants_short_sums(short_sums or "auto", device)
    images = common.image_options(size, resize, crop, interpolation, mean, scale, layout, channels)
    shapes, chosen = common.parse_input_shapes(input_shape), api.choose_suite(suite, device)
    fixed = common.fixed_model(model, input_value)
    target = out or model.with_suffix(".tt")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a directory; name a file")
    names = common.read_class_names(class_names)
    quantized = None
    with common.progress_bar() as report:
        report("importing", 0.0)
        graph = api.load_graph(fixed, shapes)
        preprocessing = None
        if image or images or calibrate:
            preprocessing = infer_preprocessing(graph.inputs[0].shape if graph.inputs else (), images)
        if calibrate is not None:
            quantized = api.quantize_model(
                fixed,
                calibrate,
                preprocessing=preprocessing,
                method=calibration,
                rounding=rounding,
                keep_float=keep_float or (),
                short_sums=short_sums or "auto",
                profile=device,
                input_shapes=shapes,
                progress=report,
            )
            graph = api.load_graph(quantized.model, shapes)
        coded = []
        if weights is not None:
            report("coding weights", 0.0)
            graph, coded = api.code_weights(graph, weights, weight_group)
        bundle = api.compile_graph(
            graph,
            budget,
            key,
            suite=chosen,
            profile=device,
            threads=threads,
            entropy=api.known_entropy(entropy),
            preprocessing=preprocessing,
            class_names=names,
            progress=report,
        )
        bundle.save(target, report)
    if quantized is not None:
        _report_accuracy(quantized, accuracy or [], quantized_model)
    found = precision_of(graph)
    if found is not None:
        common.output.print(precision_table(found))
    if coded:
        worst = min(coded, key=lambda weight: weight.snr)
        common.output.print(
            f"{len(coded)} weights as {weights}: signal to noise {worst.snr:.1f} dB at least ({worst.name});"
            " compare outputs before you rely on it",
            soft_wrap=True,
        )
        if bundle.manifest.entropy_coded:
            common.output.print(f"{bundle.manifest.entropy_coded} of them entropy-coded")
    common.output.print(
        f"wrote {target}: {format_size(target.stat().st_size)}, {bundle.suite};"
        f" secure memory {bundle.peak_secure_memory_bytes:,} of {budget:,} bytes;"
        f" predicted {1e3 * (bundle.manifest.predicted_seconds or 0):.1f} ms a run",
        soft_wrap=True,
    )


def _check_quantization(
    precision: str,
    calibrate: Path | None,
    keep_float: list[str] | None,
    short_sums: str | None,
    accuracy: list[Path] | None,
    quantized_model: Path | None,
) -> None:
    if precision not in ("fp32", "int8"):
        raise ValueError(f"--precision {precision}: fp32 or int8")
    if precision == "int8" and calibrate is None:
        raise ValueError("--precision int8 needs --calibrate with a folder of photographs")
    given = {
        "--calibrate": calibrate,
        "--keep-float": keep_float,
        "--short-sums": short_sums,
        "--accuracy": accuracy,
        "--quantized-model": quantized_model,
    }
    for name, value in given.items():
        if precision == "fp32" and value:
            raise ValueError(f"{name} goes with --precision int8")
    for path in accuracy or ():
        if path.suffix != ".json":
            check_picture(path)


def _report_accuracy(quantized: Quantized, accuracy: list[Path], model: Path | None) -> None:
    for table in accuracy_tables(quantized.accuracy):
        common.output.print(table)
    if quantized.accuracy.kept_float:
        common.output.print(f"in float32 as asked: {', '.join(quantized.accuracy.kept_float)}", soft_wrap=True)
    if quantized.accuracy.agrees is False:
        common.output.print(
            "--keep-float auto did not reach its goal on the calibration pictures (the same largest score in 98%,"
            " cosine 0.995), not even with half of the layers in float32, and left those there that help most:"
            " give it more photographs, or compile in float32",
            soft_wrap=True,
        )
    for path in accuracy:
        if path.suffix == ".json":
            path.write_text(json.dumps(quantized.accuracy.to_dict(), indent=2) + "\n", encoding="utf-8")
        else:
            plot_accuracy(quantized.accuracy, path)
        common.output.print(f"wrote {path}", soft_wrap=True)
    if model is not None:
        model.write_bytes(quantized.model.SerializeToString())
        common.output.print(f"wrote {model}", soft_wrap=True)


def plan(
    model: common.ModelPath,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            "-m",
            help="Secure memory: 512KiB, 1MiB, or bytes. With --sweep: sizes between commas, or the largest of them.",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help=f"Plan for many sizes: {SWEEP}, or those of --memory.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw it: a .png, .svg or .pdf file.")] = None,
    as_json: common.Json = False,
    input_shape: common.InputShapes = None,
    input_value: common.InputValues = None,
    suite: common.Suite = None,
    profile: common.ProfileName = None,
) -> None:
    """Show how a model would use secure memory: its plan for one size, or time against size with --sweep."""
    if memory is None and not sweep:
        raise ValueError("give --memory for one plan, or --sweep for many")
    shapes, device = common.parse_input_shapes(input_shape), api.find_profile(profile)
    chosen, fixed = api.choose_suite(suite, device), common.fixed_model(model, input_value)
    if plot is not None:
        check_picture(plot)
    if sweep:
        _plan_sweep(fixed, sweep_sizes(memory), shapes, chosen, device, plot, as_json, title=model.name)
    else:
        _plan_once(fixed, parse_size(memory or ""), shapes, chosen, device, plot, as_json)


def sweep_sizes(memory: str | None) -> list[int]:
    """The sizes to sweep, in bytes: those given, or the usual ones up to the one given."""
    given = [parse_size(size) for size in (memory or SWEEP).split(",")]
    if memory is None or len(given) > 1:
        return given
    return [size for size in map(parse_size, SWEEP.split(",")) if size < given[0]] + given


def _plan_once(
    model: Path | onnx.ModelProto, budget: int, shapes: Any, suite: str, device: Any, plot: Path | None, as_json: bool
) -> None:
    from tinytee.plan.api import make_plan  # noqa: PLC0415

    with common.progress_bar() as report:
        report("importing", 0.0)
        graph = api.load_graph(model, shapes)
        made = make_plan(graph, budget, device, suite=suite, progress=lambda fraction: report("planning", fraction))
    found = precision_of(graph)
    if plot is not None:
        plot_memory(made, plot)
    if as_json:
        common.print_json({**made.to_dict(), **({} if found is None else {"precision": found.to_dict()})})
    else:
        common.output.print(plan_table(made))
        if found is not None:
            common.output.print(precision_table(found))
        if plot is not None:
            common.output.print(f"wrote {plot}", soft_wrap=True)


def _plan_sweep(
    model: Path | onnx.ModelProto,
    budgets: list[int],
    shapes: Any,
    suite: str,
    device: Any,
    plot: Path | None,
    as_json: bool,
    *,
    title: str,
) -> None:
    from tinytee.plan.api import Planner  # noqa: PLC0415
    from tinytee.plan.profile import load  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    with common.progress_bar() as report:
        report("importing", 0.0)
        planner = Planner(api.load_graph(model, shapes), device or load(), suite, max(budgets))
        for position, budget in enumerate(budgets):
            report(f"planning for {format_size(budget)}", position / len(budgets))
            try:
                made = planner.plan(budget)
            except BudgetError as error:
                rows.append({"budget_bytes": budget, "needed_bytes": error.needed_bytes})
            else:
                peak, seconds = made.peak_secure_memory_bytes, made.predicted_seconds
                rows.append(
                    {"budget_bytes": budget, "peak_secure_memory_bytes": peak, "predicted_seconds": float(seconds)}
                )
    if plot is not None:
        plot_sweep(rows, plot, title=title)
    if as_json:
        common.print_json(rows)
    else:
        common.output.print(sweep_table(rows))
        if plot is not None:
            common.output.print(f"wrote {plot}", soft_wrap=True)


def profile(
    out: Annotated[
        Path | None, typer.Option("-o", "--output", help="The profile to write, for --profile; else it is printed.")
    ] = None,
) -> None:
    """Measure this machine, for the planner's predictions."""
    from tinytee.api import measure_profile  # noqa: PLC0415

    with common.errors.status("measuring") as status:
        measured = measure_profile(progress=lambda what, _: status.update(f"measuring: {what}"))
    if out is None:
        common.print_json(asdict(measured))
    else:
        measured.save(out)
        common.output.print(f"wrote {out}: {measured.name}; proposes {measured.suite}")
