"""How does the sidecar itself ask a cluster something: by an exchange of the engine, like any other.

A `CallPlan` is made by the compiler: a listener that nobody connects to, with one route to one
cluster and no filter on it, so that a call can cause no further call.  `start` gives the engine a
request made in memory; what becomes of it is told once, whatever happens.  `ask` does so on behalf
of a request that waits for the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sidecar.core.api import Wait
from sidecar.core.durations import due
from sidecar.core.exchange import Exchange
from sidecar.core.plan import CALL, ClusterPlan, ListenerPlan, RoutePlan, RouteTable
from sidecar.core.retry import RetryPlan
from sidecar.core.timers import NEVER, Timer
from sidecar.core.types import Caller
from sidecar.wire.fields import REQUEST_NAMES, RequestHead
from sidecar.wire.http1_head import HeadReader

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.replies import Reply
    from sidecar.core.types import Engine
    from sidecar.wire.fields import Field, Fields, ResponseHead

_OURSELVES: Final = Caller()
_READER: Final = HeadReader()
# Who called us is said by us, so nothing is taken out that says it.
_LOOKED_AT: Final = frozenset(REQUEST_NAMES) - {b"x-forwarded-client-cert"}


class CallResult(NamedTuple):
    """What became of a call."""

    code: str
    """Empty: the service has answered, wholly.  Else why not, a code of `replies`."""

    detail: str
    """More of the same, for logs."""

    head: ResponseHead | None
    """There is one if `code` is empty."""

    body: bytes
    """Empty where none is kept."""

    trailers: Fields | None

    @property
    def status(self) -> int:
        """The service's status; 0 without an answer."""
        return 0 if self.code or self.head is None else self.head.status


Done = Callable[[CallResult], None]
Decide = Callable[[Exchange, CallResult], "Verdict"]


def call_head(
    method: bytes,
    target: bytes,
    authority: bytes,
    fields: Sequence[Field],
    length: int | None,
    version: int = 11,
) -> RequestHead:
    """Return the head of a request of ours, with the length of its body; None: trailers follow it.

    Names are in lower case; nothing among `fields` frames the message or names the host.
    """
    pairs = list(fields)
    if length:
        pairs.append((b"content-length", b"%d" % length))
    found = {name: value for name, value in pairs if name in _LOOKED_AT}
    head = RequestHead(method, target, version, b"", found, pairs)
    head.authority = authority
    head.length = length
    return head


def ids_of(exchange: Exchange) -> list[Field]:
    """Return the fields by which a call made for `exchange` is found in logs and traces."""
    return [(b"x-request-id", exchange.request_id), (b"traceparent", exchange.traceparent)]


@final
class CallPlan:
    """How calls of one kind to one cluster are made; made ahead, with the plan.

    `timeout` is for all of a call: tries, head and body.  Of the answer's body `keeps` octets are
    kept, and a longer one is a failure; -1 keeps nothing and takes any.  With `repeatable`, a call
    that an endpoint may have seen already is tried again, whatever its method.
    """

    __slots__ = ("cluster", "keeps", "listener", "timeout", "waiting")

    def __init__(
        self,
        name: str,
        cluster: ClusterPlan,
        timeout: float,
        *,
        keeps: int = 65536,
        attempts: int = 3,
        repeatable: bool = False,
    ) -> None:
        self.cluster: Final = cluster
        self.timeout: Final = timeout
        self.keeps: Final = keeps
        route = RoutePlan(
            f"{CALL}|{name}",
            ((1, cluster),),
            retry=RetryPlan(attempts, on_reset=repeatable, any_method=repeatable),
            timeout=timeout,
            grpc_timeout=timeout,
            stream_idle_timeout=0.0,  # the timeout is for all of it
            buffer_limit=1 << 62,  # the body is in memory anyway: it can be said again
        )
        table = RouteTable((((), (), route),))
        self.listener: Final = ListenerPlan(route.name, CALL, "http", table, _READER)
        self.waiting: Final[dict[Exchange, Call]] = {}  # requests, and what they wait for

    def start(
        self,
        engine: Engine,
        head: RequestHead,
        body: bytes,
        done: Done,
        trailers: Fields | None = None,
    ) -> Call:
        """Begin a call; `done` is told its result, once, and not before this has returned."""
        call = Call(self, engine, done)
        call.begin(head, body, trailers)
        return call

    def ask(self, exchange: Exchange, head: RequestHead, body: bytes, decide: Decide) -> Wait:
        """Have `exchange` wait for the answer to a call; what `decide` makes of it is the verdict.

        The filter calls `forget` when the exchange ends.
        """
        engine = exchange.engine

        def done(result: CallResult) -> None:
            del self.waiting[exchange]
            try:
                verdict = decide(exchange, result)
            except Exception as error:  # noqa: BLE001 - a plug-in's bug must not keep the caller
                engine.bug("call", error)
                verdict = "internal-error"
            exchange.go_on(verdict)

        self.waiting[exchange] = self.start(engine, head, body, done)
        return _FOR_IT

    def forget(self, exchange: Exchange) -> None:
        """Give up what `exchange` waits for, if it does."""
        call = self.waiting.pop(exchange, None)
        if call is not None:
            call.cancel()


