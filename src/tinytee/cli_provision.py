"""The command that seals a model key to a device: provision."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from tinytee import cli_common as common
from tinytee import cli_optee
from tinytee.runtime import attestation, backends, optee_machine, provisioning
from tinytee.runtime.files import write_aside

OutPath = Annotated[Path | None, typer.Option("-o", "--output", help="The sealed key to write.", show_default=False)]


def provision(
    key_file: common.SomeKeyFile = None,
    out: OutPath = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Ask this machine (optee, sgx), or an emulated one (optee-qemu, sgx-emulated)."),
    ] = None,
    device_key: Annotated[
        str | None,
        typer.Option("--device-key", help="Or take the device's public key from a file, or as 64 hexadecimal digits."),
    ] = None,
    quote: Annotated[
        Path | None, typer.Option("--quote", help="Or take it from an enclave's quote, once that is verified.")
    ] = None,
    collateral: Annotated[
        Path | None, typer.Option("--collateral", help="What the quote is verified against; else it is fetched.")
    ] = None,
    measurement: Annotated[
        str | None,
        typer.Option("--measurement", help="The enclave that may have the key, as 'tinytee sgx build' says."),
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", help="A status that Intel gives the processor besides UpToDate. May be repeated."),
    ] = None,
    write_device_key: Annotated[
        Path | None,
        typer.Option("--write-device-key", help="Write the device's public key, for --device-key elsewhere."),
    ] = None,
    as_json: common.Json = False,
) -> None:
    """Seal a model key to a device, where only its trusted application can open it; without one, show the device's key.

    The device makes its key pair when it is first asked. Ask where the normal world is trusted, as in the factory,
    compare the fingerprint with one that was taken there, or, of SGX, verify a quote.
    """
    if sum(source is not None for source in (backend, device_key, quote)) != 1:
        raise ValueError("give either --backend, to ask a device, or --device-key, or --quote")
    if (key_file is None) != (out is None):
        raise ValueError("to seal a model key give both --key-file and --output")
    if (quote is None) != (measurement is None):
        raise ValueError("a quote is of some enclave: give both --quote and --measurement")
    if quote is None and (collateral is not None or accept):
        raise ValueError("--collateral and --accept are for a --quote")
    if backend == "optee-qemu":
        cli_optee.prepare(optee_machine.chosen_build())
    attested = None
    if quote is not None and measurement is not None:
        attested = _verify(quote, collateral, measurement, accept or [])
        public = attested.device_key
    else:
        public = read_device_key(device_key) if device_key is not None else backends.device_key(backend or "")
    if write_device_key is not None:
        write_aside(write_device_key, (public.hex() + "\n").encode())
    if key_file is not None and out is not None:
        write_aside(out, provisioning.provision(common.read_key(key_file), public).record)
    shown = provisioning.fingerprint(public)
    if as_json:
        processor = {} if attested is None else {"status": attested.status, "advisories": attested.advisories}
        common.print_json(
            {"device_key": public.hex(), "fingerprint": shown, "sealed_key": out and str(out), **processor}
        )
        return
    common.output.print(f"device key   {public.hex()}\nfingerprint  {shown}", soft_wrap=True, highlight=False)
    if attested is not None:
        concerns = f" ({', '.join(attested.advisories)})" if attested.advisories else ""
        common.output.print(f"processor    genuine, {attested.status}{concerns}", soft_wrap=True, highlight=False)
    if out is not None:
        common.output.print(f"wrote {out}: only this device can open it", soft_wrap=True)


def _verify(quote: Path, collateral: Path | None, measurement: str, accept: list[str]) -> attestation.Attested:
    try:
        wanted = bytes.fromhex(measurement)
    except ValueError:
        wanted = b""
    if len(wanted) != attestation.MEASUREMENT_BYTES:
        raise ValueError(f"--measurement {measurement}: 64 hexadecimal digits are expected")
    given = quote.read_bytes()
    known = (
        attestation.fetch_collateral(given, attestation.PCS) if collateral is None else collateral.read_text("utf-8")
    )
    return attestation.verify_quote(given, known, wanted, accepted=(*attestation.ACCEPTED, *accept))


def read_device_key(text: str) -> bytes:
    """A device's public key from hexadecimal digits, or a file of them or of 32 bytes.

    Raises:
        ValueError: it is none.
        OSError: the file cannot be read.
    """
    path = Path(text)
    if not path.exists():
        with contextlib.suppress(ValueError):
            return provisioning.check_device_key(bytes.fromhex(text))
        if len(text) == 2 * provisioning.DEVICE_KEY_BYTES:
            raise ValueError(f"--device-key {text}: not hexadecimal digits")
    return common.read_key(path)
