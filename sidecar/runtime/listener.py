"""What an accepted connection is: PROXY header, TLS and protocol are found out before it is served."""

import asyncio
from typing import Final, cast, final

from sidecar.core.gate import Gate
from sidecar.core.http1_reply import own_reply
from sidecar.core.http1_server import Http1Server
from sidecar.core.http2_server import Http2Server
from sidecar.core.lifetimes import Lifetimes
from sidecar.core.plan import OUTBOUND, SIMPLE
from sidecar.core.tcp import Session
from sidecar.core.types import Caller, Connection, ListenerState
from sidecar.errors import DownstreamError, IdentityError
from sidecar.identity.spiffe import peer_identity
from sidecar.identity.tls import ServerTls, asked_name
from sidecar.runtime.dial import WRITE_HIGH
from sidecar.runtime.tls import Tls
from sidecar.wire import proxy_protocol, sniff
from sidecar.wire.http2_frames import ENHANCE_YOUR_CALM, goaway, settings
from sidecar.wire.tls_hello import parse_hello

PROXY, SECURE, HANDSHAKE, DETECT, SERVED = range(5)
# PROXY: a PROXY header must come first.  SECURE: are these octets TLS?  HANDSHAKE: TLS is being
# negotiated.  DETECT: which protocol is it?  SERVED: handed over or closed.


