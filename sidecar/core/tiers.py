"""Balancers around a balancer: tiers of endpoints with fail-over, and new ones that get less."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Sequence
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, Final, final

from sidecar.core.affinity import affinity_of
from sidecar.core.api import Balancer, Draw
from sidecar.traffic.affinity import HASHES
from sidecar.traffic.failover import tier_loads
from sidecar.traffic.slow_start import warmth

if TYPE_CHECKING:
    from sidecar.core.book import ClusterState, Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session

REDRAWS: Final = 16  # when all that are drawn are new ones, one of them is taken
_SPREAD: Final = (
    0x9E3779B97F4A7C15  # an odd factor: the tier takes other bits of a hash than its table
)


@final
class Tiered(Balancer):
    """Each tier has a balancer; the first gets what it can carry, what is over goes to the next."""

    __slots__ = ("_all", "_balancers", "_changes", "_draw", "_edges", "_state", "has_affinity")

    def __init__(
        self,
        state: ClusterState,
        tiers: Sequence[tuple[Endpoint, ...]],
        make: Callable[[tuple[Endpoint, ...], float], Balancer],
        panic: float,
        draw: Draw,
    ) -> None:
        """`make(endpoints, panic)` makes a tier's balancer; `panic` counts when all are short."""
        self._state: Final = state
        self._draw: Final = draw
        self._all: Final = tuple((tier, make(tier, 0.0), make(tier, panic)) for tier in tiers)
        self.has_affinity = self._all[0][1].has_affinity
        self._changes = -1
        self._edges: list[float] = []
        self._balancers: list[Balancer] = []

    def pick(self, exchange: Exchange | Session, tried: Container[Endpoint]) -> Endpoint | None:
        """Return an endpoint of the tier that is this one's turn, or of any other at need."""
        if self._changes != self._state.changes:
            self._renew()
        edges = self._edges
        index = 0
        if edges[0] < 1:
            index = min(bisect_right(edges, self._chance(exchange)), len(edges) - 1)
        found = self._balancers[index].pick(exchange, tried)
        if found is None or found in tried:
            for balancer in self._balancers:
                other = balancer.pick(exchange, tried)
                if other is not None and other not in tried:
                    return other
        return found

    def _chance(self, exchange: Exchange | Session) -> float:
        key = affinity_of(exchange) if self.has_affinity else None
        return self._draw() if key is None else key * _SPREAD % HASHES / HASHES

    def _renew(self) -> None:
        """Work the shares out again: some endpoint has come or gone."""
        self._changes = self._state.changes
        counts = [(sum(e.available for e in tier), len(tier)) for tier, _, _ in self._all]
        loads, enough = tier_loads(counts)
        self._edges = list(accumulate(loads))
        self._balancers = [calm if enough else panicking for _, calm, panicking in self._all]


@final
class SlowStart(Balancer):
    """Draws again where a new endpoint is drawn, the more often the newer it is."""

    __slots__ = ("_aggression", "_draw", "_endpoints", "_inner", "_least", "_started", "_window")

    def __init__(
        self,
        inner: Balancer,
        endpoints: tuple[Endpoint, ...],
        draw: Draw,
        *,
        window: float,
        aggression: float,
        least: float,
    ) -> None:
        self._inner: Final = inner
        self._endpoints: Final = endpoints
        self._draw: Final = draw
        self._window: Final = window
        self._aggression: Final = aggression
        self._least: Final = least
        self._started = False

    def pick(self, exchange: Exchange | Session, tried: Container[Endpoint]) -> Endpoint | None:
        """Return what the balancer within picks, a new endpoint only now and then."""
        now = exchange.engine.now()
        if not self._started:
            self._start(now)
        found = None
        for _ in range(REDRAWS):
            found = self._inner.pick(exchange, tried)
            if found is None or found.since + self._window <= now:
                break
            age = now - found.since
            if self._draw() < warmth(age, self._window, self._aggression, self._least):
                break
        return found

    def _start(self, now: float) -> None:
        """Note who is new: nobody while all are, since no one else could take the load."""
        self._started = True
        known = any(e.since != inf for e in self._endpoints)
        for endpoint in self._endpoints:
            if endpoint.since == inf:
                endpoint.since = now if known else -inf
