"""One request and its response, retries included: the state machine that joins two connections.

Theory of operation.  A downstream connection makes an Exchange when it has read a request head, and
then tells it of body, end and loss.  The exchange finds the route, runs the filters, picks an
endpoint and takes a connection, which from then on tells it of response head, body, end and loss.
Both ends are spoken to through the small interfaces `Downstream` and `Upstream`, so that a protocol
is one more pair of them.  Every trouble takes one road, `failure.attempt_failed` or `fail`: retry, or
a reply from the table in `replies`, or a cut.  Nothing here waits: whoever has something to say calls.

Here is what every exchange goes through.  What few do is in modules of its own, which take the
exchange: what filters say (`verdicts`), which limit of time is reached (`durations`), what follows a
failed attempt (`failure`), how a gRPC call begins (`grpc`), a response that is late (`late`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from sidecar.core import pool, verdicts
from sidecar.core.admission import is_refused
from sidecar.core.api import Answer
from sidecar.core.durations import arrived, limit_answer, limit_rest, limit_try
from sidecar.core.failure import attempt_failed, is_retried
from sidecar.core.grpc import begin_call
from sidecar.core.heads import request_edits
from sidecar.core.overload import is_shed
from sidecar.core.plan import PROTOCOL_HTTP2, ClusterPlan, RoutePlan
from sidecar.core.replies import answer_with, reply_for
from sidecar.core.states import (
    CONNECTING,
    DONE,
    HELD,
    REPLYING,
    REQUEST,
    ROUTING,
    STATE_NAMES,
    STEPS,
    STREAMING,
    WAITING,
)
from sidecar.core.timers import NEVER
from sidecar.errors import OverloadError

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.book import Endpoint
    from sidecar.core.credential import Credential
    from sidecar.core.durations import Arrival
    from sidecar.core.grpc import Call
    from sidecar.core.grpc_web import GrpcWeb
    from sidecar.core.meter import Meter
    from sidecar.core.plan import ListenerPlan
    from sidecar.core.sides import Downstream, Upstream
    from sidecar.core.tap import Tap
    from sidecar.core.types import Caller, Engine
    from sidecar.errors import UpstreamError
    from sidecar.wire.fields import Field, Fields, RequestHead, ResponseHead

HOLD_LIMIT: Final = 65536  # octets of body held while no connection is there, before reading stops


@final
class Exchange:
    """One request and response; also the outcome that sinks are told about."""

    __slots__ = (
        "arrival", "asked", "attempts", "bytes_in", "bytes_out", "caller", "client", "cluster", "code",
        "credential", "detail", "downstream", "ended", "endpoint", "engine", "extra", "fields", "flag",
        "fresh", "full", "grpc", "head", "held", "held_size", "last", "listener", "moved", "owed",
        "place", "request_id", "reset_code", "response_done", "retry_at", "retrying", "route",
        "route_deadline", "sent_at", "started", "state", "status", "taps", "then", "traceparent",
        "trailers", "tried", "try_deadline", "try_last", "upstream_ms", "wait_until", "web",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        listener: ListenerPlan,
        caller: Caller,
        downstream: Downstream,
        head: RequestHead,
    ) -> None:
        self.engine: Final = engine
        self.listener: Final = listener
        self.caller: Final = caller
        self.downstream = downstream
        self.head: Final = head
        self.state = ROUTING
        self.started: Final = engine.now()
        self.ended = 0.0
        self.request_id = self.traceparent = b""
        self.route: RoutePlan | None = None
        self.cluster: ClusterPlan | None = None
        self.endpoint: Endpoint | None = None
        self.client: Upstream | None = None
        self.tried: tuple[Endpoint, ...] = ()
        self.attempts = 0
        self.place: pool.Place | None = None  # where a connection is waited for
        self.full = False  # the caller reads slowly
        self.fresh = False  # the next attempt must not use a pooled connection
        self.retrying = False  # counted among the cluster's retries
        self.held: list[bytes] | None = []  # the body so far, for the next attempt; None: let go
        self.held_size = 0
        self.trailers: Fields | None = None  # of the request
        self.owed = REQUEST
        self.response_done = False
        self.status = 0
        self.flag = self.code = self.detail = ""
        self.bytes_in = self.bytes_out = 0
        self.sent_at = 0.0
        self.upstream_ms = -1.0
        self.route_deadline = NEVER
        self.try_deadline = NEVER
        self.last = self.try_last = NEVER  # when the exchange, the attempt must be over
        self.asked = 0  # how many of the route's filters have had the request
        self.then: Callable[[Exchange], Verdict] | None = None  # asked when a wait is over
        self.wait_until = NEVER  # when a filter's wait is
        self.retry_at = NEVER  # when the back-off before the next attempt is over
        self.moved: float = self.started  # when an octet last moved, either way
        self.extra: list[Field] = []  # fields of ours, sent after the caller's
        self.taps: tuple[Tap | Meter, ...] = ()  # filters that have the body as well
        self.fields: dict[str, str] | None = None  # what filters add to the access log
        self.arrival: Arrival  # of a request not whole yet, where that is limited
        self.credential: Credential  # set by a filter that has verified one, see there
        self.grpc: Call | None = None
        self.web: GrpcWeb | None = None  # the caller is a browser
        self.reset_code = 0  # of HTTP/2, with which the endpoint ended the response

    @property
    def wall(self) -> float:
        """Return when it began, in seconds of the epoch."""
        engine = self.engine
        return engine.wall() - (engine.now() - self.started)

    def step(self, to: int) -> None:
        """Move to state `to`; a step that STEPS does not list is a bug."""
        if not STEPS[self.state] >> to & 1:
            raise AssertionError(f"{STATE_NAMES[self.state]} -> {STATE_NAMES[to]} is no step")
        self.state = to

    # The caller's side says:

    def begin(self, body: bytes, *, end: bool) -> None:
        """Start: the head is there, and maybe some of the body, and maybe all of it."""
        head = self.head
        if end:
            self.owed = 0
        if body:
            self.bytes_in = len(body)
        if b"content-type" in head.found:
            body = begin_call(self, body)
        if body:
            self.held = [body]
            self.held_size = len(body)
        request_edits(self)
        if self.engine.draining:
            head.close = True
        route = self.route = self.listener.routes.find(head, self.caller)
        if route is None:
            self.fail("no-route")
            return
        overload = self.engine.overload
        if overload is not None and is_shed(self, overload):
            return
        for stop in route.on_request:
            self.asked += 1
            verdict = stop.on_request(self)
            if verdict is not None:
                verdicts.follow(self, verdict)
                return
        self.forward(self.started)

    def go_on(self, verdict: Verdict = None) -> None:
        """The wait that a filter asked for is over; what it says now goes before its `then`."""
        verdicts.go_on(self, verdict)

    def forward(self, now: float) -> None:
        """Draw the cluster, and have an endpoint of it."""
        route = self.route
        assert route is not None
        cluster = self.cluster = route.cluster or route.pick(self.engine.draw)
        if not self.owed:
            limit_answer(self, now)
        state = cluster.state
        if state.requests >= state.room and is_refused(self):
            return
        state.requests += 1
        self.attempt(now)

    def request_data(self, data: bytes) -> None:
        """More of the request's body."""
        self.bytes_in += len(data)
        self.moved = self.engine.now()
        if self.grpc is not None:
            if self.web is not None:
                data = self.web.decode(data)
            self.grpc.requests.feed(data)
        if self.held is not None:
            self.held.append(data)
            self.held_size += len(data)
            assert self.route is not None
            if self.held_size > self.route.buffer_limit and self.state == STREAMING:
                self.held = None  # too much to say again: no retry from here on
            elif self.held_size > HOLD_LIMIT and self.state != STREAMING:
                self.downstream.pause()
        if self.client is not None and self.state == STREAMING:
            self.client.write(data)
        for tap in self.taps:
            tap.data(self, data)

    def request_end(self, trailers: Fields | None) -> None:
        """The request is whole."""
        self.owed &= ~REQUEST
        self.trailers = trailers
        if self.cluster is not None and self.status == 0:
            limit_answer(self, self.engine.now())
            self.arm()
        elif self.state == WAITING and self.route is not None and self.route.is_limited:
            arrived(self)
        if self.client is not None and self.state == STREAMING:
            self.client.finish(trailers)
            if self.response_done and not self.owed:
                self.complete()
        for tap in self.taps:
            tap.end(self)

    def downstream_lost(self, code: str = "downstream-closed", detail: str = "") -> None:
        """The caller is gone, or broke the protocol in its body."""
        if self.state >= REPLYING:
            return
        reply = reply_for(code)
        self.code, self.flag, self.detail = code, reply.flag, detail
        if self.status == 0:
            self.status = reply.status
        self.drop_client()
        self.finish()

    def downstream_full(self) -> None:
        """The caller reads slowly: stop reading the response."""
        self.full = True
        if self.client is not None:
            self.client.pause()

    def downstream_ready(self) -> None:
        """It has caught up."""
        self.full = False
        self.moved = self.engine.now()
        if self.client is not None and not self.owed & HELD:
            self.client.resume()

    # The endpoint's side says:

    def upstream_ready(self, client: Upstream) -> None:
        """A connection is there: send the request, with as much of the body as there is."""
        self.client = client
        self.step(STREAMING)
        self.sent_at = self.engine.now()
        held = self.held
        body = b"" if not held else held[0] if len(held) == 1 else b"".join(held)
        assert self.route is not None
        if self.held_size > self.route.buffer_limit:
            self.held = None
        if body and (self.held_size > HOLD_LIMIT or self.attempts > 1):  # else it is not paused
            self.downstream.resume()  # first: the body may fill the connection, and pause it again
        if self.grpc is not None:
            self.grpc.pass_on(self.head, self.sent_at)
        client.request(self, body, end=not self.owed)
        if self.full and self.client is client:
            client.pause()  # what came before, of another attempt, has filled the caller

    def upstream_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        if error.code == pool.CROWDED:  # another endpoint's connections are as many
            self.fail(error.code, error.detail)
        else:
            attempt_failed(self, error)

    def informed(self, head: ResponseHead) -> None:
        """An interim response."""
        self.moved = self.engine.now()
        self.downstream.inform(head)

    def response(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """The response's head, with what has come of its body."""
        now = self.engine.now()
        route, endpoint = self.route, self.endpoint
        assert route is not None
        assert endpoint is not None
        # A head that was kept back comes a second time.
        if endpoint.watchers and (self.grpc is None or self.grpc.withheld is None):
            for watcher in endpoint.watchers:
                watcher.answered(self, head, now)
        if head.status in route.retry.on_status and is_retried(self, head, end=end):
            return
        if self.grpc is not None:
            if self.grpc.keeps_back(self, head, body, end=end):
                return
            self.grpc.responses.feed(body)
        self.upstream_ms = (now - self.sent_at) * 1000
        self.moved = now
        self.held = None
        self.bytes_out = len(body)
        if route.on_response:
            for stop in route.on_response:
                verdict = stop.on_response(self, head)
                if verdict is not None:
                    verdicts.replace(self, verdict, end=end)
                    return
        self.status = head.status  # from here on there is no other answer
        if not end:
            limit_rest(self)
        self.response_done = end
        if head.status == 101:
            self.owed |= REQUEST  # what comes now from the caller is the tunnel's
        self.downstream.respond(head, body, end=end)
        if end:
            self._response_over()

    def response_data(self, data: bytes) -> None:
        """More of the response's body."""
        if self.grpc is not None:
            self.grpc.let_go(self)
            self.grpc.responses.feed(data)
        self.bytes_out += len(data)
        self.moved = self.engine.now()
        self.downstream.write(data)

    def response_end(self, trailers: Fields | None) -> None:
        """The response is whole."""
        if self.grpc is not None:
            assert self.endpoint is not None
            if trailers is not None:
                for watcher in self.endpoint.watchers:
                    watcher.ended(self, trailers, self.engine.now())
            if self.grpc.is_retried(self, trailers):
                return
        if not self.response_done:  # of a tunnel that may be said already
            self.response_done = True
            self.downstream.finish(trailers)
        self._response_over()

    def response_half(self) -> None:
        """The endpoint of a tunnel has said all; it may still be spoken to."""
        self.response_done = True
        self.downstream.finish(None)
        if not self.owed:
            self.complete()

    def upstream_lost(self, error: UpstreamError) -> None:
        """The connection died under us, before the response was whole."""
        attempt_failed(self, error)

    def upstream_full(self) -> None:
        """The endpoint reads slowly: stop reading the request."""
        self.downstream.pause()
        self.stalled(is_stalled=True)

    def upstream_writable(self) -> None:
        """It has caught up."""
        self.moved = self.engine.now()
        self.stalled(is_stalled=False)  # first: who paces the caller may say otherwise
        self.downstream.resume()

    def stalled(self, *, is_stalled: bool) -> None:
        """The caller cannot send, or can again: how slow it is meanwhile is not its fault."""
        assert self.route is not None
        if self.route.is_limited and self.owed & REQUEST:
            self.arrival.stalled(is_stalled=is_stalled)

    # Inside, and for the modules that do what few exchanges need:

    def arm(self) -> None:
        """Be due when the first of all limits is reached."""
        assert self.route is not None
        deadline = self.route_deadline
        if self.try_deadline < deadline:
            deadline = self.try_deadline
        if self.retry_at < deadline:
            deadline = self.retry_at
        if self.wait_until < deadline:
            deadline = self.wait_until
        idle = self.route.idle_timeout
        if idle and self.state != WAITING and self.moved + idle < deadline:
            deadline = self.moved + idle
        self.engine.wheel.arm(self.downstream.timer, deadline)

    def attempt(self, now: float) -> None:
        """Pick an endpoint and take a connection to it."""
        cluster, route, engine = self.cluster, self.route, self.engine
        assert cluster is not None
        assert route is not None
        self.sent_at = 0.0
        endpoint = self.endpoint
        if not self.fresh or endpoint is None:
            endpoint = cluster.balancer.pick(self, self.tried)
        if endpoint is None:
            failed = cluster.state.resolved == () and not cluster.endpoints
            self.fail("dns-failed" if failed else "no-endpoint")
            return
        self.endpoint = endpoint
        self.attempts += 1
        endpoint.active += 1
        endpoint.requests += 1
        if route.limits_tries:
            limit_try(self, route, cluster, now)
        self.arm()
        kind: int = cluster.protocol
        if kind > PROTOCOL_HTTP2:
            kind = cluster.kind(self.head)
        try:
            client = pool.take(engine, cluster, endpoint, kind, self, fresh=self.fresh)
        except OverloadError as error:
            endpoint.active -= 1
            self.endpoint = None
            self.fail(error.code, error.detail)
            return
        self.fresh = False
        if client is not None:
            self.upstream_ready(client)
        elif self.state != STREAMING:  # the dial may have succeeded at once
            self.step(CONNECTING)

    def fail(self, code: str, detail: str = "") -> None:
        """Answer by ourselves, from the table; or cut, when a head has gone out already."""
        self.answer(Answer(code, detail=detail))

    def answer(self, answer: Answer) -> None:
        """Answer by ourselves, as `answer` says; or cut, when a head has gone out already."""
        self.code, self.detail = answer.code, answer.detail
        self.flag = reply_for(answer.code).flag or self.flag
        if self.status or answer.cut:
            self.finish(cut=True)
            return
        self.step(REPLYING)
        answer_with(self, answer)
        self.finish()

    def _response_over(self) -> None:
        """The response is whole; the exchange is, once the request is as well."""
        if not self.owed:
            self.complete()
        elif self.owed == HELD:
            client, self.client = self.client, None
            assert client is not None
            client.release()  # that nothing of it waits any more is the end
        else:
            # An early answer: the endpoint wants no more of the body, so its connection is spent.
            self.drop_client()
            if not self.owed & HELD:
                self.finish()

    def complete(self) -> None:
        client, self.client = self.client, None
        assert client is not None
        client.release()
        self.finish()

    def drop_client(self, failure: str = "") -> None:
        """Give the attempt up; `failure` is the code of what the endpoint did."""
        if self.place is not None:
            self.place.leave()
        client, self.client = self.client, None
        endpoint = self.endpoint
        if failure and endpoint is not None:
            endpoint.failures += 1
            for watcher in endpoint.watchers:
                watcher.failed(self, failure, self.engine.now())
        if client is not None:
            client.close()

    def finish(self, *, cut: bool = False) -> None:
        """The end, whatever it was: counts go back, sinks are told, the caller's side goes on."""
        self.step(DONE)
        self.downstream.timer.deadline = NEVER
        self.held = None
        if self.endpoint is not None:
            self.endpoint.active -= 1
        cluster = self.cluster
        if cluster is not None:
            cluster.state.requests -= 1
            if self.retrying:
                cluster.state.retries -= 1
        route = self.route
        if route is not None and route.on_finish:
            for stop in route.on_finish:
                try:
                    stop.on_finish(self)
                except Exception as error:  # noqa: BLE001 - a plug-in's bug must not keep the caller
                    self.engine.bug("on_finish", error)
        engine = self.engine
        self.ended = engine.now()
        engine.ended.append(self)
        if len(engine.ended) >= engine.batch:
            engine.tell_ended()
        if cut:
            self.downstream.cut()
        else:
            self.downstream.closed()
