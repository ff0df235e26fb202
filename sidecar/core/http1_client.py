"""One HTTP/1.1 connection to an endpoint: it carries one attempt at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast, final

from sidecar.core import pool
from sidecar.core.timers import Timer
from sidecar.errors import DownstreamError, SidecarError, UpstreamError
from sidecar.wire.fields import ResponseHead
from sidecar.wire.http1_body import (
    LAST_CHUNK,
    ChunkedReader,
    CloseReader,
    LengthReader,
    encode_chunk,
    encode_last_chunk,
)

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.types import Engine

MAX_INTERIM: Final = 16  # 1xx responses before the final one; more is a flood


def begin(
    engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, owner: pool.Place | None
) -> None:
    """Begin a connection: for `owner` alone (whom its PROXY header names), or for whoever waits."""
    client = Http1Client(engine, cluster, endpoint, owner=owner)
    waiter = None if owner is None else owner.waiter
    cluster.dial(cluster, endpoint, client, None if waiter is None else waiter.caller)


BodyReader = LengthReader | ChunkedReader | CloseReader


@final
class Http1Client(asyncio.Protocol):
    """The upstream half of exchanges, one after the other."""

    __slots__ = (
        "body",
        "buffer",
        "chunked",
        "cluster",
        "endpoint",
        "engine",
        "exchange",
        "full",
        "generation",
        "interim",
        "is_open",
        "keep",
        "owner",
        "paused",
        "received",
        "searched",
        "sent_all",
        "timer",
        "transport",
        "tunnel",
        "used",
    )

    def __init__(
        self,
        engine: Engine,
        cluster: ClusterPlan,
        endpoint: Endpoint,
        *,
        owner: pool.Place | None = None,
    ) -> None:
        self.owner = owner  # the only one it is for (PROXY protocol); None: whoever waits
        self.engine: Final = engine
        self.cluster: Final = cluster
        self.endpoint: Final = endpoint
        self.generation: Final = cluster.state.generation
        self.transport: asyncio.Transport  # once it is there
        self.exchange: Exchange | None = None
        self.timer: Final = Timer(self._idle_over)
        self.buffer = b""
        self.searched = 0
        self.body: BodyReader | None = None
        self.chunked = False  # the request's body goes out in chunks
        self.full = False  # the endpoint reads slowly
        self.interim = 0
        self.is_open = False
        self.keep = False
        self.paused = False
        self.received = False  # any octet of the present response
        self.sent_all = True  # nothing of a request is still to come
        self.tunnel = False
        self.used = 0

    # The dialler says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, its TLS handshake done and the peer's identity checked."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.transport = transport
        self.is_open = True
        owner, self.owner = self.owner, None
        if owner is not None:
            waiter = owner.call()
            if waiter is None:
                self.close()
            else:
                waiter.upstream_ready(self)
            return
        self.endpoint.dialling -= 1
        if not pool.give(self.endpoint, self):
            self._rest()

    def dial_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        owner, self.owner = self.owner, None
        if owner is None:
            pool.failed(self.engine, self.cluster, self.endpoint, error)
            return
        pool.gone(self.engine, self.cluster, self.endpoint)
        waiter = owner.call()
        if waiter is not None:
            waiter.upstream_failed(error)

    # The exchange says:

    def request(self, exchange: Exchange, body: bytes, *, end: bool) -> None:
        """Send the request's head, and what there is of its body, in one write."""
        head = exchange.head
        self.exchange = exchange
        self.used += 1
        self.timer.stop()
        self.received = False
        self.interim = 0
        self.sent_all = end
        chunked = self.chunked = head.chunked
        parts = [head.method, b" ", head.target, b" HTTP/1.1\r\n", head.block, exchange.extra]
        if head.version == 10 and b"host" not in head.found:
            own = self.endpoint.address.encode() if self.endpoint.host else b""
            parts.append(b"Host: " + (head.authority or own) + b"\r\n")
        if head.upgrade is not None and head.length == 0:
            parts += (b"Connection: Upgrade\r\nUpgrade: ", head.upgrade, b"\r\n")
        parts.append(b"\r\n")
        if chunked:
            if body:
                parts.append(encode_chunk(body))
            if end:
                parts.append(encode_last_chunk(exchange.trailers))
        elif body:
            parts.append(body)
        self.transport.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""
        self.transport.write(encode_chunk(data) if self.chunked else data)

    def finish(self, trailers: bytes) -> None:
        """End the request's body."""
        self.sent_all = True
        if self.chunked:
            self.transport.write(encode_last_chunk(trailers) if trailers else LAST_CHUNK)
        elif self.tunnel:
            self.transport.write_eof()

    def pause(self) -> None:
        """Stop reading the response."""
        self.paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading it."""
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    def release(self) -> None:
        """The exchange is over and has no more use for this connection."""
        self.exchange = None
        self.body = None
        limit = self.cluster.max_requests_per_connection
        if (
            not self.keep
            or not self.sent_all
            or not self.is_open
            or self.full
            or self.tunnel
            or self.generation != self.cluster.state.generation
            or self.engine.draining
            or self.cluster.proxy_protocol != "off"
            or 0 < limit <= self.used
        ):
            self.close()
            return
        self.resume()
        if pool.give(self.endpoint, self):
            return
        if pool.is_short(self.cluster):
            self.close()  # its place is of use to who waits for another endpoint
        else:
            self._rest()

    def close(self) -> None:
        """Close at once; nobody is told."""
        self.exchange = None
        if self.is_open:
            self.is_open = False
            if self in self.endpoint.idle:
                self.endpoint.idle.remove(self)
            transport = self.transport
            unsent = transport.get_write_buffer_size()
            if self.paused or not self.sent_all or (unsent and not self.tunnel):
                transport.abort()  # what is buffered is of no use to anybody
                return
            transport.close()
            if unsent:
                self.engine.wheel.arm(self.timer, self.engine.now() + self.cluster.idle_timeout)

    # The transport says:

    def data_received(self, data: bytes) -> None:
        """Octets of the response."""
        exchange = self.exchange
        if exchange is None:
            self.close()  # nobody asked: whatever it is, the connection is not to be trusted
            return
        try:
            self._read(exchange, data)
        except DownstreamError as error:
            self._broken("upstream-protocol", f"{error.code}: {error.detail}")
        except Exception as error:  # noqa: BLE001 - a bug may end an exchange, never the process
            self.engine.bug("http1_client", error)
            self._broken("internal-error", "")

    def eof_received(self) -> bool:
        """The endpoint will send no more."""
        body, exchange = self.body, self.exchange
        if exchange is None:
            self.close()  # at once: no request may take it in this turn of the loop
        elif self.tunnel:
            exchange.response_half()
            return self.is_open  # True keeps the caller's direction open
        elif isinstance(body, CloseReader):
            body.eof()
            self.exchange = self.body = None
            self.keep = False
            exchange.response_end(b"")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        was_open = self.is_open
        self.is_open = False
        self.timer.stop()
        if was_open and self in self.endpoint.idle:
            self.endpoint.idle.remove(self)
        exchange, self.exchange = self.exchange, None
        pool.gone(self.engine, self.cluster, self.endpoint)
        if exchange is None:
            return
        if isinstance(exc, SidecarError):  # the TLS layer knows better
            exchange.upstream_lost(UpstreamError(exc.code, exc.detail, sent=True))
            return
        detail = "" if exc is None else type(exc).__name__
        if isinstance(self.body, CloseReader) and exc is None:
            exchange.response_end(b"")
        elif self.received:
            exchange.upstream_lost(UpstreamError("upstream-body-cut", detail, sent=True))
        elif self.used > 1:
            exchange.upstream_lost(UpstreamError("reused-closed", detail, sent=True))
        else:
            exchange.upstream_lost(UpstreamError("upstream-closed", detail, sent=True))

    def pause_writing(self) -> None:
        """The endpoint reads slowly."""
        self.full = True
        if self.exchange is not None:
            self.exchange.upstream_full()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.full = False
        if self.exchange is not None:
            self.exchange.upstream_writable()

    # Inside:

    def _read(self, exchange: Exchange, data: bytes) -> None:
        body = self.body
        if body is not None:
            piece = body.feed(data)
            if body.done:
                self._body_over(exchange, body, piece)
            elif piece:
                exchange.response_data(piece)
            return
        self.received = True
        buffered = len(self.buffer)
        if buffered:
            data = self.buffer + data
        result = self.cluster.reader.response(data, exchange.head.method, buffered)
        while result is not None:
            head, size = result
            data = data[size:]
            if head.status >= 200 or head.status == 101:
                self.buffer = b""
                self._head(exchange, head, data)
                return
            self._interim(exchange, head)
            result = (data and self.cluster.reader.response(data, exchange.head.method)) or None
        self.buffer = data

    def _interim(self, exchange: Exchange, head: ResponseHead) -> None:
        self.interim += 1
        if self.interim > MAX_INTERIM:
            raise DownstreamError("too-many-interim", f"more than {MAX_INTERIM} 1xx responses")
        if exchange.head.version >= 11 and (head.status != 100 or exchange.head.expect):
            exchange.informed(head)

    def _head(self, exchange: Exchange, head: ResponseHead, data: bytes) -> None:
        """The final head: `data` is what came after it."""
        self.keep = not head.close
        if head.status == 101:
            asked = exchange.head.upgrade is not None and exchange.head.length == 0
            if not asked or head.upgrade is None:
                raise DownstreamError("unasked-101", "101 to a request without Upgrade")
            self.tunnel = True
            self.body = CloseReader()
            exchange.response(head, data, end=False)
            return
        if head.length == 0 and not head.chunked:
            self.keep = self.keep and not data
            exchange.response(head, b"", end=True)
            return
        body: BodyReader
        if head.chunked:
            body = ChunkedReader()
        elif head.length is not None:
            body = LengthReader(head.length)
        else:
            body = CloseReader()
            self.keep = False
        piece = body.feed(data) if data else b""
        if not body.done:
            self.body = body
            exchange.response(head, piece, end=False)
        elif body.trailers:
            self.body = body
            exchange.response(head, piece, end=False)
            if self.exchange is exchange:
                self._body_over(exchange, body, b"")
        else:
            self.keep = self.keep and not body.rest
            exchange.response(head, piece, end=True)

    def _body_over(self, exchange: Exchange, body: BodyReader, piece: bytes) -> None:
        self.body = None
        if body.rest:
            self.keep = False
        if piece:
            exchange.response_data(piece)
        exchange.response_end(body.trailers)

    def _broken(self, code: str, detail: str) -> None:
        """Close, and tell whoever is served by now: after a bug it may be the next exchange."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.upstream_lost(UpstreamError(code, detail, sent=True))
        self.close()

    def _rest(self) -> None:
        self.endpoint.idle.append(self)
        self.engine.wheel.arm(self.timer, self.engine.now() + self.cluster.idle_timeout)

    def _idle_over(self, now: float) -> None:
        if self.is_open:
            self.close()
        else:
            self.transport.abort()  # closed, but the endpoint does not read the rest
