"""Commands for SGX: the enclave's image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinytee import cli_common as common
from tinytee.bundle import enclave
from tinytee.runtime import attestation, library, sgx
from tinytee.runtime.files import write_aside

app = typer.Typer(
    name="sgx",
    help="Intel SGX: the enclave that bundles run in.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    pass


@app.command()
def build(
    out: Annotated[Path, typer.Option("-o", "--output", help="The image to write.", show_default=False)],
    heap: Annotated[
        str, typer.Option("--heap", help="What a bundle has to fit into; the enclave takes about 1 MiB more.")
    ] = sgx.DEFAULT_HEAP,
    isa: Annotated[
        str | None,
        typer.Option(
            "--isa", help="Of the processors it is for: avx2, avx512 or avx512vnni.", show_default="this one's"
        ),
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            "--signing-key",
            help="RSA of 3072 bits and exponent 3, in PEM; without it, one that is made for this user.",
            show_default=False,
        ),
    ] = None,
    development: Annotated[
        bool, typer.Option("--development", help="The enclave takes keys in the clear; it protects nothing.")
    ] = False,
    as_json: common.Json = False,
) -> None:
    """Make an enclave: its image, and the measurement (MRENCLAVE) by which a model's owner knows it.

    Whoever builds the same source with the same compiler gets the same measurement.
    """
    key = sgx.own_signing_key() if signing_key is None else _read_signing_key(signing_key)
    image = sgx.build_image(heap, isa or library.best_isa(), key, is_development=development)
    write_aside(out, image.data)
    if as_json:
        common.print_json(
            {
                "image": str(out),
                "measurement": image.measurement.hex(),
                "signer": image.signer.hex(),
                "secure_bytes": image.secure_bytes,
                "heap_bytes": image.heap_bytes,
                "largest_arena_bytes": image.heap_bytes - sgx.HEAP_OVERHEAD_BYTES,
            }
        )
        return
    common.output.print(
        f"wrote {out}\n"
        f"measurement      {image.measurement.hex()}\n"
        f"signer           {image.signer.hex()}\n"
        f"enclave memory   {image.secure_bytes:,} bytes, all included\n"
        f"largest bundle   {image.heap_bytes - sgx.HEAP_OVERHEAD_BYTES:,} bytes",
        soft_wrap=True,
        highlight=False,
    )


Backend = Annotated[str, typer.Option("--backend", help="sgx; or sgx-emulated, whose quotes nobody believes.")]


@app.command()
def quote(
    out: Annotated[Path, typer.Option("-o", "--output", help="The quote to write.", show_default=False)],
    backend: Backend = "sgx",
) -> None:
    """Make a quote: Intel's word that this machine's enclave has the device key that it says.

    Its enclave is the chosen one (TINYTEE_ENCLAVE). Give the quote to the model's owner: tinytee provision --quote.
    """
    write_aside(out, attestation.make_quote(backend))
    common.output.print(f"wrote {out}", soft_wrap=True)


@app.command()
def collateral(
    quote_file: Annotated[Path, typer.Argument(help="A quote that 'tinytee sgx quote' wrote.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--output", help="The collateral to write.", show_default=False)],
    url: Annotated[
        str, typer.Option("--url", help="Intel's provisioning service, or a cache of it.")
    ] = attestation.PCS,
) -> None:
    """Fetch what a quote is verified against: certificates, revocation lists and patch levels, signed by Intel."""
    write_aside(out, attestation.fetch_collateral(quote_file.read_bytes(), url).encode())
    common.output.print(f"wrote {out}", soft_wrap=True)


@app.command()
def demo(
    backend: Annotated[str, typer.Option("--backend", help="sgx, or sgx-emulated.")] = "sgx-emulated",
) -> None:
    """Recognize a photograph with a real network in an enclave of less than 5 MiB, by an emulated processor or SGX."""
    from tinytee.demo import main_sgx  # noqa: PLC0415
    from tinytee.plan import profile  # noqa: PLC0415

    wide = enclave.read_isa(sgx.chosen_image()).startswith("avx512")
    main_sgx(backend, profile.load("sgx-avx512" if wide else "sgx-avx2"))


def _read_signing_key(path: Path) -> object:
    try:
        return enclave.load_signing_key(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"--signing-key {path}: {error}") from None
