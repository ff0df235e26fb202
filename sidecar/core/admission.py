"""Who refuses requests of a cluster before they are sent: by its limit, its latency, its failures.

Theory of operation.  `ClusterState.room` is how many requests may be under way before anybody is
asked, so whoever refuses nothing costs nothing: it is the configured limit, less where latency has
found a lower one, and 0 while a part of all requests is refused by chance.  A `Guard` stays in the
book, watches the endpoints' answers, and keeps `room` as they have it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, cast, final

from sidecar.core.api import Draw, Watcher
from sidecar.core.ejection import BLAMELESS
from sidecar.traffic.admission import Admission
from sidecar.traffic.gradient import Gradient

if TYPE_CHECKING:
    from sidecar.core.book import ClusterState, Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session
    from sidecar.wire.fields import Fields, ResponseHead

LIMIT: Final = "requests-overflow"
LATENCY: Final = "concurrency-overflow"
FAILURES: Final = "admission-denied"

TIMEOUTS: Final = frozenset({"upstream-timeout", "per-try-timeout"})
"""What is an answer that took at least so long, for whoever looks at latency."""

BAD_CALLS: Final = frozenset({b"4", b"8", b"10", b"13", b"14", b"15"})
"""gRPC's DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE, DATA_LOSS."""


@final
class Guard(Watcher):
    """Refuses requests of one cluster by what became of those before; survives pushes."""

    __slots__ = ("_admission", "_draw", "_most", "_state", "gradient", "refused", "settings")

    def __init__(
        self,
        state: ClusterState,
        settings: object,
        gradient: Gradient | None,
        admission: Admission | None,
        draw: Draw,
    ) -> None:
        self._state: Final = state
        self.settings: Final = settings  # what it was made by; opaque here
        self.gradient: Final = gradient
        self._admission: Final = admission
        self._draw: Final = draw
        self._most = 0
        self.refused: Final[Counter[str]] = Counter()  # ever, by code

    def watch(self, endpoints: tuple[Endpoint, ...], most: int) -> None:
        """Watch `endpoints` of a plan that allows `most` requests at once; answers set the rest."""
        self._most = most
        for endpoint in endpoints:
            if self not in endpoint.watchers:
                endpoint.watchers = (*endpoint.watchers, self)
        self._state.room = most if self.gradient is None else min(most, self.gradient.limit)

    def refusal(self, now: float) -> tuple[str, str] | None:
        """Return code and detail of a refusal; None: one more is let through."""
        state, gradient, admission = self._state, self.gradient, self._admission
        if gradient is not None and state.requests >= gradient.limit:
            self.refused[LATENCY] += 1
            return LATENCY, f"{state.requests} requests are under way"
        if admission is not None:
            chance = admission.rejection(now)
            if chance and self._draw() < chance:
                self.refused[FAILURES] += 1
                return FAILURES, f"{chance:.0%} of all requests are"
        return None

    def answered(self, exchange: Exchange, head: ResponseHead, now: float) -> None:
        """Learn from a response's head."""
        status = head.status
        well = status < 500 and status != 429
        call = None
        if status == 200 and exchange.grpc is not None:
            call = head.get(b"grpc-status")
            well = call not in BAD_CALLS
        if self.gradient is not None:
            if well:
                self.gradient.observe(exchange.sent_at, now)
            else:
                self.gradient.observe_none(now)  # who refuses is quick: no sign of a short queue
        if (
            exchange.grpc is None or status != 200 or call is not None
        ):  # else its trailers will tell
            self._count(now, well=well)

    def ended(self, exchange: Exchange, trailers: Fields, now: float) -> None:
        """Learn how a gRPC call ended."""
        self._count(now, well=trailers.get(b"grpc-status") not in BAD_CALLS)

    def connected(self, session: Session, now: float) -> None:
        """Learn of a connection."""
        self._count(now, well=True)

    def failed(self, placed: Exchange | Session, code: str, now: float) -> None:
        """Learn that there was no answer."""
        if code in TIMEOUTS and self.gradient is not None:
            began = cast("Exchange", placed).sent_at  # a session has no such timeouts
            if began:  # else it had no connection yet
                self.gradient.observe(began, now)
        if code not in BLAMELESS:
            self._count(now, well=False)

    def outrun(self, exchange: Exchange, now: float) -> None:
        """Learn that an answer takes longer than this."""
        if self.gradient is not None:
            self.gradient.observe(exchange.sent_at, now)
            self._settle(now)

    def _count(self, now: float, *, well: bool) -> None:
        if self._admission is not None:
            self._admission.record(now, well=well)
        self._settle(now)

    def _settle(self, now: float) -> None:
        most = self._most
        if self.gradient is not None:
            most = min(most, self.gradient.limit)
        if self._admission is not None and self._admission.rejection(now):
            most = 0
        self._state.room = most


def is_refused(exchange: Exchange) -> bool:
    """Say whether `exchange`, whose cluster is drawn, was answered because there is no room in it."""
    cluster = exchange.cluster
    assert cluster is not None
    state = cluster.state
    if state.requests >= cluster.max_requests:
        code, detail = LIMIT, f"{state.requests} requests are under way"
    else:
        found = None if state.guard is None else state.guard.refusal(exchange.engine.now())
        if found is None:
            return False
        code, detail = found
    exchange.cluster = None  # it is not among those that are counted there
    exchange.fail(code, f"cluster {cluster.name}: {detail}")
    return True
