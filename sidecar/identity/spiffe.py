"""Whose certificate it is: SPIFFE IDs, and the reasons for which a peer is refused."""

import hashlib
import re
import ssl
from typing import Any, Final

from sidecar.errors import IdentityError

_SPIFFE: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})(/[A-Za-z0-9._/-]{1,1700})")
# The SPIFFE ID standard §2: lower-case trust domain, path of these characters.

# OpenSSL's verification results (x509_vfy.h) that have a word of their own.
_REASONS: Final = {
    9: "peer-certificate-not-yet-valid",
    10: "peer-certificate-expired",
    2: "peer-unknown-root",
    18: "peer-unknown-root",
    19: "peer-unknown-root",
    20: "peer-unknown-root",
    21: "peer-unknown-root",
}


def is_spiffe_id(text: str) -> bool:
    """Say whether `text` is a SPIFFE ID with a path."""
    return _SPIFFE.fullmatch(text) is not None


def trust_domain(identity: str) -> str:
    """Return the trust domain of a SPIFFE ID."""
    return identity[9:].partition("/")[0]


def namespace(identity: str) -> str:
    """Return the name space that an identity names, empty where it names none."""
    parts = identity[9:].split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "ns" else ""


def workload(identity: str) -> str:
    """Return the service account that an identity names, `unknown` where it names none."""
    _, found, account = identity.partition("/sa/")
    return account.partition("/")[0] if found else "unknown"


# What certificates say, by their octets.  The peers of a workload are few and come again; whether a
# certificate holds is found out in every handshake.
_READ: Final[dict[bytes, tuple[str, str]]] = {}
_MANY: Final = 1024  # about 1 MB


def peer_identity(tls: ssl.SSLObject) -> tuple[str, str]:
    """Return the peer's SPIFFE ID and the SHA-256 of its certificate, in hex.

    Raises:
        IdentityError: `peer-no-certificate`; `peer-no-identity`: not exactly one URI SAN, or one
            that is no SPIFFE ID (X.509-SVID §2).
    """
    der = tls.getpeercert(binary_form=True)
    if not der:
        raise IdentityError("peer-no-certificate", "the peer showed no certificate")
    known = _READ.get(der)
    if known is not None:
        return known
    parsed: Any = tls.getpeercert() or {}
    uris = [value for kind, value in parsed.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1 or not is_spiffe_id(uris[0]):
        raise IdentityError("peer-no-identity", f"expected one SPIFFE ID, got {uris!r}")
    if len(_READ) >= _MANY:
        _READ.clear()
    known = _READ[der] = uris[0], hashlib.sha256(der).hexdigest()
    return known


def refusal(error: ssl.SSLError) -> IdentityError:
    """Return why a handshake failed, in a word that logs and metrics can hold."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = _REASONS.get(error.verify_code, "peer-certificate-refused")
        return IdentityError(code, error.verify_message)
    reason = error.reason or "the peer broke the handshake off"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return IdentityError("peer-no-certificate", "the peer showed no certificate")
    return IdentityError("tls-handshake-failed", reason.lower().replace("_", " "))
