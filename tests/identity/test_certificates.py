"""What an operator is told of certificates, and of files that hold none."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.identity.certificates import Certificate, read_pem

KEY: Final = ec.generate_private_key(ec.SECP256R1())
NOW: Final = datetime(2026, 11, 30, 12, 30, 59, tzinfo=UTC)
DAY: Final = timedelta(days=1)


def make(serial: int, names: list[x509.GeneralName]) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + DAY)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_chain_is_read_in_its_order_with_what_stands_between() -> None:
    names = [x509.UniformResourceIdentifier("spiffe://a/b"), x509.DNSName("a.b")]
    assert read_pem(make(7, names) + b"subject=x\n" + make(8, [])) == [
        Certificate(7, NOW, NOW + DAY, ("spiffe://a/b",)),
        Certificate(8, NOW, NOW + DAY, ()),
    ]


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nMQ==\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nMA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    ],
    ids=["nothing", "a key", "no base64", "an empty one"],
)
def test_a_file_without_a_certificate_is_refused(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_pem(pem)
