"""Of two endpoints drawn by weight the one that should answer sooner: latency lately, times its queue."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Balancer, Draw, Watcher
from sidecar.core.book import Endpoint
from sidecar.core.candidates import Weighted, usable
from sidecar.model.balancing import PeakEwma as Settings
from sidecar.plugin import Plugin
from sidecar.traffic.ewma import PeakEwma as Average

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session
    from sidecar.wire.fields import ResponseHead

PENALTY: Final = 1.0  # seconds that a failure counts as: else who fails fast would get the traffic


@final
class Latency(Watcher):
    """How long one endpoint takes, as one cluster's plans see it."""

    __slots__ = ("average",)

    def __init__(self, settings: Settings) -> None:
        self.average: Final = Average(settings.decay_time, settings.default_rtt)

    def answered(self, exchange: Exchange, head: ResponseHead, now: float) -> None:
        """Take in the seconds from the request's head to the response's."""
        self.average.observe(now - exchange.sent_at, now)

    def failed(self, placed: Exchange | Session, code: str, now: float) -> None:
        """Take in a penalty."""
        self.average.observe(PENALTY, now)

    def outrun(self, exchange: Exchange, now: float) -> None:
        """Take in what it has taken so far: else who always loses would be thought quick."""
        self.average.observe(now - exchange.sent_at, now)


@final
class PeakEwma(Balancer):
    """See the module; the averages stay with the endpoints, across pushes."""

    __slots__ = ("_all", "_averages", "_draw", "_panic", "_weighted")

    def __init__(
        self, endpoints: Sequence[Endpoint], draw: Draw, panic: float, settings: Settings
    ) -> None:
        self._all: Final = tuple(endpoints)
        self._draw: Final = draw
        self._panic: Final = panic
        self._weighted: Final = Weighted(endpoints)
        self._averages: Final = {e: _latency(e, settings).average for e in self._all}

    def pick(self, exchange: Exchange | Session, tried: Container[Endpoint]) -> Endpoint | None:
        """Draw twice; take the one with the lower cost for its weight."""
        if not self._all:
            return None
        draw = self._draw
        first, second = self._weighted.draw(draw()), self._weighted.draw(draw())
        if not (first.available and second.available) or first in tried or second in tried:
            left = usable(self._all, tried, self._panic)
            if not left:
                return None
            weighted = Weighted(left)
            first, second = weighted.draw(draw()), weighted.draw(draw())
        if first is second:
            return first
        now = exchange.engine.now()
        return second if self._cost(second, now) < self._cost(first, now) else first

    def _cost(self, endpoint: Endpoint, now: float) -> float:
        # Weight counts in the queue only: between the idle, the draw has given it its due.
        return self._averages[endpoint].read(now) * (endpoint.active / endpoint.weight + 1)


def _latency(endpoint: Endpoint, settings: Settings) -> Latency:
    """Return what watches `endpoint`, set up if nothing does yet."""
    for watcher in endpoint.watchers:
        if isinstance(watcher, Latency):
            return watcher
    latency = Latency(settings)
    endpoint.watchers = (*endpoint.watchers, latency)
    return latency


PLUGIN = Plugin("peak_ewma", Settings, PeakEwma)
