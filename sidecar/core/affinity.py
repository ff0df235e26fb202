"""Keeping like requests on one endpoint: what of a request is hashed, and the pick by that hash."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Final, Protocol, final
from urllib.parse import unquote_plus

from sidecar.core.api import Balancer, Draw, HttpFilter
from sidecar.core.candidates import usable
from sidecar.traffic.affinity import HASHES, Table, hash_of, preference

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session
    from sidecar.wire.fields import RequestHead, ResponseHead


class HashKey(Protocol):
    """One thing that may be hashed."""

    terminal: bool
    """Where this is there, look no further."""

    def of(self, placed: Exchange | Session) -> bytes | None:
        """Return what is hashed; None where it is not there."""


def affinity_of(placed: Exchange | Session) -> int | None:
    """Return the hash of all that the route's policy finds, or None where it finds nothing."""
    route = placed.route
    found = []
    for key in () if route is None else route.hash_policy:
        value = key.of(placed)
        if value is not None:
            found.append(value)
            if key.terminal:
                break
    return hash_of(b"\x00".join(found)) if found else None


class Hashed(Balancer):
    """The owner of the request's slot, or the next by preference; without a hash, a random slot."""

    __slots__ = ("_all", "_draw", "_factor", "_panic", "_table")

    has_affinity = True

    def __init__(
        self, endpoints: Sequence[Endpoint], draw: Draw, panic: float, table: Table, factor: int
    ) -> None:
        """`table` has the endpoints by index; no load goes over `factor` % of the mean (0: it may)."""
        self._all: Final = tuple(endpoints)
        self._draw: Final = draw
        self._panic: Final = panic
        self._table: Final = table
        self._factor: Final = factor / 100

    def pick(self, exchange: Exchange | Session, tried: Container[Endpoint]) -> Endpoint | None:
        """Return the endpoint that the request's hash prefers among the usable."""
        everyone, table = self._all, self._table
        if not everyone:
            return None
        key = affinity_of(exchange)
        if key is None:
            key = int(self._draw() * HASHES)
        first = everyone[table.owners[table.slot(key)]]
        if first.available and first not in tried and self._has_room(first):
            return first
        candidates = usable(everyone, tried, self._panic)
        if not candidates:
            return None
        allowed = frozenset(candidates)
        preferred = None
        # No further than needed: to the end is as many steps as the table has slots.
        for index in preference(table, key):
            endpoint = everyone[index]
            if endpoint in allowed:
                if self._has_room(endpoint):
                    return endpoint
                preferred = preferred or endpoint
        # Some endpoint has room always; but a light one may own no slot of a table.
        return preferred or candidates[0]

    def _has_room(self, endpoint: Endpoint) -> bool:
        """Say whether one more keeps it within the bound (consistent hashing with bounded loads)."""
        if not self._factor or not endpoint.active:
            return True
        load = weight = 0
        for other in self._all:
            load += other.active
            weight += other.weight
        return endpoint.active < self._factor * (load + 1) * endpoint.weight / weight


@final
class HeaderKey:
    """A field of the request."""

    __slots__ = ("_name", "terminal")

    def __init__(self, name: bytes, *, terminal: bool) -> None:
        self._name: Final = name
        self.terminal = terminal

    def of(self, placed: Exchange | Session) -> bytes | None:
        """Return its value; repeated, joined with `, `."""
        head = head_of(placed)
        return None if head is None else head.get(self._name)


@final
class QueryKey:
    """A parameter of the query."""

    __slots__ = ("_name", "terminal")

    def __init__(self, name: str, *, terminal: bool) -> None:
        self._name: Final = name
        self.terminal = terminal

    def of(self, placed: Exchange | Session) -> bytes | None:
        """Return its value, the first if there are several."""
        head = head_of(placed)
        query = b"" if head is None else head.target.partition(b"?")[2]
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            if name and unquote_plus(name.decode("latin-1")) == self._name:
                return value
        return None


@final
class SourceKey:
    """The caller's address, without its port."""

    __slots__ = ("terminal",)

    def __init__(self, *, terminal: bool) -> None:
        self.terminal = terminal

    def of(self, placed: Exchange | Session) -> bytes | None:
        """Return the address; a unix socket has none."""
        return placed.caller.host.encode() or None


@final
class CookieKey:
    """A cookie; where `generated`, the one that the caller is about to be given."""

    __slots__ = ("_generated", "_pattern", "terminal")

    def __init__(self, name: bytes, *, generated: bool, terminal: bool) -> None:
        # Between cookies `; ` (RFC 6265 §4.2.1); between lines joined into one value `, `.
        self._pattern: Final = re.compile(rb"(?:^|[;,])[ \t]*+" + re.escape(name) + rb"=([^;,]*+)")
        self._generated: Final = generated
        self.terminal = terminal

    def of(self, placed: Exchange | Session) -> bytes | None:
        """Return its value."""
        head = head_of(placed)
        if head is None:
            return None
        found = self.sent(head)
        return new_cookie(placed) if found is None and self._generated else found

    def sent(self, head: RequestHead) -> bytes | None:
        """Return the value that the caller sent."""
        cookies = head.get(b"cookie")
        found = None if cookies is None else self._pattern.search(cookies)
        return None if found is None else found[1]


@final
class AffinityCookie(HttpFilter):
    """Gives callers that sent none the cookie by which they find their endpoint again."""

    __slots__ = ("_attributes", "_key", "_name")

    def __init__(self, name: bytes, key: CookieKey, ttl: float, path: str) -> None:
        """`ttl` in seconds; 0: until the browser is closed."""
        self._name: Final = name
        self._key: Final = key
        age = f"; Max-Age={int(ttl)}" if ttl else ""
        self._attributes: Final = f"{age}; Path={path}; HttpOnly".encode()

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """Add the cookie."""
        if self._key.sent(exchange.head) is None:
            value = self._name + b"=" + new_cookie(exchange) + self._attributes
            head.add(b"set-cookie", value)


def new_cookie(placed: Exchange | Session) -> bytes:
    """Return the value of an affinity cookie: of the request's id, so that nothing is kept for it."""
    return b"%016x" % hash_of(getattr(placed, "request_id", b""))


def head_of(placed: Exchange | Session) -> RequestHead | None:
    """Return the head of an exchange; a session has none."""
    return getattr(placed, "head", None)
