"""SGX: the trusted application in an enclave on this machine, by its processor or emulated.

Which enclave is said by environment variables: TINYTEE_ENCLAVE names an image. Without it one is made, for this
processor's instruction set, with a heap of TINYTEE_SGX_HEAP bytes (4MiB), which refuses keys in the clear if
TINYTEE_SGX_PRODUCTION is 1.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tinytee.bundle import enclave
from tinytee.bundle.container import Bundle
from tinytee.errors import EngineError
from tinytee.runtime import library
from tinytee.runtime.files import write_aside
from tinytee.runtime.provisioning import SealedKey
from tinytee.runtime.trusted import Link, ProgramLink, Tee, TrustedBackend, chosen_feeder, read_device
from tinytee.sizes import parse_size

IMAGE_VARIABLE = "TINYTEE_ENCLAVE"
HEAP_VARIABLE, PRODUCTION_VARIABLE = "TINYTEE_SGX_HEAP", "TINYTEE_SGX_PRODUCTION"
DEVICE_VARIABLE, PROCESSOR_VARIABLE = "TINYTEE_SGX_DEVICE", "TINYTEE_SGX"
"""Read by the feeder: the file with an emulated processor's secret, and "emulated"."""

DEFAULT_HEAP = "4MiB"

HEAP_OVERHEAD_BYTES = 4 * 1024
"""What the largest arena is smaller than the heap, at most."""

SUITES = ("aes-256-gcm", "chacha20-poly1305")


def cache_folder() -> Path:
    """Where images lie that are made as they are needed, the key that signs them, and an emulated processor's
    secret."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinytee" / "sgx"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _built(name: str) -> Path:
    """A file of the SGX port, where the library is.

    Raises:
        EngineError: it is not built.
    """
    places = [place.parent / "sgx" / name for place in library.PLACES]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise EngineError(
            f"{name} is not built: it needs an x86-64 machine, BearSSL (Debian's libbearssl-dev) and 'make lib' in"
            " tinytee's source tree"
        )
    return found


def build_image(heap: str, isa: str, signing_key: Any, *, is_development: bool) -> enclave.Image:
    """Makes an enclave's image.

    Args:
        heap: its size, as "4MiB".
        isa: instruction set of its kernels, a key of :data:`enclave.XFRM`.
        signing_key: see :func:`enclave.build`.
        is_development: whether it takes keys in the clear.

    Raises:
        EngineError: the enclave is not built here.
        ValueError: there is no such instruction set, size or key.
    """
    if isa not in enclave.XFRM:
        raise ValueError(f"there is no enclave for '{isa}'; there are {', '.join(enclave.XFRM)}")
    elf = _built(f"tinytee-enclave-{isa}").read_bytes()
    return enclave.build(elf, isa, parse_size(heap), signing_key, is_development=is_development)


def own_signing_key() -> Any:
    """The key that signs images for this user, made when it is first needed. SGX wants a signature; nothing here
    depends on whose it is."""
    path = cache_folder() / "signing.pem"
    if not path.exists():
        write_aside(path, enclave.signing_key_bytes(enclave.make_signing_key()), private=True)
    return enclave.load_signing_key(path.read_bytes())


def chosen_image() -> Path:
    """The image that the environment asks for, made if need be.

    Raises:
        EngineError, ValueError: it cannot be made.
    """
    said = os.environ.get
    if named := said(IMAGE_VARIABLE):
        return Path(named)
    heap, isa = said(HEAP_VARIABLE) or DEFAULT_HEAP, library.best_isa()
    image = build_image(heap, isa, own_signing_key(), is_development=said(PRODUCTION_VARIABLE, "0") in ("", "0"))
    path = cache_folder() / f"{isa}-{heap}-{image.measurement.hex()[:16]}.enclave"
    if not path.exists():
        write_aside(path, image.data)
    return path


def connect(name: str, image: Path | None = None) -> Link:
    """A feeder with that image, or the chosen one, for the backend "sgx" or "sgx-emulated"; or, wherever that is, the
    feeder that TINYTEE_FEEDER names, which has an image of its own."""
    if command := chosen_feeder():
        return ProgramLink(command)
    image = image or chosen_image()
    environment = {IMAGE_VARIABLE: str(image), PROCESSOR_VARIABLE: "emulated" if name == "sgx-emulated" else ""}
    if not os.environ.get(DEVICE_VARIABLE):
        environment[DEVICE_VARIABLE] = str(cache_folder() / "device")
    return ProgramLink([str(_built("tinytee-feeder-sgx"))], environment)


def open_backend(name: str, bundle: Bundle, key: bytes | SealedKey) -> TrustedBackend:
    """A session of the backend "sgx" or "sgx-emulated"."""
    image = None if chosen_feeder() else chosen_image()
    isa = "unknown" if image is None else enclave.read_isa(image)
    return TrustedBackend(bundle, key, Tee("SGX", "enclave", isa, SUITES), lambda: connect(name, image))


def device_key(name: str) -> bytes:
    """The public key of this processor's enclave."""
    return read_device(connect(name))
