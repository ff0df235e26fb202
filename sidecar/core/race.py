"""Two attempts at once: the first good response wins, the other attempt is cancelled.

Theory of operation.  A `Race` waits beside the exchange with a timer.  When it comes up, it steps
between the exchange and its attempt: it is the exchange's client from then on, and each of two
`Side`s is what a connection, or the pool, takes for the exchange.  The exchange knows of one attempt
at a time, the first one, until a side has won or has dropped out; then it goes on with the other as
if there had never been two, whose side only hands on what comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, cast, final

from sidecar.core import pool
from sidecar.core.ejection import BAD_CALLS
from sidecar.core.retry import count_retry, tell_attempt
from sidecar.core.states import CONNECTING, REQUEST, STREAMING
from sidecar.core.timers import NEVER, Timer
from sidecar.errors import OverloadError, UpstreamError

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.hedge import Hedging
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.sides import Upstream
    from sidecar.core.types import Caller
    from sidecar.wire.fields import Field, Fields, RequestHead, ResponseHead


class _Told(Protocol):
    """A connection's half of an attempt, as far as it can be given another listener."""

    exchange: object


@final
class Side:
    """One of two attempts: what its connection and the pool take for the exchange."""

    __slots__ = ("client", "endpoint", "exchange", "place", "race", "reset_code", "sent_at")

    def __init__(self, race: Race, endpoint: Endpoint) -> None:
        self.race: Final = race
        self.exchange: Final = race.exchange
        self.endpoint: Final = endpoint
        self.client: Upstream | None = None
        self.place: pool.Place | None = None
        self.sent_at = 0.0
        self.reset_code = 0

    # What a connection reads of the exchange, and the pool:

    @property
    def caller(self) -> Caller:
        """The downstream end."""
        return self.exchange.caller

    @property
    def head(self) -> RequestHead:
        """The request's head."""
        return self.exchange.head

    @property
    def extra(self) -> list[Field]:
        """Our fields of it."""
        return self.exchange.extra

    @property
    def trailers(self) -> Fields | None:
        """Its trailers."""
        return self.exchange.trailers

    @property
    def response_done(self) -> bool:
        """Whether the response is whole."""
        return self.exchange.response_done

    # What they say:

    def upstream_ready(self, client: Upstream) -> None:
        """A connection is there: send the request, which is whole."""
        exchange = self.exchange
        self.client = client
        self.sent_at = exchange.engine.now()
        if exchange.grpc is not None:
            exchange.grpc.pass_on(exchange.head, self.sent_at)
        client.request(cast("Exchange", self), b"".join(exchange.held or ()), end=True)

    def upstream_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        if error.code == pool.CROWDED:  # which is nobody's failure
            self.race.leave(self)
        else:
            self.race.lost(self, error)

    def upstream_lost(self, error: UpstreamError) -> None:
        """The connection died."""
        if self.race.is_open:
            self.race.lost(self, error)
        else:
            self.exchange.reset_code = self.reset_code
            self.exchange.upstream_lost(error)

    def upstream_full(self) -> None:
        """The endpoint reads slowly; there is nothing more to be read for it."""

    def upstream_writable(self) -> None:
        """It has caught up."""

    def informed(self, head: ResponseHead) -> None:
        """An interim response, of which nobody knows yet whose it is."""
        if not self.race.is_open:
            self.exchange.informed(head)

    def response(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """The response's head."""
        if self.race.is_open and not self.race.has_won(self, head, end=end):
            return
        self.exchange.response(head, body, end=end)

    def response_data(self, data: bytes) -> None:
        """More of the response's body."""
        self.exchange.response_data(data)

    def response_end(self, trailers: Fields | None) -> None:
        """The response is whole."""
        self.exchange.response_end(trailers)


@final
class Race:
    """One exchange that may get a second attempt; while both are under way, its client."""

    __slots__ = ("_first", "_plan", "_second", "_since", "exchange", "is_open", "timer")

    def __init__(self, plan: Hedging, exchange: Exchange) -> None:
        self._plan: Final = plan
        self.exchange: Final = exchange
        self.timer: Final = Timer(self.due)
        self.is_open = False
        self._since: Final = exchange.engine.now()
        self._first: Side
        self._second: Side

    def due(self, now: float) -> None:
        """The response takes long: have a second attempt, or look again later."""
        exchange = self.exchange
        cluster = exchange.cluster
        is_there = exchange.grpc is not None and exchange.grpc.withheld is not None
        if cluster is None or is_there or exchange.state not in (CONNECTING, STREAMING):
            return  # it waits for no response's head
        delay = self._plan.delay(cluster, now)
        if delay == NEVER:
            return
        since = now if exchange.owed & REQUEST or exchange.retry_at != NEVER else exchange.sent_at
        ripe = (since or self._since) + delay
        if ripe > now:
            exchange.engine.wheel.arm(self.timer, ripe)
        elif self._plan.may_begin(exchange):
            self._begin(cluster)

    def _begin(self, cluster: ClusterPlan) -> None:
        """Step between the exchange and its attempt, and make another."""
        exchange = self.exchange
        first = exchange.endpoint
        assert first is not None
        second = cluster.balancer.pick(exchange, (*exchange.tried, first))
        if second is None or second is first or second in exchange.tried:
            return
        exchange.attempts += 1
        second.active += 1
        second.requests += 1
        count_retry(exchange)
        self._take_over(first, second)
        assert exchange.route is not None
        if exchange.route.retry.counts:
            tell_attempt(exchange, exchange.attempts)
        kind = cluster.kind(exchange.head)
        try:
            client = pool.take(exchange.engine, cluster, second, kind, self._second)
        except OverloadError:
            self.leave(self._second)
            return
        self._count("begun")
        if client is not None:
            self._second.upstream_ready(client)

    def _take_over(self, first: Endpoint, second: Endpoint) -> None:
        exchange = self.exchange
        one = self._first = Side(self, first)
        self._second = Side(self, second)
        self.is_open = True
        one.sent_at = exchange.sent_at
        one.client, exchange.client = exchange.client, self
        if one.client is not None:
            cast("_Told", one.client).exchange = one
            one.client.resume()  # whatever the caller has not read yet: an interim response
            exchange.downstream.resume()  # whatever the endpoint has not read yet: all has come
        else:
            place = one.place = exchange.place
            assert place is not None  # it waits for a connection
            place.waiter = one
            exchange.place = None

    # The sides say:

    def has_won(self, side: Side, head: ResponseHead, *, end: bool) -> bool:
        """Say whether this response is the one for the caller; else the other side goes on alone."""
        exchange = self.exchange
        if self._is_good(head):
            self._win(side)
            return True
        exchange.sent_at = side.sent_at
        for watcher in side.endpoint.watchers:
            watcher.answered(exchange, head, exchange.engine.now())
        client = side.client
        assert client is not None  # whose response it is
        if end:
            client.release()
        else:
            client.close()
        self.leave(side)
        return False

    def lost(self, side: Side, error: UpstreamError) -> None:
        """An attempt has failed: the other goes on alone."""
        exchange, endpoint = self.exchange, side.endpoint
        exchange.sent_at = side.sent_at
        endpoint.failures += 1
        for watcher in endpoint.watchers:
            watcher.failed(exchange, error.code, exchange.engine.now())
        self.leave(side)

    # The exchange says, as long as both are under way:

    def request(self, exchange: Exchange, body: bytes, *, end: bool) -> None:
        """Never: the request was sent when there was no race yet."""

    def write(self, data: bytes) -> None:
        """Never: it is whole."""

    def finish(self, trailers: Fields | None) -> None:
        """Never: it is whole."""

    def pause(self) -> None:
        """There is no response to be read slowly yet."""

    def resume(self) -> None:
        """There is none to go on with."""

    def release(self) -> None:
        """Never: there is no response yet."""

    def close(self) -> None:
        """Give both attempts up; the first one's endpoint is the exchange's, which counts it."""
        self.is_open = False
        self._cancel(self._first)
        self._cancel(self._second)
        self._outrun(self._second)
        self._second.endpoint.active -= 1

    # Inside:

    def _is_good(self, head: ResponseHead) -> bool:
        route = self.exchange.route
        assert route is not None
        status, retry = head.status, route.retry
        if status >= 500 or status == 429:
            return False
        if status in retry.on_status and retry.asks_for(head):
            return False
        return self.exchange.grpc is None or head.get(b"grpc-status") not in BAD_CALLS

    def _win(self, side: Side) -> None:
        """`side` is the only one from here on."""
        other = self._second if side is self._first else self._first
        self._count("won" if side is self._second else "lost")
        self._cancel(other)
        self._outrun(other)
        self._go_on(side, without=other)

    def leave(self, side: Side) -> None:
        """`side` has come to nothing."""
        other = self._second if side is self._first else self._first
        self.exchange.tried = (*self.exchange.tried, side.endpoint)
        self._go_on(other, without=side)

    def _go_on(self, side: Side, *, without: Side) -> None:
        """Have the exchange go on with `side` as with its only attempt."""
        exchange = self.exchange
        self.is_open = False
        without.endpoint.active -= 1
        exchange.endpoint = side.endpoint
        exchange.sent_at = side.sent_at
        exchange.client = client = side.client
        wanted = CONNECTING if client is None else STREAMING
        if exchange.state != wanted:
            exchange.step(wanted)
        if client is None:
            place, side.place = side.place, None
            assert place is not None
            place.waiter = exchange
            exchange.place = place
        elif exchange.full:
            client.pause()

    def _cancel(self, side: Side) -> None:
        if side.place is not None:
            side.place.leave()
        if side.client is not None:
            side.client.close()

    def _outrun(self, side: Side) -> None:
        """Tell those who look at latency that this one takes longer still."""
        exchange = self.exchange
        if side.sent_at:
            sent_at, exchange.sent_at = exchange.sent_at, side.sent_at
            for watcher in side.endpoint.watchers:
                watcher.outrun(exchange, exchange.engine.now())
            exchange.sent_at = sent_at

    def _count(self, what: str) -> None:
        cluster = self.exchange.cluster
        assert cluster is not None
        hedges = cluster.state.hedges
        assert hedges is not None  # the compiler has set it up
        hedges.counts[what] += 1
