"""One opaque connection pair: octets both ways, half-close, back-pressure, one idle timer."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final, cast, final

from sidecar.core.api import Answer, Pause
from sidecar.core.replies import reply_for
from sidecar.core.timers import NEVER
from sidecar.errors import UpstreamError

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint
    from sidecar.core.plan import ClusterPlan, ListenerPlan, RoutePlan
    from sidecar.core.types import Caller, Engine, ListenerState

_LINGER: Final = struct.pack("ii", 1, 0)  # on, for no time: what is unsent is thrown away

MAX_DIALS: Final = 3  # endpoints tried: nothing was sent, so the next one is safe


@final
class Session(asyncio.Protocol):
    """The downstream protocol of an opaque connection; its other half is `UpstreamHalf`."""

    __slots__ = (
        "asked",
        "attempts",
        "bytes_in",
        "bytes_out",
        "caller",
        "closing",
        "cluster",
        "code",
        "detail",
        "endpoint",
        "engine",
        "eof",
        "fields",
        "flag",
        "held",
        "listener",
        "moved",
        "plan",
        "route",
        "server_name",
        "started",
        "timer",
        "transport",
        "tried",
        "upstream",
        "wait_until",
        "waits",
        "wall",
    )

    def __init__(self, listener: ListenerState, caller: Caller, server_name: str = "") -> None:
        self.listener: Final = listener
        self.plan: Final[ListenerPlan] = listener.plan
        self.engine: Final[Engine] = listener.engine
        self.caller: Final = caller
        self.server_name: Final = server_name
        self.transport: asyncio.Transport  # from connection_made on
        self.upstream: UpstreamHalf | None = None
        self.route: RoutePlan | None = None
        self.cluster: ClusterPlan | None = None
        self.endpoint: Endpoint | None = None
        self.tried: tuple[Endpoint, ...] = ()
        self.attempts = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.held: list[bytes] = []  # what came before the endpoint was there
        self.eof = False
        self.closing = False
        self.asked = 0  # how many of the route's filters have had it
        self.waits: Pause | None = None
        self.wait_until = NEVER
        self.code = ""
        self.flag = ""
        self.detail = ""
        self.fields: dict[str, str] | None = None  # what filters add to the access log
        self.started: Final = self.engine.now()
        self.wall: Final = self.engine.wall()
        self.moved = self.started
        self.timer = self.engine.wheel.timer(self._due)

    # The transport says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller is there: find the endpoint."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.transport = transport
        self.listener.connections.add(self)
        for sink in self.engine.sinks:
            sink.session_opened(self)
        for stop in self.plan.network_filters:
            refusal = stop.on_session(self)
            if refusal is not None:
                assert not isinstance(refusal, Pause)
                self._refuse(refusal)
                return
        self.route = self.plan.routes.find_name(self.server_name)
        if self.route is None:
            self.fail("no-route")
        elif self.route.on_session:
            self._ask()
        else:
            self._place()

    def data_received(self, data: bytes) -> None:
        """Octets from the caller."""
        self.bytes_in += len(data)
        self.moved = self.engine.now()
        upstream = self.upstream
        if upstream is not None and upstream.transport is not None:
            upstream.transport.write(data)
        elif self.is_lost:
            pass  # read on: else nobody would notice that the caller gives up
        else:
            self.held.append(data)
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The caller has said all; the endpoint may still speak."""
        self.eof = True
        upstream = self.upstream
        if upstream is not None and upstream.transport is not None:
            if upstream.eof:
                return False
            upstream.transport.write_eof()
        return not self.is_lost

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._end("" if exc is None else "downstream-closed")

    def pause_writing(self) -> None:
        """The caller reads slowly."""
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        upstream = self.upstream
        if upstream is not None and upstream.transport is not None:
            upstream.transport.resume_reading()

    def drain(self) -> None:
        """A session cannot be asked to end early: the drain's deadline ends it."""

    def abort(self) -> None:
        """Close at once."""
        self._end("draining")

    def fail(self, code: str, detail: str = "") -> None:
        """Close, for a reason that the log tells."""
        self.detail = detail
        self._end(code)

    @property
    def is_lost(self) -> bool:
        """Say whether it waits for nothing."""
        return self.waits is not None and self.wait_until == NEVER

    # Inside:

    def _ask(self) -> None:
        """Ask the filters of the route, from where they were left."""
        route = self.route
        assert route is not None
        while self.asked < len(route.on_session):
            self.asked += 1
            said = route.on_session[self.asked - 1].on_session(self)
            if isinstance(said, Pause):
                self.waits = said
                self.wait_until = self.engine.now() + said.seconds
                self._arm()
                return
            if said is not None:
                self._refuse(said)
                return
        self._place()

    def _refuse(self, refusal: str | Answer) -> None:
        if isinstance(refusal, str):
            refusal = Answer(refusal)
        if refusal.cut:
            reset_on_close(self.transport)
        self.fail(refusal.code, refusal.detail)

    def _place(self) -> None:
        """Draw the cluster, and dial an endpoint of it."""
        route = self.route
        assert route is not None
        self.cluster = route.pick(self.engine.draw)
        state = self.cluster.state
        if state.connections >= self.cluster.max_connections:
            self.fail("pending-overflow")
            return
        self._arm()
        self._dial()

    def upstream_connected(self) -> None:
        """The endpoint is there."""
        upstream = self.upstream
        assert upstream is not None
        assert upstream.transport is not None
        assert self.endpoint is not None
        for watcher in self.endpoint.watchers:
            watcher.connected(self, self.engine.now())
        if self.held:
            self.transport.resume_reading()  # first: what was held may fill the connection
            upstream.transport.write(b"".join(self.held))
            self.held.clear()
        if self.eof:
            upstream.transport.write_eof()

    def upstream_failed(self, error: UpstreamError) -> None:
        """The endpoint could not be reached: try another, since nothing was sent."""
        cluster, endpoint = self.cluster, self.endpoint
        assert cluster is not None
        assert endpoint is not None
        endpoint.failures += 1
        for watcher in endpoint.watchers:
            watcher.failed(self, error.code, self.engine.now())
        self._give_back()
        self.upstream = None
        if self.closing:
            return
        self.tried = (*self.tried, endpoint)
        if self.attempts < MAX_DIALS and len(cluster.endpoints) > len(self.tried):
            self._dial()
        else:
            self.fail(error.code, error.detail)

    def _dial(self) -> None:
        cluster = self.cluster
        assert cluster is not None
        endpoint = cluster.balancer.pick(self, self.tried)
        if endpoint is None:
            self.fail("no-endpoint")
            return
        self.attempts += 1
        self.endpoint = endpoint
        endpoint.active += 1
        endpoint.requests += 1
        endpoint.connections += 1
        cluster.state.connections += 1
        self.upstream = UpstreamHalf(self)
        cluster.dial(cluster, endpoint, self.upstream, self.caller)

    def _give_back(self) -> None:
        endpoint, cluster = self.endpoint, self.cluster
        if endpoint is not None and cluster is not None:
            self.endpoint = None
            endpoint.active -= 1
            endpoint.connections -= 1
            cluster.state.connections -= 1

    def _due(self, now: float) -> None:
        if self.closing:
            self._abort()  # what is left to send is not read
            self._let_go()
        elif now >= self.wait_until:
            self._go_on(now)
        elif now >= self.moved + self.plan.idle_timeout > self.moved:
            self.fail("stream-idle")
        else:
            self._arm()

    def _arm(self) -> None:
        idle = self.plan.idle_timeout
        deadline = min(self.wait_until, self.moved + idle if idle else NEVER)
        if deadline != NEVER:
            self.engine.wheel.arm(self.timer, deadline)

    def _go_on(self, now: float) -> None:
        """The pause that a filter asked for is over."""
        waits, self.waits = self.waits, None
        assert waits is not None
        self.wait_until = NEVER
        self.moved = now
        if waits.refusal is not None:
            self._refuse(waits.refusal)
        else:
            self._ask()

    def _end(self, code: str) -> None:
        """The end of both directions, told once."""
        if self.closing:
            return
        self.closing = True
        if code:
            self.code, self.flag = code, reply_for(code).flag
        self.timer.stop()
        self.listener.connections.discard(self)
        if code:
            self._abort()
        else:
            for transport in self._transports():
                transport.close()
                if transport.get_write_buffer_size() and self.plan.idle_timeout:
                    self.engine.wheel.arm(self.timer, self.engine.now() + self.plan.idle_timeout)
        if self.route is not None:
            for stop in self.route.on_session_end:
                stop.on_session_end(self)
        for sink in self.engine.sinks:
            sink.session(self)
        if self.upstream is None or self.upstream.transport is not None:
            self._give_back()
        if self.timer.deadline == NEVER:
            self._let_go()

    def _let_go(self) -> None:
        """Nothing is left to wait for: hold on to nobody who holds on to us."""
        self.timer = self.engine.wheel.give_back(self.timer)
        self.upstream = None

    def _abort(self) -> None:
        for transport in self._transports():
            transport.abort()

    def _transports(self) -> list[asyncio.Transport]:
        ends = (self.transport, self.upstream and self.upstream.transport)
        return [transport for transport in ends if transport is not None]


