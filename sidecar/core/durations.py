"""Limits of time: by when what must have happened, and what follows when it has not.

Those that most exchanges do not have (the whole stream's, a try's, a silent try's) cost the others
nothing: routes that have such limits say so in their plan, and an exchange has one timer however many
limits there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import HttpFilter
from sidecar.core.failure import attempt_failed
from sidecar.core.states import REPLYING, REQUEST
from sidecar.core.timers import NEVER
from sidecar.errors import UpstreamError

PERIOD: Final = 10.0  # seconds over which the rate of a request is looked at
_BLAMED: Final = frozenset({"upstream-timeout", "grpc-deadline"})  # on the endpoint

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


def due(exchange: Exchange, now: float) -> None:
    """The exchange's timer has come up: find out which limit it was."""
    if exchange.state >= REPLYING:
        return
    assert exchange.route is not None
    if now >= exchange.route_deadline:
        code = _overdue(exchange, now, is_whole=not exchange.owed & REQUEST)
        if not code:
            exchange.arm()
            return
        exchange.drop_client("upstream-timeout" if code in _BLAMED else "")
        exchange.fail(code)
    elif now >= exchange.try_deadline:
        exchange.try_deadline = NEVER
        attempt_failed(exchange, _try_overdue(exchange, now))
    elif now >= exchange.wait_until:
        exchange.go_on()
    elif now >= exchange.retry_at:
        exchange.retry_at = NEVER
        exchange.attempt(now)
    elif now >= exchange.moved + exchange.route.idle_timeout > exchange.moved:
        _silent(exchange, now)
    else:
        exchange.arm()


def arrived(exchange: Exchange) -> None:
    """The request is whole while a filter waits, on a route that limits its arrival.

    What was asked of the arrival is over, the route's time is to come.
    """
    deadline = NEVER if exchange.grpc is None else exchange.grpc.deadline
    exchange.route_deadline = min(deadline, exchange.last)
    exchange.arm()


def limit_answer(exchange: Exchange, since: float) -> None:
    """The request is whole: from now on the route's timeout counts."""
    route = exchange.route
    assert route is not None
    if exchange.grpc is None:
        if route.timeout:
            exchange.route_deadline = since + route.timeout
            return
    elif route.grpc_timeout:
        exchange.route_deadline = min(exchange.grpc.deadline, since + route.grpc_timeout)
        return
    if route.is_limited:
        _limit_within(exchange, route, since)


def limit_rest(exchange: Exchange) -> None:
    """The response's head is there: from now on only its own deadline and silence count."""
    last, call = exchange.last, exchange.grpc
    exchange.route_deadline = last if call is None else min(call.deadline, last)
    exchange.try_deadline = exchange.try_last
    exchange.arm()


def _limit_within(exchange: Exchange, route: RoutePlan, since: float) -> None:
    """Note by when the answer must begin, on a route that limits the whole."""
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


def _overdue(exchange: Exchange, now: float, *, is_whole: bool) -> str:
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


def _try_overdue(exchange: Exchange, now: float) -> UpstreamError:
    """Return which limit of the attempt has passed."""
    sent = exchange.client is not None
    if now >= exchange.try_last:
        return UpstreamError("upstream-stream-duration", "", sent=sent)
    return UpstreamError("per-try-timeout", "no response head", sent=sent)


def _blame(exchange: Exchange, now: float) -> UpstreamError | None:
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


def _silent(exchange: Exchange, now: float) -> None:
    """Nothing has moved for as long as a try, or the whole exchange, may be silent."""
    assert exchange.route is not None
    until = exchange.moved + (exchange.route.stream_idle_timeout or NEVER)
    error = _blame(exchange, now)
    if now >= until:  # whoever is to blame
        exchange.drop_client()
        exchange.fail("stream-idle")
    elif error is not None:
        attempt_failed(exchange, error)
    else:  # look again when it is too long for the whole
        until = min(until, exchange.route_deadline, exchange.try_deadline, exchange.retry_at)
        exchange.engine.wheel.arm(exchange.downstream.timer, until)
