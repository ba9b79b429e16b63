"""Commands of whoever runs bundles: run, inspect, verify, demo."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from tinytee import cli_common as common
from tinytee import cli_optee, ort
from tinytee.bundle import Bundle, Manifest, Preprocessing, TensorSpec
from tinytee.report import bundle_table, outputs_table, stats_table, top_table, verify_table
from tinytee.runtime import Session
from tinytee.runtime.images import infer_preprocessing, load_image
from tinytee.runtime.optee_machine import chosen_build

Arrays = dict[str, NDArray[Any]]

MAX_PRINTED_ELEMS = 10_000


def run(
    bundle: common.BundlePath,
    given: Annotated[
        list[str],
        typer.Option(
            "--input", "-i", help="A .npy, .npz or image file, or name=file. May be repeated.", show_default=False
        ),
    ],
    key_file: common.SomeKeyFile = None,
    sealed_key: common.SealedKeyFile = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="Print the first output's largest channels.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Write the outputs: a .npz or .npy file.")] = None,
    as_json: common.Json = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print what was measured.")] = False,
    isa: common.Isa = None,
    threads: common.Threads = None,
    backend: common.Backend = "process",
    size: common.ImageSize = None,
    resize: common.ImageResize = None,
    crop: common.ImageCrop = None,
    interpolation: common.ImageInterpolation = None,
    mean: common.ImageMean = None,
    scale: common.ImageScale = None,
    layout: common.ImageLayout = None,
    channels: common.ImageChannels = None,
) -> None:
    """Run a bundle on arrays or images. Image options that the bundle stores need not be given."""
    images = common.image_options(size, resize, crop, interpolation, mean, scale, layout, channels)
    if out is not None and out.suffix not in (".npz", ".npy"):
        raise ValueError(f"--output {out}: a name that ends in .npz or .npy is expected")
    if (key_file is None) == (sealed_key is None):
        raise ValueError("give either --key-file, or, in a TEE, --sealed-key")
    key = None if key_file is None else common.read_key(key_file)
    if backend == "optee-qemu":
        cli_optee.prepare(chosen_build())
    with Session(bundle, key=key, sealed_key=sealed_key, backend=backend, isa=isa, threads=threads) as session:
        manifest = session.manifest
        if out is not None and out.suffix == ".npy" and len(manifest.outputs) != 1:
            raise ValueError(f"--output {out}: the network has {len(manifest.outputs)} outputs, write them to a .npz")
        outputs = session.run(read_inputs(manifest, given, images))
        measured = session.stats
    if out is not None:
        _write_outputs(out, outputs)
    best = _top(manifest, outputs, top) if top is not None else None
    if as_json:
        common.print_json(
            {
                "outputs": {name: _describe(array) for name, array in outputs.items()},
                **({} if best is None else {"top": best}),
                "stats": asdict(measured),
            }
        )
        return
    if best is not None:
        for sample in best:
            common.output.print(top_table(sample))
    else:
        common.output.print(outputs_table(outputs))
    if stats:
        common.output.print(stats_table(measured))
    else:
        common.output.print(
            f"{1e3 * measured.last_run_seconds:.2f} ms, {measured.peak_secure_memory_bytes:,} bytes of secure memory"
            f" ({measured.isa}, {measured.suite})"
        )


def read_inputs(manifest: Manifest, given: list[str], images: dict[str, Any]) -> Arrays:
    """The inputs of ``--input`` options, by name.

    Raises:
        ValueError: a file holds no such input.
        OSError: a file cannot be read.
    """
    arrays: Arrays = {}
    for text in given:
        name, equals, file = text.partition("=")
        known = equals and not Path(text).exists()
        path = Path(file if known else text)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                arrays.update({entry: stored[entry] for entry in stored.files})
            continue
        spec = _input_spec(manifest, name if known else None, arrays)
        if path.suffix == ".npy":
            arrays[spec.name] = np.load(path, allow_pickle=False)
        else:
            arrays[spec.name] = load_image(path, image_preprocessing(manifest, spec, images))
    return arrays


def _input_spec(manifest: Manifest, name: str | None, taken: Arrays) -> TensorSpec:
    free = [spec for spec in manifest.inputs if spec.name not in taken]
    found = [spec for spec in free if name is None or spec.name == name]
    if not found:
        names = ", ".join(f"'{spec.name}'" for spec in manifest.inputs) or "none"
        raise ValueError(
            f"--input names '{name}', the network's inputs are {names}"
            if name
            else f"--input is given too often: {names}"
        )
    return found[0]


def image_preprocessing(manifest: Manifest, spec: TensorSpec, given: dict[str, Any]) -> Preprocessing:
    """What the bundle stores for its first input, with the options given put in its place."""
    stored = manifest.preprocessing if spec == manifest.inputs[0] else None
    if stored is None:
        return infer_preprocessing(spec.shape, given)
    return replace(stored, **given)


def _write_outputs(path: Path, outputs: Arrays) -> None:
    if path.suffix == ".npy":
        np.save(path, next(iter(outputs.values())), allow_pickle=False)
    else:
        named: Any = outputs
        np.savez(path, **named)


def _describe(array: NDArray[Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"shape": list(array.shape), "dtype": array.dtype.name}
    if array.size <= MAX_PRINTED_ELEMS:
        described["values"] = array.tolist()
    return described


def _top(manifest: Manifest, outputs: Arrays, count: int) -> list[list[dict[str, Any]]]:
    """For every sample of the first output, its largest elements."""
    spec = manifest.outputs[0]
    scores = outputs[spec.name]
    rows = scores.reshape(len(scores), -1) if spec.batched else scores.reshape(1, -1)
    found = []
    for row in rows:
        order = np.argsort(-row, kind="stable")[:count]
        names = manifest.class_names if len(manifest.class_names) == row.size else None
        found.append([{"index": int(i), "name": names[i] if names else str(i), "value": float(row[i])} for i in order])
    return found


def inspect(bundle: common.BundlePath, as_json: common.Json = False) -> None:
    """Show what anyone may know of a bundle without its key. Nothing of it is authenticated without the key."""
    opened = Bundle.load(bundle)
    if not as_json:
        common.output.print(bundle_table(opened, str(bundle)))
        return
    preamble = opened.preamble
    manifest = asdict(opened.manifest)
    common.print_json(
        {
            "suite": opened.suite,
            "bundle_id": preamble.bundle_id.hex(),
            "peak_secure_memory_bytes": opened.peak_secure_memory_bytes,
            "bundle_bytes": preamble.bundle_bytes,
            "chunk_count": len(preamble.sealed_bytes),
            "program_bytes": preamble.sealed_bytes[0],
            "manifest": manifest,
        }
    )


def verify(
    bundle: common.BundlePath,
    model: common.ModelPath,
    key_file: common.KeyFile,
    given: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="As for run; else random inputs.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Random inputs to try.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of the random inputs.")] = 0,
    tolerance: Annotated[float, typer.Option("--tolerance", help="Largest error, of an output's range.")] = 1e-4,
    input_value: common.InputValues = None,
    as_json: common.Json = False,
    isa: common.Isa = None,
) -> None:
    """Compare a bundle with its model in ONNX Runtime. Exits with 1 if an output differs by more than the tolerance."""
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("verify needs ONNX Runtime: pip install onnxruntime") from error
    from tinytee.importer import reference_model  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    fixed = common.fixed_model(model, input_value)
    try:
        reference = ort.open_session(reference_model(fixed), options)
    except Exception as error:  # its exceptions have no common base but this
        raise ValueError(f"ONNX Runtime does not load {model}: {error}") from error
    with Session(bundle, key=common.read_key(key_file), isa=isa) as session:
        manifest = session.manifest
        trials = [read_inputs(manifest, given, {})] if given else _random_inputs(manifest, samples, seed)
        rows = _compare(session, reference, trials, [spec.name for spec in manifest.outputs], tolerance)
    within = all(row["within_tolerance"] for row in rows)
    if as_json:
        common.print_json({"outputs": rows, "tolerance": tolerance, "within_tolerance": within})
    else:
        common.output.print(verify_table(rows, tolerance))
    if not within:
        raise typer.Exit(1)


def _random_inputs(manifest: Manifest, samples: int, seed: int) -> list[Arrays]:
    generator = np.random.default_rng(seed)
    return [{spec.name: random_array(generator, spec) for spec in manifest.inputs} for _ in range(samples)]


def random_array(generator: np.random.Generator, spec: TensorSpec) -> NDArray[Any]:
    """One sample of an input, of its dtype."""
    shape = (spec.shape[0] or 1, *spec.shape[1:]) if spec.batched else spec.shape
    if spec.dtype == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if np.dtype(spec.dtype).kind in "iu":
        return generator.integers(0, 100, shape).astype(spec.dtype)
    return generator.standard_normal(shape).astype(spec.dtype)


NEGLIGIBLE = 1e-6
"""Errors that are not held against an output, whatever its range; of its largest magnitude where that is above 1. ONNX
Runtime's own sigmoid and softmax are off by some 1e-7 near 0, and there may be all that a detector answers to noise."""


