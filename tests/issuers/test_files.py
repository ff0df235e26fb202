"""Is key material that cannot be used refused, by the field that names it?"""

from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from sidecar.issuers.ephemeral import Authority
from sidecar.issuers.files import check
from sidecar.model.identity import Secret

AUTHORITY: Final = Authority("test")
GOOD: Final = AUTHORITY.issue("spiffe://test/ns/default/sa/web")
NOT_ITS: Final = "certificates.key: is not the key of the certificate"
UNUSABLE: Final = "certificates.key: holds no usable PEM key: "


def faults(certificate: bytes, key: bytes, roots: bytes = GOOD.roots) -> list[str]:
    return [str(error) for error in check(Secret(certificate=certificate, key=key, roots=roots))]


def pem(key: PrivateKeyTypes, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_a_pair_with_its_roots_is_good() -> None:
    assert faults(GOOD.certificate, GOOD.key) == []


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["the same kind", "another curve", "rsa", "ed25519"],
)
def test_the_key_of_another_certificate_is_refused(key: PrivateKeyTypes) -> None:
    assert faults(GOOD.certificate, pem(key)) == [NOT_ITS]


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"no PEM",
        GOOD.key[:100],
        pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"secret")),
    ],
    ids=["empty", "other text", "cut", "encrypted"],
)
def test_a_key_that_cannot_be_read_is_refused_and_no_terminal_asked(key: bytes) -> None:
    (told,) = faults(GOOD.certificate, key)

    assert told.startswith(UNUSABLE)


def test_files_that_hold_something_else_are_refused() -> None:
    told = faults(GOOD.key, GOOD.key, b"roots")

    assert told == [
        "certificates.certificate: holds no PEM certificate",
        "certificates.roots: holds no PEM certificate",
    ]


def test_a_certificate_that_has_ended_is_refused() -> None:
    old = AUTHORITY.issue("spiffe://test/ns/default/sa/web", begins=-100, lifetime=10)

    (told,) = faults(old.certificate, old.key)

    assert told.startswith("certificates.certificate: expired on ")
