"""One end of an HTTP/2 connection: octets in, events out; frames, streams, windows (RFC 9113).

Theory of operation.  `receive` takes octets and calls `Events`; what is to be sent collects in `out`
until the owner takes it.  A stream has two directions, each open or done: `REMOTE_DONE` and
`LOCAL_DONE` are its whole state, and with both it leaves the table.  DATA that windows or the
transport do not let go waits in the stream, and streams take turns, a frame each, so that none
stalls another.  The connection's window is given back at once and a stream's as its reader keeps
up: a slow reader costs one stream window of memory, never the other streams.  A broken rule is an
error of its stream or of the whole connection as the RFC says; what merely costs us (resets,
pings, empty frames) draws on allowances that useful frames and time refill.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, final

from sidecar.errors import DownstreamError
from sidecar.wire.fields import Field
from sidecar.wire.hpack import Decoder, Encoder
from sidecar.wire.http2_frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    error_name,
    frame,
    goaway,
    pack_header,
    read_goaway,
    read_settings,
    reset,
    settings,
    window_update,
)

REMOTE_DONE: Final = 1  # the peer has ended its direction
LOCAL_DONE: Final = 2  # we have ended ours
CLOSED: Final = 3

MAX_STREAMS: Final = 100  # the RFC's advice for the least, and what gRPC servers use
STREAM_WINDOW: Final = 262144  # octets one slow stream may cost
CONNECTION_WINDOW: Final = 1048576
PENDING_HIGH: Final = 65536  # octets waiting in a stream before its source is told to stop
PENDING_LOW: Final = 16384  # and to go on
FLUSH_SIZE: Final = 262144  # octets sent in one go before the transport is asked again
MAX_CONTINUATIONS: Final = 64  # frames of one header block (the 2024 flood)
MAX_OWED: Final = 1000  # answers to control frames that the peer does not read (Envoy's figure)
FORGOTTEN: Final = 1000  # streams reset by us whose late frames are still let pass

RESETS: Final = 200  # allowance of streams that end by reset (CVE-2023-44487, CVE-2025-8671)
RESETS_RATE: Final = 20.0  # refilled a second, besides one for each stream that ends well
CONTROL: Final = 1000  # allowance of frames that carry nothing (the 2019 family)
CONTROL_RATE: Final = 50.0  # refilled a second, besides one for each frame that carries something
WINDOWS_PER_FRAME: Final = 10  # WINDOW_UPDATEs that may answer one DATA frame (Envoy's figure)


class Events(Protocol):
    """Who is told; a call may send, reset and pause at once."""

    def opened(self, stream: "Stream", fields: list[Field], *, end: bool) -> None:
        """The caller has begun a stream (servers only)."""

    def headers(self, stream: "Stream", fields: list[Field], *, end: bool) -> None:
        """More fields on an open stream: a response's head, or trailers."""

    def data(self, stream: "Stream", data: bytes, *, end: bool) -> None:
        """Octets of a body."""

    def ended_early(self, stream: "Stream", code: int, detail: str) -> None:
        """The stream was reset, by the peer or by us for what the peer did; it is gone."""

    def too_large(self, stream: "Stream") -> None:
        """The stream's field list passes the limits (servers only); it may be answered."""

    def writable(self, stream: "Stream") -> None:
        """What `send_data` called full has gone out."""

    def settled(self) -> None:
        """The peer's SETTINGS are there, the first or new ones."""

    def going_away(self, last: int, code: int, text: bytes) -> None:
        """The peer takes no new streams; those over `last` it has not looked at."""

    def pong(self) -> None:
        """The answer to our PING."""

    def broken(self, code: int, detail: str) -> None:
        """The connection is over: GOAWAY is in `out`, nothing else will follow."""

    def flush(self) -> None:
        """`out` is long: hand it to the transport, which may block."""


