"""Is this token (RFC 7519) what its issuer said, and to whom, and does it hold now?

Theory of operation.  Which key a token is verified by follows from our configuration and the key
itself, never from the token alone: its `alg` must be one that the key is for, and keys that a header
carries or points to (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.  So `none` is no algorithm here,
and a public RSA key is no secret of HMAC (RFC 8725 §2.1, §3.1).
"""

import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from sidecar.errors import IdentityError

MAX_SIZE: Final = 16384  # octets; real ones have 1 to 4 KiB, and a head is no larger than 60 KiB
MAX_TRIES: Final = 4  # keys that a token without `kid` is tried by; each costs up to 0.1 ms

_FORM: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_DECODER: Final = msgspec.json.Decoder()


class Key(NamedTuple):
    """What signatures are verified by."""

    kid: str | None
    algorithms: frozenset[str]
    verify: Callable[[str, bytes, bytes], bool]
    """Takes algorithm, message and signature; raises nothing."""


class Token(NamedTuple):
    """What a token says of itself; nothing is verified yet."""

    algorithm: str
    kid: str | None
    issuer: str
    claims: dict[str, Any]
    message: bytes
    signature: bytes


class Terms(NamedTuple):
    """What the tokens of one issuer must hold to."""

    audiences: frozenset[str]
    """One must be among the token's; empty: not looked at."""

    algorithms: frozenset[str]
    """Beyond what keys are for; empty: whatever keys are for."""

    leeway: float
    """Seconds that clocks may differ."""

    needs_expiry: bool


def read(text: bytes) -> Token:
    """Return what a token in compact form (RFC 7515 §7.1) says of itself.

    Raises:
        IdentityError: `jwt-malformed`.
    """
    found = _FORM.fullmatch(text) if len(text) <= MAX_SIZE else None
    if found is None:
        raise _malformed(f"expected three parts of base64url, at most {MAX_SIZE} octets in all")
    head, claims = _object(found[1], "header"), _object(found[2], "payload")
    algorithm, kid, issuer = head.get("alg"), head.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(kid, str | None):
        raise _malformed("the header has no fitting `alg` or `kid`")
    if "crit" in head or "b64" in head:  # RFC 7515 §4.1.11: we understand no extension
        raise _malformed("the header asks for extensions")
    if not isinstance(issuer, str):
        raise _malformed("no `iss`")
    return Token(
        algorithm, kid, issuer, claims, found[1] + b"." + found[2], _octets(found[3], "signature")
    )


def candidates(token: Token, keys: Iterable[Key], terms: Terms) -> list[Key]:
    """Return the keys that may have signed `token`, by its `kid` and algorithm."""
    algorithm, kid = token.algorithm, token.kid
    if terms.algorithms and algorithm not in terms.algorithms:
        return []
    return [
        key
        for key in keys
        if algorithm in key.algorithms and (kid is None or key.kid is None or key.kid == kid)
    ][:MAX_TRIES]


def verify(token: Token, keys: Iterable[Key], terms: Terms, now: float) -> float:
    """Return until when `token` holds, in seconds of the epoch; `keys` are its `candidates`.

    Raises:
        IdentityError: why it does not hold.
    """
    if not any(key.verify(token.algorithm, token.message, token.signature) for key in keys):
        raise IdentityError("jwt-signature", f"algorithm {token.algorithm[:20]!r}")
    claims = token.claims
    expiry = _time(claims, "exp")
    if expiry is None and terms.needs_expiry:
        raise IdentityError("jwt-malformed", "no `exp`")
    until = float("inf") if expiry is None else expiry + terms.leeway
    if now >= until:
        raise IdentityError("jwt-expired", f"{now - until + terms.leeway:.0f} s ago")
    for name in ("nbf", "iat"):
        begin = _time(claims, name)
        if begin is not None and now < begin - terms.leeway:
            raise IdentityError("jwt-not-yet-valid", f"`{name}` is {begin - now:.0f} s ahead")
    if terms.audiences:
        given = claims.get("aud")
        given = given if isinstance(given, list) else [given]
        if not any(isinstance(one, str) and one in terms.audiences for one in given):
            raise IdentityError("jwt-audience", f"for {str(given)[:80]!r}")
    return until


def _time(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519 §2)."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise _malformed(f"`{name}` is no time")
    return float(value)


def _object(part: bytes, what: str) -> dict[str, Any]:
    try:
        found = _DECODER.decode(_octets(part, what))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _malformed(f"the {what} is no JSON object")
    return found


def _octets(part: bytes, what: str) -> bytes:
    try:
        return urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except Base64Error:
        raise _malformed(f"the {what} is no base64url") from None


def _malformed(detail: str) -> IdentityError:
    return IdentityError("jwt-malformed", detail)
