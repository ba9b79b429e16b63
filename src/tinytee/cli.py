"""The command line. What tinytee raises on purpose becomes one plain message and exit status 2."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tinytee import __version__, cli_bench, cli_compile, cli_optee, cli_provision, cli_run, cli_sgx
from tinytee.cli_common import errors
from tinytee.errors import TinyteeError

app = typer.Typer(
    name="tinytee",
    help="Runs whole ONNX networks inside a fixed number of bytes of secure memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tinytee {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="On an error, show the traceback, too.")] = False,
) -> None:
    pass


for command in (
    cli_compile.keygen,
    cli_compile.compile_model,
    cli_compile.plan,
    cli_provision.provision,
    cli_run.run,
    cli_run.inspect,
    cli_run.verify,
    cli_bench.bench,
    cli_compile.profile,
    cli_run.demo,
):
    app.command(command.__name__.removesuffix("_model"))(command)

app.add_typer(cli_optee.app)
app.add_typer(cli_sgx.app)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    try:
        app([word for word in given if word != "--debug"], prog_name="tinytee")
    except (TinyteeError, ValueError, TypeError, OSError) as error:
        if debug:
            raise
        errors.print(f"tinytee: {_message(error)}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


if __name__ == "__main__":
    main()
