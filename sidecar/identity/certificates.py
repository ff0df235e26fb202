"""Certificates as far as an operator is told of them: serial, validity, URIs.

Nothing is verified here: that is for OpenSSL, when a peer shows one or a key is loaded.
"""

from datetime import datetime
from typing import NamedTuple


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
    from cryptography import x509  # noqa: PLC0415 - 6 MB, for agents that have a certificate

    found = []
    for one in x509.load_pem_x509_certificates(pem):
        try:
            names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            uris = []
        else:
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        validity = one.not_valid_before_utc, one.not_valid_after_utc
        found.append(Certificate(one.serial_number, *validity, tuple(uris)))
    return found
