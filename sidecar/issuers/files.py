"""Key material from PEM files."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from sidecar.errors import ConfigError, ConfigErrors
from sidecar.identity.certificates import read_pem
from sidecar.identity.tls import key_fault
from sidecar.model.identity import KeyPair, Secret
from sidecar.model.snapshot import Snapshot

MAX_SIZE: Final = 1 << 20  # octets of a file that a policy names; a worker is sent all of them


def load(snapshot: Snapshot) -> Secret | None:
    """Return what the files that `snapshot` names hold; None if it names none.

    Raises:
        ConfigErrors: unreadable, not PEM, a key that is not the certificate's, expired.
    """
    errors: list[ConfigError] = []
    named = snapshot.certificates
    secret = Secret()
    if named is not None:
        secret = Secret(
            certificate=_read(named.certificate, "certificates.certificate", errors),
            key=_read(named.key, "certificates.key", errors),
            roots=_read(named.roots, "certificates.roots", errors),
        )
    servers: dict[str, KeyPair] = {}
    for index, listener in enumerate(snapshot.inbound):
        if listener.tls is None:
            continue
        where = f"inbound[{index}].tls"
        servers[listener.address] = KeyPair(
            certificate=_read(listener.tls.certificate, f"{where}.certificate", errors),
            key=_read(listener.tls.key, f"{where}.key", errors),
        )
    if not errors:
        errors = check(secret) if named is not None else []
        for index, listener in enumerate(snapshot.inbound):
            pair = servers.get(listener.address)
            if pair is not None:
                errors += _check_pair(pair.certificate, pair.key, f"inbound[{index}].tls")
    if errors:
        raise ConfigErrors(errors)
    return replace(secret, servers=servers) if named is not None or servers else None


def read(named: Iterable[tuple[str, str]]) -> dict[str, bytes]:
    """Return what is in files; `named` has pairs of who names one and its path.

    Raises:
        ConfigErrors: unreadable, or too large.
    """
    errors: list[ConfigError] = []
    found: dict[str, bytes] = {}
    for where, path in named:
        try:
            with open(path, "rb") as file:
                found[path] = file.read(MAX_SIZE + 1)  # a device would never end
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or error
            errors.append(ConfigError(where, f"cannot read {path!r}: {told}"))
        else:
            if len(found[path]) > MAX_SIZE:
                errors.append(ConfigError(where, f"{path!r} has more than {MAX_SIZE} octets"))
    if errors:
        raise ConfigErrors(errors)
    return found


def check(secret: Secret) -> list[ConfigError]:
    """Return what is wrong with the workload's own key material."""
    errors = _check_pair(secret.certificate, secret.key, "certificates")
    try:
        read_pem(secret.roots)
    except ValueError:
        errors.append(ConfigError("certificates.roots", "holds no PEM certificate"))
    return errors


def watched(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the paths whose change means: load again."""
    own = snapshot.certificates
    paths = [] if own is None else [own.certificate, own.key, own.roots]
    for listener in snapshot.inbound:
        if listener.tls is not None:
            paths += [listener.tls.certificate, listener.tls.key]
    return tuple(paths)


def _read(path: str, where: str, errors: list[ConfigError]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        errors.append(ConfigError(where, f"cannot read {path!r}: {error.strerror}"))
    return b""


def _check_pair(certificate: bytes, key: bytes, where: str) -> list[ConfigError]:
    try:
        chain = read_pem(certificate)
    except ValueError:
        return [ConfigError(f"{where}.certificate", "holds no PEM certificate")]
    errors = []
    if fault := key_fault(certificate, key):
        errors.append(ConfigError(f"{where}.key", fault))
    end = chain[0].ends
    if end < datetime.now(UTC):
        errors.append(ConfigError(f"{where}.certificate", f"expired on {end:%Y-%m-%d %H:%M} UTC"))
    return errors
