"""One end of an HTTP/2 connection: octets in, events out; frames, streams, windows (RFC 9113).

Theory of operation.  `receive` takes octets and calls `Events`.  A stream has two directions, each
open or done: `REMOTE_DONE` and `LOCAL_DONE` are its whole state, and with both it leaves the table.
The connection's window is given back at once and a stream's as its reader keeps up: a slow reader
costs one stream window of memory, never the other streams.  A broken rule is an error of its stream
or of the whole connection as the RFC says; what merely costs us (resets, pings, empty frames) draws
on allowances that useful frames and time refill.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, final

from sidecar.errors import DownstreamError
from sidecar.wire.hpack import Decoder
from sidecar.wire.http2_frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DEFAULT_FRAME,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADER,
    HEADERS,
    LARGEST_STREAM,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PROTOCOL_ERROR,
    SETTINGS,
    STREAM_CLOSED,
    frame,
    read_goaway,
    read_settings,
    window_update,
)  # fmt: skip
from sidecar.wire.http2_incoming import Incoming
from sidecar.wire.http2_outgoing import CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW
from sidecar.wire.http2_stream import REMOTE_DONE, BrokenError, Events, Stream

_ALONE: Final = END_HEADERS | PADDED | PRIORITIZED
MAX_CONTINUATIONS: Final = 64  # frames of one header block (the 2024 flood)


@final
class Link(Incoming):
    """One end of a connection; the limits are ours: what we announce.

    `now` is read only when an allowance runs out.
    """

    __slots__ = (
        "_block_flags",
        "_block_parts",
        "_block_size",
        "_block_stream",
        "_buffer",
        "_buffered",
        "_credit",
        "_decoder",
        "_handlers",
        "_max_block",
        "_need",
        "_next_kind",
        "_preface",
        "_skipped",
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
        super().__init__(
            events,
            now,
            client=client,
            max_streams=max_streams,
            stream_window=stream_window,
            max_list=max_list,
            huffman=huffman,
        )
        self._decoder: Final = Decoder(max_list=max_list, max_fields=max_fields)
        self._next_kind = SETTINGS  # of the only frame that may come next; -1: any may
        self._preface = b"" if client else PREFACE  # what must still come
        self._buffer: Final[list[bytes]] = []
        self._buffered = 0
        self._need = 9
        self._credit = 0
        self._skipped: Final[deque[tuple[int, int]]] = deque(maxlen=100)
        self._block_stream = 0  # a header block is being collected for it
        self._block_flags = 0
        self._block_parts: list[bytes] = []
        self._block_size = 0
        self._max_block: Final = max_list + 2 * DEFAULT_FRAME
        self._handlers: Final = (
            self._on_data, self._on_headers, self._on_priority, self._on_reset, self._on_settings,
            self._on_push, self._on_ping, self._on_goaway, self._on_window, self._on_continuation,
        )  # fmt: skip

    # Octets in:

    def receive(self, data: bytes) -> None:
        """Take octets from the peer and tell `Events` what they say."""
        if self.closed:
            return
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
        if rest < len(data):
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
            if high or low > DEFAULT_FRAME:
                raise BrokenError(FRAME_SIZE_ERROR, f"a frame of {high << 16 | low} octets")
            end: int = at + 9 + low
            if end > size:
                self._need = end - at
                return at
            number &= LARGEST_STREAM
            if self._next_kind >= 0:
                self._check_order(kind, number)
            if kind == HEADERS and flags & _ALONE == END_HEADERS:  # nearly every one
                self._block_whole(flags, number, data[at + 9 : end])
            elif kind < 10:
                handlers[kind](flags, number, data[at + 9 : end])
            else:
                self._control.draw("unknown frames")  # and ignored (§4.1)
            at = end
        self._need = 9
        return at

    def _check_order(self, kind: int, number: int) -> None:
        """Refuse a frame where only one kind may come."""
        if kind == self._next_kind and (kind == SETTINGS or number == self._block_stream):
            return
        if self._next_kind == SETTINGS:
            raise BrokenError(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        raise BrokenError(PROTOCOL_ERROR, "a header block is interrupted")

    def _read_preface(self, data: bytes) -> int:
        preface = self._preface
        if not data.startswith(preface[: len(data)]):
            raise BrokenError(PROTOCOL_ERROR, "not the preface of HTTP/2")
        self._preface = preface[len(data) :]
        return min(len(data), len(preface))

    # Frames:

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        # The connection's window is given back long before it is used up, so none can be passed.
        self._credit += size
        if self._credit >= CONNECTION_WINDOW // 2:
            self.out.append(window_update(0, self._credit))
            self._credit = 0
        if flags & PADDED:
            payload = _unpad(payload)
        stream = self.streams.get(number)
        if stream is None or stream.state & REMOTE_DONE:
            self._late(number, stream, "DATA")
            return
        stream.window -= size
        if stream.window < 0:
            self.fault(stream, FLOW_CONTROL_ERROR, "more DATA than the stream's window")
            return
        self._body(stream, payload, size, end=flags & END_STREAM != 0)

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
        self._next_kind = CONTINUATION
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
            self._next_kind = -1
            block = b"".join(self._block_parts)
            self._block_parts = []
            self._block_whole(self._block_flags, number, block)

    def _block_whole(self, flags: int, number: int, block: bytes) -> None:
        """A whole header block: it is decoded whatever becomes of it, for the table's sake."""
        self._control.left += 1
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
        if (
            self._client and not end and stream.expected < 0
            and not decoder.malformed and not decoder.too_large
        ):  # fmt: skip
            self._events.headers(stream, fields, end=False)  # what `_more` does nearly always
            return
        self._more(stream, fields, decoder.malformed, too_large=decoder.too_large, end=end)

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
        if not decoder.malformed and not decoder.too_large and len(self.streams) < self.max_streams:
            stream = Stream(number, self.stream_window, self._initial_send)
            if end:
                stream.state = REMOTE_DONE
            self.streams[number] = stream
            self._events.opened(stream, fields, end=end)  # what `_admit` does nearly always
            return
        self._admit(number, fields, decoder.malformed, too_large=decoder.too_large, end=end)

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise BrokenError(PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._control.draw("PRIORITY frames")  # and ignored (§5.3.2)
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
            self._control.draw("RST_STREAM on closed streams")
            self._ours.pop(number, None)  # it has ended it too: what follows is not merely late
            return
        self._reset_in(stream, int.from_bytes(payload, "big"))

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise BrokenError(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & ACK:
            if payload:
                raise BrokenError(FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with payload")
            return
        if len(payload) % 6:
            raise BrokenError(FRAME_SIZE_ERROR, "SETTINGS of a size that 6 does not divide")
        self._control.draw("SETTINGS frames")
        self._next_kind = -1
        for key, value in read_settings(payload):
            self._setting(key, value)
        self._answer(frame(SETTINGS, ACK, 0, b""))
        self._events.settled()
        self._run()

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
        self._control.draw("PING frames")
        self._answer(frame(PING, ACK, 0, payload))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise BrokenError(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise BrokenError(FRAME_SIZE_ERROR, "GOAWAY shorter than 8")
        self._control.draw("GOAWAY frames")
        last, code, text = read_goaway(payload)
        self._events.going_away(last, code, text)

    def _on_window(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise BrokenError(FRAME_SIZE_ERROR, "WINDOW_UPDATE of another size than 4")
        self._window_updates -= 1
        if self._window_updates < 0:
            self._control.draw("WINDOW_UPDATE frames")
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if number == 0:
            if not increment:
                raise BrokenError(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            self._widen(increment)
            return
        stream = self.streams.get(number)
        if stream is None:
            if self._is_idle(number):
                raise BrokenError(PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            if not increment:
                self._reset_number(number, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            return  # of a stream that has ended meanwhile
        if not increment:
            self.fault(stream, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            return
        self._widen_stream(stream, increment)

    def _late(self, number: int, stream: Stream | None, what: str) -> None:
        """A frame for a stream that is closed, or half closed on the peer's side (§5.1)."""
        if stream is not None:
            self.fault(stream, STREAM_CLOSED, f"{what} after the end of the stream")
        elif self._is_idle(number):
            raise BrokenError(PROTOCOL_ERROR, f"{what} on idle stream {number}")
        elif self._client or number in self._ours:
            self._control.draw("frames on closed streams")
        elif any(low < number < high for low, high in self._skipped):
            raise BrokenError(PROTOCOL_ERROR, f"{what} on stream {number} after a higher one")
        else:
            raise BrokenError(STREAM_CLOSED, f"{what} on closed stream {number}")

    def _self_dependency(self, number: int) -> None:
        self._reset_number(number, PROTOCOL_ERROR, "a stream that depends on itself")

    def _reset_number(self, number: int, code: int, detail: str) -> None:
        stream = self.streams.get(number)
        if stream is not None:
            self.fault(stream, code, detail)
            return
        if not self._client:
            self._last = max(self._last, number)
        self._resets.draw("streams that end by reset")
        self._reset_out(number, code)


def _unpad(payload: bytes) -> bytes:
    """Return the payload of a PADDED frame without its padding (§6.1)."""
    if not payload or payload[0] >= len(payload):
        raise BrokenError(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
