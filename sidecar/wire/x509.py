"""Certificates as far as an operator is told of them: serial, validity, URIs (RFC 5280 §4.1).

Nothing is verified here: that is for OpenSSL, when a peer shows one or a key is loaded.
"""

import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

# Tags, the class and the constructed bit included (X.690 §8.1.2).
UTC_TIME: Final = 0x17
VERSION: Final = 0xA0
EXTENSIONS: Final = 0xA3
URI: Final = 0x86  # of a GeneralName (RFC 5280 §4.2.1.6)

SUBJECT_ALT_NAME: Final = bytes((0x55, 0x1D, 0x11))  # 2.5.29.17

# RFC 7468 §5: what stands around the blocks, and other kinds of them, is passed over.
_PEM: Final = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END (?:X509 )?CERTIFICATE-----"
)
_TIME: Final = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


class Certificate(NamedTuple):
    """What one says."""

    serial: int
    begins: datetime
    ends: datetime
    uris: tuple[str, ...]
    """Of its subject alternative names: there a workload has its SPIFFE ID."""


def read_pem(pem: bytes) -> list[Certificate]:
    """Return the certificates of `pem`, at least one.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    found = [read_der(_octets(block)) for block in _PEM.findall(pem)]
    if not found:
        raise ValueError("expected a certificate, got no PEM")
    return found


def read_der(der: bytes) -> Certificate:
    """Return what a certificate says.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        (_, certificate), *_ = _elements(der)
        (_, signed), *_ = _elements(certificate)
        fields = [field for field in _elements(signed) if field[0] != VERSION]
        (_, serial), _, _, (_, validity), *_ = fields
        (begins, ends) = map(_moment, _elements(validity))
        uris = [uri for tag, content in fields if tag == EXTENSIONS for uri in _uris(content)]
    except (IndexError, ValueError) as error:
        raise ValueError(f"expected a certificate, got other octets: {error}") from None
    return Certificate(int.from_bytes(serial, signed=True), begins, ends, tuple(uris))


def _octets(block: bytes) -> bytes:
    try:
        return binascii.a2b_base64(block)
    except binascii.Error as error:
        raise ValueError(f"expected a certificate, got no base64: {error}") from None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element (X.690 §8.1, §10.1)."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size >= 0x80:
            octets = size & 0x7F
            size = int.from_bytes(data[at : at + octets])
            at += octets
        content = data[at : at + size]
        if len(content) < size:
            raise IndexError("less than a whole element")
        yield tag, content
        at += size


def _moment(element: tuple[int, bytes]) -> datetime:
    """Return a time, which RFC 5280 §4.1.2.5 wants in seconds and UTC."""
    tag, content = element
    if tag == UTC_TIME:  # of two digits, 50 and more are of the century before
        content = (b"19" if content >= b"50" else b"20") + content
    found = _TIME.fullmatch(content)
    if found is None:
        raise ValueError(f"expected a time in UTC, got {content!r}")
    return datetime(*map(int, found.groups()), tzinfo=UTC)  # type: ignore[arg-type,misc]  # six of them


def _uris(content: bytes) -> Iterator[str]:
    """Yield the URIs among the names in `content`, the extensions."""
    ((_, extensions),) = _elements(content)
    for _, extension in _elements(extensions):
        (_, name), *_, (_, value) = _elements(extension)
        if name != SUBJECT_ALT_NAME:
            continue
        ((_, names),) = _elements(value)
        for tag, text in _elements(names):
            if tag == URI:
                yield text.decode("ascii")
