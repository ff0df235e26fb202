"""One attempt over HTTP/2: a stream of a connection to an endpoint, on which other attempts go as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sidecar.errors import DownstreamError, UpstreamError
from sidecar.wire.fields import HOST, NOT_SENT, SPELLING
from sidecar.wire.http2_fields import request_fields
from sidecar.wire.http2_frames import CANCEL, NO_ERROR
from sidecar.wire.http2_stream import CLOSED, Stream
from sidecar.wire.websocket import accept

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.http2_client import Http2Client
    from sidecar.wire.fields import Field, Fields, ResponseHead
    from sidecar.wire.http2_stream import Http2Link

_NOT_SENT: Final = NOT_SENT | HOST  # HTTP/2 has it as the authority
MAX_INTERIM: Final = 16  # 1xx responses before the final one; more is a flood

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
