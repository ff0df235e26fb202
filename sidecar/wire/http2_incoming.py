"""What one end of an HTTP/2 connection makes of what comes, whatever codec has read the frames."""

from typing import Final

from sidecar.wire.fields import Field
from sidecar.wire.http2_frames import (
    DEFAULT_FRAME,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    error_name,
    goaway,
)  # fmt: skip
from sidecar.wire.http2_outgoing import Outgoing
from sidecar.wire.http2_stream import REMOTE_DONE, BrokenError, Stream

MAX_OWED: Final = 1000  # answers to control frames that the peer does not read (Envoy's figure)


class Incoming(Outgoing):
    """Streams, bodies and settings as the peer's frames change them."""

    __slots__ = ()

    def _admit(
        self, number: int, fields: list[Field], malformed: str, *, too_large: bool, end: bool
    ) -> None:
        """Begin a stream that the peer has opened."""
        stream = Stream(number, self.stream_window, self._initial_send)
        if end:
            stream.state = REMOTE_DONE
        self.streams[number] = stream
        if len(self.streams) > self.max_streams:
            self.fault(stream, REFUSED_STREAM, f"more than {self.max_streams} streams")
        elif malformed:
            self.fault(stream, PROTOCOL_ERROR, malformed)
        elif too_large:
            self._events.too_large(stream)
        else:
            self._events.opened(stream, fields, end=end)

    def _more(
        self, stream: Stream, fields: list[Field], malformed: str, *, too_large: bool, end: bool
    ) -> None:
        """Take a response's head, or trailers."""
        if malformed or too_large:
            self.fault(stream, PROTOCOL_ERROR, malformed or "a field list over the limits")
        elif not end and not self._client:
            self.fault(stream, PROTOCOL_ERROR, "trailers that do not end the stream")
        elif self._fits(stream, end=end):
            if end:
                self._remote_done(stream)
            self._events.headers(stream, fields, end=end)

    def _body(self, stream: Stream, data: bytes, size: int, *, end: bool) -> None:
        """Take octets of a body; `size` of the window is used up, padding included."""
        if data:
            self._control.left += 1
            stream.received += len(data)
        elif not end:
            self._control.draw("empty DATA frames")
        expected = stream.expected
        if (
            expected >= 0
            and (end or stream.received > expected)
            and not self._fits(stream, end=end)
        ):
            return
        if end:
            self._remote_done(stream)
        elif size:
            stream.credit += size
            if stream.credit >= self.stream_window // 2 and not stream.paused:
                self._grant(stream)
        self._events.data(stream, data, end=end)

    def _fits(self, stream: Stream, *, end: bool) -> bool:
        """Tell whether a body is as long as it was said to be; if not, the stream is over."""
        received, expected = stream.received, stream.expected
        if expected < 0 or received == expected or (received < expected and not end):
            return True
        detail = f"{received} octets, content-length is {expected}"
        self.fault(stream, PROTOCOL_ERROR, detail)
        return False

    def _reset_in(self, stream: Stream, code: int) -> None:
        """The peer has reset a stream that is no longer in the table."""
        self._forget(stream)
        self._events.ended_early(stream, code, f"reset by the peer: {error_name(code)}")
        if not self._client:
            self._resets.draw("streams that end by reset")

    def _widen(self, increment: int) -> None:
        self._send_window += increment
        if self._send_window > LARGEST_WINDOW:
            raise BrokenError(FLOW_CONTROL_ERROR, "a window over 2^31-1")
        self._run()

    def _widen_stream(self, stream: Stream, increment: int) -> None:
        stream.send_window += increment
        if stream.send_window > LARGEST_WINDOW:
            self.fault(stream, FLOW_CONTROL_ERROR, "a window over 2^31-1")
        elif stream.pending:
            self._waiting[stream] = None
            self._run()

    def _setting(self, key: int, value: int) -> None:
        if key == HEADER_TABLE_SIZE:
            self._encoder.limit(value)
        elif key == ENABLE_PUSH:
            if value > 1 or (value and self._client):
                raise BrokenError(PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
        elif key == MAX_CONCURRENT_STREAMS:
            self._most = min(value, self.max_streams)
        elif key == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise BrokenError(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
            change = value - self._initial_send
            self._initial_send = value
            for stream in tuple(self.streams.values()):
                stream.send_window += change  # it may become negative (§6.9.2)
                if stream.send_window > LARGEST_WINDOW:
                    raise BrokenError(FLOW_CONTROL_ERROR, "a window over 2^31-1")
                if change > 0 and stream.pending:
                    self._waiting[stream] = None
        elif key == MAX_FRAME_SIZE:
            if not DEFAULT_FRAME <= value <= LARGEST_FRAME:
                raise BrokenError(PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
            self._frame_limit = min(value, 4 * DEFAULT_FRAME)  # larger ones only add delay
        elif key == ENABLE_CONNECT_PROTOCOL:
            if value > 1:
                raise BrokenError(PROTOCOL_ERROR, f"ENABLE_CONNECT_PROTOCOL of {value}")
            self.connect_protocol = value == 1

    def _answer(self, octets: bytes) -> None:
        """Queue what the peer has made us say; one that does not read it cannot fill our memory."""
        self.out.append(octets)
        if self.blocked:
            self._owed += 1
            if self._owed > MAX_OWED:
                raise BrokenError(ENHANCE_YOUR_CALM, "answers that are never read")

    def _is_idle(self, number: int) -> bool:
        """Tell whether nobody has begun stream `number` (§5.1.1)."""
        begun = self._next - 2 if self._client else self._last
        return number == 0 or not number & 1 or number > begun

    def _break(self, code: int, detail: str) -> None:
        """End the connection for what the peer did."""
        self.closed = True
        self._waiting.clear()
        self.out.append(goaway(self._last, code, detail.encode()[:200]))
        self._events.broken(code, f"{error_name(code)}: {detail}")
