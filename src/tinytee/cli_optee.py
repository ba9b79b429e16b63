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
def setup(heap: Heap = optee_machine.DEFAULT_HEAP) -> None:
    """Download and build the machine that --backend optee-qemu boots: once, into the user's cache folder."""
    prepare(heap)
    common.output.print(f"ready: {optee_machine.image(heap)}", soft_wrap=True)


@app.command()
def demo() -> None:
    """Recognize a photograph with a real network inside OP-TEE, in less than 2 MiB of secure memory."""
    from tinytee.demo import main_optee  # noqa: PLC0415
    from tinytee.plan import profile  # noqa: PLC0415

    prepare(optee_machine.chosen_heap())
    main_optee(profile.load("raspberry-pi-3"))


def prepare(heap: str) -> None:
    """Prepares a machine, with a progress bar; at once if there is one."""
    if optee_machine.image(heap).exists():
        return
    with common.progress_bar() as report:
        optee_machine.prepare(heap, report)
