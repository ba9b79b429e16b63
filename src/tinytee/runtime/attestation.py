"""Quotes: what tells a model's owner, far away, that a device key is an enclave's on a genuine SGX processor.

A quote is the enclave's report (its measurement, and the device key) signed by Intel's quoting enclave (ECDSA, DCAP).
It is made on the machine by Intel's library libsgx_dcap_ql, and verified anywhere by dcap-qvl, against Intel's
*collateral*: the certificates, revocation lists and patch levels of that kind of processor.
"""

from __future__ import annotations

import importlib
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cffi import FFI

from tinytee.bundle.enclave import MODE64BIT, XFRM, constants
from tinytee.errors import AuthenticationError, EngineError
from tinytee.runtime import sgx
from tinytee.runtime.provisioning import DEVICE_KEY_BYTES
from tinytee.runtime.trusted import Link
from tinytee.runtime.wire import ffi, numbers, record

PCS = "https://api.trustedservices.intel.com"
"""Intel's provisioning service."""

QUOTING_LIBRARY = "libsgx_dcap_ql.so.1"

ACCEPTED = ("UpToDate",)
"""What Intel says of a processor's microcode and configuration, if nothing is missing."""

MEASUREMENT_BYTES = 32

_HEADER_BYTES, _REPORT_BYTES = 48, 384
_VERSION, _SGX = 3, 0
_INIT, _DEBUG = 1, 2
_ATTRIBUTES = _INIT | MODE64BIT
_MEMREF_IN, _MEMREF_OUT = 5, 6
_TEXT = b"tinytee device key".ljust(constants.TTE_REPORTDATA_BYTES - DEVICE_KEY_BYTES, b"\0")


@dataclass(frozen=True)
class Attested:
    """What a verified quote says.

    Attributes:
        device_key: the enclave's public key, 32 bytes, X25519.
        measurement, signer: MRENCLAVE and MRSIGNER, 32 bytes each.
        status: of the processor's microcode and configuration, as Intel calls it: "UpToDate", "SWHardeningNeeded", ...
        advisories: Intel's advisories that apply, as "INTEL-SA-00615".
    """

    device_key: bytes
    measurement: bytes
    signer: bytes
    status: str
    advisories: tuple[str, ...]


def make_quote(backend: str = "sgx") -> bytes:
    """A quote of this machine's enclave, by Intel's quoting library.

    Args:
        backend: "sgx"; or "sgx-emulated", of which nobody's quoting enclave believes a report.

    Raises:
        EngineError: there is no SGX or no such library here, or one of the two refuses.
    """
    library = FFI()
    library.cdef(
        "uint32_t sgx_qe_get_target_info(void *target);"
        "uint32_t sgx_qe_get_quote_size(uint32_t *bytes);"
        "uint32_t sgx_qe_get_quote(const void *report, uint32_t bytes, void *quote);"
    )
    try:
        quoting: Any = library.dlopen(QUOTING_LIBRARY)
    except OSError:
        raise EngineError(
            f"quotes are made by Intel's {QUOTING_LIBRARY}, which is not installed: see docs/sgx.md#attestation"
        ) from None
    target, size = library.new("uint8_t[]", constants.TTE_TARGETINFO_BYTES), library.new("uint32_t *")
    _check_quoting("sgx_qe_get_target_info", quoting.sgx_qe_get_target_info(target))
    report = _read_report(sgx.connect(backend), bytes(library.buffer(target)))
    _check_quoting("sgx_qe_get_quote_size", quoting.sgx_qe_get_quote_size(size))
    quote = library.new("uint8_t[]", size[0])
    _check_quoting("sgx_qe_get_quote", quoting.sgx_qe_get_quote(report, size[0], quote))
    return bytes(library.buffer(quote))


def _check_quoting(name: str, result: int) -> None:
    if result != 0:
        raise EngineError(
            f"{name} fails ({result:#x}): see that this machine's PCK and Intel's quoting enclave are set up"
        )


