"""Is a certificate read as another implementation reads it?"""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, strategies as st

from sidecar.wire.x509 import read_der, read_pem

KEY: Final = ec.generate_private_key(ec.SECP256R1())
MOMENTS: Final = st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
URIS: Final = st.from_regex(r"spiffe://[a-z]{1,9}/[a-z/]{0,200}", fullmatch=True)


def make(
    serial: int, begins: datetime, ends: datetime, names: list[x509.GeneralName], subject: str = "x"
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(KEY, hashes.SHA256())


NOW: Final = datetime(2026, 11, 30, 12, 30, 59, tzinfo=UTC)
ONE: Final = make(7, NOW, NOW + timedelta(days=1), [x509.UniformResourceIdentifier("spiffe://a/b")])


@given(
    st.integers(1, 2**159 - 1),
    MOMENTS,
    st.timedeltas(timedelta(), timedelta(days=40000)),
    st.lists(st.one_of(URIS.map(x509.UniformResourceIdentifier), st.just(x509.DNSName("a.b")))),
)
def test_serial_validity_and_uris_are_what_others_read(
    serial: int, begins: datetime, lifetime: timedelta, names: list[x509.GeneralName]
) -> None:
    theirs = make(serial, begins, begins + timedelta(seconds=int(lifetime.total_seconds())), names)

    ours = read_der(theirs.public_bytes(Encoding.DER))

    uris = tuple(str(n.value) for n in names if isinstance(n, x509.UniformResourceIdentifier))
    assert ours.serial == theirs.serial_number
    assert (ours.begins, ours.ends) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    assert ours.uris == uris


@given(st.data())
def test_less_than_a_whole_certificate_is_refused(data: st.DataObject) -> None:
    whole = ONE.public_bytes(Encoding.DER)

    with pytest.raises(ValueError, match="expected a certificate"):
        read_der(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary())
def test_whatever_octets_come_the_error_is_one(octets: bytes) -> None:
    with pytest.raises(ValueError, match="expected a certificate"):
        read_der(octets)


def test_a_moment_that_is_none_is_refused() -> None:
    der = ONE.public_bytes(Encoding.DER).replace(b"261130123059Z", b"2611301230590")

    with pytest.raises(
        ValueError, match="got other octets: expected a time in UTC, got b'202611301230590'"
    ):
        read_der(der)


def test_a_chain_is_read_in_its_order_with_what_stands_between() -> None:
    other = make(8, NOW, NOW, [])
    pem = ONE.public_bytes(Encoding.PEM) + b"subject=x\n" + other.public_bytes(Encoding.PEM)

    assert [one.serial for one in read_pem(pem)] == [7, 8]


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
    with pytest.raises(ValueError, match="expected a certificate"):
        read_pem(pem)
