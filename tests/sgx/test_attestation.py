"""From an enclave's report to a model key that is sealed to it: quotes of a stand-in for Intel (intel.py)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tinytee
from tinytee.cli import app
from tinytee.errors import AuthenticationError, EngineError
from tinytee.runtime import attestation, library, provisioning, sgx

from .intel import NOW, YEAR, Intel, Service

# An Intel quoting library that gives the report itself for a quote.
QUOTING = """
#include <stdint.h>
#include <string.h>
uint32_t sgx_qe_get_target_info(void *target) { memset(target, 0, 512); return FAILS; }
uint32_t sgx_qe_get_quote_size(uint32_t *bytes) { *bytes = 432; return 0; }
uint32_t sgx_qe_get_quote(const void *report, uint32_t bytes, void *quote) { memcpy(quote, report, bytes); return 0; }
"""

MEASUREMENT = slice(64, 96)


@pytest.fixture(scope="module")
def intel() -> Intel:
    return Intel()


def quoting_library(folder: Path, fails: int = 0) -> str:
    path = folder / "libsgx_dcap_ql.so.1"
    command = ["gcc", "-shared", "-fPIC", f"-DFAILS={fails}", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=QUOTING.encode(), check=True)
    return str(path)


@pytest.fixture
def emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated processor of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def report(emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Of the chosen enclave, as the quoting library gets it."""
    monkeypatch.setattr(attestation, "QUOTING_LIBRARY", quoting_library(tmp_path))
    return attestation.make_quote("sgx-emulated")


def verify(intel: Intel, report: bytes, status: str = "UpToDate", **options: object) -> attestation.Attested:
    given = {"measurement": report[MEASUREMENT], "now": NOW.timestamp(), "root": intel.root_der, **options}
    return attestation.verify_quote(intel.quote(report), intel.collateral(status), **given)  # type: ignore[arg-type]


def test_a_quote_says_whose_key_it_is(intel: Intel, report: bytes) -> None:
    found = verify(intel, report)
    assert found.device_key == tinytee.device_key("sgx-emulated")
    image = sgx.build_image("4MiB", library.best_isa(), sgx.own_signing_key(), is_development=True)
    assert (found.measurement, found.signer) == (image.measurement, image.signer)
    assert (found.status, found.advisories) == ("UpToDate", ())


def test_another_enclave(intel: Intel, report: bytes) -> None:
    with pytest.raises(AuthenticationError, match=f"is of enclave {report[MEASUREMENT].hex()}, not of {'00' * 32}"):
        verify(intel, report, measurement=bytes(32))


def changed(report: bytes, at: int, value: int) -> bytes:
    return report[:at] + bytes([value]) + report[at + 1 :]


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [(48, 0x07, "[Dd]ebug|DEBUG"), (320 + 32, ord("x"), "of no device key"), (320 + 63, 1, "of no device key")],
)
def test_reports_that_are_none(intel: Intel, report: bytes, at: int, value: int, says: str) -> None:
    """Signed all the same: of an enclave that can be debugged, and with other data."""
    with pytest.raises(AuthenticationError, match=says):
        verify(intel, changed(report, at, value))


def test_forged_quotes(intel: Intel, report: bytes) -> None:
    """A bit in any part of what is signed, and of the signatures."""
    quote = intel.quote(report)
    signed_bytes = 48 + 384
    places = [*range(0, signed_bytes, 7), *range(signed_bytes + 4, signed_bytes + 4 + 64 + 64 + 384 + 64, 31)]
    for place in places:
        forged = bytearray(quote)
        forged[place] ^= 1
        with pytest.raises(AuthenticationError):
            attestation.verify_quote(
                bytes(forged),
                intel.collateral(),
                report[MEASUREMENT],
                now=NOW.timestamp(),
                root=intel.root_der,
            )


def test_cut_quotes(intel: Intel, report: bytes) -> None:
    quote = intel.quote(report)
    for size in (0, 1, 47, 48, 431, 432, 435, 436, 1000, len(quote) - 1):
        with pytest.raises(AuthenticationError, match="does not verify"):
            attestation.verify_quote(quote[:size], intel.collateral(), report[MEASUREMENT], root=intel.root_der)


def test_collateral_that_is_none(intel: Intel, report: bytes) -> None:
    """Each part is needed, but the chain of the PCK's revocation list: that is the one in the quote."""
    good = json.loads(intel.collateral())
    for name in good.keys() - {"pck_crl_issuer_chain"}:
        for bad in ({**good, name: ""}, {key: value for key, value in good.items() if key != name}):
            with pytest.raises(AuthenticationError, match="does not verify"):
                attestation.verify_quote(
                    intel.quote(report), json.dumps(bad), report[MEASUREMENT], now=NOW.timestamp(), root=intel.root_der
                )


