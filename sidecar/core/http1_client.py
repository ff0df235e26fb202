"""One HTTP/1.1 connection to an endpoint: it carries one attempt at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast, final

from sidecar.core import pool
from sidecar.core.timers import NEVER
from sidecar.errors import DownstreamError, SidecarError, UpstreamError
from sidecar.wire.fields import Fields, ResponseHead
from sidecar.wire.http1_body import (
    LAST_CHUNK,
    ChunkedReader,
    CloseReader,
    LengthReader,
    encode_chunk,
    encode_last_chunk,
    trailer_lines,
)
from sidecar.wire.websocket import new_key

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint
    from sidecar.core.exchange import Exchange
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.types import Engine

MAX_INTERIM: Final = 16  # 1xx responses before the final one; more is a flood
# Without content such a request says so (RFC 9110 §8.6): some servers answer 411 if it does not.
_CONTENT_EXPECTED: Final = frozenset({b"POST", b"PUT", b"PATCH"})

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
        "kind",
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
        kind: int,
        owner: pool.Place | None = None,
    ) -> None:
        self.owner = owner  # the only one it is for (PROXY protocol); None: whoever waits
        self.kind: Final = kind  # which of the endpoint's pools
        self.engine: Final = engine
        self.cluster: Final = cluster
        self.endpoint: Final = endpoint
        self.generation = cluster.state.generation
        self.transport: asyncio.Transport  # once it is there
        self.exchange: Exchange | None = None
        self.timer = engine.wheel.timer(self._idle_over)
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

    @property
    def alpn(self) -> str:
        """What is offered under TLS."""
        return "http1"

    # The dialler says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, its TLS handshake done and the peer's identity checked."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.transport = transport
        self.is_open = True
        owner, self.owner = self.owner, None
        pool.dialled(self.engine, self.cluster, self.endpoint, self.kind, self, owner)

    def dial_failed(self, error: UpstreamError) -> None:
        """No connection came about."""
        pool.dial_failed(self.engine, self.cluster, self.endpoint, self.kind, error, self.owner)

    # The pool says:

    @property
    def is_unused(self) -> bool:
        """It carries no request."""
        return self.exchange is None

    def join(self) -> None:
        """Rest until the next request."""
        self.endpoint.pools[self.kind].idle.append(self)
        self.engine.wheel.arm(self.timer, self.engine.now() + self.cluster.idle_timeout)

    def lease(self) -> Http1Client:
        """Return itself: it carries one request at a time, and is in no pool meanwhile."""
        idle = self.endpoint.pools[self.kind].idle
        if idle and idle[-1] is self:  # nearly always; `_leave` looks elsewhere as well
            idle.pop()
        else:
            self._leave()
        return self

    def retire(self) -> None:
        """Close: in a pool it carries no request."""
        self.close()

    # The exchange says:

    def request(self, exchange: Exchange, body: bytes, *, end: bool) -> None:
        """Send the request's head, and what there is of its body, in one write."""
        head = exchange.head
        self.exchange = exchange
        self.used += 1
        self.timer.deadline = NEVER
        self.received = False
        self.interim = 0
        self.sent_all = end
        chunked = self.chunked = head.chunked
        if head.pairs is None:
            lines = head.block
        else:
            chunked = self.chunked = head.length is None and head.upgrade is None
            lines = head.as_lines(host=head.authority, chunked=chunked)
            if (
                head.length == 0
                and head.method in _CONTENT_EXPECTED
                and not head.spelling
                and b"content-length" not in head.found
            ):
                lines += b"Content-Length: 0\r\n"
        parts = [head.method, b" ", head.target, b" HTTP/1.1\r\n", lines]
        if exchange.extra:
            parts += [b"%b: %b\r\n" % field for field in exchange.extra]
        if head.version == 10 and b"host" not in head.found:
            own = self.endpoint.address.encode() if self.endpoint.host else b""
            parts.append(b"Host: " + own + b"\r\n")
        if head.upgrade is not None:
            parts += (b"Connection: Upgrade\r\nUpgrade: ", head.upgrade, b"\r\n")
            if head.version == 20 and head.get(b"sec-websocket-key") is None:
                parts.append(b"Sec-WebSocket-Key: %b\r\n" % new_key(self.engine.random_bits))
        parts.append(b"\r\n")
        if chunked:
            if body:
                parts.append(encode_chunk(body))
            if end:
                parts.append(encode_last_chunk(trailer_lines(exchange.trailers)))
        elif body:
            parts.append(body)
        self.transport.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""
        self.transport.write(encode_chunk(data) if self.chunked else data)

    def finish(self, trailers: Fields | None) -> None:
        """End the request's body."""
        self.sent_all = True
        if self.chunked:
            last = encode_last_chunk(trailer_lines(trailers)) if trailers else LAST_CHUNK
            self.transport.write(last)
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
            or self.engine.draining
            or self.cluster.proxy_protocol != "off"
            or 0 < limit <= self.used
        ):
            self.close()
            return
        if self.paused:
            self.resume()
        pool.free(self.cluster, self.endpoint.pools[self.kind], self)

    def close(self) -> None:
        """Close at once; nobody is told."""
        self.exchange = None
        if self.is_open:
            self.is_open = False
            self._leave()
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
            exchange.response_end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        was_open = self.is_open
        self.is_open = False
        self.timer = self.engine.wheel.give_back(self.timer)
        if was_open:
            self._leave()
        exchange, self.exchange = self.exchange, None
        pool.gone(self.engine, self.cluster, self.endpoint)
        if exchange is None:
            return
        if isinstance(exc, SidecarError):  # the TLS layer knows better
            exchange.upstream_lost(UpstreamError(exc.code, exc.detail, sent=True))
            return
        detail = "" if exc is None else type(exc).__name__
        if isinstance(self.body, CloseReader) and exc is None:
            exchange.response_end(None)
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
        buffered = 0
        if self.buffer:
            buffered = len(self.buffer)
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
        request = exchange.head
        if request.upgrade is not None and request.version == 20 and 200 <= head.status < 300:
            # To who asked by extended CONNECT that would mean an open tunnel (RFC 8441 §5).
            self._broken("upstream-no-upgrade", f"status {head.status} to an upgrade")
            return
        if head.status == 101:
            if exchange.head.upgrade is None or head.upgrade is None:
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
        elif head.length == len(data):  # all of it is there
            exchange.response(head, data, end=True)
            return
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
        exchange.response_end(Fields(body.trailers, {}) if body.trailers else None)

    def _broken(self, code: str, detail: str) -> None:
        """Close, and tell whoever is served by now: after a bug it may be the next exchange."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.upstream_lost(UpstreamError(code, detail, sent=True))
        self.close()

    def _leave(self) -> None:
        idle = self.endpoint.pools[self.kind].idle
        if idle and idle[-1] is self:
            idle.pop()
        elif self in idle:
            idle.remove(self)

    def _idle_over(self, now: float) -> None:
        if self.is_open:
            self.close()
        else:
            self.transport.abort()  # closed, but the endpoint does not read the rest
