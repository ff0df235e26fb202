"""Key material from PEM files."""

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.identity import Certificates, Secret

_PARTS: Final = ("certificate", "key", "roots")


def load(certificates: Certificates) -> Secret:
    """Return what the files hold.

    Raises:
        ConfigErrors: unreadable, not PEM, a key that is not the certificate's, expired.
    """
    errors: list[ConfigError] = []
    data: dict[str, bytes] = {}
    for part in _PARTS:
        path = getattr(certificates, part)
        try:
            with open(path, "rb") as file:
                data[part] = file.read()
        except OSError as error:
            errors.append(
                ConfigError(f"certificates.{part}", f"cannot read {path!r}: {error.strerror}")
            )
    if not errors:
        errors = check(Secret(**data))
    if errors:
        raise ConfigErrors(errors)
    return Secret(**data)


def check(secret: Secret) -> list[ConfigError]:
    """Return what is wrong with key material."""
    try:
        chain = x509.load_pem_x509_certificates(secret.certificate)
    except ValueError:
        return [ConfigError("certificates.certificate", "holds no PEM certificate")]
    try:
        key = load_pem_private_key(secret.key, None)
    except (ValueError, TypeError) as error:
        return [ConfigError("certificates.key", f"holds no usable PEM key: {error}")]
    errors = []
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        errors.append(ConfigError("certificates.key", "is not the key of the certificate"))
    end = chain[0].not_valid_after_utc
    if end < datetime.now(UTC):
        errors.append(
            ConfigError("certificates.certificate", f"expired on {end:%Y-%m-%d %H:%M} UTC")
        )
    try:
        x509.load_pem_x509_certificates(secret.roots)
    except ValueError:
        errors.append(ConfigError("certificates.roots", "holds no PEM certificate"))
    return errors


def watched(certificates: Certificates) -> tuple[str, ...]:
    """Return the paths whose change means: load again."""
    return (certificates.certificate, certificates.key, certificates.roots)
