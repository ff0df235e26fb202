"""The same end of an HTTP/2 connection as `Link`, its frames and states by the `h2` library.

Chosen by `http2: {codec: reference}`; slower, and an oracle for tests.  Theory of operation.  Frames
are handed to h2 one by one, so that each event is known by its frame.  What h2 leaves to its user is
ours: which DATA waits, when windows are given back, which streams are refused, how much a peer may
cost us.  GOAWAY never reaches h2, which would send nothing after one; the RFC wants open streams
finished (§6.8).  What h2 calls a protocol error ends the connection, as §5.4 lets any end do.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from hpack import HPACKError, NeverIndexedHeaderTuple
from hpack.struct import Header

from sidecar.wire.fields import Field
from sidecar.wire.hpack import DEFAULT_TABLE, OVERHEAD, Sensitive, why_malformed
from sidecar.wire.http2_frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    END_HEADERS,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER,
    HEADERS,
    LARGEST_STREAM,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    error_name,
    read_goaway,
)  # fmt: skip
from sidecar.wire.http2_incoming import Incoming
from sidecar.wire.http2_outgoing import (
    CONNECTION_WINDOW,
    MAX_STREAMS,
    STREAM_WINDOW,
)
from sidecar.wire.http2_stream import BrokenError, Events, Stream

_RECEIVED: Final = (
    h2.events.ResponseReceived,
    h2.events.InformationalResponseReceived,
    h2.events.TrailersReceived,
)


@final
class ReferenceLink(Incoming):
    """See the module; `huffman` has no effect, h2 always codes so."""

    __slots__ = (
        "_buffer", "_connection", "_credit", "_in_block", "_max_fields", "_max_list", "_preface",
    )  # fmt: skip

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
        self._max_list: Final = max_list
        self._max_fields: Final = max_fields or 1
        self._buffer: Final = bytearray()
        self._preface = 0 if client else len(PREFACE)
        self._credit = 0
        self._in_block = False  # a header block has begun, and its end has not come
        connection = self._connection = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client,
                # We look at fields ourselves: h2 would end the connection for one of them.
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        codes = h2.settings.SettingCodes
        connection.local_settings = h2.settings.Settings(
            client=client,
            initial_values={
                codes.INITIAL_WINDOW_SIZE: stream_window,
                codes.ENABLE_PUSH: 0,
                # A peer may open more before it has read our SETTINGS: that is no reason to end
                # the connection, as h2 would.
                codes.MAX_CONCURRENT_STREAMS: LARGEST_STREAM,
            },
        )
        connection.decoder.max_header_list_size = 4 * max_list  # over `max_list`: answered with 431
        connection.initiate_connection()
        connection.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_WINDOW)
        connection.clear_outbound_data_buffer()  # `out` says the same already

    # Octets in:

    def receive(self, data: bytes) -> None:
        """Take octets from the peer and tell `Events` what they say."""
        if self.closed:
            return
        buffer = self._buffer
        buffer += data
        try:
            if self._preface:
                self._read_preface()
            while True:
                if len(buffer) < HEADER.size:
                    return
                high, low, kind, flags, number = HEADER.unpack_from(buffer)
                size = high << 16 | low
                if size > DEFAULT_FRAME:
                    raise BrokenError(FRAME_SIZE_ERROR, f"a frame of {size} octets")
                if len(buffer) < HEADER.size + size:
                    return
                octets = bytes(buffer[: HEADER.size + size])
                del buffer[: HEADER.size + size]
                self._frame(kind, flags, number & LARGEST_STREAM, octets)
        except BrokenError as error:
            self._break(error.code, error.detail)
        except h2.exceptions.ProtocolError as error:
            self._connection.clear_outbound_data_buffer()  # its GOAWAY
            self._break(_code(error), str(error) or type(error).__name__)

    def _read_preface(self) -> None:
        size = min(self._preface, len(self._buffer))
        self._connection.receive_data(bytes(self._buffer[:size]))
        del self._buffer[:size]
        self._preface -= size

    def _frame(self, kind: int, flags: int, number: int, octets: bytes) -> None:
        self._charge(kind, flags, number)
        if kind == GOAWAY:  # h2 would take no more of the streams under way
            if number or len(octets) < 17:
                raise BrokenError(PROTOCOL_ERROR, "GOAWAY on a stream, or shorter than 8")
            if self._in_block:
                raise BrokenError(PROTOCOL_ERROR, "a header block is interrupted")
            self._events.going_away(*read_goaway(octets[9:]))
            return
        if kind in (HEADERS, CONTINUATION):
            self._in_block = not flags & END_HEADERS
        events = self._connection.receive_data(octets)
        answer = self._connection.data_to_send()
        if answer:
            self._answer(answer)
            if not events:
                self._control.draw("frames on closed streams")
        for event in events:
            self._tell(event)

    def _charge(self, kind: int, flags: int, number: int) -> None:
        """Take what a frame costs from the allowance it draws on."""
        if kind == RST_STREAM:
            if self._is_idle(number):
                raise BrokenError(PROTOCOL_ERROR, "RST_STREAM on an idle stream")
            if number not in self.streams:
                self._control.draw("RST_STREAM on closed streams")
        elif kind == WINDOW_UPDATE:
            self._window_updates -= 1
            if self._window_updates < 0:
                self._control.draw("WINDOW_UPDATE frames")
        elif (
            kind in (PRIORITY, GOAWAY)
            or kind > CONTINUATION
            or (kind in (SETTINGS, PING) and not flags & ACK)
        ):
            self._control.draw("frames that carry nothing")

    # Events of h2, which tells of streams only that it holds open, and those are in our table:

    def _tell(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self._on_data(event)
        elif isinstance(event, h2.events.RequestReceived):
            self._on_request(event)
        elif isinstance(event, _RECEIVED):
            self._control.left += 1
            fields, malformed, too_large = self._fields(event.headers)
            end = not isinstance(event, h2.events.InformationalResponseReceived) and (
                event.stream_ended is not None
            )
            stream = self.streams[event.stream_id]
            self._more(stream, fields, malformed, too_large=too_large, end=end)
        elif isinstance(event, h2.events.WindowUpdated):
            if event.stream_id == 0:
                self._widen(event.delta)
            else:
                self._widen_stream(self.streams[event.stream_id], event.delta)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._on_settings(event)
        elif isinstance(event, h2.events.PingAckReceived):
            self._events.pong()
        elif isinstance(event, h2.events.StreamReset):
            self._on_reset(event)

    def _on_data(self, event: h2.events.DataReceived) -> None:
        size = event.flow_controlled_length
        self._credit += size
        if self._credit >= CONNECTION_WINDOW // 2:
            self._say(self._connection.increment_flow_control_window, self._credit)
            self._credit = 0
        stream = self.streams[event.stream_id]
        self._body(stream, event.data, size, end=event.stream_ended is not None)

    def _on_request(self, event: h2.events.RequestReceived) -> None:
        self._control.left += 1
        self._last = number = event.stream_id
        if number > self._refuse_over:  # after our GOAWAY; h2 must hear that it is over
            self._resets.draw("streams after GOAWAY")
            self._reset_out(number, REFUSED_STREAM)
            return
        fields, malformed, too_large = self._fields(event.headers)
        end = event.stream_ended is not None
        self._admit(number, fields, malformed, too_large=too_large, end=end)

    def _on_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        for key, change in event.changed_settings.items():
            self._setting(int(key), change.new_value)
        encoder = self._connection.encoder
        if encoder.header_table_size > DEFAULT_TABLE:  # the peer allows more than we care to keep
            encoder.header_table_size = DEFAULT_TABLE
        self._events.settled()
        self._run()

    def _on_reset(self, event: h2.events.StreamReset) -> None:
        stream = self.streams.pop(event.stream_id)
        code = int(event.error_code or 0)
        if event.remote_reset:
            self._reset_in(stream, code)
            return
        self._forget(stream)
        self._events.ended_early(stream, code, f"{error_name(code)}: a frame out of place")
        self._resets.draw("streams that end by reset")

    def _fields(self, headers: Iterable[Header]) -> tuple[list[Field], str, bool]:
        """Return the fields, what is malformed about them, and whether they pass the limits."""
        fields: list[Field] = []
        malformed = ""
        size = 0
        for header in headers:
            name, value = header
            kept = isinstance(header, NeverIndexedHeaderTuple)
            field = Sensitive((name, value)) if kept else (name, value)
            malformed = malformed or why_malformed(field)
            size += len(name) + len(value) + OVERHEAD
            fields.append(field)
        return fields, malformed, size > self._max_list or len(fields) > self._max_fields

    # Sending:

    def _say(self, how: Callable[..., None], *what: object, **more: object) -> None:
        if self.closed:  # h2 would raise; nobody listens any more
            return
        how(*what, **more)
        self.out.append(self._connection.data_to_send())

    def _write_head(
        self,
        stream: Stream,
        first: Iterable[Field],
        pairs: Iterable[Field],
        last: Iterable[Field],
        *,
        end: bool,
    ) -> None:
        fields = (*first, *pairs, *last)
        headers = [f if type(f) is tuple else NeverIndexedHeaderTuple(*f) for f in fields]
        self._say(self._connection.send_headers, stream.id, headers, end_stream=end)

    def _write_data(self, stream: Stream, data: bytes | memoryview, *, end: bool) -> None:
        self._say(self._connection.send_data, stream.id, data, end_stream=end)
        self._count(stream, len(data))

    def _grant(self, stream: Stream) -> None:
        credit, stream.credit = stream.credit, 0
        self._say(self._connection.increment_flow_control_window, credit, stream.id)

    def _reset_out(self, number: int, code: int) -> None:
        # h2 lets no stream be reset whose last frame is just being told, though that frame may be what
        # the owner finds wrong, and none when the connection is over.
        with suppress(h2.exceptions.ProtocolError):
            self._connection.reset_stream(number, code)
            self._connection.clear_outbound_data_buffer()
        super()._reset_out(number, code)


def _code(error: h2.exceptions.ProtocolError) -> int:
    """Return the error code that tells the peer what h2 has found."""
    if isinstance(error.__cause__, HPACKError):
        return COMPRESSION_ERROR
    return int(error.error_code)
