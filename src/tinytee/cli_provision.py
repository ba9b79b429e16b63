"""The command that seals a model key to a device: provision."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from tinytee import cli_common as common
from tinytee import cli_optee
from tinytee.runtime import backends, optee_machine, provisioning

OutPath = Annotated[Path | None, typer.Option("-o", "--output", help="The sealed key to write.", show_default=False)]


def provision(
    key_file: common.SomeKeyFile = None,
    out: OutPath = None,
    backend: Annotated[
        str | None, typer.Option("--backend", help="Ask this device (optee), or the machine in QEMU (optee-qemu).")
    ] = None,
    device_key: Annotated[
        str | None,
        typer.Option("--device-key", help="Or take the device's public key from a file, or as 64 hexadecimal digits."),
    ] = None,
    write_device_key: Annotated[
        Path | None,
        typer.Option("--write-device-key", help="Write the device's public key, for --device-key elsewhere."),
    ] = None,
    as_json: common.Json = False,
) -> None:
    """Seal a model key to a device, whose secure world alone can open it; without --key-file, show the device's key.

    The device makes its key pair when it is first asked. Ask where the normal world is trusted, as in the factory, or
    compare the fingerprint with one that was taken there.
    """
    if (backend is None) == (device_key is None):
        raise ValueError("give either --backend, to ask a device, or --device-key")
    if (key_file is None) != (out is None):
        raise ValueError("to seal a model key give both --key-file and --output")
    if backend == "optee-qemu":
        cli_optee.prepare(optee_machine.chosen_build())
    public = read_device_key(device_key) if device_key is not None else backends.device_key(backend or "")
    if write_device_key is not None:
        common.write_aside(write_device_key, (public.hex() + "\n").encode())
    if key_file is not None and out is not None:
        common.write_aside(out, provisioning.provision(common.read_key(key_file), public).record)
    shown = provisioning.fingerprint(public)
    if as_json:
        common.print_json({"device_key": public.hex(), "fingerprint": shown, "sealed_key": out and str(out)})
        return
    common.output.print(f"device key   {public.hex()}\nfingerprint  {shown}", soft_wrap=True, highlight=False)
    if out is not None:
        common.output.print(f"wrote {out}: only this device can open it", soft_wrap=True)


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