class BrokenError(Exception):
    """An error of the connection, on its way to `receive`."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code: Final = code
        self.detail: Final = detail


@final
class Stream:
    """One stream; `user` is the owner's."""

    __slots__ = (
        "credit",
        "dismissed",
        "expected",
        "full",
        "id",
        "paused",
        "pending",
        "pending_size",
        "received",
        "send_window",
        "state",
        "tail",
        "user",
        "window",
    )

    def __init__(self, number: int, window: int, send_window: int) -> None:
        self.id: Final = number
        self.state = 0
        self.user: Any = None
        self.window = window  # octets the peer may still send
        self.credit = 0  # octets taken and not yet given back
        self.paused = False
        self.send_window = send_window
        self.pending: deque[bytes | memoryview] | None = None  # made when something must wait
        self.pending_size = 0
        self.tail: Iterable[Field] | None = None  # trailers, maybe none, that end our direction
        self.dismissed = False  # nobody wants more of the peer's direction
        self.full = False  # the source was told to stop
        self.expected = -1  # octets that content-length announces; -1: not said
        self.received = 0


@final
class Link:
    """One end of a connection.

    `limits` are ours: what we announce.  `now` is read only when an allowance runs out.
    """

    __slots__ = (
        "_announced",
        "_block",
        "_block_flags",
        "_block_parts",
        "_block_size",
        "_block_stream",
        "_buffer",
        "_buffered",
        "_client",
        "_control",
        "_control_at",
        "_credit",
        "_decoder",
        "_encoder",
        "_events",
        "_frame_limit",
        "_handlers",
        "_initial_send",
        "_last",
        "_max_block",
        "_need",
        "_next",
        "_now",
        "_ours",
        "_owed",
        "_preface",
        "_refuse_over",
        "_resets",
        "_resets_at",
        "_send_window",
        "_settled",
        "_skipped",
        "_waiting",
        "_window",
        "_window_updates",
        "blocked",
        "closed",
        "connect_protocol",
        "max_streams",
        "out",
        "peer_max_streams",
        "stream_window",
        "streams",
    )

    def __init__(
        self,
        events: Events,
        now: Callable[[], float],
        *,
        client: bool,
        max_streams: int = MAX_STREAMS,
        stream_window: int = STREAM_WINDOW,
        max_list: int = 61440,
        max_fields: int = 100,
        huffman: bool = False,
    ) -> None:
        self._events: Final = events
        self._now: Final = now
        self._client: Final = client
        self._decoder: Final = Decoder(max_list=max_list, max_fields=max_fields)
        self._encoder: Final = Encoder(huffman=huffman)
        self.max_streams: Final = max_streams
        self.stream_window: Final = stream_window
        self.streams: Final[dict[int, Stream]] = {}
        self.out: list[bytes | memoryview] = []
        self.blocked = False  # the transport takes no more for now
        self.closed = False
        self.connect_protocol = False  # the peer takes extended CONNECT (RFC 8441)
        self.peer_max_streams: int = MAX_STREAMS  # until its SETTINGS say otherwise
        self._settled = False
        self._preface = b"" if client else PREFACE  # what must still come
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._need = 9
        self._frame_limit = DEFAULT_FRAME
        self._initial_send = DEFAULT_WINDOW
        self._send_window = DEFAULT_WINDOW
        self._window = CONNECTION_WINDOW
        self._credit = 0
        self._next = 1  # the next stream that we open
        self._last = 0  # the highest stream that the peer has opened
        self._refuse_over = LARGEST_STREAM
        self._ours: Final[dict[int, None]] = {}
        self._skipped: Final[deque[tuple[int, int]]] = deque(maxlen=100)
        self._waiting: Final[dict[Stream, None]] = {}
        self._block_stream = 0  # a header block is being collected for it
        self._block_flags = 0
        self._block_parts: list[bytes] = []
        self._block_size = 0
        self._max_block: Final = max_list + 2 * DEFAULT_FRAME
        self._owed = 0
        self._resets = RESETS
        self._resets_at = now()
        self._control = CONTROL
        self._control_at = self._resets_at
        self._window_updates = CONTROL
        self._handlers: Final = (
            self._on_data, self._on_headers, self._on_priority, self._on_reset, self._on_settings,
            self._on_push, self._on_ping, self._on_goaway, self._on_window, self._on_continuation,
        )  # fmt: skip
        ours = [(INITIAL_WINDOW_SIZE, stream_window), (MAX_HEADER_LIST_SIZE, max_list)]
        if client:
            self.out.append(PREFACE)
            ours.append((ENABLE_PUSH, 0))
        else:
            ours += [(MAX_CONCURRENT_STREAMS, max_streams), (ENABLE_CONNECT_PROTOCOL, 1)]
        self.out.append(settings(ours))
        self.out.append(window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    # Octets in:

    def receive(self, data: bytes) -> None:
        """Take octets from the peer and tell `Events` what they say."""
        if self._buffer:
            self._buffer.append(data)
            self._buffered += len(data)
            if self._buffered < self._need:
                return  # not joined before the frame is whole: a slow frame costs one copy
            data = b"".join(self._buffer)
            self._buffer.clear()
        try:
            rest = self._frames(data)
        except BrokenError as error:
            self._break(error.code, error.detail)
            return
        except DownstreamError as error:  # of HPACK: the tables differ from here on (RFC 7541 §2.2)
            self._break(COMPRESSION_ERROR, f"{error.code}: {error.detail}")
            return
        if rest < len(data) and not self.closed:
            self._buffer.append(data[rest:])
            self._buffered = len(data) - rest

    def _frames(self, data: bytes) -> int:
        """Take all whole frames; return how many octets they were."""
        at, size = 0, len(data)
        if self._preface:
            at = self._read_preface(data)
        handlers = self._handlers
        unpack = HEADER.unpack_from
        while size - at >= 9:
            high, low, kind, flags, number = unpack(data, at)
            length = high << 16 | low
            if length > DEFAULT_FRAME:
                raise BrokenError(FRAME_SIZE_ERROR, f"a frame of {length} octets")
            end: int = at + 9 + length
            if end > size:
                self._need = end - at
                return at
            if not self._settled and kind != SETTINGS:
                raise BrokenError(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            number &= LARGEST_STREAM
            if self._block_stream and (kind != CONTINUATION or number != self._block_stream):
                raise BrokenError(PROTOCOL_ERROR, "a header block is interrupted")
            if kind < 10:
                handlers[kind](flags, number, data[at + 9 : end])
            else:
                self._draw_control("unknown frames")  # and ignored (§4.1)
            at = end
            if self.closed:
                return at
        self._need = 9
        return at

    def _read_preface(self, data: bytes) -> int:
        preface = self._preface
        if not data.startswith(preface[: len(data)]):
            raise BrokenError(PROTOCOL_ERROR, "not the preface of HTTP/2")
        self._preface = preface[len(data) :]
        return min(len(data), len(preface))

    # Frames:

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise BrokenError(FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self._credit += size
        if self._credit >= CONNECTION_WINDOW // 2:
            self.out.append(window_update(0, self._credit))
            self._window += self._credit
            self._credit = 0
        stream = self.streams.get(number)
        if stream is None or stream.state & REMOTE_DONE:
            self._late(number, stream, "DATA")
            return
        if flags & PADDED:
            payload = _unpad(payload)
        stream.window -= size
        if stream.window < 0:
            self.fault(stream, FLOW_CONTROL_ERROR, "more DATA than the stream's window")
            return
        end = flags & END_STREAM != 0
        if payload:
            self._control += 1
            stream.received += len(payload)
        elif not end:
            self._draw_control("empty DATA frames")
        if stream.expected >= 0 and (
            stream.received > stream.expected or (end and stream.received != stream.expected)
        ):
            detail = f"{stream.received} octets, content-length is {stream.expected}"
            self.fault(stream, PROTOCOL_ERROR, detail)
            return
        if end:
            self._remote_done(stream)
        elif size:
            stream.credit += size
            if stream.credit >= self.stream_window // 2 and not stream.paused:
                self._grant(stream)
        self._events.data(stream, payload, end=end)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpad(payload)
        if flags & PRIORITIZED:
            if len(payload) < 5:
                raise BrokenError(FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            depends = int.from_bytes(payload[:4], "big") & LARGEST_STREAM
            payload = payload[5:]
            if depends == number:
                self._self_dependency(number)
        if flags & END_HEADERS:
            self._block_whole(flags, number, payload)
            return
        if number == 0:
            raise BrokenError(PROTOCOL_ERROR, "HEADERS on stream 0")
        self._block_stream, self._block_flags = number, flags
        self._block_parts = [payload]
        self._block_size = len(payload)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._block_stream:
            raise BrokenError(PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block_parts.append(payload)
        self._block_size += len(payload)
        if self._block_size > self._max_block or len(self._block_parts) > MAX_CONTINUATIONS:
            raise BrokenError(ENHANCE_YOUR_CALM, "an endless header block")
        if flags & END_HEADERS:
            self._block_stream = 0
            block = b"".join(self._block_parts)
            self._block_parts = []
            self._block_whole(self._block_flags, number, block)

    def _block_whole(self, flags: int, number: int, block: bytes) -> None:
        """A whole header block: it is decoded whatever becomes of it, for the table's sake."""
        self._control += 1
        stream = self.streams.get(number)
        end = flags & END_STREAM != 0
        if stream is None:
            self._block_opens(number, block, end=end)
            return
        decoder = self._decoder
        fields = decoder.decode(block)
        if stream.state & REMOTE_DONE:
            self._late(number, stream, "HEADERS")
            return
        if decoder.malformed or decoder.too_large:
            detail = decoder.malformed or "a field list over the limits"
            self.fault(stream, PROTOCOL_ERROR, detail)
            return
        if not end and not self._client:
            self.fault(stream, PROTOCOL_ERROR, "trailers that do not end the stream")
            return
        if end:
            if stream.expected >= 0 and stream.received != stream.expected:
                detail = f"{stream.received} octets, content-length is {stream.expected}"
                self.fault(stream, PROTOCOL_ERROR, detail)
                return
            self._remote_done(stream)
        self._events.headers(stream, fields, end=end)

    def _block_opens(self, number: int, block: bytes, *, end: bool) -> None:
        """A header block on a stream that is not in the table."""
        decoder = self._decoder
        if self._client or number <= self._last:
            decoder.decode(block)
            self._late(number, None, "HEADERS")
            return
        if not number & 1:
            raise BrokenError(PROTOCOL_ERROR, f"a caller's stream has an even number, {number}")
        if number > self._last + 2:
            self._skipped.append((self._last, number))
        self._last = number
        fields = decoder.decode(block)
        if number > self._refuse_over:
            return  # after our GOAWAY: the peer knows that nobody looks at it
        stream = Stream(number, self.stream_window, self._initial_send)
        if end:
            stream.state = REMOTE_DONE
        self.streams[number] = stream
        if len(self.streams) > self.max_streams:
            self.fault(stream, REFUSED_STREAM, f"more than {self.max_streams} streams")
        elif decoder.malformed:
            self.fault(stream, PROTOCOL_ERROR, decoder.malformed)
        elif decoder.too_large:
            self._events.too_large(stream)
        else:
            self._events.opened(stream, fields, end=end)

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise BrokenError(PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._draw_control("PRIORITY frames")  # and ignored (§5.3.2)
        if len(payload) != 5:
            self._reset_number(number, FRAME_SIZE_ERROR, "PRIORITY of another size than 5")
        elif int.from_bytes(payload[:4], "big") & LARGEST_STREAM == number:
            self._self_dependency(number)

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise BrokenError(FRAME_SIZE_ERROR, "RST_STREAM of another size than 4")
        stream = self.streams.pop(number, None)
        if stream is None:
            if self._is_idle(number):
                raise BrokenError(PROTOCOL_ERROR, "RST_STREAM on an idle stream")
            self._draw_control("RST_STREAM on closed streams")
            return
        self._forget(stream)
        code = int.from_bytes(payload, "big")
        self._events.ended_early(stream, code, f"reset by the peer: {error_name(code)}")
        if not self._client:
            self._draw_reset()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise BrokenError(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise BrokenError(FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with payload")
            return
        if len(payload) % 6:
            raise BrokenError(FRAME_SIZE_ERROR, "SETTINGS of a size that 6 does not divide")
        self._draw_control("SETTINGS frames")
        self._settled = True
        for key, value in read_settings(payload):
            self._setting(key, value)
        self._answer(frame(SETTINGS, ACK, 0, b""))
        self._events.settled()
        self._run()

    def _setting(self, key: int, value: int) -> None:
        if key == HEADER_TABLE_SIZE:
            self._encoder.limit(value)
        elif key == ENABLE_PUSH:
            if value > 1 or (value and self._client):
                raise BrokenError(PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
        elif key == MAX_CONCURRENT_STREAMS:
            self.peer_max_streams = value
        elif key == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise BrokenError(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
            change = value - self._initial_send
            self._initial_send = value
            for stream in tuple(self.streams.values()):
                stream.send_window += change  # it may become negative (§6.9.2)
                if stream.send_window > LARGEST_WINDOW:
                    raise BrokenError(FLOW_CONTROL_ERROR, "a window over 2^31-1")
                if change > 0 and (stream.pending or stream.tail is not None):
                    self._waiting[stream] = None
        elif key == MAX_FRAME_SIZE:
            if not DEFAULT_FRAME <= value <= LARGEST_FRAME:
                raise BrokenError(PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
            self._frame_limit = min(value, 4 * DEFAULT_FRAME)  # larger ones only add delay
        elif key == ENABLE_CONNECT_PROTOCOL:
            if value > 1:
                raise BrokenError(PROTOCOL_ERROR, f"ENABLE_CONNECT_PROTOCOL of {value}")
            self.connect_protocol = value == 1

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise BrokenError(PROTOCOL_ERROR, "PUSH_PROMISE, which nobody may send us")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise BrokenError(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise BrokenError(FRAME_SIZE_ERROR, "PING of another size than 8")
        if flags & ACK:
            self._events.pong()
            return
        self._draw_control("PING frames")
        self._answer(frame(PING, ACK, 0, payload))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise BrokenError(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise BrokenError(FRAME_SIZE_ERROR, "GOAWAY shorter than 8")
        self._draw_control("GOAWAY frames")
        last, code, text = read_goaway(payload)
        self._events.going_away(last, code, text)

    def _on_window(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise BrokenError(FRAME_SIZE_ERROR, "WINDOW_UPDATE of another size than 4")
        self._window_updates -= 1
        if self._window_updates < 0:
            self._draw_control("WINDOW_UPDATE frames")
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if number == 0:
            if not increment:
                raise BrokenError(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self._send_window += increment
            if self._send_window > LARGEST_WINDOW:
                raise BrokenError(FLOW_CONTROL_ERROR, "a window over 2^31-1")
            self._run()
            return
        stream = self.streams.get(number)
        if stream is None:
            if self._is_idle(number):
                raise BrokenError(PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            return  # of a stream that has ended meanwhile
        if not increment:
            self.fault(stream, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            return
        stream.send_window += increment
        if stream.send_window > LARGEST_WINDOW:
            self.fault(stream, FLOW_CONTROL_ERROR, "a window over 2^31-1")
        elif stream.pending:
            self._waiting[stream] = None
            self._run()

    # What the owner says:

    def open(self) -> Stream:
        """Begin a stream; its HEADERS must follow before another is begun."""
        stream = Stream(self._next, self.stream_window, self._initial_send)
        self.streams[self._next] = stream
        self._next += 2
        return stream

    @property
    def room(self) -> int:
        """How many more streams we may open now."""
        if self._next > LARGEST_STREAM - 2:
            return 0
        limit: int = min(self.peer_max_streams, self.max_streams)
        return limit - len(self.streams)

    def send_headers(self, stream: Stream, fields: Iterable[Field], *, end: bool) -> None:
        """Send a head, or, after the body, trailers (`end`); they wait for DATA that waits."""
        if stream.state & LOCAL_DONE:
            return
        if stream.pending:
            stream.tail = fields
            return
        block = self._encoder.encode(fields)
        size = len(block)
        flags = END_HEADERS | END_STREAM if end else END_HEADERS
        limit = self._frame_limit
        if size <= limit:
            self.out += (pack_header(size >> 16, size & 0xFFFF, HEADERS, flags, stream.id), block)
        else:
            first = frame(HEADERS, flags & END_STREAM, stream.id, block[:limit])
            self.out.append(first)
            for at in range(limit, size, limit):
                last = END_HEADERS if at + limit >= size else 0
                self.out.append(frame(CONTINUATION, last, stream.id, block[at : at + limit]))
        if end:
            self._local_done(stream)

    def send_data(self, stream: Stream, data: bytes, *, end: bool) -> bool:
        """Send octets of a body, now or when windows allow; True: the source had better stop."""
        state = stream.state
        if state & LOCAL_DONE or stream.tail is not None:
            return False
        size = len(data)
        if not stream.pending and (
            not size
            or (
                size <= stream.send_window
                and size <= self._send_window
                and size <= self._frame_limit
                and not self.blocked
            )
        ):
            stream.send_window -= size
            self._send_window -= size
            self._window_updates += WINDOWS_PER_FRAME
            flags = END_STREAM if end else 0
            self.out += (pack_header(size >> 16, size & 0xFFFF, DATA, flags, stream.id), data)
            if end:
                self._local_done(stream)
            return False
        if stream.pending is None:
            stream.pending = deque()
        if size:
            stream.pending.append(data)
            stream.pending_size += size
        if end:
            stream.tail = ()
        self._waiting[stream] = None
        self._run()
        if stream.pending_size > PENDING_HIGH:
            stream.full = True
        return stream.full

    def end(self, stream: Stream, trailers: Iterable[Field] = ()) -> None:
        """End our direction."""
        if trailers:
            self.send_headers(stream, trailers, end=True)
        elif stream.pending:
            stream.tail = ()
        else:
            self.send_data(stream, b"", end=True)

    def reset(self, stream: Stream, code: int) -> None:
        """End both directions at once; nobody is told here."""
        if self.streams.pop(stream.id, None) is None:
            return
        self._forget(stream)
        self._reset_out(stream.id, code)

    def fault(self, stream: Stream, code: int, detail: str) -> None:
        """Reset a stream on which the peer broke a rule; only while `receive` runs."""
        self.streams.pop(stream.id, None)
        self._forget(stream)
        self._reset_out(stream.id, code)
        self._events.ended_early(stream, code, f"{error_name(code)}: {detail}")
        self._draw_reset()

    def dismiss(self, stream: Stream) -> None:
        """Want no more of the peer's direction once ours is done (§8.1: an early answer)."""
        if stream.state == LOCAL_DONE:
            self.reset(stream, NO_ERROR)
        else:
            stream.dismissed = True

    def pause(self, stream: Stream) -> None:
        """Give the stream's window back no more: its reader is full."""
        stream.paused = True

    def resume(self, stream: Stream) -> None:
        """Go on giving it back."""
        stream.paused = False
        if stream.credit and not stream.state & REMOTE_DONE:
            self._grant(stream)

    def unblock(self) -> None:
        """The transport takes more again."""
        self.blocked = False
        self._owed = 0
        self._run()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.out.append(frame(PING, 0, 0, b"sidecar\x00"))

    def go_away(self, code: int = NO_ERROR, *, soon: bool = False) -> None:
        """Take no new streams; `soon` announces it first, for those that are on their way (§6.8)."""
        if not soon:
            self._refuse_over = min(self._refuse_over, self._last)
        self.out.append(goaway(LARGEST_STREAM if soon else self._refuse_over, code))

    def take(self) -> bytes:
        """Return what is to be sent, once."""
        data = b"".join(self.out)
        self.out.clear()
        return data

    # Inside:

    def _run(self) -> None:
        """Let streams that wait take turns, a frame each, as far as windows and transport allow."""
        waiting, out = self._waiting, self.out
        sent = 0
        while waiting and not self.blocked:
            stream = next(iter(waiting))
            del waiting[stream]
            pending = stream.pending
            room = min(stream.send_window, self._send_window, self._frame_limit)
            if pending and room > 0:
                piece = pending[0]
                size = len(piece)
                if size > room:
                    view = memoryview(piece)
                    piece, pending[0] = view[:room], view[room:]
                    size = room
                else:
                    pending.popleft()
                stream.pending_size -= size
                stream.send_window -= size
                self._send_window -= size
                self._window_updates += WINDOWS_PER_FRAME
                last = not pending and stream.tail == ()
                flags = END_STREAM if last else 0
                out += (pack_header(size >> 16, size & 0xFFFF, DATA, flags, stream.id), piece)
                sent += size
                if last:
                    self._local_done(stream)
            elif pending:
                if stream.send_window > 0:  # the connection's window is what is missing
                    waiting[stream] = None
                    return
                continue
            if pending:
                waiting[stream] = None
            elif stream.tail is not None and not stream.state & LOCAL_DONE:
                self._finish_tail(stream)
            if stream.full and stream.pending_size <= PENDING_LOW:
                stream.full = False
                self._events.writable(stream)
            if sent >= FLUSH_SIZE:
                sent = 0
                self._events.flush()

    def _finish_tail(self, stream: Stream) -> None:
        tail, stream.tail = stream.tail, None
        if tail:
            self.send_headers(stream, tail, end=True)
        else:
            self.send_data(stream, b"", end=True)

    def _remote_done(self, stream: Stream) -> None:
        stream.state |= REMOTE_DONE
        if stream.state == CLOSED:
            del self.streams[stream.id]
            self._resets += 1

    def _local_done(self, stream: Stream) -> None:
        stream.state |= LOCAL_DONE
        if stream.state == CLOSED:
            del self.streams[stream.id]
            self._resets += 1
        elif stream.dismissed:
            self.reset(stream, NO_ERROR)

    def _grant(self, stream: Stream) -> None:
        credit, stream.credit = stream.credit, 0
        stream.window += credit
        self.out.append(window_update(stream.id, credit))

    def _late(self, number: int, stream: Stream | None, what: str) -> None:
        """A frame for a stream that is closed, or half closed on the peer's side (§5.1)."""
        if stream is not None:
            self.fault(stream, STREAM_CLOSED, f"{what} after the end of the stream")
        elif self._is_idle(number):
            raise BrokenError(PROTOCOL_ERROR, f"{what} on idle stream {number}")
        elif self._client or number in self._ours:
            self._draw_control("frames on closed streams")
        elif any(low < number < high for low, high in self._skipped):
            raise BrokenError(PROTOCOL_ERROR, f"{what} on stream {number} after a higher one")
        else:
            raise BrokenError(STREAM_CLOSED, f"{what} on closed stream {number}")

    def _is_idle(self, number: int) -> bool:
        if self._client:
            return number == 0 or not number & 1 or number >= self._next
        return number == 0 or not number & 1 or number > self._last

    def _self_dependency(self, number: int) -> None:
        self._reset_number(number, PROTOCOL_ERROR, "a stream that depends on itself")

    def _reset_number(self, number: int, code: int, detail: str) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            self.fault(stream, code, detail)
            return
        if not self._client:
            self._last = max(self._last, number)
        self._draw_reset()
        self._reset_out(number, code)

    def _reset_out(self, number: int, code: int) -> None:
        ours = self._ours
        ours[number] = None
        if len(ours) > FORGOTTEN:
            del ours[next(iter(ours))]
        self.out.append(reset(number, code))

    def _forget(self, stream: Stream) -> None:
        stream.state = CLOSED
        stream.pending = None
        stream.pending_size = 0
        stream.tail = None
        self._waiting.pop(stream, None)

    def _answer(self, octets: bytes) -> None:
        """Queue what the peer has made us say; one that does not read it cannot fill our memory."""
        self.out.append(octets)
        if self.blocked:
            self._owed += 1
            if self._owed > MAX_OWED:
                raise BrokenError(ENHANCE_YOUR_CALM, "answers that are never read")

    def _draw_reset(self) -> None:
        self._resets -= 1
        if self._resets < 0:
            now = self._now()
            self._resets = min(RESETS, int((now - self._resets_at) * RESETS_RATE)) - 1
            self._resets_at = now
            if self._resets < 0:
                raise BrokenError(ENHANCE_YOUR_CALM, "too many streams that end by reset")

    def _draw_control(self, what: str) -> None:
        self._control -= 1
        if self._control < 0:
            now = self._now()
            self._control = min(CONTROL, int((now - self._control_at) * CONTROL_RATE)) - 1
            self._control_at = now
            if self._control < 0:
                raise BrokenError(ENHANCE_YOUR_CALM, f"too many {what}")

    def _break(self, code: int, detail: str) -> None:
        self.closed = True
        self._waiting.clear()
        self._buffer.clear()
        self.out.append(goaway(self._last, code, detail.encode()[:200]))
        self._events.broken(code, f"{error_name(code)}: {detail}")


def _unpad(payload: bytes) -> bytes:
    """Return the payload of a PADDED frame without its padding (§6.1)."""
    if not payload or payload[0] >= len(payload):
        raise BrokenError(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
