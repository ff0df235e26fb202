"""Send the caller elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange

_PORTS: Final = {b"http": b":80", b"https": b":443"}  # those that go without saying


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to; what is not given stays as it was."""

    status: int
    """The status of the answer."""

    scheme: bytes
    """`http` or `https`."""

    host: bytes
    """Without a port."""

    port: int
    """0: the one that was asked for, unless the scheme or the host is another."""

    target: Callable[[bytes], bytes] | None
    """The new target for the one that was asked for."""

    strip_query: bool
    """Whether the query is left out."""


@final
class Redirect(HttpFilter):
    """See the module."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings

    def on_request(self, exchange: Exchange) -> Answer:
        """Answer with the other place."""
        settings, head = self._settings, exchange.head
        target = head.target
        if settings.target is not None:
            target = settings.target(target)
        if settings.strip_query:
            target = target.partition(b"?")[0]
        location = self._origin(exchange) + target
        return Answer("redirect", settings.status, ((b"Location", location),), b"")

    def _origin(self, exchange: Exchange) -> bytes:
        """Return scheme and authority; nothing where nobody named a host (HTTP/1.0)."""
        settings = self._settings
        came = b"https" if exchange.caller.secure else b"http"
        scheme = settings.scheme or came
        host, port = _split(exchange.head.authority)
        if settings.port:
            port = b":%d" % settings.port
        elif settings.host or scheme != came:
            port = b""
        host = settings.host or host
        if not host:
            return b""
        return scheme + b"://" + host + (b"" if port == _PORTS[scheme] else port)


def _split(authority: bytes) -> tuple[bytes, bytes]:
    """Return host and `:port`, which may be empty."""
    host, colon, port = authority.rpartition(b":")
    if not colon or authority.endswith(b"]"):
        return authority, b""
    return host, colon + port


PLUGIN = Plugin("redirect", Settings, Redirect)
