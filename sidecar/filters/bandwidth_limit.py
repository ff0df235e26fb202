"""Hold the bodies of requests and responses to so many octets a second."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import HttpFilter, Verdict, Wait
from sidecar.core.gate import Pace
from sidecar.core.late import late
from sidecar.core.meter import meter
from sidecar.core.states import REQUEST
from sidecar.plugin import Plugin
from sidecar.traffic.pace import Bucket, Table

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Settings:
    """One rule."""

    pace: Pace
    """Whose octets, and how many."""

    active: dict[Exchange, list[Bucket]] = field(default_factory=dict)
    """What exchanges under way go by."""


@final
class BandwidthLimit(HttpFilter):
    """See the module."""

    __slots__ = ("settings",)

    def __init__(self, settings: Settings) -> None:
        self.settings: Final = settings

    def on_request(self, exchange: Exchange) -> Verdict:
        """Put the exchange's two sides under the rates."""
        pace = self.settings.pace
        key, now = pace.naming(exchange.caller), exchange.engine.now()
        buckets = self.settings.active[exchange] = []
        if pace.down is not None:
            buckets.append(pace.down.take(key, now))
            late(exchange).pace(buckets[-1])
        if pace.up is None or not (exchange.owed & REQUEST or exchange.bytes_in):
            return None
        buckets.append(pace.up.take(key, now))
        return self._admit(exchange)

    def _admit(self, exchange: Exchange) -> Verdict:
        """Let a request with a body go on once what others have had of the rate is paid for.

        To read it no further would not be enough: over HTTP/2 each has a window of its own to fill.
        """
        bucket, now = self.settings.active[exchange][-1], exchange.engine.now()
        bucket.room(now)
        wait = bucket.wait(1)
        if wait:
            exchange.stalled(is_stalled=True)  # what is held of the body has an end
            return Wait(wait, self._admit)
        meter(exchange).add(bucket, exchange.bytes_in)
        return None

    def on_finish(self, exchange: Exchange) -> None:
        """Leave them to others."""
        for bucket in self.settings.active.pop(exchange, ()):
            Table.leave(bucket)


PLUGIN = Plugin("bandwidth_limit", Settings, BandwidthLimit)