def test_others_certificates(intel: Intel, report: bytes) -> None:
    """Nobody but Intel is Intel; certificates expire, and are revoked."""
    with pytest.raises(AuthenticationError, match="does not verify"):
        verify(intel, report, root=None)
    with pytest.raises(AuthenticationError, match="does not verify"):
        verify(intel, report, root=Intel().root_der)
    with pytest.raises(AuthenticationError, match="does not verify"):
        verify(intel, report, now=(NOW + 2 * YEAR).timestamp())
    with pytest.raises(AuthenticationError, match="does not verify"):
        attestation.verify_quote(
            intel.quote(report),
            intel.collateral(revoked=True),
            report[MEASUREMENT],
            now=NOW.timestamp(),
            root=intel.root_der,
        )


def test_processors_that_lack_something(intel: Intel, report: bytes) -> None:
    with pytest.raises(AuthenticationError, match=r"Intel says SWHardeningNeeded \(INTEL-SA-00615\): update"):
        verify(intel, report, "SWHardeningNeeded")
    found = verify(intel, report, "SWHardeningNeeded", accepted=("UpToDate", "SWHardeningNeeded"))
    assert found.advisories == ("INTEL-SA-00615",)


def test_no_quoting_library(emulated: None) -> None:
    with pytest.raises(EngineError, match=r"libsgx_dcap_ql\.so\.1, which is not installed"):
        attestation.make_quote("sgx-emulated")


def test_quoting_fails(emulated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attestation, "QUOTING_LIBRARY", quoting_library(tmp_path, fails=0xE019))
    with pytest.raises(EngineError, match=r"sgx_qe_get_target_info fails \(0xe019\)"):
        attestation.make_quote("sgx-emulated")


def test_no_collateral_service(report: bytes, intel: Intel) -> None:
    with pytest.raises(
        EngineError, match=r"no collateral from http://127\.0\.0\.1:9: .*127\.0\.0\.1:9/sgx/certification"
    ):
        attestation.fetch_collateral(intel.quote(report), "http://127.0.0.1:9")


def test_collateral_from_a_service(report: bytes, intel: Intel) -> None:
    quote = intel.quote(report)
    with Service(intel.collateral("SWHardeningNeeded")) as service:
        fetched = attestation.fetch_collateral(quote, service.url)
    found = attestation.verify_quote(
        quote,
        fetched,
        report[MEASUREMENT],
        accepted=["SWHardeningNeeded"],
        now=NOW.timestamp(),
        root=intel.root_der,
    )
    assert found.status == "SWHardeningNeeded"


def test_from_the_machine_to_the_owner_and_back(
    intel: Intel, report: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/sgx.md: a model key sealed on the strength of a quote opens a bundle in that enclave."""
    quote, collateral, sealed = tmp_path / "device.quote", tmp_path / "collateral.json", tmp_path / "device.key"
    key = tmp_path / "model.key"
    key.write_text("22" * 32 + "\n")
    run = CliRunner().invoke
    made = run(app, ["sgx", "quote", "--backend", "sgx-emulated", "-o", str(quote)], catch_exceptions=False)
    assert made.exit_code == 0
    assert quote.read_bytes() == report
    quote.write_bytes(intel.quote(report))
    collateral.write_text(intel.collateral("ConfigurationNeeded"))
    trusting = attestation.verify_quote

    def verify_with_its_root(*given: object, **options: object) -> attestation.Attested:
        return trusting(*given, now=NOW.timestamp(), root=intel.root_der, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(attestation, "verify_quote", verify_with_its_root)
    command = ["provision", "--quote", str(quote), "--collateral", str(collateral)]
    command += ["--measurement", report[MEASUREMENT].hex(), "--key-file", str(key), "-o", str(sealed)]
    refused = run(app, command)
    assert isinstance(refused.exception, AuthenticationError)
    assert not sealed.exists()
    done = run(app, [*command, "--accept", "ConfigurationNeeded"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "genuine, ConfigurationNeeded (INTEL-SA-00615)" in done.output
    device_key = tinytee.device_key("sgx-emulated")
    assert provisioning.SealedKey.load(sealed).device_key == device_key


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--quote", "q"], "give both --quote and --measurement"),
        (["--quote", "q", "--measurement", "12"], "64 hexadecimal digits"),
        (["--quote", "q", "--measurement", "xy" * 32], "64 hexadecimal digits"),
        (["--backend", "sgx", "--accept", "OutOfDate"], "are for a --quote"),
        (["--device-key", "11" * 32, "--collateral", "c"], "are for a --quote"),
        (["--device-key", "11" * 32, "--quote", "q"], "give either"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], says: str) -> None:
    failed = CliRunner().invoke(app, ["provision", *options])
    assert says in str(failed.exception)