def _read_report(link: Link, target: bytes) -> bytes:
    """The enclave's REPORT for a target. The link is closed."""
    size = constants.TTE_REPORT_BYTES
    slots = [(len(target), 1), (size, 1), (0, 0), (0, 0)]
    call = {"command": constants.TTE_REPORT, "types": _MEMREF_IN | _MEMREF_OUT << 4, "slots": slots}
    try:
        with link.lock:
            link.wire.ask(numbers.TTF_DEVICE, link.number)
            made = bytes(ffi.buffer(ffi.new("ttf_invocation *", call)))
            answer = link.wire.ask(numbers.TTF_INVOKE, link.number, made, target)
    finally:
        link.close()
    if record("ttf_result", answer).result != 0:
        raise EngineError("the enclave gives no report: it is of another version")
    return bytes(answer[ffi.sizeof("ttf_result") :])


def _qvl() -> Any:
    try:
        return importlib.import_module("dcap_qvl")
    except ImportError:
        raise EngineError("quotes are verified by dcap-qvl: pip install 'tinytee[attest]'") from None


def fetch_collateral(quote: bytes, url: str) -> str:
    """The collateral of a quote, as JSON, from a caching service (PCCS) or from Intel's own (PCS).

    Raises:
        EngineError: dcap-qvl is not installed, the service does not answer, or the quote is none.
    """
    import asyncio  # noqa: PLC0415 # takes longer to import than all else here

    qvl = _qvl()

    async def fetch() -> str:
        return (await qvl.get_collateral(url, quote)).to_json()

    try:
        return asyncio.run(fetch())
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"no collateral from {url}: {error}") from None


def verify_quote(
    quote: bytes,
    collateral: str,
    measurement: bytes,
    *,
    accepted: Sequence[str] = ACCEPTED,
    now: float | None = None,
    root: bytes | None = None,
) -> Attested:
    """Verifies that a quote is of a certain enclave on a genuine, patched SGX processor.

    Args:
        quote: as :func:`make_quote` made it.
        collateral: as :func:`fetch_collateral` got it; its signatures are verified, so it may come from anywhere.
        measurement: the enclave that is to be trusted, as 'tinytee sgx build' says it; 32 bytes.
        accepted: statuses that are good enough.
        now: seconds since 1970, for what expires; None: the clock's.
        root: certificate, in DER, that is trusted in place of Intel's root; for tests.

    Raises:
        AuthenticationError: the quote is not that; the text says why.
        EngineError: dcap-qvl is not installed.
    """
    qvl = _qvl()
    seconds = int(time.time() if now is None else now)
    try:
        parsed = qvl.QuoteCollateralV3.from_json(collateral)
        if root is None:
            found = qvl.verify(quote, parsed, seconds)
        else:
            found = qvl.verify_with_root_ca(quote, parsed, root, seconds)
    except ValueError as error:
        raise AuthenticationError(f"the quote does not verify: {' '.join(str(error).split())}") from None
    version, _, tee = struct.unpack_from("<HHI", quote)
    if (version, tee) != (_VERSION, _SGX):
        raise AuthenticationError("the quote is not one of SGX, version 3")
    body = quote[_HEADER_BYTES : _HEADER_BYTES + _REPORT_BYTES]
    enclave, signer, data = body[64:96], body[128:160], body[320:384]
    (misc_select,), (attributes, xfrm) = struct.unpack_from("<I", body, 16), struct.unpack_from("<QQ", body, 48)
    if enclave != measurement:
        raise AuthenticationError(f"the quote is of enclave {enclave.hex()}, not of {measurement.hex()}")
    if attributes & _DEBUG:
        raise AuthenticationError("the quote is of an enclave that can be looked into (DEBUG)")
    # The measurement does not cover these, with which the same pages could be made to run as something else.
    if attributes != _ATTRIBUTES or xfrm not in XFRM.values() or misc_select:
        raise AuthenticationError(f"the enclave was started with attributes {attributes:#x} and XFRM {xfrm:#x}")
    if data[DEVICE_KEY_BYTES:] != _TEXT:
        raise AuthenticationError("the quote is of tinytee's enclave, but of no device key")
    if found.status not in accepted:
        concerns = f" ({', '.join(found.advisory_ids)})" if found.advisory_ids else ""
        raise AuthenticationError(
            f"the processor is genuine, but Intel says {found.status}{concerns}: update its microcode, or accept that"
        )
    return Attested(data[:DEVICE_KEY_BYTES], enclave, signer, found.status, tuple(found.advisory_ids))