_FOR_IT: Final = Wait(NEVER)  # calls have a timeout of their own


@final
class Call:
    """The caller's side of an exchange that nobody sent us: it keeps the answer."""

    __slots__ = (
        "_body", "_done", "_engine", "_exchange", "_head", "_is_begun", "_over", "_plan", "_size",
        "_trailers", "_until", "timer",
    )  # fmt: skip

    def __init__(self, plan: CallPlan, engine: Engine, done: Done) -> None:
        self._plan: Final = plan
        self._engine: Final = engine
        self._done: Done | None = done
        self._exchange: Exchange | None = None
        self._is_begun = False
        self._head: ResponseHead | None = None
        self._body: list[bytes] | None = []  # None: it was too large
        self._size = 0
        self._trailers: Fields | None = None
        self._until = engine.now() + plan.timeout
        self._over = Timer(self._late)  # when a response that has begun takes too long
        self.timer: Final = Timer(self._due)

    def begin(self, head: RequestHead, body: bytes, trailers: Fields | None) -> None:
        """Give the engine the request."""
        exchange = Exchange(self._engine, self._plan.listener, _OURSELVES, self, head)
        self._exchange = exchange
        exchange.trailers = trailers
        self._guard(exchange, lambda: exchange.begin(body, end=True))
        self._is_begun = True

    def cancel(self) -> None:
        """Give it up: nobody is told."""
        self._done = None
        self._give_up("downstream-closed", "")

    # The exchange says:

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """The answer begins."""
        self._head = head
        if not end:
            self._engine.wheel.arm(self._over, self._until)
        if body:
            self.write(body)

    def inform(self, head: ResponseHead) -> None:
        """Nobody waits for interim responses."""

    def write(self, data: bytes) -> None:
        """More of the answer."""
        keeps = self._plan.keeps
        if keeps < 0:
            return
        self._size += len(data)
        if self._size <= keeps:
            assert self._body is not None
            self._body.append(data)
        elif self._body is not None:
            self._body = None
            detail = f"the body is longer than {keeps} octets"
            # Not from within what the endpoint's side says: it has not finished saying it.
            self._engine.later(lambda: self._give_up("call-too-large", detail))

    def finish(self, trailers: Fields | None) -> None:
        """The answer is whole."""
        self._trailers = trailers

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        """There is none: the exchange says why."""

    def cut(self) -> None:
        """The answer has broken off: the exchange says why."""
        self.closed()

    def closed(self) -> None:
        """It is over."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None  # it is told once
        self.timer.retire()
        self._over.retire()
        code, detail = exchange.code, exchange.detail
        if not code and self._body is None:  # it came to its end before it was given up
            code = "call-too-large"
        body = b"" if code or self._body is None else b"".join(self._body)
        result = CallResult(code, detail if code else "", self._head, body, self._trailers)
        if self._is_begun:
            self._tell(result)
        else:
            self._engine.later(lambda: self._tell(result))

    def pause(self) -> None:
        """The body is in memory: there is nothing to stop."""

    def resume(self) -> None:
        """Nor to go on with."""

    # Inside:

    def _tell(self, result: CallResult) -> None:
        done, self._done = self._done, None
        if done is None:
            return  # given up meanwhile
        try:
            done(result)
        except Exception as error:  # noqa: BLE001 - whose fault it is must not break whom it came from
            self._engine.bug("call", error)

    def _due(self, now: float) -> None:
        exchange = self._exchange
        assert exchange is not None  # else the timer is retired
        self._guard(exchange, lambda: due(exchange, now))

    def _guard(self, exchange: Exchange, step: Callable[[], None]) -> None:
        """Take a step; a bug in it ends the exchange, since whoever asked must be told."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - see above
            self._engine.bug("call", error)
            exchange.downstream_lost("internal-error")

    def _late(self, now: float) -> None:
        self._give_up("upstream-timeout", "the body did not end in time")

    def _give_up(self, code: str, detail: str) -> None:
        if self._exchange is not None:
            self._exchange.downstream_lost(code, detail)
