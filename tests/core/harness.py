"""The engine without sockets and without time: bytes in, bytes out, and nothing may be left over.

A `Harness` compiles a snapshot with a dialler that the test plays, drives the timer wheel by hand
and records what sinks are told.  It knows the engine's public seams only: `compile_snapshot`, the
`Front` that accepts connections, the dialler's contract, `Engine`, `Sink` and the book of counts.
"""

import asyncio
import heapq
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, final

from sidecar.compiler.context import Context
from sidecar.compiler.routes import compile_routes
from sidecar.compiler.snapshot import compile_snapshot
from sidecar.core.api import HttpFilter, Sink
from sidecar.core.book import Book, ClusterState, Endpoint
from sidecar.core.exchange import Exchange
from sidecar.core.http1_server import Http1Server
from sidecar.core.plan import ClusterPlan, Dialled
from sidecar.core.tcp import Session
from sidecar.core.timers import Wheel
from sidecar.core.types import Caller, Engine, ListenerState
from sidecar.errors import UpstreamError
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.listener import Front
from sidecar.sources.decode import decode
from tests.core.http2_peer import Peer
from tests.core.transport import FakeTransport

WRITE_HIGH: Final = 131072  # what runtime.dial sets on every connection
REQUEST_ID: Final = b"00000000-0000-4000-8000-000000000000"
OWN: Final = (
    b"x-request-id: " + REQUEST_ID + b"\r\n"
    b"traceparent: 00-00000000000000000000000000000001-0000000000000001-00\r\n"
)
"""The lines that an outbound listener adds, with the harness's chance."""


class Outcome(NamedTuple):
    """What a sink was told of one exchange or session."""

    status: int
    code: str
    flag: str
    attempts: int
    bytes_in: int
    bytes_out: int
    endpoint: str


@final
class Recorder(Sink):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: Final[list[Outcome]] = []
        self.exchanges: Final[list[Exchange]] = []
        self.opened: Final[list[Session]] = []
        self.sessions: Final[list[Outcome]] = []
        self.refusals: Final[list[tuple[str, str, str]]] = []
        self._told: Final[list[object]] = []

    def exchange(self, exchange: Exchange) -> None:
        self._once(exchange)
        self.exchanges.append(exchange)
        self.outcomes.append(_outcome(exchange, exchange.status, exchange.endpoint))

    def session_opened(self, session: Session) -> None:
        self.opened.append(session)

    def session(self, session: Session) -> None:
        self._once(session)
        self.sessions.append(_outcome(session, 0, session.endpoint))

    def refused(self, listener: str, code: str, peer: str) -> None:
        self.refusals.append((listener, code, peer))

    def _once(self, what: object) -> None:
        assert not any(known is what for known in self._told), "told twice"
        self._told.append(what)


def _outcome(of: Exchange | Session, status: int, endpoint: Endpoint | None) -> Outcome:
    place = "" if endpoint is None else endpoint.address
    return Outcome(status, of.code, of.flag, of.attempts, of.bytes_in, of.bytes_out, place)


@final
class Dial:
    """One connection that the engine wants."""

    def __init__(
        self,
        harness: "Harness",
        cluster: ClusterPlan,
        endpoint: Endpoint,
        protocol: Dialled,
        caller: Caller | None,
    ) -> None:
        self._harness: Final = harness
        self.cluster: Final = cluster
        self._protocol: Final = protocol
        self.endpoint: Final = endpoint
        self.address: Final = endpoint.address
        self.caller: Final = caller

    @property
    def alpn(self) -> str:
        """What would be offered under TLS."""
        return self._protocol.alpn

    def connect(self, *, stalled: bool = False, alpn: str | None = None) -> FakeTransport:
        """It comes about; `stalled`, to an endpoint that does not read."""
        transport = FakeTransport(self._harness.soon, (self.address, 80), alpn)
        if stalled:
            transport.stall()
        self._harness.begun.remove(self)
        self._harness.upstreams.append(transport)
        transport.set_write_buffer_limits(WRITE_HIGH)
        transport.set_protocol(self._protocol)  # type: ignore[arg-type] # as runtime.dial does
        with self._harness.together():
            self._protocol.connection_made(transport)
        return transport

    def fail(self, code: str = "connect-failed", *, sent: bool = False) -> None:
        """It does not."""
        self._harness.begun.remove(self)
        with self._harness.together():
            self._protocol.dial_failed(UpstreamError(code, self.address, sent=sent))


