"""Tell the endpoint which try of the request this is, as Envoy does."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from sidecar.core.api import HttpFilter
from sidecar.core.retry import ATTEMPT_COUNT, tell_attempt
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange


@final
class AttemptCount(HttpFilter):
    """See the module; the count of later tries is set where they begin."""

    __slots__ = ()

    def on_request(self, exchange: Exchange) -> None:
        """Say that it is the first, whatever the caller says: its tries are counted apart."""
        exchange.head.remove(ATTEMPT_COUNT)
        tell_attempt(exchange, 1)


PLUGIN = Plugin("attempt_count", type(None), AttemptCount)
