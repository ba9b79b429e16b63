"""Commands for OP-TEE: the machine in QEMU."""

from __future__ import annotations

from typing import Annotated

import typer

from tinytee import cli_common as common
from tinytee.runtime import optee_machine

app = typer.Typer(
    name="optee",
    help="OP-TEE: a machine with a genuine one, in QEMU.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Heap = Annotated[
    str, typer.Option("--heap", help="The trusted application's heap, 256KiB to 12MiB: what a bundle has to fit into.")
]


@app.callback()
def _group() -> None:
    pass


@app.command()
def setup(
    heap: Heap = optee_machine.DEFAULT_HEAP,
    crypto: Annotated[
        str, typer.Option("--crypto", help="The trusted application's cryptography: nettle or bearssl.")
    ] = "nettle",
    production: Annotated[
        bool, typer.Option("--production", help="The trusted application refuses keys in the clear.")
    ] = False,
) -> None:
    """Download and build the machine that --backend optee-qemu boots: once, into the user's cache folder.

    For another build than the default one, set TINYTEE_OPTEE_HEAP, TINYTEE_OPTEE_CRYPTO and TINYTEE_OPTEE_PRODUCTION
    when you run bundles, too.
    """
    build = optee_machine.Build(heap, crypto, not production)
    prepare(build)
    common.output.print(f"ready: {build.image}", soft_wrap=True)


@app.command()
def demo() -> None:
    """Recognize a photograph with a real network inside OP-TEE, in less than 2 MiB of secure memory."""
    from tinytee.demo import main_optee  # noqa: PLC0415
    from tinytee.plan import profile  # noqa: PLC0415

    prepare(optee_machine.chosen_build())
    main_optee(profile.load("raspberry-pi-3"))


def prepare(build: optee_machine.Build) -> None:
    """Prepares a machine, with a progress bar; at once if there is one."""
    if build.image.exists():
        return
    with common.progress_bar() as report:
        optee_machine.prepare(build, report)
