"""Keys and tokens made by a library that the sidecar does not use (joserfc), and bad ones by hand."""

import base64
import json
import warnings
from typing import Any, Final

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

ISSUER: Final = "https://login.example.org"
AUDIENCE: Final = "shop"

AnyKey = RSAKey | ECKey | OKPKey | OctKey


def rsa(kid: str = "rsa") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


def ec(kid: str = "ec", curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, {"kid": kid})


def ed(kid: str = "ed") -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": kid})


def shared(secret: bytes) -> OctKey:
    return OctKey.import_key(secret)


def public(*keys: AnyKey) -> bytes:
    """Return the JWKS of `keys`."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def sign(
    key: AnyKey,
    claims: dict[str, Any] | None = None,
    *,
    alg: str = "ES256",
    kid: str | None = "",
    header: dict[str, Any] | None = None,
) -> str:
    """Return a token of `claims`, signed with `key`; `kid` empty: the key's own, None: without."""
    head = {"alg": alg, **(header or {})}
    if kid is not None:
        head["kid"] = kid or str(key.kid)
    payload = json.dumps(claims or {}).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # RFC 9864 deprecates the name EdDSA
        return jws.serialize_compact(head, payload, key, algorithms=[alg])


def claims(now: float, **more: Any) -> dict[str, Any]:
    """Return good claims at `now`; those given as None are left out."""
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + 300, **more}
    return {name: value for name, value in found.items() if value is not None}


def part(tree: object) -> str:
    """Return one part of a token by hand."""
    data = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(head: object, payload: object, signature: bytes = b"") -> str:
    """Return a token that nobody signed."""
    return f"{part(head)}.{part(payload)}.{part(signature)}"
