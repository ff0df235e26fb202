"""Let pages of other origins read the answers (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Field, ResponseHead

_ORIGIN: Final = b"access-control-allow-origin"
_VARY: Final = (b"vary", b"origin")
_CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")


@dataclass(frozen=True, slots=True)
class Settings:
    """Whose pages, and what they may do."""

    origins: tuple[Callable[[bytes], bool], ...]
    """Tests of an `Origin`; one that holds is enough."""

    methods: bytes
    """Value of `access-control-allow-methods`; empty: not said."""

    headers: bytes
    """Value of `access-control-allow-headers`; empty: not said."""

    expose: bytes
    """Value of `access-control-expose-headers`; empty: not said."""

    max_age: int | None
    """Seconds for which a preflight holds; None: not said."""

    credentials: bool
    """Whether cookies may come along."""


@final
class Cors(HttpFilter):
    """See the module; a preflight of an allowed origin is answered here, any other goes on."""

    __slots__ = ("_expose", "_origins", "_preflight", "_shared")

    def __init__(self, settings: Settings) -> None:
        self._origins: Final = settings.origins
        self._shared: Final[tuple[Field, ...]] = (_CREDENTIALS,) if settings.credentials else ()
        preflight = [
            (b"access-control-allow-methods", settings.methods),
            (b"access-control-allow-headers", settings.headers),
        ]
        if settings.max_age is not None:
            preflight.append((b"access-control-max-age", b"%d" % settings.max_age))
        self._preflight: Final = tuple(field for field in preflight if field[1])
        self._expose: Final = settings.expose

    def on_request(self, exchange: Exchange) -> Answer | None:
        """Answer a preflight."""
        head = exchange.head
        if head.method != b"OPTIONS" or head.get(b"access-control-request-method") is None:
            return None
        if self._allowed(exchange) is None:
            return None
        # `on_reply` adds what every answer says.
        return Answer("cors-preflight", 0, self._preflight, b"")

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """Name the origin that may read this; in place of what the endpoint says."""
        head.add(*_VARY)  # whoever asks: a cache must not serve one origin's answer to another
        origin = self._allowed(exchange)
        if origin is None:
            return
        head.set(_ORIGIN, origin)
        for name, value in self._shared:
            head.set(name, value)
        if self._expose:
            head.set(b"access-control-expose-headers", self._expose)

    on_reply = on_response

    def _allowed(self, exchange: Exchange) -> bytes | None:
        """Return the origin that asks, if it is an allowed one."""
        origin = exchange.head.get(b"origin")
        if origin is None or not any(test(origin) for test in self._origins):
            return None
        return origin


PLUGIN = Plugin("cors", Settings, Cors)
