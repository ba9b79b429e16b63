"""A stand-in for Intel: its certificates, and a quoting enclave that believes any report.

Formats as of "Intel SGX ECDSA Quote Library Reference" (quotes), "SGX PCK Certificate and CRL Profile Specification"
and the provisioning service's API, version 4 (collateral).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import struct
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)
YEAR = datetime.timedelta(days=365)
FMSPC = bytes.fromhex("00906ea10000")
PCE_ID = bytes(2)
PCE_SVN = 11
CPU_SVN = bytes([5] * 16)
SGX = "1.2.840.113741.1.13.1"
QE_SIGNER = bytes(range(32))


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    head = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + head + body


def _oid(text: str) -> bytes:
    numbers = [int(number) for number in text.split(".")]
    out = bytearray([40 * numbers[0] + numbers[1]])
    for number in numbers[2:]:
        digits = [number & 127]
        while number := number >> 7:
            digits.append(number & 127 | 128)
        out += bytes(reversed(digits))
    return _der(6, bytes(out))


def _integer(value: int) -> bytes:
    return _der(2, bytes([value]))


def _entry(oid: str, value: bytes) -> bytes:
    return _der(0x30, _oid(oid), value)


def _sgx_extension() -> bytes:
    components = [_entry(f"{SGX}.2.{i + 1}", _integer(svn)) for i, svn in enumerate(CPU_SVN)]
    components += [_entry(f"{SGX}.2.17", _integer(PCE_SVN)), _entry(f"{SGX}.2.18", _der(4, CPU_SVN))]
    return _der(
        0x30,
        _entry(f"{SGX}.1", _der(4, bytes(16))),
        _entry(f"{SGX}.2", _der(0x30, *components)),
        _entry(f"{SGX}.3", _der(4, PCE_ID)),
        _entry(f"{SGX}.4", _der(4, FMSPC)),
        _entry(f"{SGX}.5", _der(10, b"\0")),
    )


@dataclass
class _Authority:
    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate = field(init=False)


def _named(common_name: str) -> _Authority:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return _Authority(name, ec.generate_private_key(ec.SECP256R1()))


def _certify(issuer: _Authority, subject: _Authority, is_ca: bool, *extensions: x509.ExtensionType) -> None:
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject.name)
        .issuer_name(issuer.name)
        .public_key(subject.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - YEAR)
        .not_valid_after(NOW + YEAR)
        .add_extension(x509.BasicConstraints(is_ca, 1 if is_ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject.key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .add_extension(_distribution_point(), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    subject.certificate = builder.sign(issuer.key, hashes.SHA256())


def _distribution_point() -> x509.CRLDistributionPoints:
    place = x509.UniformResourceIdentifier("https://example.invalid/crl")
    return x509.CRLDistributionPoints([x509.DistributionPoint([place], None, None, None)])


def _pem(*subjects: _Authority) -> bytes:
    return b"".join(subject.certificate.public_bytes(Encoding.PEM) for subject in subjects)


class Intel:
    """Certificates for a processor, its quoting enclave, and the collateral that goes with them."""

    def __init__(self) -> None:
        self.root, self.platform = _named("Intel SGX Root CA"), _named("Intel SGX PCK Platform CA")
        self.pck, self.signing = _named("Intel SGX PCK Certificate"), _named("Intel SGX TCB Signing")
        _certify(self.root, self.root, True)
        _certify(self.root, self.platform, True)
        _certify(self.root, self.signing, False)
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX), _sgx_extension())
        _certify(self.platform, self.pck, False, extension)
        self.attestation = ec.generate_private_key(ec.SECP256R1())

    @property
    def root_der(self) -> bytes:
        return self.root.certificate.public_bytes(Encoding.DER)

    def quote(self, report: bytes) -> bytes:
        """A quote, version 3, of an enclave's REPORT."""
        header = struct.pack(
            "<HHIHH16s20s", 3, 2, 0, 8, PCE_SVN, bytes.fromhex("939a7233f79c4ca9940a0db3957f0607"), bytes(20)
        )
        signed = header + report[:384]
        public = self.attestation.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        auth = bytes(32)
        own = bytearray(384)
        own[:16] = CPU_SVN
        own[48:64] = struct.pack("<QQ", 0x15, 0xE7)
        own[128:160] = QE_SIGNER
        own[256:260] = struct.pack("<HH", 1, 8)
        own[320:352] = hashlib.sha256(public + auth).digest()
        chain = _pem(self.pck, self.platform, self.root)
        signature = _sign(self.attestation, signed) + public + bytes(own) + _sign(self.pck.key, bytes(own))
        signature += struct.pack("<H", len(auth)) + auth + struct.pack("<HI", 5, len(chain)) + chain
        return signed + struct.pack("<I", len(signature)) + signature

    def collateral(self, status: str = "UpToDate", revoked: bool = False) -> str:
        """Says that the processor's patch level is of that status, or its certificate revoked."""
        dates = {
            "issueDate": _text(NOW - YEAR / 12),
            "nextUpdate": _text(NOW + YEAR / 12),
            "tcbEvaluationDataNumber": 17,
        }
        concerns = {} if status == "UpToDate" else {"advisoryIDs": ["INTEL-SA-00615"]}
        level = {"tcbDate": _text(NOW - YEAR), "tcbStatus": status, **concerns}
        tcb = {"sgxtcbcomponents": [{"svn": svn} for svn in CPU_SVN], "pcesvn": PCE_SVN}
        info = {
            "id": "SGX",
            "version": 3,
            **dates,
            "fmspc": FMSPC.hex().upper(),
            "pceId": PCE_ID.hex(),
            "tcbType": 0,
            "tcbLevels": [{"tcb": tcb, **level}],
        }
        identity = {
            "id": "QE",
            "version": 2,
            **dates,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": struct.pack("<QQ", 0x11, 0).hex(),
            "attributesMask": struct.pack("<QQ", 0xFFFFFFFFFFFFFFFB, 0).hex(),
            "mrsigner": QE_SIGNER.hex(),
            "isvprodid": 1,
            "tcbLevels": [{"tcb": {"isvsvn": 8}, "tcbDate": _text(NOW - YEAR), "tcbStatus": "UpToDate"}],
        }
        texts = {
            "tcb_info": json.dumps(info, separators=(",", ":")),
            "qe_identity": json.dumps(identity, separators=(",", ":")),
        }
        chain = _pem(self.signing, self.root).decode()
        return json.dumps(
            {
                "pck_crl_issuer_chain": _pem(self.platform, self.root).decode(),
                "root_ca_crl": self._revocations(self.root).hex(),
                "pck_crl": self._revocations(self.platform, *([self.pck] if revoked else [])).hex(),
                "tcb_info_issuer_chain": chain,
                "qe_identity_issuer_chain": chain,
                **texts,
                **{f"{name}_signature": _sign(self.signing.key, text.encode()).hex() for name, text in texts.items()},
            }
        )

    def _revocations(self, issuer: _Authority, *revoked: _Authority) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.name)
            .last_update(NOW - YEAR / 12)
            .next_update(NOW + YEAR / 12)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW - YEAR / 12).build())
        return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _text(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Service(ThreadingHTTPServer):
    """Intel's provisioning service, as far as collateral goes, on this machine. A context manager."""

    def __init__(self, collateral: str) -> None:
        self.collateral = json.loads(collateral)
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Service:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Service)
        known, path = self.server.collateral, urllib.parse.urlparse(self.path).path
        answers: dict[str, tuple[bytes, str, str]] = {
            "pckcrl": (bytes.fromhex(known["pck_crl"]), "SGX-PCK-CRL-Issuer-Chain", known["pck_crl_issuer_chain"]),
            "rootcacrl": (known["root_ca_crl"].encode(), "", ""),
        }
        for name, member, header in (
            ("tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain"),
            ("qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"),
        ):
            text = f'{{"{member}":{known[name]},"signature":"{known[f"{name}_signature"]}"}}'
            answers[name] = (text.encode(), header, known[f"{name}_issuer_chain"])
        kinds = {"pckcrl": "pckcrl", "rootcacrl": "rootcacrl", "tcb": "tcb_info", "identity": "qe_identity"}
        kind = kinds.get(path.rsplit("/", 1)[-1])
        if kind is None:
            self.send_error(404)
            return
        body, header, chain = answers[kind]
        self.send_response(200)
        if header:
            self.send_header(header, urllib.parse.quote(chain))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
