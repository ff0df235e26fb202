"""When a request gets a second attempt beside one that takes long.

`Hedging` is a filter of the route, so a route without it pays nothing.  It sets a timer for each
request; a response that comes before is the usual case, and all.  The rest is `core/race.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import HttpFilter, Watcher
from sidecar.core.race import Race
from sidecar.core.retry import has_another, is_repeatable
from sidecar.core.timers import NEVER
from sidecar.traffic.quantile import Recent

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.plan import ClusterPlan
    from sidecar.wire.fields import ResponseHead


@final
class Hedges(Watcher):
    """What one cluster's hedging knows across pushes: how long answers take, and what came of it."""

    __slots__ = ("counts", "recent")

    def __init__(self) -> None:
        self.recent: Final = Recent()
        self.counts: Final[Counter[str]] = Counter()  # ever, by what became of the second attempt

    def answered(self, exchange: Exchange, head: ResponseHead, now: float) -> None:
        """Learn how long an answer took."""
        self.recent.observe(now - exchange.sent_at, now)

    def outrun(self, exchange: Exchange, now: float) -> None:
        """Learn that one takes longer than this."""
        self.recent.observe(now - exchange.sent_at, now)


@final
class Hedging(HttpFilter):
    """When requests of a route get a second attempt; asked after all other filters."""

    __slots__ = ("_clusters", "_delay", "_methods", "_races", "_share")

    def __init__(
        self,
        clusters: tuple[ClusterPlan, ...],
        delay: float,
        share: float,
        methods: frozenset[bytes],
    ) -> None:
        self._clusters: Final = clusters
        self._delay: Final = delay  # seconds; of no meaning with a share
        self._share: Final = share  # of answers that come before; 0: after the delay
        self._methods: Final = methods  # that may be sent twice, beside those that may anyway
        self._races: Final[dict[Exchange, Race]] = {}

    def on_request(self, exchange: Exchange) -> None:
        """Set the timer."""
        now = exchange.engine.now()
        # With several clusters the one that it will be is not drawn yet: look when the first might.
        delay = min(self.delay(cluster, now) for cluster in self._clusters)
        if delay != NEVER and (is_repeatable(exchange) or self._is_listed(exchange)):
            race = self._races[exchange] = Race(self, exchange)
            exchange.engine.wheel.arm(race.timer, now + delay)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """A response goes to the caller: there is nothing to speed up any more."""
        self._stop(exchange)

    def on_finish(self, exchange: Exchange) -> None:
        """Forget it."""
        self._stop(exchange)

    def delay(self, cluster: ClusterPlan, now: float) -> float:
        """Return the seconds after which a second attempt is worth it."""
        if not self._share:
            return self._delay
        hedges = cluster.state.hedges
        assert hedges is not None  # the compiler has set it up
        found = hedges.recent.read(self._share, now)
        return NEVER if found is None else found

    def may_begin(self, exchange: Exchange) -> bool:
        """Say whether policy and budget allow one more attempt."""
        return has_another(exchange, idempotent=not self._is_listed(exchange))

    def _is_listed(self, exchange: Exchange) -> bool:
        return exchange.head.method in self._methods and exchange.head.upgrade is None

    def _stop(self, exchange: Exchange) -> None:
        race = self._races.pop(exchange, None)
        if race is not None:
            race.timer.retire()
