"""Outlier ejection in the engine: who is watched, left out, and let back in through one live request.

Theory of operation.  A `Detector` per cluster lives in the book, so that a push forgets nothing.  It
is told of every answer and failure, and has no timer: a cluster without traffic needs no verdicts.
An endpoint that cannot be connected to is passed over at once, whoever else there is, and tried by
one request after 0.1 s, 0.2 s and so on: that is no ejection, and takes no part of what may be
ejected.  An ejected endpoint is not `available`, which balancers look at anyway.  When its time is over it
stays so, and one request, never a retry, is sent to it: what comes of that one decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Balancer, Watcher
from sidecar.traffic.outlier import (
    DUE,
    EJECTED,
    LIVE,
    PROBE,
    PROBING,
    Policy,
    Tally,
    may_eject,
    outliers,
)

if TYPE_CHECKING:
    from sidecar.core.book import ClusterState, Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session
    from sidecar.wire.fields import Fields, ResponseHead

BLAMELESS: Final = frozenset(
    {
        "reused-closed",  # the usual race of an idle connection
        "upstream-refused",  # it drains, or has as many streams as it wants
        "upstream-stream-duration",  # it answers, and would go on
        "upstream-no-upgrade",  # it lacks something that this request alone wants
    }
)
UNREACHABLE: Final = frozenset({"connect-failed", "connect-timeout"})
FIRST_OUTAGE: Final = 0.1  # seconds that an endpoint is passed over after a connection failed
LONGEST_OUTAGE: Final = 5.0
BAD_CALLS: Final = frozenset({b"2", b"4", b"8", b"13", b"14", b"15"})
"""gRPC's UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS."""


@final
class Outage:
    """An endpoint takes no connections: who finds out, and when it is tried again."""

    __slots__ = ("misses", "trial", "until")

    def __init__(self) -> None:
        self.misses = 0
        self.until = 0.0
        self.trial: object = None  # the exchange or session that was sent there to see

    def begin(self, trial: object, now: float) -> None:
        """Pass it over from now on, but for `trial`; the longer, the more have failed."""
        self.trial = trial
        self.until = now + min(LONGEST_OUTAGE, FIRST_OUTAGE * (1 << min(self.misses, 16)))


@final
class Detector:
    """Ejects endpoints of one cluster, as this worker sees them."""

    __slots__ = (
        "_panic", "_policy", "_state", "_sweep_at", "down", "due", "ejections", "watched",
    )  # fmt: skip

    def __init__(self, state: ClusterState) -> None:
        self._state: Final = state
        self._policy = Policy()
        self._panic = 0.5
        self._sweep_at = 0.0
        self.watched: dict[Endpoint, Health] = {}
        self.down: Final[dict[Endpoint, Outage]] = {}  # passed over
        self.due: Final[list[Endpoint]] = []  # wait for a request to be tried with
        self.ejections: Final[Counter[str]] = Counter()  # ever, by reason

    @property
    def out(self) -> int:
        """How many endpoints are ejected."""
        return sum(health.tally.state != LIVE for health in self.watched.values())

    def reason(self, endpoint: Endpoint) -> str:
        """Return why `endpoint` is ejected; empty if it is not."""
        health = self.watched.get(endpoint)
        return "" if health is None or health.tally.state == LIVE else health.tally.reason

    def watch(self, endpoints: tuple[Endpoint, ...], policy: Policy | None, panic: float) -> None:
        """Watch `endpoints`, and no others, by `policy`; with None, all that are ejected return."""
        old, self.watched = self.watched, {}
        for endpoint, health in old.items():
            endpoint.watchers = tuple(w for w in endpoint.watchers if w is not health)
            if policy is None or endpoint not in endpoints:
                self._let_in(endpoint, health)
                self.down.pop(endpoint, None)
        if policy is None:
            return
        self._policy, self._panic = policy, panic
        for endpoint in endpoints:
            health = old.get(endpoint) or Health(self, endpoint)
            self.watched[endpoint] = health
            endpoint.watchers = (*endpoint.watchers, health)

    def told(self, health: Health, placed: Exchange | Session, now: float, *, well: bool) -> None:
        """Weigh what has just been counted; `placed` brought it, and it was `well` or not."""
        if now >= self._sweep_at:
            self._sweep(now)
        tally = health.tally
        if tally.state == LIVE:
            reason = tally.verdict(self._policy)
            if reason:
                self._eject(health, reason, now)
        elif health.probe is placed:
            if well:
                self._let_in(health.endpoint, health)
                health.endpoint.since = now
            else:
                health.probe = None
                tally.eject(PROBE, now, self._policy)
                self.ejections[PROBE] += 1

    def missed(self, endpoint: Endpoint, placed: Exchange | Session, now: float) -> bool:
        """Note that no connection came about; say whether that is news.

        Of many that tried at once, and failed for one reason, the first tells it all.
        """
        outage = self.down.get(endpoint)
        if outage is None:
            outage = self.down[endpoint] = Outage()
        elif now < outage.until and outage.trial is not placed:
            return False
        outage.begin(None, now)
        outage.misses += 1
        return True

    def probe(self, placed: Exchange | Session, among: Container[Endpoint]) -> Endpoint | None:
        """Return an endpoint whose time is over; what becomes of `placed` decides about it."""
        endpoint = next((e for e in reversed(self.due) if e in among), None)
        if endpoint is None:
            return None
        self.due.remove(endpoint)
        health = self.watched[endpoint]
        health.tally.step(PROBING)
        health.tally.until = placed.engine.now() + self._policy.interval
        health.probe = placed
        return endpoint

    def _sweep(self, now: float) -> None:
        """End a window: compare rates, and see whose time is over."""
        self._sweep_at = now + self._policy.interval
        live = [h for h in self.watched.values() if h.tally.state == LIVE]
        for index, reason in outliers([health.tally for health in live], self._policy):
            if live[index].tally.state == LIVE:  # not ejected for the other reason just now
                self._eject(live[index], reason, now)
        for endpoint, health in self.watched.items():
            tally = health.tally
            tally.close_window()
            if tally.state in (EJECTED, PROBING) and now >= tally.until:
                tally.step(DUE)
                health.probe = None
                self.due.append(endpoint)

    def _eject(self, health: Health, reason: str, now: float) -> None:
        available = sum(endpoint.available for endpoint in self.watched)
        size = len(self.watched)
        if may_eject(self.out, available, size, self._panic, self._policy):
            health.tally.eject(reason, now, self._policy)
            self.ejections[reason] += 1
            self._state.eject(health.endpoint, ejected=True)

    def _let_in(self, endpoint: Endpoint, health: Health) -> None:
        if health.tally.state != LIVE:
            health.tally.state = LIVE  # from wherever it was
            health.probe = None
            if endpoint in self.due:
                self.due.remove(endpoint)
            self._state.eject(endpoint, ejected=False)


