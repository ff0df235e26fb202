"""One HTTP/2 connection to an endpoint: it carries as many attempts at once as the peer allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sidecar.core import pool
from sidecar.core.http2_connection import Http2Connection
from sidecar.errors import DownstreamError, SidecarError, UpstreamError
from sidecar.wire.fields import HOST, NOT_SENT, SPELLING
from sidecar.wire.http2_fields import request_fields
from sidecar.wire.http2_frames import (
    ALPN_SIDECAR,
    CANCEL,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    error_name,
)
from sidecar.wire.http2_stream import CLOSED, Stream
from sidecar.wire.websocket import accept

if TYPE_CHECKING:
    import asyncio

    from sidecar.core.book import Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.types import Engine
    from sidecar.wire.fields import Field, Fields, ResponseHead
    from sidecar.wire.http2_stream import Http2Link

_NOT_SENT: Final = NOT_SENT | HOST  # HTTP/2 has it as the authority
MAX_INTERIM: Final = 16  # 1xx responses before the final one; more is a flood
PEER_KEEPALIVE: Final = 10.0  # seconds of silence before a sidecar is asked for a sign of life


@final
class Http2Client(Http2Connection):
    """The upstream half of exchanges."""

    __slots__ = (
        "asked", "cluster", "early", "endpoint", "generation", "is_settled", "keepalive",
        "kind", "leaving", "owner", "pooled", "secure", "spells", "used",
    )  # fmt: skip

    where = "http2_client"

    def __init__(
        self,
        engine: Engine,
        cluster: ClusterPlan,
        endpoint: Endpoint,
        kind: int,
        owner: pool.Place | None = None,
    ) -> None:
        super().__init__(engine)
        self.cluster: Final = cluster
        self.endpoint: Final = endpoint
        self.kind: Final = kind  # which of the endpoint's pools
        self.owner = owner  # the only one it is for (PROXY protocol); None: whoever waits
        self.generation = cluster.state.generation
        self.leaving = False  # takes no further requests; closes when it has none left
        self.asked = 0.0  # when the last PING went: anything heard since is a sign of life
        self.keepalive = cluster.http2.keepalive
        self.pooled = False  # among those that have room
        self.secure = False
        self.spells = False  # the peer is a sidecar that puts names back as they were
        self.used = 0
        self.is_settled = False  # the endpoint's SETTINGS are there
        self.early: list[Http2Attempt] = []  # tunnels that wait for them

    @property
    def alpn(self) -> str:
        """What is offered under TLS."""
        return "http2"

    # The dialler says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, its TLS handshake done and the peer's identity checked."""
        transport = self.attach(transport)
        chosen = transport.get_extra_info("alpn")
        self.secure = self.cluster.tls is not None
        self.spells = chosen == ALPN_SIDECAR
        if self.spells and not self.keepalive:
            self.keepalive = PEER_KEEPALIVE
        cluster = self.cluster
        self.link = self.make_link(
            cluster.http2,
            client=True,
            max_list=cluster.reader.max_size,
            max_fields=cluster.reader.max_fields,
        )
        owner, self.owner = self.owner, None
        pool.dialled(self.engine, cluster, self.endpoint, self.kind, self, owner)
        if self.is_unused:
            self._arm_idle()
        self.mark()

    def dial_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        pool.dial_failed(self.engine, self.cluster, self.endpoint, self.kind, error, self.owner)

    # The pool says:

    @property
    def is_unused(self) -> bool:
        """It carries no request."""
        return not self.link.streams and not self.early

    @property
    def room(self) -> int:
        """How many more it could carry."""
        return self.link.room - len(self.early)

    def join(self) -> None:
        """Be among those that have room."""
        if not self.pooled:
            self.pooled = True
            self.endpoint.pools[self.kind].idle.append(self)

    def lease(self) -> Http2Attempt:
        """Return one stream, to be begun at once; leave the pool with the last one allowed."""
        self.used += 1
        cluster = self.cluster
        if 0 < cluster.max_requests_per_connection <= self.used or cluster.proxy_protocol != "off":
            self.leaving = True
        if self.leaving or self.link.room - len(self.early) <= 1:
            self._leave()
        return Http2Attempt(self)

    def retire(self) -> None:
        """Take no further requests, and close when those under way are finished."""
        self.leaving = True
        self._leave()
        self._maybe_done()

    # The transport says:

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.timer.stop()
        if isinstance(exc, SidecarError):  # the TLS layer knows better
            self._lose(exc.code, exc.detail)
        else:
            self._lose("", "" if exc is None else type(exc).__name__)
        pool.gone(self.engine, self.cluster, self.endpoint)

    def begin(self, half: Http2Attempt, body: bytes, *, end: bool) -> None:
        """Pass a head on, if that has not been done, with the first of its body."""
        head, half.first = half.first, None
        exchange = half.exchange
        if head is not None and exchange is not None:
            try:
                exchange.response(head, body, end=end)
            except Exception as error:  # noqa: BLE001 - a bug may end an exchange, not those beside it
                self._end_by_bug(half, error)

    # The link says:

    def opened(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """Never: an endpoint begins no streams."""

    def too_large(self, stream: Stream) -> None:
        """Never: for servers only."""

    def headers(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """An interim response, the response's head, or trailers."""
        attempt: Http2Attempt = stream.user
        try:
            attempt.headers(fields, end=end)
        except DownstreamError as error:
            self.link.fault(stream, PROTOCOL_ERROR, str(error))
        except Exception as error:  # noqa: BLE001 - a bug may end an exchange, not those beside it
            self._end_by_bug(attempt, error)

    def data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Octets of a response's body."""
        attempt: Http2Attempt = stream.user
        exchange = attempt.exchange
        assert exchange is not None  # else the stream is gone
        if not attempt.answered:
            self.link.fault(stream, PROTOCOL_ERROR, "DATA before the head")
            return
        if attempt.first is not None:
            self.begin(attempt, data, end=end)
            return
        try:
            if data:
                exchange.response_data(data)
            if end and attempt.tunnel:
                exchange.response_half()
            elif end:
                exchange.response_end(None)
        except Exception as error:  # noqa: BLE001 - as in `headers`
            self._end_by_bug(attempt, error)

    def ended_early(self, stream: Stream, code: int, detail: str) -> None:
        """The endpoint has reset the stream, or was reset for what it did."""
        attempt: Http2Attempt = stream.user
        self.begin(attempt, b"", end=False)
        exchange, attempt.exchange = attempt.exchange, None
        assert exchange is not None  # else we had reset it, and it would not be told of
        self._room_made()
        if code == REFUSED_STREAM and not attempt.answered:
            exchange.upstream_lost(UpstreamError("upstream-refused", detail, sent=False))
        elif code == NO_ERROR and exchange.response_done:
            exchange.response_end(None)  # of a tunnel: it wants to hear no more either
        elif detail.startswith("reset by the peer"):
            exchange.reset_code = code
            exchange.upstream_lost(UpstreamError("upstream-reset", detail, sent=True))
        else:
            exchange.upstream_lost(UpstreamError("upstream-protocol", detail, sent=True))

    def writable(self, stream: Stream) -> None:
        """The endpoint has taken what waited."""
        attempt: Http2Attempt = stream.user
        assert attempt.exchange is not None
        attempt.exchange.upstream_writable()

    def settled(self) -> None:
        """The endpoint's SETTINGS are there: it may allow more streams than we thought, or fewer."""
        self.is_settled = True
        early, self.early = self.early, []
        for attempt in early:
            assert attempt.exchange is not None
            attempt.request(attempt.exchange, b"", end=True)
        if not self.leaving:
            if self.room > 0:
                pool.free(self.cluster, self.endpoint.pools[self.kind], self)
            else:
                self._leave()

    def going_away(self, last: int, code: int, text: bytes) -> None:
        """The endpoint takes nothing new; what it has not looked at is safe elsewhere (§6.8)."""
        self.leaving = True
        self._leave()
        detail = f"GOAWAY {error_name(code)} {text[:60].decode('latin-1')}".rstrip()
        for attempt in self._attempts():
            if attempt.stream.id > last:
                self.link.reset(attempt.stream, CANCEL)
                attempt.lose("upstream-refused", detail, sent=False)
        self._maybe_done()

    def pong(self) -> None:
        """The endpoint lives, as whatever it sends says."""

    def broken(self, code: int, detail: str) -> None:
        """The endpoint has broken the protocol: nothing more can be read."""
        self._lose("upstream-protocol", detail)
        self.shut()

    # Time says:

    @property
    def patience(self) -> float:
        """As long as it might have rested."""
        return self.cluster.idle_timeout

    def due(self, now: float) -> None:
        """The timer has come up: it was idle too long, or silent too long."""
        if not self.is_open:
            self.abort()
        elif self.is_unused:
            self.retire()
        elif self.heard < self.asked:
            self._lose("upstream-closed", "no answer to a PING")
            self.abort()
        elif self.keepalive:
            if now - self.heard >= self.keepalive:
                self.asked = now
                self.link.ping()
                self.mark()
                self.arm(self.cluster.http2.keepalive_timeout)
            else:
                self.engine.wheel.arm(self.timer, self.heard + self.keepalive)

    # Inside:

    def watch(self) -> None:
        """A request is under way: look for a sign of life, from the first of them on."""
        if len(self.link.streams) == 1:
            self.arm(self.keepalive)

    def _arm_idle(self) -> None:
        self.engine.wheel.arm(self.timer, self.engine.now() + self.cluster.idle_timeout)

    def stream_over(self) -> None:
        """An attempt is over."""
        self._room_made()
        if self.link.out and not self.dirty:
            self.mark()

    def _room_made(self) -> None:
        if self.leaving:
            self._maybe_done()
            return
        if not self.link.streams and not self.early:
            self._arm_idle()
        if self.pooled and not self.cluster.state.pending:
            return  # nobody waits: it is where it would be put
        if self.room > 0:
            pool.free(self.cluster, self.endpoint.pools[self.kind], self)

    def _end_by_bug(self, attempt: Http2Attempt, error: Exception) -> None:
        self.engine.bug(self.where, error)
        exchange, attempt.exchange = attempt.exchange, None
        self.link.reset(attempt.stream, INTERNAL_ERROR)
        self.stream_over()
        if exchange is not None:
            exchange.upstream_lost(UpstreamError("internal-error", "", sent=True))

    def _leave(self) -> None:
        if self.pooled:
            self.pooled = False
            self.endpoint.pools[self.kind].idle.remove(self)

    def _maybe_done(self) -> None:
        if self.leaving and self.is_open and self.is_unused:
            self.link.go_away()
            self.shut()

    def _lose(self, code: str, detail: str) -> None:
        """Every stream is lost; nobody who tries again may come back to this connection."""
        self.received()
        self.is_open = False
        self.leaving = True
        self._leave()
        for attempt in self._attempts():
            why = code
            if not why:
                why = "upstream-body-cut" if attempt.answered else "upstream-closed"
                if self.used > 1 and not attempt.answered:
                    why = "reused-closed"
            attempt.lose(why, detail, sent=True)
        self.link.streams.clear()
        self.early.clear()

    def _attempts(self) -> list[Http2Attempt]:
        return [stream.user for stream in self.link.streams.values()] + self.early


_NONE: Final = Stream(0, 0, 0)  # before the request is sent; 0 is nobody's number


@final
class Http2Attempt:
    """The upstream side of one attempt: one stream."""

    __slots__ = (
        "answered", "connection", "exchange", "first", "interim", "link", "stream", "tunnel",
    )  # fmt: skip

    def __init__(self, connection: Http2Client) -> None:
        self.connection: Final = connection
        self.link: Final[Http2Link] = connection.link
        self.stream = _NONE
        self.exchange: Exchange | None = None
        # The head, until the first of the body or the end of what came with it: together they are
        # one write for a caller of HTTP/1.1, where each costs a system call.
        self.first: ResponseHead | None = None
        self.answered = False
        self.tunnel = False
        self.interim = 0

    def request(self, exchange: Exchange, body: bytes, *, end: bool) -> None:
        """Send the request's head, and what there is of its body."""
        head = exchange.head
        connection, link = self.connection, self.link
        self.exchange = exchange
        if head.upgrade is not None:
            if not connection.is_settled:
                connection.early.append(self)  # only they say whether it may (RFC 8441 §3)
                return
            if not link.connect_protocol:
                self._fail("upstream-no-upgrade", "the endpoint has no extended CONNECT (RFC 8441)")
                return
            end = False
        stream = self.stream = link.open()
        stream.user = self
        fields = request_fields(head, secure=connection.secure)
        endpoint = connection.endpoint
        if not head.authority and endpoint.host:  # HTTP/1.0 may say none; HTTP/2 had better
            fields.append((b":authority", endpoint.address.encode()))
        pairs = head.as_pairs(_NOT_SENT)
        extra = exchange.extra
        if connection.spells:
            names = head.spelled()
            if names:
                extra = [*extra, (SPELLING, names)]
        trailers = exchange.trailers if end else None
        link.send_headers(stream, fields, pairs, extra, end=end and not body and trailers is None)
        if body and link.send_data(stream, body, end=end and trailers is None):
            exchange.upstream_full()
        if trailers is not None:
            link.end(stream, trailers.as_pairs())
        if connection.keepalive:
            connection.watch()
        if not connection.dirty:
            connection.mark()

    def write(self, data: bytes) -> None:
        """Send more of the body."""
        if self.link.send_data(self.stream, data, end=False) and self.exchange is not None:
            self.exchange.upstream_full()
        self.connection.mark()

    def finish(self, trailers: Fields | None) -> None:
        """End the body."""
        self.link.end(self.stream, () if trailers is None else trailers.as_pairs())
        self.connection.mark()

    def pause(self) -> None:
        """Give the stream's window back no more."""
        self.link.pause(self.stream)

    def resume(self) -> None:
        """Go on giving it back."""
        self.link.resume(self.stream)
        self.connection.mark()

    def release(self) -> None:
        """The exchange is over; what is left of the stream is of no use."""
        self._end(NO_ERROR)

    def close(self) -> None:
        """End the attempt at once; nobody is told."""
        self._end(CANCEL)

    def headers(self, fields: list[Field], *, end: bool) -> None:
        """An interim response, the response's head, or trailers.

        Raises:
            DownstreamError: malformed.
        """
        exchange = self.exchange
        assert exchange is not None  # else the stream is gone
        reader = self.connection.cluster.fields
        if self.answered:
            if self.tunnel:
                raise DownstreamError("bad-trailer", "trailers of a tunnel")  # RFC 9113 §8.5
            if not end:
                raise DownstreamError("bad-trailer", "trailers that do not end the stream")
            trailers = reader.trailers(fields)
            self.connection.begin(self, b"", end=False)
            if self.exchange is exchange:
                exchange.response_end(trailers)
            return
        head = reader.response(fields, exchange.head.method)
        if not self.connection.spells:
            head.spelling = b""
        if head.status < 200:
            if end:
                raise DownstreamError("bad-field", f"status {head.status} ends the stream")
            self._interim(exchange, head)
            return
        self.answered = True
        if head.length is not None and not end:
            self.stream.expected = head.length
        if exchange.head.upgrade is not None and head.status < 300:
            self._opened(exchange, head)
            exchange.response(head, b"", end=False)
            if end:
                exchange.response_half()
            return
        if end:
            exchange.response(head, b"", end=True)
        else:
            self.first = head
            self.connection.begun.append(self)

    def _interim(self, exchange: Exchange, head: ResponseHead) -> None:
        self.interim += 1
        if self.interim > MAX_INTERIM:
            raise DownstreamError("too-many-interim", f"more than {MAX_INTERIM} 1xx responses")
        if exchange.head.version >= 11 and (head.status != 100 or exchange.head.expect):
            exchange.informed(head)

    def _opened(self, exchange: Exchange, head: ResponseHead) -> None:
        """A tunnel is open: say it as HTTP/1.1 does (RFC 8441 §5)."""
        self.tunnel = True
        head.status, head.reason = 101, b"Switching Protocols"
        head.remove(b"content-length")
        head.upgrade = exchange.head.upgrade
        head.length = None
        self.stream.expected = -1
        key = exchange.head.get(b"sec-websocket-key")
        if key is not None and head.get(b"sec-websocket-accept") is None:
            head.add(b"sec-websocket-accept", accept(key))

    def _end(self, code: int) -> None:
        self.exchange = None
        connection, stream = self.connection, self.stream
        if connection.early and self in connection.early:
            connection.early.remove(self)
        if stream.state != CLOSED:
            self.link.reset(stream, code)  # if it was begun
        stream.user = None  # a cycle would be left to the collector
        connection.stream_over()

    def _fail(self, code: str, detail: str) -> None:
        exchange = self.exchange
        self.close()
        self.exchange = exchange
        self.lose(code, detail, sent=True)

    def lose(self, code: str, detail: str, *, sent: bool) -> None:
        """Tell the exchange that nothing more comes."""
        exchange, self.exchange = self.exchange, None
        assert exchange is not None  # else the stream is gone
        exchange.upstream_lost(UpstreamError(code, detail, sent=sent))
