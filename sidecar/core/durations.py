"""Limits of time that most exchanges do not have: the whole stream's, a try's, a silent try's.

What is here costs an exchange without them nothing: routes that have such limits say so in their
plan, and an exchange has one timer however many limits there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import HttpFilter
from sidecar.core.timers import NEVER
from sidecar.errors import UpstreamError

PERIOD: Final = 10.0  # seconds over which the rate of a request is looked at
BLAMED: Final = frozenset({"upstream-timeout", "grpc-deadline"})  # on the endpoint

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.plan import ClusterPlan, RoutePlan


@final
class Arrival:
    """How a request arrives that is not whole yet: by when it must be, and how fast at least."""

    __slots__ = ("_is_stalled", "_rate", "_seen", "_until", "_was_stalled")

    def __init__(self, until: float, rate: int) -> None:
        self._until: Final = until
        self._rate: Final = rate  # octets a second; 0: any
        self._seen = 0  # octets, when last looked at
        self._is_stalled = False  # the endpoint takes no more: the caller cannot send
        self._was_stalled = False  # at any time since the last look

    def stalled(self, *, is_stalled: bool) -> None:
        """Note whether the caller cannot send."""
        self._is_stalled = is_stalled
        self._was_stalled = True

    def next_look(self, exchange: Exchange, now: float) -> float:
        """Return when there is something to find out."""
        self._seen = exchange.bytes_in
        self._was_stalled = self._is_stalled
        return min(self._until, now + PERIOD if self._rate else NEVER)

    def failure(self, exchange: Exchange, now: float) -> str:
        """Return what is wrong with it at `now`, empty if nothing is."""
        if now >= self._until:
            return "request-timeout"
        is_slow = exchange.bytes_in - self._seen < self._rate * PERIOD
        # Nor is it the caller's fault that it waits for `100 Continue`.
        return (
            "request-too-slow"
            if is_slow and not (self._was_stalled or exchange.head.expect)
            else ""
        )


@final
class WholeStream(HttpFilter):
    """Asked first on routes that limit the whole exchange, or the arrival of its request; 0: no limit."""

    __slots__ = ("_most", "_rate", "_request")

    def __init__(self, most: float, request: float, rate: int) -> None:
        self._most: Final = most
        self._request: Final = request
        self._rate: Final = rate

    def on_request(self, exchange: Exchange) -> None:
        """Note by when it must be over."""
        if self._most:
            exchange.last = exchange.started + self._most
        deadline = min(exchange.route_deadline, exchange.last)
        if exchange.owed:
            # Until the request is whole: then the route's timeout takes its place.  A body of a
            # length not said may be a stream of what happens, when it happens.
            until = exchange.started + self._request if self._request else NEVER
            arrival = Arrival(until, self._rate if exchange.head.length else 0)
            exchange.arrival = arrival
            deadline = min(deadline, arrival.next_look(exchange, exchange.started))
        exchange.route_deadline = deadline


def limit_answer(exchange: Exchange, route: RoutePlan, since: float) -> None:
    """The request is whole: note by when the answer must begin, on a route that limits the whole."""
    timeout = route.own_timeout if exchange.grpc is None else route.own_grpc_timeout
    deadline = exchange.last
    if exchange.grpc is not None:
        deadline = min(deadline, exchange.grpc.deadline)
    exchange.route_deadline = min(deadline, since + timeout) if timeout else deadline


def limit_try(exchange: Exchange, route: RoutePlan, cluster: ClusterPlan, now: float) -> None:
    """Note by when the attempt that begins now must have a head, and be over."""
    exchange.try_deadline = now + route.per_try_timeout if route.per_try_timeout else NEVER
    if cluster.max_stream_duration:
        exchange.try_last = now + cluster.max_stream_duration
        exchange.try_deadline = min(exchange.try_deadline, exchange.try_last)
    if route.per_try_idle_timeout:
        exchange.moved = now  # another endpoint's silence is not this one's


def overdue(exchange: Exchange, now: float, *, is_whole: bool) -> str:
    """Return which limit of the exchange has passed; `is_whole`: its request has come to its end.

    Empty: none has, the request arrives as it should, and the next look is noted.
    """
    if now >= exchange.last:
        return "stream-duration"
    if exchange.grpc is not None and now >= exchange.grpc.deadline:
        return "grpc-deadline"
    if is_whole:
        return "upstream-timeout"
    arrival = exchange.arrival
    failure = arrival.failure(exchange, now)
    if not failure:
        deadline = NEVER if exchange.grpc is None else exchange.grpc.deadline
        exchange.route_deadline = min(exchange.last, deadline, arrival.next_look(exchange, now))
    return failure


def try_overdue(exchange: Exchange, now: float) -> UpstreamError:
    """Return which limit of the attempt has passed."""
    sent = exchange.client is not None
    if now >= exchange.try_last:
        return UpstreamError("upstream-stream-duration", "", sent=sent)
    return UpstreamError("per-try-timeout", "no response head", sent=sent)


def silent(exchange: Exchange, now: float) -> UpstreamError | None:
    """Return what is to be said of an attempt in which nothing moved; None: it is not to blame.

    Nor is it for a caller that is slow to send or to read, nor between two attempts.
    """
    route = exchange.route
    assert route is not None
    if not route.per_try_idle_timeout or exchange.owed or exchange.full:
        return None
    if exchange.client is None and exchange.place is None:
        return None
    detail = f"nothing moved for {now - exchange.moved:.3g} s"
    return UpstreamError("per-try-idle-timeout", detail, sent=exchange.client is not None)


def silent_until(exchange: Exchange) -> float:
    """Return when the exchange has been silent for too long, whoever is to blame."""
    assert exchange.route is not None
    return exchange.moved + (exchange.route.stream_idle_timeout or NEVER)