def _compare(
    session: Session, reference: Any, trials: list[Arrays], names: list[str], tolerance: float
) -> list[dict[str, Any]]:
    """Of each output the trial that is furthest off, for its range."""
    rows: dict[str, dict[str, Any]] = {}
    for inputs in trials:
        expected = dict(zip(names, reference.run(names, inputs), strict=True))
        found = session.run(inputs)
        for name in names:
            span, largest, error = _error(np.asarray(expected[name]), found[name])
            row = {"name": name, "range": span, "max_error": error, "relative_error": error / span if span else error}
            row["finite"] = bool(np.isfinite(expected[name]).any())
            row["within_tolerance"] = error <= max(tolerance * span, NEGLIGIBLE * max(1.0, largest))
            rows[name] = max(rows.get(name, row), row, key=_how_far_off)
    return list(rows.values())


def _how_far_off(row: dict[str, Any]) -> tuple[bool, float]:
    return not row["within_tolerance"], row["relative_error"]


def _error(expected: NDArray[Any], found: NDArray[Any]) -> tuple[float, float, float]:
    """The expected values' range, the largest magnitude of them, and the largest error, which is infinite where shapes,
    NaN or infinities disagree."""
    if expected.shape != found.shape:
        return 0.0, 0.0, float("inf")
    wanted, got = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(wanted)
    if not np.array_equal(wanted[~finite], got[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return 0.0, 0.0, float("inf")
    if not finite.any():
        return 0.0, 0.0, 0.0
    wanted, got = wanted[finite], got[finite]
    return float(np.ptp(wanted)), float(np.abs(wanted).max()), float(np.abs(wanted - got).max())


def demo(
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the bundle and the picture.")] = Path("out"),
) -> None:
    """Recognize a photograph with a real network inside 1 MiB of secure memory."""
    from tinytee.demo import main  # noqa: PLC0415

    main(out)
