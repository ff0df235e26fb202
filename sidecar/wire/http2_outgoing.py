"""What one end of an HTTP/2 connection sends: heads, DATA as windows allow, and its own resets.

Theory of operation.  What is to be sent collects in `out` until the owner takes it.  DATA that
windows or the transport do not let go waits in its stream, and streams take turns, a frame each, so
that none stalls another.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from sidecar.wire.fields import Field, Pairs
from sidecar.wire.hpack_encoder import Encoder
from sidecar.wire.http2_frames import (
    CONTINUATION,
    DATA,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PING,
    PREFACE,
    error_name,
    frame,
    goaway,
    pack_header,
    reset,
    settings,
    window_update,
)  # fmt: skip
from sidecar.wire.http2_stream import (
    CLOSED,
    LOCAL_DONE,
    REMOTE_DONE,
    Allowance,
    Events,
    Stream,
)

MAX_STREAMS: Final = 100  # the RFC's advice for the least, and what gRPC servers use
STREAM_WINDOW: Final = 262144  # octets one slow stream may cost
CONNECTION_WINDOW: Final = 1048576
PENDING_HIGH: Final = 65536  # octets waiting in a stream before its source is told to stop
PENDING_LOW: Final = 16384  # and to go on
FLUSH_SIZE: Final = 262144  # octets sent in one go before the transport is asked again
FORGOTTEN: Final = 1000  # streams reset by us whose late frames are still let pass
RESETS: Final = 200  # allowance of streams that end by reset (CVE-2023-44487, CVE-2025-8671)
RESETS_RATE: Final = 20.0  # refilled a second, besides one for each stream that ends well
CONTROL: Final = 1000  # allowance of frames that carry nothing (the 2019 family)
CONTROL_RATE: Final = 50.0  # refilled a second, besides one for each frame that carries something
WINDOWS_PER_FRAME: Final = 10  # WINDOW_UPDATEs that may answer one DATA frame (Envoy's figure)
WINDOW_UPDATES: Final = 1000  # WINDOW_UPDATEs that may come before any DATA has gone


class Outgoing:
    """The sending half of a `Link`."""

    __slots__ = (
        "_client",
        "_control",
        "_encoder",
        "_events",
        "_frame_limit",
        "_initial_send",
        "_last",
        "_most",
        "_next",
        "_ours",
        "_owed",
        "_refuse_over",
        "_resets",
        "_send_window",
        "_unflushed",
        "_unsent",
        "_waiting",
        "_window_updates",
        "blocked",
        "closed",
        "connect_protocol",
        "max_streams",
        "out",
        "stream_window",
        "streams",
    )

    def __init__(
        self,
        events: Events,
        now: Callable[[], float],
        *,
        client: bool,
        max_streams: int,
        stream_window: int,
        max_list: int,
        huffman: bool,
    ) -> None:
        self._events: Final = events
        self._client: Final = client
        self._encoder: Final = Encoder(huffman=huffman)
        self.max_streams: Final = max_streams
        self.stream_window: Final = stream_window
        self.streams: Final[dict[int, Stream]] = {}
        self.out: Final[list[bytes | memoryview]] = []
        self.blocked = False  # the transport takes no more for now
        self.closed = False
        self._most = min(MAX_STREAMS, max_streams)  # that we may have open, by the peer's SETTINGS
        self.connect_protocol = False  # the peer takes extended CONNECT (RFC 8441)
        self._frame_limit = DEFAULT_FRAME
        self._initial_send = DEFAULT_WINDOW
        self._send_window = DEFAULT_WINDOW
        self._next = 1  # the next stream that we open
        self._unflushed = 0  # octets of DATA in `out`
        self._unsent: Stream | None = None  # begun, its HEADERS not yet sent
        self._last = 0  # the highest stream that the peer has opened
        self._refuse_over = LARGEST_STREAM
        self._ours: Final[dict[int, None]] = {}
        self._waiting: Final[dict[Stream, None]] = {}
        self._owed = 0
        self._resets: Final = Allowance(RESETS, RESETS_RATE, now)
        self._control: Final = Allowance(CONTROL, CONTROL_RATE, now)
        self._window_updates = WINDOW_UPDATES
        ours = [(INITIAL_WINDOW_SIZE, stream_window), (MAX_HEADER_LIST_SIZE, max_list)]
        if client:
            self.out.append(PREFACE)
            ours.append((ENABLE_PUSH, 0))
        else:
            ours += [(MAX_CONCURRENT_STREAMS, max_streams), (ENABLE_CONNECT_PROTOCOL, 1)]
        self.out.append(settings(ours))
        self.out.append(window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW))

    def open(self) -> Stream:
        """Begin a stream; its HEADERS must follow before another is begun."""
        stream = Stream(self._next, self.stream_window, self._initial_send)
        self.streams[self._next] = self._unsent = stream
        self._next += 2
        return stream

    @property
    def room(self) -> int:
        """How many more streams we may open now."""
        if self._next > LARGEST_STREAM - 2:
            return 0
        return self._most - len(self.streams)

    def send_headers(
        self,
        stream: Stream,
        first: Iterable[Field],
        pairs: Pairs = (),
        last: Iterable[Field] = (),
        *,
        end: bool,
    ) -> None:
        """Send a head, or, after the body, trailers (`end`); they wait for DATA that waits.

        The fields are those of all three, in order.
        """
        if stream.state & LOCAL_DONE:
            return
        if stream.pending:
            stream.tail = [*first, *pairs, *last]
            return
        self._unsent = None
        self._write_head(stream, first, pairs, last, end=end)
        if end:
            self._local_done(stream)

    def _write_head(
        self,
        stream: Stream,
        first: Iterable[Field],
        pairs: Pairs,
        last: Iterable[Field],
        *,
        end: bool,
    ) -> None:
        encoder = self._encoder
        if encoder.wanted is not None:
            block = encoder.encode([*first, *pairs, *last])
        elif type(pairs) is tuple:
            code = encoder.code
            block = b"".join([*map(code, first), encoder.known(pairs), *map(code, last)])
        else:
            block = b"".join(map(encoder.code, [*first, *pairs, *last]))
        size = len(block)
        flags = END_HEADERS | END_STREAM if end else END_HEADERS
        limit = self._frame_limit
        if size <= limit:
            head = pack_header(size >> 16, size & 0xFFFF, HEADERS, flags, stream.id)
            self.out.extend((head, block))
        else:
            self.out.append(frame(HEADERS, flags & END_STREAM, stream.id, block[:limit]))
            for at in range(limit, size, limit):
                flags = END_HEADERS if at + limit >= size else 0
                self.out.append(frame(CONTINUATION, flags, stream.id, block[at : at + limit]))

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
            self._write_data(stream, data, end=end)
            if end:
                self._local_done(stream)
            return False
        return self._queue(stream, data, end=end)

    def _write_data(self, stream: Stream, data: bytes | memoryview, *, end: bool) -> None:
        """Write one frame that windows allow."""
        size = len(data)
        flags = END_STREAM if end else 0
        self.out.extend((pack_header(size >> 16, size & 0xFFFF, DATA, flags, stream.id), data))
        self._count(stream, size)

    def _count(self, stream: Stream, size: int) -> None:
        """Take a DATA frame that is in `out` off the windows."""
        stream.send_window -= size
        self._send_window -= size
        self._window_updates += WINDOWS_PER_FRAME
        self._unflushed += size
        if self._unflushed >= FLUSH_SIZE:  # a turn of the loop may bring many times as much
            self._unflushed = 0
            self._events.flush()

    def _queue(self, stream: Stream, data: bytes, *, end: bool) -> bool:
        """Send octets as soon as windows, the transport and other streams allow."""
        if stream.pending is None:
            stream.pending = deque()
        if data:
            stream.pending.append(data)
            stream.pending_size += len(data)
        if end:
            stream.tail = ()
        self._waiting[stream] = None
        self._run()
        if stream.pending_size > PENDING_HIGH:
            stream.full = True
        return stream.full

    def end(self, stream: Stream, trailers: Pairs = ()) -> None:
        """End our direction."""
        if trailers:
            self.send_headers(stream, (), trailers, end=True)
        elif stream.pending:
            stream.tail = ()
        else:
            self.send_data(stream, b"", end=True)

    def reset(self, stream: Stream, code: int) -> None:
        """End both directions at once; nobody is told here."""
        if self.streams.pop(stream.id, None) is None:
            return
        self._forget(stream)
        if stream is self._unsent:  # the peer may not hear of it, and its number is still free
            self._unsent = None
            self._next = stream.id
            return
        self._reset_out(stream.id, code)

    def fault(self, stream: Stream, code: int, detail: str) -> None:
        """Reset a stream on which the peer broke a rule; only while `receive` runs."""
        self.streams.pop(stream.id, None)
        self._forget(stream)
        self._reset_out(stream.id, code)
        self._events.ended_early(stream, code, f"{error_name(code)}: {detail}")
        self._resets.draw("streams that end by reset")

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
        self._unflushed = 0
        return data

    # Inside:

    def _run(self) -> None:
        """Let streams that wait take turns, a frame each, as far as windows and transport allow."""
        waiting = self._waiting
        while waiting and not self.blocked:
            stream = next(iter(waiting))
            pending = stream.pending
            assert pending
            room = min(stream.send_window, self._send_window, self._frame_limit)
            if room <= 0 < stream.send_window:
                return  # for the connection's window, and the first in the row stays the first
            del waiting[stream]
            if room <= 0:
                continue
            piece = pending[0]
            size = len(piece)
            if size > room:
                view = memoryview(piece)
                piece, pending[0] = view[:room], view[room:]
                size = room
            else:
                pending.popleft()
            stream.pending_size -= size
            tail = stream.tail
            last = not pending and tail == ()
            self._write_data(stream, piece, end=last)
            if pending:
                waiting[stream] = None
            elif last:
                self._local_done(stream)
            elif tail:
                stream.tail = None
                self.send_headers(stream, tail, end=True)
            if stream.full and stream.pending_size <= PENDING_LOW:
                stream.full = False
                self._events.writable(stream)

    def _remote_done(self, stream: Stream) -> None:
        stream.state |= REMOTE_DONE
        if stream.state == CLOSED:
            del self.streams[stream.id]
            self._resets.left += 1

    def _local_done(self, stream: Stream) -> None:
        stream.state |= LOCAL_DONE
        if stream.state == CLOSED:
            del self.streams[stream.id]
            self._resets.left += 1
        elif stream.dismissed:
            self.reset(stream, NO_ERROR)

    def _grant(self, stream: Stream) -> None:
        credit, stream.credit = stream.credit, 0
        stream.window += credit
        self.out.append(window_update(stream.id, credit))

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