@final
class Job:
    """Work beside the engine, such as a filter that waits; it is stepped when its turn comes."""

    def __init__(
        self, work: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        self._work: Final = work
        self._done: Final = done
        self.is_over = False

    def step(self, value: object = None) -> None:
        """Go on until it waits again, or to its end; `value` is what was waited for."""
        if self.is_over:
            return
        try:
            self._work.send(value)
        except StopIteration as end:
            self.is_over = True
            self._done(end.value, None)
        except asyncio.CancelledError:  # it has ended itself: nobody is told
            self.is_over = True
        except Exception as error:  # noqa: BLE001 - as a task has it
            self.is_over = True
            self._done(None, error)

    def cancel(self) -> None:
        """As a task is cancelled: by an exception where it waits."""
        if self.is_over:
            return
        self.is_over = True
        with suppress(asyncio.CancelledError, StopIteration):
            self._work.throw(asyncio.CancelledError())


@types.coroutine
def later() -> Generator[None, Any, Any]:
    """Wait for the next step of the job; return what it brings."""
    return (yield)


class Harness:
    """One listener, clusters, and everything around them; see the module."""

    def __init__(self, **config: Any) -> None:
        self._queue: Final[deque[Callable[[], None]]] = deque()
        self._wakes: Final[list[float]] = []
        self._is_settling = False
        self.now = 1000.0
        self.chance = 0.5
        self.draw: Callable[[], float] = lambda: self.chance
        self.bits = 0  # random ones: their value, cut to the width that is asked for
        self.bugs: Final[list[BaseException]] = []
        self.told: Final[
            list[tuple[str, BaseException | None]]
        ] = []  # what an operator should know
        self.spent = 0.0  # seconds that pass while the engine runs
        self.jobs: Final[list[Job]] = []
        self.sink: Final = Recorder()
        self.dials: Final[list[Dial]] = []  # all ever begun
        self.begun: Final[list[Dial]] = []  # those that neither came about nor failed
        self.connects_at_once = False  # a dialler that need not wait
        self.callers: Final[list[FakeTransport]] = []
        self.upstreams: Final[list[FakeTransport]] = []
        self.book: Final = Book()
        self._states: Final[list[ClusterState]] = []
        self._endpoints: Final[list[Endpoint]] = []
        self.engine: Final = Engine(
            lambda: self.now,
            lambda: 1_700_000_000 + self.now,
            Wheel(lambda when: heapq.heappush(self._wakes, when)),
            draw=lambda: self.draw(),
            random_bits=lambda bits: self.bits & (1 << bits) - 1,
            bug=lambda where, error: self.bugs.append(error),
            later=self.soon,
            tell=lambda text, error: self.told.append((text, error)),
            stopwatch=lambda: self.spent,
            background=self._run,
        )
        self.engine.sinks = (self.sink,)
        plan = self._compile(**config)
        self.listener: Final = ListenerState(self.engine, plan)

    # Config:

    def swap(self, **config: Any) -> None:
        """Push another config, with the connections and loads that there are."""
        self.listener.plan = self._compile(**config)
        self.settle()

    def _compile(
        self,
        *,
        filters: tuple[HttpFilter, ...] = (),
        files: dict[str, bytes] | None = None,
        **config: Any,
    ) -> Any:  # a ListenerPlan
        snapshot = decode(tree(**config), Snapshot)
        secret = None if files is None else Secret(files=files)
        plan = compile_snapshot(snapshot, secret, self.book, self._dial, lambda: self.draw())
        self.engine.identity = plan.identity
        (listener,) = plan.listeners.values()
        if filters:
            routes = (*snapshot.inbound, *snapshot.outbound)[0].routes
            context = Context(
                clusters=plan.clusters,
                subset=lambda cluster, labels, path: cluster,
                keep=lambda key, begin: begin(),
                workers=1,
                stores=(),
                draw=lambda: self.chance,
                errors=[],
            )
            table = compile_routes(routes, "", context, filters, 15.0)
            setattr(listener, "routes", table)  # noqa: B010 - no config names a filter yet
        for state in self.book.clusters.values():
            if state not in self._states:
                self._states.append(state)
            known = self._endpoints
            known.extend(e for e in state.endpoints.values() if e not in known)
        return listener

    def state(self, name: str = "app") -> ClusterState:
        """Return the counts of cluster `name`."""
        return self.book.clusters[name]

    def endpoint(self, address: str = "10.0.0.1:80") -> Endpoint:
        """Return what is known of the endpoint at `address`."""
        return next(e for e in self._endpoints if e.address == address)

    def _run(
        self, work: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]
    ) -> Callable[[], object]:
        job = Job(work, done)
        self.jobs.append(job)
        self.soon(job.step)
        return job.cancel

    # The loop:

    def soon(self, call: Callable[[], None]) -> None:
        """Run `call` when what runs now has returned."""
        self._queue.append(call)
        self.settle()

    def settle(self) -> None:
        """Run whatever has been put off; nothing where that is being done already."""
        if self._is_settling:
            return
        self._is_settling = True
        try:
            while self._queue:
                self._queue.popleft()()
        finally:
            self._is_settling = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let what happens inside arrive in one turn of the loop."""
        if self._is_settling:
            yield
            return
        self._is_settling = True
        try:
            yield
        finally:
            self._is_settling = False
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass; whoever asked to be woken is, at the moment asked for."""
        end = self.now + seconds
        while self._wakes and self._wakes[0] <= end:
            self.now = max(self.now, heapq.heappop(self._wakes))
            with self.together():
                self.engine.wheel.advance(self.now)
        self.now = end

    # The ends:

    def open(
        self,
        data: bytes = b"",
        *,
        identity: str | None = None,
        host: str = "10.9.9.9",
        alpn: str | None = None,
    ) -> FakeTransport:
        """A caller connects and sends `data`; with `identity`, over mTLS that is done already.

        Without a `host`, on a unix socket.
        """
        peer = (host, 5000 + len(self.callers)) if host else ""
        transport = FakeTransport(self.soon, peer, alpn)
        self.callers.append(transport)
        if identity is None:
            protocol: Any = Front(self.listener)
        else:
            caller = Caller("10.9.9.9", 5000, ("10.0.0.9", 15006))
            caller.identity, caller.certificate_hash, caller.secure = identity, "ab12", True
            protocol = Http1Server(self.listener, caller)
        transport.set_write_buffer_limits(WRITE_HIGH)
        transport.set_protocol(protocol)
        with self.together():
            protocol.connection_made(transport)
        if data:
            transport.send(data)
        return transport

    def connect(self) -> FakeTransport:
        """The connection that was asked for first comes about."""
        return self.begun[0].connect()

    def fail(self, code: str = "connect-failed") -> None:
        """It does not."""
        self.begun[0].fail(code)

    def call(self, alpn: str | None = None, **options: Any) -> Peer:
        """A caller that speaks HTTP/2 connects."""
        return Peer(self.open(alpn=alpn), caller=True, **options)

    def serve(self, alpn: str | None = None, **options: Any) -> Peer:
        """The connection that was asked for first comes about, to an endpoint of HTTP/2."""
        return Peer(self.begun[0].connect(alpn=alpn), caller=False, **options)

    def _dial(
        self, cluster: ClusterPlan, endpoint: Endpoint, protocol: Dialled, caller: Caller | None
    ) -> None:
        dial = Dial(self, cluster, endpoint, protocol, caller)
        self.dials.append(dial)
        self.begun.append(dial)
        if self.connects_at_once:
            dial.connect()

    # What was seen:

    @property
    def outcomes(self) -> list[Outcome]:
        """The exchanges that have ended."""
        return self.sink.outcomes

    def check(self) -> None:
        """Let everybody go away, and look whether every count is back at zero."""
        for transport in self.callers:
            transport.lose()
        assert self.listener.connections == set()
        for state in self._states:
            assert (state.requests, state.pending, state.retries) == (0, 0, 0)
        for endpoint in self._endpoints:
            assert not any(pool.waiting or pool.dialling < 0 for pool in endpoint.pools)
            if not self._has_sessions(endpoint):
                assert endpoint.active == 0
        while self.begun:
            self.fail()
        for transport in self.upstreams:
            transport.lose()
        for state in self._states:
            assert state.connections == 0
        for endpoint in self._endpoints:
            assert (endpoint.active, endpoint.connections) == (0, 0)
            assert not endpoint.idle
        assert len(self.sink.sessions) == len(self.sink.opened)
        assert all(job.is_over for job in self.jobs)
        assert all(transport.is_gone for transport in (*self.callers, *self.upstreams))
        assert self.bugs == []

    def _has_sessions(self, endpoint: Endpoint) -> bool:
        """A session that is being dialled for gives its place back when the dial has ended."""
        return bool(self.sink.opened) and any(d.endpoint is endpoint for d in self.begun)


