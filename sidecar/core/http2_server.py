"""One HTTP/2 connection from a caller: its streams are exchanges, all at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sidecar.core.durations import due
from sidecar.core.exchange import Exchange
from sidecar.core.http2_connection import Http2Connection
from sidecar.core.replies import Reply, own_fields, reply_for
from sidecar.errors import DownstreamError
from sidecar.wire.fields import SPELLING
from sidecar.wire.http2_fields import STATUS_FIELDS
from sidecar.wire.http2_frames import (
    ALPN_SIDECAR,
    CANCEL,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    PROTOCOL_ERROR,
)
from sidecar.wire.http2_stream import CLOSED

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from sidecar.core.types import Caller, ListenerState
    from sidecar.wire.fields import Field, Fields, ResponseHead
    from sidecar.wire.http2_stream import Http2Link, Stream

DRAIN_WAIT: Final = 1.0  # seconds for the answer to our PING before the second GOAWAY (§6.8)


@final
class Http2Server(Http2Connection):
    """The downstream half of exchanges."""

    __slots__ = ("caller", "drained", "listener", "rested", "spells")

    where = "http2_server"

    def __init__(self, listener: ListenerState, caller: Caller) -> None:
        super().__init__(listener.engine)
        self.listener: Final = listener
        self.caller: Final = caller
        self.drained = 0  # 0: no; 1: announced; 2: said
        self.rested = self.heard  # when the last exchange that has ended last moved
        self.spells = False  # the peer is a sidecar that tells how names were written

    # The transport says:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller is there."""
        transport = self.attach(transport)
        plan = self.listener.plan
        self.listener.connections.add(self)
        self.spells = transport.get_extra_info("alpn") == ALPN_SIDECAR
        self.link = self.make_link(
            plan.http2,
            client=False,
            max_list=plan.reader.max_size,
            max_fields=plan.reader.max_fields,
        )
        self.flush()
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.is_open = False
        self.timer = self.engine.wheel.give_back(self.timer)
        self.listener.connections.discard(self)
        self._lose_all("downstream-closed", "")

    def begin(self, half: Http2Side, body: bytes, *, end: bool) -> None:
        """Begin an exchange, if that has not been done, with the first of its body."""
        if not half.waits:
            return
        half.waits = False
        exchange = half.exchange
        assert exchange is not None
        try:
            exchange.begin(body, end=end)
        except DownstreamError as error:  # of gRPC-Web
            self.link.fault(half.stream, PROTOCOL_ERROR, str(error))
        except Exception as error:  # noqa: BLE001 - a bug may end an exchange, not those beside it
            self.end_by_bug(half, error)

    # The link says:

    def opened(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """A request."""
        plan = self.listener.plan
        try:
            head = plan.fields.request(fields, end=end)
        except DownstreamError as error:
            self._refuse(stream, error)
            return
        if not self.spells:
            head.spelling = b""
        side = Http2Side(self, stream)
        stream.user = side
        if head.length is not None and not end:
            stream.expected = head.length
        if head.upgrade is not None:
            side.ahead = []
            side.ahead_end = end
            end = True
        side.exchange = Exchange(self.engine, plan, self.caller, side, head)
        side.waits = True
        if end:
            self.begin(side, b"", end=True)
        else:
            self.begun.append(side)

    def headers(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """Trailers."""
        side: Http2Side = stream.user
        exchange = side.exchange
        if exchange is None:
            return  # it has its answer, and what comes still is of no use
        if exchange.head.upgrade is not None:
            self.link.fault(stream, PROTOCOL_ERROR, "trailers of a tunnel")  # RFC 9113 §8.5
            return
        try:
            trailers = self.listener.plan.fields.trailers(fields)
        except DownstreamError as error:
            self.link.fault(stream, PROTOCOL_ERROR, str(error))
            return
        self._body(side, exchange, b"", trailers, end=True)

    def data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Octets of a request's body."""
        side: Http2Side = stream.user
        if side.exchange is None:
            return  # as in `headers`
        if side.ahead is not None:
            side.hold(data, end=end)
            return
        self._body(side, side.exchange, data, None, end=end)

    def _body(
        self,
        side: Http2Side,
        exchange: Exchange,
        data: bytes,
        trailers: Fields | None,
        *,
        end: bool,
    ) -> None:
        if side.waits:
            self.begin(side, data, end=end and trailers is None)
            if trailers is None or side.exchange is not exchange:
                return
            data = b""
        try:
            if data:
                exchange.request_data(data)
            if end:
                exchange.request_end(trailers)
        except DownstreamError as error:  # of gRPC-Web
            self.link.fault(side.stream, PROTOCOL_ERROR, str(error))
        except Exception as error:  # noqa: BLE001 - as in `opened`
            self.end_by_bug(side, error)

    def ended_early(self, stream: Stream, code: int, detail: str) -> None:
        """The caller has reset the stream, or was reset for what it did."""
        side: Http2Side | None = stream.user
        if side is not None:
            self.begin(side, b"", end=False)
            exchange, side.exchange = side.exchange, None
            if exchange is not None:
                exchange.downstream_lost("downstream-reset", detail)
        else:
            self._tell("http2-stream-error")
        self._maybe_done()

    def too_large(self, stream: Stream) -> None:
        """A field list over the limits: it is answered, and never forwarded."""
        self._refuse(stream, DownstreamError("head-too-large", "field list"))

    def writable(self, stream: Stream) -> None:
        """The caller has taken what waited."""
        side: Http2Side = stream.user
        if side.exchange is not None:
            side.exchange.downstream_ready()

    def settled(self) -> None:
        """The caller's SETTINGS are there."""

    def going_away(self, last: int, code: int, text: bytes) -> None:
        """The caller will begin nothing more."""
        self._maybe_done()

    def pong(self) -> None:
        """The caller has seen our announcement: what is on its way has arrived."""
        if self.drained == 1:
            self._drain_now()

    def broken(self, code: int, detail: str) -> None:
        """The caller has broken the protocol: nothing more can be read."""
        self._tell("http2-flood" if code == ENHANCE_YOUR_CALM else "http2-connection-error")
        self._lose_all("downstream-reset", detail)
        self.shut()

    # The listener says:

    @property
    def patience(self) -> float:
        """As long as a stream may stand still."""
        return self.listener.plan.stream_idle_timeout

    def drain(self) -> None:
        """Announce the end, take what is on its way, finish it, close (§6.8)."""
        if self.drained or not self.is_open:
            return
        self.drained = 1
        self.link.go_away(soon=True)
        self.link.ping()
        self.mark()
        self.arm(DRAIN_WAIT)

    def due(self, now: float) -> None:
        """The timer has come up."""
        if not self.is_open:
            self.abort()
        elif self.drained == 1:
            self._drain_now()
        elif any(stream.user.exchange for stream in self.link.streams.values()):
            self._rest()
        elif not self.drained:
            # Not armed anew at the end of every exchange, which would cost each of them.
            until = self.rested + self.listener.plan.idle_timeout
            if now < until:
                self.engine.wheel.arm(self.timer, until)
            else:
                self.drain()  # not at once: a request may be on its way
        else:
            # Nobody waits for anything but, at most, a caller that does not read to the end.
            self.shut()

    # Inside:

    def _drain_now(self) -> None:
        self.drained = 2
        self.link.go_away()
        self.mark()
        self._rest()
        self._maybe_done()

    def _maybe_done(self) -> None:
        if self.drained == 2 and not self.link.streams and self.is_open:
            self.shut()

    def finished(self) -> None:
        """An exchange is over."""
        if self.link.out and not self.dirty:
            self.mark()
        if self.drained:
            self._maybe_done()

    def _rest(self) -> None:
        self.arm(self.listener.plan.idle_timeout)

    def end_by_bug(self, side: Http2Side, error: Exception) -> None:
        """Something raised that should not: the exchange ends, those beside it do not."""
        self.engine.bug(self.where, error)
        exchange, side.exchange = side.exchange, None
        self.link.reset(side.stream, INTERNAL_ERROR)
        if exchange is not None:
            exchange.downstream_lost("internal-error")
        self.finished()

    def _refuse(self, stream: Stream, error: DownstreamError) -> None:
        """Answer a request that no exchange may see; a malformed one is reset (§8.1.1)."""
        reply = reply_for(error.code)
        if reply.status == 400:
            self.link.fault(stream, PROTOCOL_ERROR, str(error))
            return
        self._tell(error.code)
        text = f"sidecar: {reply.sentence} (code {error.code}, flag {reply.flag})\n".encode()
        self.link.send_headers(stream, _own_list(reply, text), end=False)
        self.link.send_data(stream, text, end=True)
        stream.user = Http2Side(self, stream)  # told of already, whatever becomes of it
        self.link.dismiss(stream)

    def _tell(self, code: str) -> None:
        for sink in self.engine.sinks:
            sink.refused(self.listener.plan.name, code, self.caller.address)

    def _lose_all(self, code: str, detail: str) -> None:
        self.received()
        for stream in tuple(self.link.streams.values()):
            side: Http2Side = stream.user
            exchange, side.exchange = side.exchange, None
            if exchange is not None:
                exchange.downstream_lost(code, detail)


@final
class Http2Side:
    """The downstream side of one exchange: one stream."""

    __slots__ = (
        "ahead", "ahead_end", "connection", "exchange", "link", "stream", "timer", "waits",
    )  # fmt: skip

    def __init__(self, connection: Http2Server, stream: Stream) -> None:
        self.connection: Final = connection
        self.link: Final[Http2Link] = connection.link
        self.stream: Final = stream
        self.exchange: Exchange | None = None
        self.timer = connection.engine.wheel.timer(self._due)
        self.ahead: list[bytes] | None = None  # sent into a tunnel before it is open
        self.ahead_end = False
        # For the first of the body, or the end of what came with the head: together they are one
        # write to an endpoint of HTTP/1.1, where each costs a system call.
        self.waits = False

    def _due(self, now: float) -> None:
        assert self.exchange is not None  # which stops the timer at its end
        try:
            due(self.exchange, now)
        except Exception as error:  # noqa: BLE001 - it would never be due again
            self.connection.end_by_bug(self, error)

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """Send the response's head, and the first of its body."""
        link, stream, connection = self.link, self.stream, self.connection
        pairs = head.as_pairs()
        status = head.status
        if status == 101:
            status = 200  # an open tunnel (RFC 8441 §4)
            pairs = [p for p in pairs if p[0] != b"sec-websocket-accept"]
        if connection.spells:
            names = head.spelled()
            if names:
                pairs = [*pairs, (SPELLING, names)]
        link.send_headers(stream, (STATUS_FIELDS[status],), pairs, end=end and not body)
        if body and link.send_data(stream, body, end=end) and self.exchange is not None:
            self.exchange.downstream_full()
        if head.status == 101 and self.ahead is not None and self.exchange is not None:
            self._open_tunnel(self.exchange, self.ahead)
        connection.mark()

    def inform(self, head: ResponseHead) -> None:
        """Send an interim response."""
        self.link.send_headers(
            self.stream, [STATUS_FIELDS[head.status], *head.as_pairs()], end=False
        )
        self.connection.mark()

    def write(self, data: bytes) -> None:
        """Send more of the body."""
        if self.link.send_data(self.stream, data, end=False) and self.exchange is not None:
            self.exchange.downstream_full()
        self.connection.mark()

    def finish(self, trailers: Fields | None) -> None:
        """End the body."""
        self.link.end(self.stream, () if trailers is None else trailers.as_pairs())
        self.connection.mark()

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        """Send a whole response of our own."""
        exchange = self.exchange
        assert exchange is not None
        link, stream = self.link, self.stream
        bodiless = exchange.head.method == b"HEAD" or not text
        link.send_headers(stream, _own_list(reply, text, fields), end=bodiless)
        if not bodiless:
            link.send_data(stream, text, end=True)

    def cut(self) -> None:
        """End a response that has begun and cannot be ended properly."""
        exchange = self.exchange
        assert exchange is not None
        code = (
            CANCEL
            if exchange.flag in ("UT", "SI", "DT", "UMSDR")
            else exchange.reset_code or INTERNAL_ERROR
        )
        self.link.reset(self.stream, code)
        self._part()

    def closed(self) -> None:
        """Both directions are over; of a request answered early the rest is not wanted (§8.1)."""
        if self.stream.state != CLOSED:
            self.link.dismiss(self.stream)
        self._part()

    def _part(self) -> None:
        """Let go of exchange, timer and stream: a cycle would be left to the collector."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:  # else the connection is lost
            self.connection.rested = exchange.moved
        if self.stream.state == CLOSED:
            self.stream.user = None
        self.timer = self.connection.engine.wheel.give_back(self.timer)
        self.connection.finished()

    def pause(self) -> None:
        """Give the stream's window back no more."""
        self.link.pause(self.stream)

    def resume(self) -> None:
        """Go on giving it back."""
        self.link.resume(self.stream)
        self.connection.mark()

    def hold(self, data: bytes, *, end: bool) -> None:
        """Keep what comes into a tunnel before the endpoint has agreed to it."""
        assert self.ahead is not None
        if data:
            self.ahead.append(data)
        self.ahead_end = end
        self.link.pause(self.stream)

    def _open_tunnel(self, exchange: Exchange, ahead: list[bytes]) -> None:
        self.ahead = None
        self.stream.paused = False
        if ahead:
            exchange.request_data(b"".join(ahead))
        if not self.stream.paused:  # it may have filled the endpoint's side
            self.resume()
        if self.ahead_end:
            exchange.request_end(None)


def _own_list(reply: Reply, text: bytes, fields: Sequence[Field] = ()) -> list[Field]:
    """Return the field list of a response of our own."""
    own = own_fields(reply, text, fields)
    return [STATUS_FIELDS[reply.status], *((name.lower(), value) for name, value in own)]
