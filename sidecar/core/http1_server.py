"""One HTTP/1.x connection from a caller: requests in order, one exchange at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast, final

from sidecar.core.durations import due
from sidecar.core.exchange import Exchange
from sidecar.core.http1_reply import framed_lines, own, own_reply
from sidecar.core.replies import Reply
from sidecar.core.states import ROUTING
from sidecar.core.timers import NEVER
from sidecar.errors import DownstreamError
from sidecar.wire.fields import Fields, RequestHead, ResponseHead, reason_phrase
from sidecar.wire.http1_body import (
    LAST_CHUNK,
    ChunkedReader,
    CloseReader,
    LengthReader,
    encode_chunk,
    encode_last_chunk,
    trailer_lines,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.core.types import Caller, ListenerState
    from sidecar.wire.fields import Field

PIPELINE_LIMIT: Final = 65536  # octets read ahead of the request under way
DISCARD_LIMIT: Final = 262144  # octets of an unwanted body read, so that the connection can go on
LINGER: Final = 2.0  # seconds for the caller to read an answer before the connection is closed

_OK: Final = b"HTTP/1.1 200 OK\r\n"

HEAD, BODY, WAIT, DISCARD, NEXT, LINGERING, CLOSED = range(7)
# HEAD: a request head is awaited.  BODY: the request's body is being read.  WAIT: it is whole, the
# response is not.  DISCARD: answered early, the rest of the body is read and dropped.  NEXT: both
# are over, and the next request waits for its turn.  LINGERING: our side is closed, the caller's
# octets are dropped until it closes.


@final
class Http1Server(asyncio.Protocol):
    """The downstream half of exchanges, one after the other."""

    __slots__ = (
        "body",
        "buffer",
        "caller",
        "chunked",
        "discarded",
        "ended",
        "exchange",
        "full",
        "is_reading_on",
        "keep",
        "listener",
        "paused",
        "state",
        "timer",
        "transport",
        "tunnel",
    )

    def __init__(self, listener: ListenerState, caller: Caller) -> None:
        self.listener: Final = listener
        self.caller: Final = caller
        self.transport: asyncio.Transport  # from connection_made on
        self.timer = listener.engine.wheel.timer(self._due)
        self.state = HEAD
        self.buffer = b""
        self.exchange: Exchange | None = None
        self.body: LengthReader | ChunkedReader | CloseReader | None = None
        self.chunked = False  # the response's body goes out in chunks
        self.discarded = 0
        self.ended = False  # the caller will send no more
        self.full = False  # the caller reads slowly
        self.is_reading_on = False  # `_read_on` is at work
        self.keep = True
        self.paused = False
        self.tunnel = False

    # The transport says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller is there."""
        transport = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.transport = transport
        self.listener.connections.add(self)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Octets of a request."""
        try:
            self._read(data)
        except DownstreamError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - a bug may end an exchange, never the process
            self._end_by_bug(error)

    def eof_received(self) -> bool:
        """The caller will send no more; a request under way is still answered."""
        if self.tunnel and self.exchange is not None:
            self.exchange.request_end(None)
            return True
        if self.state == BODY and self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.downstream_lost("body-cut")
            return False
        self.ended = True
        return self.state in (WAIT, NEXT)  # True keeps our own direction open

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.state = CLOSED
        self.listener.connections.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.downstream_lost()
        self.timer = self.listener.engine.wheel.give_back(self.timer)

    def pause_writing(self) -> None:
        """The caller reads slowly."""
        self.full = True
        if self.exchange is not None:
            self.exchange.downstream_full()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.full = False
        if self.exchange is not None:
            self.exchange.downstream_ready()
        elif self.state == NEXT:
            self._next()

    # The exchange says:

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """Send the response's head, and the first of its body, in one write."""
        exchange = self.exchange
        assert exchange is not None
        request = exchange.head
        keep = self.keep = self._may_keep(request)
        bodiless = request.method == b"HEAD" or head.status in (204, 304)
        self.chunked = False
        if head.status == 101:
            self.tunnel = True
            self.state = BODY
            self.body = CloseReader()
            assert head.upgrade is not None
            upgrade = b"Connection: Upgrade\r\nUpgrade: " + head.upgrade + b"\r\n"
            block = head.as_lines() + upgrade
        elif head.pairs is not None:
            whole = len(body) if end else -1
            block = framed_lines(self, head, request, whole, bodiless=bodiless)
            keep = self.keep
        else:
            block = head.block
            if head.chunked or head.length is None:
                # Without chunks its end is the endpoint's close: chunks keep our connection, and
                # show a cut.
                self.chunked = request.version == 11
                if not self.chunked:
                    head.remove(b"transfer-encoding")
                    block = head.block
                    keep = self.keep = False
                elif not head.chunked:
                    block += b"Transfer-Encoding: chunked\r\n"
        line = _OK
        if head.status != 200 or head.reason != b"OK":
            line = b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)
        if bodiless:
            self.chunked = False
        if self.tunnel:
            tail = b"\r\n"
        elif not keep:
            tail = b"Connection: close\r\n\r\n"
        else:
            tail = b"Connection: keep-alive\r\n\r\n" if request.version == 10 else b"\r\n"
        if self.chunked:
            if body:
                body = encode_chunk(body)
            if end:
                body += LAST_CHUNK
        self.transport.write(b"".join((line, block, tail, body)))
        if self.tunnel:
            self._open_tunnel(exchange)

    def inform(self, head: ResponseHead) -> None:
        """Send an interim response."""
        exchange = self.exchange
        assert exchange is not None
        if head.status == 100:
            exchange.head.expect = False  # the body may come now
        reason = head.reason or reason_phrase(head.status)
        self.transport.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, reason, head.as_lines()))

    def write(self, data: bytes) -> None:
        """Send more of the body."""
        self.transport.write(encode_chunk(data) if self.chunked else data)

    def finish(self, trailers: Fields | None) -> None:
        """End the body."""
        if self.chunked:
            last = encode_last_chunk(trailer_lines(trailers)) if trailers else LAST_CHUNK
            self.transport.write(last)
        elif self.tunnel:
            self.transport.write_eof()

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        """Send a whole response of our own."""
        exchange = self.exchange
        assert exchange is not None
        keep = self.keep = self._may_keep(exchange.head) and reply.flag != "DPE"
        self.transport.write(
            own(
                reply,
                text,
                fields,
                keep=keep,
                version=exchange.head.version,
                bodiless=exchange.head.method == b"HEAD",
            )
        )

    def cut(self) -> None:
        """End a response that has begun and cannot be ended properly."""
        self.exchange = None
        self.keep = False
        self.state = CLOSED
        if self.chunked:
            self._close()  # the missing last chunk tells
        else:
            self.transport.abort()

    def closed(self) -> None:
        """The exchange is over: go on with the next request, or close."""
        self.exchange = None
        state = self.state
        if (
            state == WAIT
            and self.keep
            and not (self.buffer or self.full or self.ended or self.paused)
            and not self.listener.engine.draining
        ):
            self._await_head()  # what `_next` does nearly always
            return
        if state in (CLOSED, LINGERING):
            return
        if self.tunnel or (not self.keep and self.state != BODY):
            self._part()
        elif self.state == BODY:
            if self.keep and self.body is not None and self.body.done:
                self.buffer = self.body.rest  # all of it was there already
                self._next()
            elif self.keep:
                self.state = DISCARD
                self.resume()
                self._arm(LINGER)
            else:
                self._linger()
        else:
            self._next()

    def pause(self) -> None:
        """Stop reading the request's body."""
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading it."""
        if self.paused:
            self.paused = False
            self.transport.resume_reading()

    # The listener says:

    def drain(self) -> None:
        """Take no further request; close at once if none is under way."""
        self.keep = False
        if self.state == HEAD and not self.buffer:
            self._close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    # Inside:

    def _may_keep(self, request: RequestHead) -> bool:
        """Say whether the connection may serve another request behind the response to this one."""
        return (
            self.keep
            and not request.close
            and not self.listener.engine.draining
            # An answer in place of `100 Continue`: whether the body comes is the caller's choice.
            and not (request.expect and self.state == BODY)
            and not (self.ended and not self.buffer)
        )

    def _open_tunnel(self, exchange: Exchange) -> None:
        """Hand on what came behind the request: it was meant for who answered 101."""
        data, self.buffer = self.buffer, b""
        self.resume()
        if data:
            exchange.request_data(data)
        if self.ended:
            exchange.request_end(None)

    def _read(self, data: bytes) -> None:
        state = self.state
        if state == HEAD:
            if self.buffer:
                known = len(self.buffer)
                data = self.buffer + data
            else:
                known = 0
            self._head(data, known)
        elif state in (BODY, DISCARD):
            self._body(data)
        elif state in (WAIT, NEXT):
            self.buffer += data  # pipelined: its turn comes
            if len(self.buffer) > PIPELINE_LIMIT:
                self.pause()

    def _head(self, data: bytes, known: int) -> None:
        """Read a request head from `data`, whose first `known` octets hold no whole one."""
        listener = self.listener
        plan = listener.plan
        result = plan.reader.request(data, known)
        if result is None:
            self.buffer = data
            if known == 0 and data:
                self._arm(plan.request_head_timeout)
            return
        head, size = result
        rest = data[size:] if len(data) > size else b""
        self.buffer = b""
        exchange = self.exchange = Exchange(listener.engine, plan, self.caller, self, head)
        exchange.full = self.full
        if head.length == 0 and not head.chunked:
            self.state = WAIT
            self.buffer = rest
            exchange.begin(b"", end=True)
            return
        body: LengthReader | ChunkedReader
        body = ChunkedReader() if head.chunked else LengthReader(head.length or 0)
        # Raises before the exchange begins: of a request whose body is malformed from its start,
        # not one octet goes upstream.
        piece = body.feed(rest) if rest else b""
        if body.done and not body.trailers:
            self.state = WAIT
            self.buffer = body.rest
            exchange.begin(piece, end=True)
        else:
            self.state = BODY
            self.body = body
            exchange.begin(piece, end=False)
            if body.done and self.exchange is exchange:
                self._body_over(body)

    def _body(self, data: bytes) -> None:
        body = self.body
        assert body is not None
        piece = body.feed(data)
        exchange = self.exchange
        if exchange is None:  # DISCARD
            self.discarded += len(data)
            if body.done:
                self.buffer = body.rest
                self._next()
            elif self.discarded > DISCARD_LIMIT:
                self._linger()
            return
        if piece:
            exchange.request_data(piece)
        if body.done and self.exchange is exchange:
            self._body_over(body)

    def _body_over(self, body: LengthReader | ChunkedReader | CloseReader) -> None:
        assert self.exchange is not None
        self.state = WAIT
        self.body = None
        self.buffer = body.rest
        self.exchange.request_end(Fields(body.trailers, {}) if body.trailers else None)

    def _next(self) -> None:
        """Go on to the next request; it may be in the buffer already."""
        self.body = None
        self.discarded = 0
        if self.listener.engine.draining or not self.keep:
            self._part()
        elif self.full:
            # Else a caller that asks and asks and reads nothing would fill our memory with answers.
            self.state = NEXT
            self._arm(self.listener.plan.stream_idle_timeout)
        elif self.buffer:
            self.state = NEXT
            if not self.is_reading_on:
                self._read_on()
        elif self.ended:
            self._close()
        else:
            self.resume()
            self._await_head()

    def _read_on(self) -> None:
        """Serve what is in the buffer; a loop, since each request may be answered at once."""
        self.is_reading_on = True
        while self.state == NEXT and not self.full:
            data, self.buffer = self.buffer, b""
            self.resume()
            self._await_head()
            self.data_received(data)
        self.is_reading_on = False
        if self.ended and self.state in (HEAD, BODY):  # the last request is not whole
            exchange, self.exchange = self.exchange, None
            self._close()
            if exchange is not None:
                exchange.downstream_lost("body-cut")

    def _await_head(self) -> None:
        self.state = HEAD
        self._arm(self.listener.plan.idle_timeout)

    def _refuse(self, error: DownstreamError) -> None:
        """Answer a broken request, which no exchange may see, and close."""
        exchange, self.exchange = self.exchange, None
        self.keep = False
        if self.state == DISCARD:  # it has its answer; a second one would be taken for the next's
            self._linger()
            return
        self.state = LINGERING  # before the exchange ends, which else would end the connection
        if exchange is not None and exchange.state != ROUTING:
            is_answered = exchange.status != 0
            exchange.downstream_lost(error.code, error.detail)
            if is_answered:
                self.abort()
                return
        else:
            engine = self.listener.engine
            for sink in engine.sinks:
                sink.refused(self.listener.plan.name, error.code, self.caller.address)
        self.transport.write(own_reply(error.code))  # its detail is for nobody who is not known
        self._linger()

    def _due(self, now: float) -> None:
        """The timer has come up: whose it is depends on the state."""
        if self.exchange is not None:
            try:
                due(self.exchange, now)
            except Exception as error:  # noqa: BLE001 - it would never be due again
                self._end_by_bug(error)
        elif self.state == HEAD and self.buffer:
            self._refuse(DownstreamError("request-head-timeout", "the head is not whole"))
        elif self.state in (NEXT, LINGERING, CLOSED):
            self.abort()  # what is written would never be read
        else:
            self._close()

    def _end_by_bug(self, error: Exception) -> None:
        self.listener.engine.bug("http1_server", error)
        exchange, self.exchange = self.exchange, None
        self.abort()
        if exchange is not None:
            exchange.downstream_lost("internal-error")

    def _arm(self, seconds: float) -> None:
        """Be due in `seconds`; never, with 0."""
        engine = self.listener.engine
        engine.wheel.arm(self.timer, engine.now() + seconds if seconds else NEVER)

    def _close(self) -> None:
        self.state = CLOSED
        self.transport.close()
        if self.transport.get_write_buffer_size():  # it may never be read
            self._arm(self.listener.plan.stream_idle_timeout)

    def _part(self) -> None:
        """Close behind an answer, which a reset for what has come unread may destroy (§9.6)."""
        is_more_there = (self.buffer or self.paused) and not self.ended and not self.tunnel
        (self._linger if is_more_there else self._close)()

    def _linger(self) -> None:
        """Close our direction; drop what still comes, so that no reset destroys the answer."""
        self.state = LINGERING
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.resume()
            is_read = self.transport.get_write_buffer_size() == 0
            self._arm(LINGER if is_read else self.listener.plan.stream_idle_timeout)