@final
class UpstreamHalf(asyncio.Protocol):
    """The other half of a session."""

    __slots__ = ("eof", "session", "transport")

    def __init__(self, session: Session) -> None:
        self.session: Final = session
        self.transport: asyncio.Transport | None = None
        self.eof = False

    @property
    def alpn(self) -> str:
        """What is offered under TLS: nothing, the octets are opaque."""
        return ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The endpoint is there."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.transport = transport
        if self.session.closing:
            self.session._give_back()
            transport.abort()
        else:
            self.session.upstream_connected()

    def dial_failed(self, error: UpstreamError) -> None:
        """It could not be reached."""
        self.session.upstream_failed(error)

    def data_received(self, data: bytes) -> None:
        """Octets from the endpoint."""
        session = self.session
        session.bytes_out += len(data)
        session.moved = session.engine.now()
        session.transport.write(data)

    def eof_received(self) -> bool:
        """The endpoint has said all; the caller may still speak."""
        self.eof = True
        session = self.session
        if session.eof:
            return False
        session.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The endpoint is gone."""
        self.session._end("" if exc is None else "upstream-closed")

    def pause_writing(self) -> None:
        """The endpoint reads slowly."""
        self.session.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.session.transport.resume_reading()


def reset_on_close(transport: asyncio.Transport) -> None:
    """Have the peer see a reset, and not an orderly end, when `transport` is aborted."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
