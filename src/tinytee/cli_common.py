"""What the commands share: options, key files, progress."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tinytee import api
from tinytee.runtime.session import KEY_BYTES

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

output = Console()
errors = Console(stderr=True)

ModelPath = Annotated[Path, typer.Argument(help="An ONNX model.", show_default=False)]
BundlePath = Annotated[Path, typer.Argument(help="A bundle that 'tinytee compile' wrote.", show_default=False)]
KeyFile = Annotated[Path, typer.Option("--key-file", "-k", help="The model key.", show_default=False)]
SomeKeyFile = Annotated[Path | None, typer.Option("--key-file", "-k", help="The model key.", show_default=False)]
SealedKeyFile = Annotated[
    Path | None,
    typer.Option("--sealed-key", help="In a TEE: the model key as 'tinytee provision' sealed it.", show_default=False),
]
Memory = Annotated[
    str, typer.Option("--memory", "-m", help="Secure memory: 512KiB, 1MiB, or bytes.", show_default=False)
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option("--input-shape", help="Binds symbolic dimensions: name=1,3,224,224. May be repeated."),
]
InputValues = Annotated[
    list[str] | None,
    typer.Option(
        "--input-value", help="Makes an input a constant: name=16000, a number, or name=file.npy. May be repeated."
    ),
]
Suite = Annotated[str | None, typer.Option("--suite", help="AEAD: aes-256-gcm, chacha20-poly1305 or aegis-256x4.")]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", help="A device profile: a built-in one's name, or a file of 'tinytee profile'."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Isa = Annotated[
    str | None,
    typer.Option("--isa", help="Instruction set of the kernels: portable, avx2, avx512, avx512vnni, neon or neondot."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="That share a run; compiled for one unless you say more.")
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend", help="Where the core runs: process, optee or sgx (this machine), optee-qemu or sgx-emulated."
    ),
]

ImageSize = Annotated[
    str | None, typer.Option("--size", help="Images: size in pixels, 224 or 240x320 (height x width).")
]
ImageResize = Annotated[str | None, typer.Option("--resize", help="Images: shorter (keeps proportions) or exact.")]
ImageCrop = Annotated[float | None, typer.Option("--crop", help="Images: fraction kept of the resized one, as 0.875.")]
ImageInterpolation = Annotated[
    str | None, typer.Option("--interpolation", help="Images: bilinear, bicubic or nearest.")
]
ImageMean = Annotated[
    str | None, typer.Option("--mean", help="Images: subtracted from pixels of 0 to 255: 127 or r,g,b.")
]
ImageScale = Annotated[str | None, typer.Option("--scale", help="Images: what then divides them: 128 or r,g,b.")]
ImageLayout = Annotated[str | None, typer.Option("--layout", help="Images: NCHW or NHWC.")]
ImageChannels = Annotated[str | None, typer.Option("--channels", help="Images: RGB, BGR or L (grey).")]


def write_key(path: Path, key: bytes) -> None:
    """Writes a new key file, readable by its owner only, as 64 hexadecimal digits.

    Raises:
        FileExistsError: there is such a file; a key is never overwritten.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FileExistsError(f"{path} exists; a key is never overwritten") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")


def read_key(path: Path) -> bytes:
    """Reads a key file: 64 hexadecimal digits, or 32 bytes.

    Raises:
        ValueError: it is neither.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if len(content) == KEY_BYTES:
        return content
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(content.decode("ascii", "replace"))
        if len(key) == KEY_BYTES:
            return key
    raise ValueError(f"{path} is not a key file: 64 hexadecimal digits, as 'tinytee keygen' writes, or 32 bytes")


def parse_input_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """Shapes by input name, of ``name=1,3,224,224`` or ``name=1x3x224x224``.

    Raises:
        ValueError: a text is no such thing.
    """
    shapes = {}
    for text in texts or ():
        name, equals, extents = text.rpartition("=")
        try:
            shapes[name] = tuple(int(extent) for extent in extents.replace("x", ",").split(",") if extent.strip())
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"--input-shape {text}: write it as name=1,3,224,224")
    return shapes or None


def fixed_model(model: Path, texts: list[str] | None) -> Path | onnx.ModelProto:
    """The model, with inputs made constants by ``name=number`` or ``name=file.npy``.

    Raises:
        ValueError: a text is no such thing.
        TinyteeError: the model has no such input, or the value does not fit it.
    """
    values: dict[str, float | NDArray[Any]] = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        try:
            values[name] = np.load(value) if value.endswith(".npy") else float(value)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"--input-value {text}: write it as name=16000, a number, or name=file.npy")
    return api.fix_inputs(model, values)


def image_options(
    size: str | None,
    resize: str | None,
    crop: float | None,
    interpolation: str | None,
    mean: str | None,
    scale: str | None,
    layout: str | None,
    channels: str | None,
) -> dict[str, Any]:
    """The preprocessing options that were given, by the name of Preprocessing's field.

    Raises:
        ValueError: a text is not a number.
    """
    found: dict[str, Any] = {"resize": resize, "crop": crop, "interpolation": interpolation}
    found["layout"] = layout and layout.upper()
    found["channels"] = channels and channels.upper()
    found["mean"] = mean and _numbers("--mean", mean, float)
    found["scale"] = scale and _numbers("--scale", scale, float)
    if size:
        extents = _numbers("--size", size.lower().replace("x", ","), int)
        found["size"] = extents * 2 if len(extents) == 1 else extents
    return {name: value for name, value in found.items() if value is not None}


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} {text}: a number, or numbers between commas, are expected") from None


def read_class_names(path: Path | None) -> tuple[str, ...]:
    """One name a line."""
    return () if path is None else tuple(path.read_text(encoding="utf-8").splitlines())


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on the terminal's error stream; what is being done, and which fraction of it is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)

        def report(doing: str, fraction: float) -> None:
            bar.update(task, description=doing, completed=fraction)

        yield report


def print_json(value: Any) -> None:
    """JSON to the standard output, and nothing else."""
    typer.echo(json.dumps(value, indent=2))