@final
class Front(asyncio.Protocol):
    """The first protocol of every accepted connection."""

    __slots__ = (
        "_buffer",
        "_caller",
        "_listener",
        "_raw",
        "_rule",
        "_state",
        "_timer",
        "_transport",
    )

    def __init__(self, listener: ListenerState) -> None:
        self._listener: Final = listener
        self._caller: Final = Caller()
        self._raw: asyncio.Transport | None = None  # the socket's own
        self._transport: asyncio.Transport | None = None  # what to serve on: raw, or TLS over it
        self._buffer = b""
        self._rule = ""  # of the listener, that allows no further connection of this caller
        self._state = PROXY
        self._timer = listener.engine.wheel.timer(self._due)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        if self._transport is not None:  # the TLS layer: its handshake is done
            self._transport = transport
            self._detect()
            return
        self._raw = self._transport = transport
        listener, plan = self._listener, self._listener.plan
        if listener.engine.draining:
            transport.abort()
            return
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._caller.host, self._caller.port = peer[0], peer[1]
            self._caller.local = transport.get_extra_info("sockname")[:2]
        refusal = self._refusal()
        if refusal is not None:
            self._tell(refusal)
            transport.abort()
            return
        transport.set_write_buffer_limits(WRITE_HIGH)
        listener.connections.add(self)
        if plan.accept_proxy_protocol:
            self._arm(plan.handshake_timeout)
        else:
            self._secure()

    def data_received(self, data: bytes) -> None:
        """The first octets."""
        self._buffer += data
        try:
            if self._state == PROXY:
                self._proxy()
            elif self._state == SECURE:
                self._secure()
            elif self._state == DETECT:
                self._detect()
        except DownstreamError as error:
            self._refuse(error.code)

    def eof_received(self) -> bool:
        """The caller has said all before we knew what it is: opaque octets, if any."""
        if self._state == DETECT and self._listener.plan.protocol == "http" and self._buffer:
            self._give_up()
            return False
        if self._state == DETECT and self._listener.plan.protocol == "auto":
            transport = self._transport
            assert transport is not None
            self._serve_tcp("")
            session = transport.get_protocol()
            return isinstance(session, Session) and session.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone before it was served."""
        self._timer = self._listener.engine.wheel.give_back(self._timer)
        self._listener.connections.discard(self)
        self._state = SERVED

    def drain(self) -> None:
        """Nothing has begun: close; a request of which something is there is still served."""
        if self._state == DETECT and self._listener.plan.protocol == "http":
            begun = self._buffer != b""
            self._give_up()
            if begun:
                assert self._transport is not None
                cast("Connection", self._transport.get_protocol()).drain()
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._raw is not None:
            self._raw.abort()

    # Inside:

    def _refusal(self) -> str | None:
        """Return why the connection is one too many, None if it is not."""
        listener, plan = self._listener, self._listener.plan
        if len(listener.connections) >= plan.max_connections:
            return "connections-overflow"
        return None if plan.bypass_overload else listener.engine.gate.refusal()

    def _proxy(self) -> None:
        header = proxy_protocol.parse(self._buffer)
        if header is None:
            return
        self._buffer = self._buffer[header.length :]
        if header.source is not None and header.destination is not None:
            self._caller.host, self._caller.port = header.source
            self._caller.local = header.destination
        self._secure()

    def _secure(self) -> None:
        """Begin TLS where the listener wants it."""
        plan = self._listener.plan
        self._state = SECURE
        if plan.mtls == "off":
            self._detect()
            return
        if not self._buffer:
            is_mixed = plan.mtls == "permissive"
            self._arm(plan.detect_timeout if is_mixed else plan.handshake_timeout)
            return
        kind = sniff.sniff(self._buffer)
        if kind == sniff.TLS:
            self._handshake()
        elif kind == sniff.NEED_MORE and len(self._buffer) < 6:
            return
        elif plan.mtls == "permissive":
            self._detect()
        else:
            code = "tls-required" if plan.mtls == SIMPLE else "plaintext-refused"
            self._refuse(code, tell=kind in (sniff.HTTP1, sniff.NEED_MORE))

    def _handshake(self) -> None:
        plan = self._listener.plan
        assert isinstance(plan.tls, ServerTls)
        assert self._raw is not None
        self._state = HANDSHAKE
        self._arm(plan.handshake_timeout)
        layer = Tls(
            plan.tls.context,
            server_side=True,
            verifying=plan.tls.verifying,
            on_ready=self._ready,
            on_failed=self._failed,
        )
        data, self._buffer = self._buffer, b""
        raw = self._raw
        raw.set_protocol(_Joined(layer, self))
        layer.connection_made(raw)
        layer.data_received(data)

    def _ready(self, layer: Tls) -> asyncio.Protocol | None:
        """The handshake is done: who is it?"""
        caller = self._caller
        assert self._raw is not None
        self._raw.set_protocol(layer)
        if self._listener.plan.mtls != SIMPLE:
            try:
                caller.identity, caller.certificate_hash = peer_identity(layer.ssl)
            except IdentityError as error:
                self._failed(error)
                return None
        caller.secure = True
        caller.server_name = asked_name(layer.ssl)
        return self

    def _failed(self, error: IdentityError) -> None:
        self._tell(error.code)
        self._gone()

    def _detect(self) -> None:
        """Find out the protocol, and hand over."""
        plan = self._listener.plan
        if plan.gate is not None and self._state != DETECT:
            self._enter(plan.gate)
        self._state = DETECT
        protocol = plan.protocol
        if protocol != "tcp" and self._caller.secure:
            assert self._transport is not None
            alpn = self._transport.get_extra_info("alpn")
            if alpn is not None and (self._buffer or not self._rule):
                self._serve_http(is_http2=alpn != "http/1.1")
                return
        if protocol == "tcp" and not plan.sni_routed:
            self._serve_tcp("")
        elif not self._buffer:
            is_patient = protocol == "http" and not self._rule
            self._arm(plan.idle_timeout if is_patient else plan.detect_timeout)
        elif plan.sni_routed:
            self._detect_name()
        else:
            kind = sniff.sniff(self._buffer)
            if kind in (sniff.HTTP1, sniff.HTTP2):
                self._serve_http(is_http2=kind == sniff.HTTP2)
            elif protocol == "http":
                if kind != sniff.NEED_MORE:
                    self._refuse("not-http")  # an answer in HTTP would mean nothing to it
                elif sniff.may_be_http2(self._buffer):
                    self._arm(plan.request_head_timeout)
                else:
                    self._serve_http(is_http2=False)
            elif kind != sniff.NEED_MORE:
                self._serve_tcp("")

    def _detect_name(self) -> None:
        """Read the server name of a TLS hello that we pass on unopened."""
        kind = sniff.sniff(self._buffer)
        if kind == sniff.TLS:
            hello = parse_hello(self._buffer)
            if hello is not None:
                self._caller.server_name = hello.server_name
                self._serve_tcp(hello.server_name)
        elif kind != sniff.NEED_MORE or len(self._buffer) >= 6:
            self._serve_tcp("")

    def _serve_http(self, *, is_http2: bool) -> None:
        make = Http2Server if is_http2 else Http1Server
        self._serve(make(self._listener, self._caller))

    def _serve_tcp(self, server_name: str) -> None:
        self._serve(Session(self._listener, self._caller, server_name))

    def _enter(self, gate: Gate) -> None:
        """Ask for one more connection of this caller; who gets none is told so once it can be."""
        self._rule = gate.refuses(self._caller)
        if not self._rule:
            below = self._transport
            assert below is not None
            self._transport = gate.enter(self._listener, self._caller, below)
            self._transport.set_protocol(self)
            below.set_protocol(self._transport)

    def _turn_away(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        """Tell a caller that has too many connections so, in what it speaks, and close."""
        self._tell("connection-limit")
        self._gone()
        if isinstance(protocol, Http1Server):
            is_known = self._caller.identity or self._listener.plan.role == OUTBOUND
            detail = f"limit {self._rule}" if is_known else ""
            transport.write(own_reply("connection-limit", detail))
        elif isinstance(protocol, Http2Server):
            transport.write(settings(()) + goaway(0, ENHANCE_YOUR_CALM, b"connection-limit"))
        transport.close()

    def _serve(self, protocol: asyncio.Protocol) -> None:
        transport = self._transport
        assert transport is not None
        if self._rule:
            self._turn_away(protocol, transport)
            return
        self._gone()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._listener.plan.max_connection_duration:
            limit_lifetime(self._listener, cast("Connection", protocol))
        if self._buffer and not transport.is_closing():
            data, self._buffer = self._buffer, b""
            protocol.data_received(data)

    def _refuse(self, code: str, *, tell: bool = False) -> None:
        """Close, for a reason that the log and metrics tell (and the caller, if it speaks HTTP)."""
        self._tell(code)
        self._gone()
        if self._raw is None:
            return
        if tell:
            self._raw.write(own_reply(code))
        self._raw.close()

    def _tell(self, code: str) -> None:
        for sink in self._listener.engine.sinks:
            sink.refused(self._listener.plan.name, code, self._caller.address)

    def _gone(self) -> None:
        self._state = SERVED
        self._timer = self._listener.engine.wheel.give_back(self._timer)
        self._listener.connections.discard(self)

    def _give_up(self) -> None:
        """Nothing more may come to tell what it is: HTTP/1.1, if there is anything at all."""
        if self._buffer:
            self._serve_http(is_http2=False)
        else:
            if self._rule:
                self._tell("connection-limit")
            self._gone()
            assert self._transport is not None
            self._transport.close()

    def _arm(self, seconds: float) -> None:
        engine = self._listener.engine
        if seconds:
            engine.wheel.arm(self._timer, engine.now() + seconds)
        else:
            self._timer.stop()

    def _due(self, now: float) -> None:
        """The caller has been silent for too long, or merely waits for us to speak first."""
        plan = self._listener.plan
        if self._state == SECURE and plan.mtls == "permissive" and plan.protocol == "http":
            self._detect()
        elif plan.protocol != "http" and (
            self._state == DETECT or (self._state == SECURE and plan.mtls == "permissive")
        ):
            self._serve_tcp("")
        elif self._state == DETECT:
            self._give_up()
        elif self._state != SERVED:
            self._tell("handshake-timeout")
            self._gone()
            self.abort()


@final
class _Joined(asyncio.Protocol):
    """While the handshake lasts: octets go to the TLS layer, and the front hears of the loss."""

    __slots__ = ("_front", "_layer")

    def __init__(self, layer: Tls, front: Front) -> None:
        self._layer: Final = layer
        self._front: Final = front

    def data_received(self, data: bytes) -> None:
        self._layer.data_received(data)

    def eof_received(self) -> bool:
        return self._layer.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._layer.connection_lost(exc)
        self._front.connection_lost(exc)

    def pause_writing(self) -> None:
        self._layer.pause_writing()

    def resume_writing(self) -> None:
        self._layer.resume_writing()


def limit_lifetime(listener: ListenerState, connection: Connection) -> None:
    """Have `connection` end when it has lasted as long as the plan of its listener allows."""
    if listener.lifetimes is None:
        listener.lifetimes = Lifetimes(
            listener.engine, lambda known: known in listener.connections, _expire
        )
    listener.lifetimes.add(connection, listener.plan.max_connection_duration)


def _expire(connection: Connection) -> None:
    """A request under way is finished; a session has no other end than this."""
    if isinstance(connection, Session):
        connection.fail("connection-duration")
    else:
        connection.drain()
