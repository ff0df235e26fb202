"""Let requests through that bring a token of a known issuer, and tell the app what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.core.credential import Credential, Location, claim_values, credential_of, strip
from sidecar.core.fetched import Fetched, Place
from sidecar.errors import IdentityError
from sidecar.identity import token
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Field

SUBJECT: Final = "jwt_sub"
"""The access log's field for whom a token names."""

_SENTENCES: Final = {
    "jwt-missing": b"",  # RFC 6750 §3.1: no error for who did not know that it must show something
    "jwt-malformed": b"the token is malformed",
    "jwt-issuer": b"the token is of an unknown issuer",
    "jwt-key": b"the token is signed with an unknown key",
    "jwt-signature": b"the signature does not verify",
    "jwt-expired": b"the token has expired",
    "jwt-not-yet-valid": b"the token is not valid yet",
    "jwt-audience": b"the token is for another audience",
}
_CONTROL: Final = re.compile(rb"[\x00-\x08\n-\x1f\x7f]")


Keys = tuple[token.Key, ...]


class Issuer(NamedTuple):
    """Whose tokens are accepted."""

    keys: Fetched[Keys]
    place: Place[Keys] | None
    """Where keys are fetched from; None: they are from a file."""

    terms: token.Terms


class Known(NamedTuple):
    """A token that has been verified."""

    until: float
    issuer: str
    keys: Keys
    """Those of the issuer at that time: once it has others, the token is verified anew."""

    credential: Credential
    fields: tuple[Field, ...]
    subject: str


Cache = dict[bytes, Known]
"""By hash of the token: a token itself would be kept where a dump of memory shows it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What tokens must hold to, and what becomes of them."""

    issuers: Mapping[str, Issuer]
    """By the `iss` of their tokens."""

    locations: tuple[Location, ...]
    """Where a token may stand; the first that has one counts."""

    required: bool
    """Whether a request without one is refused."""

    forward: bool
    """Whether the token is passed on."""

    headers: tuple[tuple[bytes, str], ...]
    """Fields for the app, and the claims they are from."""

    spoofed: re.Pattern[bytes] | None
    """Finds fields that callers may not send."""

    cache_size: int
    """How many verified tokens are remembered."""

    cache: Cache
    """Outlives a config push that changes nothing about tokens."""


@final
class Jwt(HttpFilter):
    """See the module."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings

    def on_request(self, exchange: Exchange) -> Verdict:
        """Verify the token."""
        settings, head = self._settings, exchange.head
        if settings.spoofed is not None:
            strip(head, settings.spoofed)
        for location in settings.locations:
            text = location.take(head)
            if text is not None:
                break
        else:
            return refusal("jwt-missing") if settings.required else None
        key = blake2b(text, digest_size=32).digest()
        known = settings.cache.get(key)
        if known is None or exchange.engine.wall() >= known.until:
            return self._judge(exchange, text, key, location, may_wait=True)
        issuer = settings.issuers[known.issuer]
        if known.keys is not issuer.keys.value:
            return self._judge(exchange, text, key, location, may_wait=True)
        _renew(issuer, exchange)
        self._accept(exchange, known, location)
        return None

    def _judge(
        self, exchange: Exchange, text: bytes, key: bytes, location: Location, *, may_wait: bool
    ) -> Verdict:
        """Verify a token that is not known, by keys that may have to be fetched first."""
        try:
            said = token.read(text)
            issuer = self._settings.issuers.get(said.issuer)
            if issuer is None:
                raise IdentityError("jwt-issuer", f"issuer {said.issuer[:80]!r}")
            held = issuer.keys.value
            keys = token.candidates(said, held or (), issuer.terms)
            if not keys and may_wait and issuer.place is not None:
                # Also for a key that is not among those we have: it may be a new one.
                wait = issuer.keys.wait(
                    exchange,
                    issuer.place,
                    lambda exchange: self._judge(exchange, text, key, location, may_wait=False),
                )
                if wait is not None:
                    return wait
            if held is None:
                return Answer("jwks-unavailable", detail=issuer.keys.trouble)
            if not keys:
                detail = f"algorithm {said.algorithm[:20]!r}, key {(said.kid or '')[:80]!r}"
                raise IdentityError("jwt-key", detail)
            _renew(issuer, exchange)
            until = token.verify(said, keys, issuer.terms, exchange.engine.wall())
        except IdentityError as error:
            return refusal(error.code, error.detail)
        known = self._known(until, said, held)
        self._remember(key, known)
        self._accept(exchange, known, location)
        return None

    def _known(self, until: float, said: token.Token, keys: Keys) -> Known:
        claims = said.claims
        subject = claims.get("sub")
        return Known(
            until,
            said.issuer,
            keys,
            Credential(claims),
            tuple(self._fields(claims)),
            subject if isinstance(subject, str) else "",
        )

    def _fields(self, claims: dict[str, Any]) -> list[Field]:
        found = []
        for name, claim in self._settings.headers:
            value = b",".join(claim_values(claims, claim)).strip()
            # An issuer may let its users choose a text: it must not become another field.
            if value and _CONTROL.search(value) is None:
                found.append((name, value))
        return found

    def _remember(self, key: bytes, known: Known) -> None:
        cache = self._settings.cache
        cache.pop(key, None)  # an expired one: the new one is the youngest
        if len(cache) >= self._settings.cache_size:
            if not cache:
                return
            del cache[next(iter(cache))]
        cache[key] = known

    def _accept(self, exchange: Exchange, known: Known, used: Location) -> None:
        head = exchange.head
        exchange.credential = _joined(credential_of(exchange), known.credential)
        for name, value in known.fields:
            exchange.extra.append((name, value))
            head.found[name] = value  # for who looks at fields after us
        if known.subject:
            exchange.fields = {**(exchange.fields or {}), SUBJECT: known.subject}
        for location in self._settings.locations:
            # One that was not verified must not reach the app as if it had been.
            if location is used:
                if not self._settings.forward:
                    location.strip(head)
            elif location.take(head) is not None:
                location.strip(head)


def _renew(issuer: Issuer, exchange: Exchange) -> None:
    """Have the keys fetched anew behind the requests, if it is time."""
    if issuer.place is not None and exchange.engine.now() >= issuer.keys.due:
        issuer.keys.fetch(exchange.engine, issuer.place)


def refusal(code: str, detail: str = "") -> Answer:
    """Return the answer for `code`, with the challenge of RFC 6750 §3."""
    challenge = b'Bearer realm="sidecar"'
    sentence = _SENTENCES[code]
    if sentence:
        challenge += b', error="invalid_token", error_description="' + sentence + b'"'
    return Answer(code, fields=((b"WWW-Authenticate", challenge),), detail=detail)


def _joined(before: Credential, token: Credential) -> Credential:
    return Credential(token.claims, before.user) if before.user else token


PLUGIN = Plugin("jwt", Settings, Jwt)
