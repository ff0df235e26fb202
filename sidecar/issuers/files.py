"""Key material from PEM files."""

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.identity import Certificates, Secret

MAX_SIZE: Final = 4 * 1024 * 1024  # octets; a bundle of all public roots has a quarter of it

_PARTS: Final = ("certificate", "key", "roots")


def load(certificates: Certificates) -> Secret:
    """Return what the files hold.

    Raises:
        ConfigErrors: unreadable, not PEM, a key that is not the certificate's, expired.
    """
    errors: list[ConfigError] = []
    data: dict[str, bytes] = {}
    for part in _PARTS:
        try:
            data[part] = _read(getattr(certificates, part))
        except OSError as error:
            path = getattr(certificates, part)
            reason = error.strerror or str(error)
            errors.append(ConfigError(f"certificates.{part}", f"cannot read {path!r}: {reason}"))
    if not errors:
        errors = check(Secret(**data))
    if errors:
        raise ConfigErrors(errors)
    return Secret(**data)


def check(secret: Secret) -> list[ConfigError]:
    """Return what is wrong with key material."""
    errors = []
    chain = _certificates(secret.certificate, "certificates.certificate", errors)
    _certificates(secret.roots, "certificates.roots", errors)
    public = _public_half(secret.key, errors)
    if chain and public is not None and public != _public_key(chain[0]):
        errors.append(ConfigError("certificates.key", "is not the key of the certificate"))
    if chain and chain[0].not_valid_after_utc < datetime.now(UTC):
        end = chain[0].not_valid_after_utc
        errors.append(
            ConfigError("certificates.certificate", f"expired on {end:%Y-%m-%d %H:%M} UTC")
        )
    return errors


def watched(certificates: Certificates) -> tuple[str, ...]:
    """Return the paths whose change means: load again."""
    return (certificates.certificate, certificates.key, certificates.roots)


def _read(path: str) -> bytes:
    """Return the content of the file at `path`.

    Raises:
        OSError: it cannot be read, or is not what one reads: a pipe would make us wait for ever.
    """
    file = Path(path)
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("expected a file, it is none")
    if status.st_size > MAX_SIZE:
        raise OSError(f"expected at most {MAX_SIZE} octets, it has {status.st_size}")
    return file.read_bytes()


def _certificates(pem: bytes, path: str, errors: list[ConfigError]) -> list[x509.Certificate]:
    """Return the certificates in `pem`; the text about none goes to `errors`."""
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        errors.append(ConfigError(path, "holds no PEM certificate (-----BEGIN CERTIFICATE-----)"))
        return []
    try:
        chain = x509.load_pem_x509_certificates(pem)
        for certificate in chain:
            _public_key(certificate)  # parsed only when it is asked for
    except (ValueError, UnsupportedAlgorithm) as error:
        errors.append(ConfigError(path, f"holds a certificate that cannot be parsed: {error}"))
        return []
    return chain


def _public_half(pem: bytes, errors: list[ConfigError]) -> bytes | None:
    """Return the public key of the private key in `pem`; the text about none goes to `errors`."""
    path = "certificates.key"
    if b"PRIVATE KEY-----" not in pem:
        errors.append(ConfigError(path, "holds no PEM private key (-----BEGIN PRIVATE KEY-----)"))
        return None
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:  # what cryptography raises for a password that was not given
        errors.append(ConfigError(path, "is encrypted: expected a key without a password"))
    except (ValueError, UnsupportedAlgorithm):
        # Without the library's text: it may quote what it read.
        errors.append(ConfigError(path, "holds a private key that cannot be parsed"))
    else:
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return None


def _public_key(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