@final
class Health(Watcher):
    """Counts for one endpoint what is good and bad."""

    __slots__ = ("_detector", "endpoint", "probe", "tally")

    def __init__(self, detector: Detector, endpoint: Endpoint) -> None:
        self._detector: Final = detector
        self.endpoint: Final = endpoint
        self.tally: Final = Tally()
        self.probe: object = None  # the exchange or session that decides about a return

    def answered(self, exchange: Exchange, head: ResponseHead, now: float) -> None:
        """Count by the status: 5xx and 429 are bad; of gRPC calls, by theirs."""
        status = head.status
        if status == 200 and exchange.grpc is not None:
            call = head.get(b"grpc-status")
            if call is not None:
                self._count(exchange, now, well=call not in BAD_CALLS)
            return
        self._count(exchange, now, well=status < 500 and status != 429)

    def ended(self, exchange: Exchange, trailers: Fields, now: float) -> None:
        """Count a gRPC call by the status in its trailers."""
        call = trailers.get(b"grpc-status")
        if call is not None:
            self._count(exchange, now, well=call not in BAD_CALLS)

    def connected(self, session: Session, now: float) -> None:
        """Count a connection."""
        self._detector.down.pop(self.endpoint, None)
        self.tally.reached()
        self._detector.told(self, session, now, well=True)

    def failed(self, placed: Exchange | Session, code: str, now: float) -> None:
        """Count an attempt without an answer, unless nobody is to blame."""
        if code in UNREACHABLE and not self._detector.missed(self.endpoint, placed, now):
            return
        if code not in BLAMELESS:
            self.tally.went_without()
            self._detector.told(self, placed, now, well=False)

    def _count(self, exchange: Exchange, now: float, *, well: bool) -> None:
        if self._detector.down:
            self._detector.down.pop(self.endpoint, None)
        self.tally.answered(well=well)
        self._detector.told(self, exchange, now, well=well)


@final
class Probing(Balancer):
    """Sends one request to an endpoint that may be well again; the others go where they should."""

    __slots__ = ("_detector", "_down", "_due", "_endpoints", "_inner", "has_affinity")

    def __init__(
        self, inner: Balancer, detector: Detector, endpoints: tuple[Endpoint, ...]
    ) -> None:
        self._endpoints: Final = frozenset(endpoints)
        self._inner: Final = inner
        self._detector: Final = detector
        self._due: Final = detector.due
        self._down: Final = detector.down
        self.has_affinity = inner.has_affinity

    def pick(self, exchange: Exchange | Session, tried: Container[Endpoint]) -> Endpoint | None:
        """Return the endpoint to be tried, but never to who has failed elsewhere already."""
        if self._due and not exchange.attempts:
            endpoint = self._detector.probe(exchange, self._endpoints)
            if endpoint is not None:
                return endpoint
        if self._down:
            return self._pick_around(exchange, tried)
        return self._inner.pick(exchange, tried)

    def _pick_around(
        self, exchange: Exchange | Session, tried: Container[Endpoint]
    ) -> Endpoint | None:
        """Pass over who takes no connections, but for one request when it is time to see."""
        now = exchange.engine.now()
        avoided = []
        for endpoint, outage in self._down.items():
            if now < outage.until or exchange.attempts:
                avoided.append(endpoint)
            elif not self.has_affinity and endpoint.available and endpoint in self._endpoints:
                outage.begin(exchange, now)
                return endpoint
            # Where like requests belong together, the next one that belongs there sees.
        return self._inner.pick(exchange, _Either(tried, avoided))


@final
class _Either(Container["Endpoint"]):
    """What is in one or the other."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: Container[Endpoint], other: Container[Endpoint]) -> None:
        self._one: Final = one
        self._other: Final = other

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._one or endpoint in self._other