def tree(
    *,
    role: str = "outbound",
    protocol: str = "http",
    workload: str | dict[str, str] = "web",
    endpoints: tuple[str, ...] = ("10.0.0.1:80",),
    listener: dict[str, Any] | None = None,
    route: dict[str, Any] | None = None,
    retry: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    clusters: list[dict[str, Any]] | None = None,
    certificates: dict[str, str] | None = None,
    stores: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return a config of one listener with one route to cluster `app`; the parts add to it.

    Unless `retry` says otherwise, only what could not connect is tried again: one attempt shows most.
    """
    retry = {"on": ["connect-failure"], **(retry or {})}
    one: dict[str, Any] = {
        "protocol": protocol,
        "routes": [{"name": "all", "cluster": "app", "retry": retry, **(route or {})}],
        **({"address": "127.0.0.1:15006", "mtls": "off"} if role == "inbound" else {}),
        **(listener or {}),
    }
    app = {
        "name": "app",
        "balancer": "round_robin",
        "endpoints": list(endpoints),
        "limits": limits or {},
        **(cluster or {}),
    }
    return {
        "workload": workload,
        role: [one],
        "clusters": [app, *(clusters or [])],
        "certificates": certificates,
        "stores": stores or [],
    }


def forwarded(head: bytes, own: bytes = OWN) -> bytes:
    """Return `head`, and what follows it, as it goes out: with our lines behind its own."""
    lines, _, body = head.partition(b"\r\n\r\n")
    return lines + b"\r\n" + own + b"\r\n" + body


GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
