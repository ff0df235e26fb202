"""Send copies of requests to another cluster; nobody waits for what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import HttpFilter
from sidecar.core.call import CallPlan, CallResult, call_head
from sidecar.core.tap import gather
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import RequestHead

_REPLACED: Final = frozenset({b"host", b"content-length", b"expect"})

SKIPPED: Final = "sidecar_mirror_skipped_total"


@dataclass(frozen=True, slots=True)
class Settings:
    """One mirror."""

    call: CallPlan
    """To whom, and how long it may take."""

    share: float
    """Of the requests; a fraction of 1."""

    max_body: int
    """Octets."""

    max_active: int
    """Copies under way at once."""

    suffix: bytes
    """Of the host."""


@final
class Mirror(HttpFilter):
    """See the module."""

    __slots__ = ("_active", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._active = 0

    def on_request(self, exchange: Exchange) -> None:
        """Draw whether it is copied; if so, take the head as it is now and the body as it comes."""
        settings = self._settings
        if exchange.head.upgrade is not None:
            return  # half a conversation
        if settings.share < 1 and exchange.engine.draw() >= settings.share:
            return
        head = _copy(exchange, settings.suffix)
        gather(
            exchange,
            settings.max_body,
            lambda exchange, body, whole: self._send(exchange, head, body, whole=whole),
        )

    def _send(self, exchange: Exchange, head: RequestHead, body: bytes, *, whole: bool) -> None:
        settings, engine = self._settings, exchange.engine
        if not whole:
            self._skip(exchange, "body-too-large")
            return
        if self._active >= settings.max_active:
            self._skip(exchange, "too-many")
            return
        self._active += 1
        head.length = len(body)
        if body:
            head.add(b"content-length", b"%d" % len(body))

        def start() -> None:
            settings.call.start(engine, head, body, self._over)

        engine.later(start)  # the request itself goes first

    def _over(self, result: CallResult) -> None:
        self._active -= 1

    def _skip(self, exchange: Exchange, reason: str) -> None:
        labels = (("cluster", self._settings.call.cluster.name), ("reason", reason))
        exchange.engine.counts.tally(SKIPPED, labels).value += 1


def _copy(exchange: Exchange, suffix: bytes) -> RequestHead:
    """Return the head of the copy, as the endpoint would get it."""
    head = exchange.head
    pairs = [pair for pair in head.as_pairs() if pair[0] not in _REPLACED]
    pairs += exchange.extra
    copy = call_head(
        head.method, head.target, _host(head.authority, suffix), pairs, 0, head.version
    )
    copy.spelling = head.spelled()
    return copy


def _host(authority: bytes, suffix: bytes) -> bytes:
    """Return `authority` with `suffix` behind its name, as Envoy has it."""
    name, colon, port = authority.rpartition(b":")
    if colon and port.isdigit():
        return b"%b%b:%b" % (name, suffix, port)
    return authority + suffix


PLUGIN = Plugin("mirror", Settings, Mirror)
