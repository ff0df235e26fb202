"""Any frames at all, right or wrong, to us and to the h2 library: where we differ, we are stricter.

Frame by frame: what both take says the same, and what h2 refuses we refuse; no exception is known.
Once a frame was refused, the two are in different states (h2 ends the connection where we reset a
stream), and the comparison ends.  What we refuse and h2 does not is in a table, with the reason.
"""

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.http2_fields import FieldReader
from sidecar.wire.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    settings as settings_frame,
)
from sidecar.wire.http2_stream import Stream
from tests.wire.cutting import pieces
from tests.wire.field_blocks import plain
from tests.wire.http2_ends import CODECS, RESPONSE, Codec, Fed, Told

READER = FieldReader()
REQUEST = bytes.fromhex("838684") + plain(b":authority", b"a")  # POST, http, /
BLOCKS = st.sampled_from(
    [
        REQUEST,
        REQUEST,
        REQUEST,
        REQUEST + plain(b"content-length", b"5"),
        REQUEST + plain(b"content-length", b"+5"),
        REQUEST + plain(b"X", b"1"),
        REQUEST + plain(b"x", b"a\nb"),
        REQUEST + plain(b"connection", b"close"),
        REQUEST + plain(b"te", b"gzip"),
        REQUEST + plain(b"te", b"trailers") + plain(b"cookie", b"a=b"),
        REQUEST + plain(b"host", b"b"),
        REQUEST + b"\x84",  # :path twice
        REQUEST[:2],  # no :path
        plain(b"x", b"1") + REQUEST,
        plain(b"grpc-status", b"0"),
        plain(b":status", b"200"),
        b"",
        b"\x80",  # index 0
        b"\x3f\xff\xff\x7f" + REQUEST,  # a table too large
        REQUEST + b"\x00\x05cut",
    ]
)
# What every conversation begins with: 1 and 11 stay open, 13 waits for its answer, 15 is over, 7
# was reset by us, 9 by the peer, and 3 and 5 never began.
Step = bytes | tuple[str, int]
BEGINNING: list[Step] = [
    *(frame(HEADERS, END_HEADERS, number, REQUEST) for number in (1, 7, 9, 11)),
    frame(HEADERS, END_HEADERS | END_STREAM, 13, REQUEST),
    frame(HEADERS, END_HEADERS | END_STREAM, 15, REQUEST),
    ("respond", 15),
    ("reset", 7),
    frame(RST_STREAM, 0, 9, b"\0\0\0\x08"),
]
NUMBERS = st.sampled_from([1, 1, 1, 11, 11, 17, 17, 19, 21, 13, 15, 7, 9, 3, 0, 2])
SIZES = st.sampled_from([0, 1, 4, 5, 5, 5, 6, 16384])
INCREMENTS = st.sampled_from([1, 1, 1000, 1000, 0, 2**31 - 1 - 65535, 2**31 - 1])
SETTING = st.tuples(
    st.sampled_from([1, 3, 4, 6, 99, 1, 3, 4, 6, 99, 2, 5, 8]),
    st.sampled_from([0, 1, 100, 16384, 65535, 2, 2**24 - 1, 2**24, 2**31 - 1, 2**31]),
)


def padded(flags: int, payload: bytes, padding: int) -> bytes:
    return bytes((padding,)) + payload + bytes(min(padding, 3)) if flags & PADDED else payload


def headers(number: int, flags: int, block: bytes, padding: int, depends: int) -> bytes:
    if flags & PRIORITIZED:
        block = depends.to_bytes(4, "big") + b"\x10" + block
    return frame(HEADERS, flags, number, padded(flags, block, padding))


PADDINGS = st.sampled_from([0, 0, 1, 3, 200])
HEADER_FLAGS = st.sampled_from([4, 4, 5, 5, 0, 1, 4 | PADDED, 4 | PRIORITIZED, 0x2D])
DATA_FLAGS = st.sampled_from([0, 0, 1, PADDED, 1 | PADDED])
HEADS = st.builds(headers, NUMBERS, HEADER_FLAGS, BLOCKS, PADDINGS, NUMBERS)
BODIES = st.builds(
    lambda number, flags, size, padding: frame(
        DATA, flags, number, padded(flags, bytes(size), padding)
    ),
    NUMBERS,
    DATA_FLAGS,
    SIZES,
    PADDINGS,
)
SMALL = st.builds(
    lambda kind, number, flags, size: frame(kind, flags, number, bytes(size)),
    st.sampled_from(
        [PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, CONTINUATION, 0x20]
    ),
    NUMBERS,
    st.sampled_from([0, 0, ACK, END_HEADERS]),
    st.sampled_from([0, 3, 4, 5, 6, 8, 8]),
)
FRAMES = st.one_of(
    HEADS,
    HEADS,
    BODIES,
    BODIES,
    SMALL,
    st.builds(lambda n, i: frame(WINDOW_UPDATE, 0, n, i.to_bytes(4, "big")), NUMBERS, INCREMENTS),
    st.builds(lambda n, d: frame(PRIORITY, 0, n, d.to_bytes(4, "big") + b"\0"), NUMBERS, NUMBERS),
    st.builds(lambda n, c: frame(RST_STREAM, 0, n, bytes((0, 0, 0, c))), NUMBERS, st.just(8)),
    st.builds(lambda b: frame(CONTINUATION, END_HEADERS, 1, b), BLOCKS),
    st.lists(SETTING, max_size=2).map(settings_frame),
)
ACTS = st.tuples(st.sampled_from(["respond", "respond", "reset"]), st.sampled_from([1, 11, 13, 17]))
# Mostly right ones, so that conversations become long enough to go wrong in interesting places.
LIKELY = st.sampled_from(
    [
        *(frame(DATA, 0, number, b"12345") for number in (1, 11, 17)),
        *(frame(DATA, END_STREAM, number, b"") for number in (1, 11, 17)),
        *(frame(HEADERS, 5, number, plain(b"grpc-status", b"0")) for number in (1, 11, 17)),
        *(frame(HEADERS, flags, number, REQUEST) for flags in (4, 5) for number in (17, 19, 21)),
        frame(HEADERS, END_HEADERS, 17, REQUEST + plain(b"content-length", b"5")),
        frame(HEADERS, 0, 19, REQUEST[:2]),
        frame(CONTINUATION, 0, 19, REQUEST[2:5]),
        frame(CONTINUATION, END_HEADERS, 19, REQUEST[5:]),
        *(frame(WINDOW_UPDATE, 0, number, b"\0\0\1\0") for number in (0, 1, 11, 15, 17)),
        *(frame(PRIORITY, 0, number, bytes(5)) for number in (1, 15, 17, 99)),
        frame(PING, 0, 0, bytes(8)),
        frame(SETTINGS, ACK, 0, b""),
        settings_frame([(4, 1000)]),
        settings_frame([(4, 100_000), (1, 0)]),
        frame(0x20, 0xFF, 1, b"?"),
    ]
)
STEPS = st.lists(st.one_of(LIKELY, LIKELY, LIKELY, FRAMES, ACTS), min_size=4, max_size=20)


class Ours:
    """Our server's end, with the heads read as the engine reads them."""

    def __init__(self, codec: Codec = CODECS[0]) -> None:
        self.end = Fed(codec)
        self.end.events.on = self._read

    def _read(self, what: str, stream: Stream) -> None:
        said = self.end.told[-1]
        try:
            if what == "opened":
                head = READER.request(said[2], end=said[3])
                if head.length is not None and not said[3]:
                    stream.expected = head.length
            elif what == "headers":
                READER.trailers(said[2])
        except DownstreamError as error:
            self.end.told.pop()
            self.end.link.fault(stream, PROTOCOL_ERROR, str(error))

    def receive(self, octets: bytes) -> tuple[list[Told], bool]:
        """Return what a frame says, and whether it was refused or, being late, ignored."""
        self.end.forget()
        self.end.feed(octets)
        refused = any(sent[0] in (RST_STREAM, GOAWAY) for sent in self.end.sent())
        return [t for t in self.end.told if t[0] in ("opened", "headers", "data")], refused


class Library:
    """The same of the h2 library."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, normalize_inbound_headers=False)
        self.connection = h2.connection.H2Connection(config)
        self.connection.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 262144}
        )
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(1048576 - 65535)
        self.connection.receive_data(PREFACE + settings_frame([]))
        self.connection.data_to_send()

    def receive(self, octets: bytes) -> tuple[list[Told], bool]:
        try:
            events = self.connection.receive_data(octets)
        except h2.exceptions.ProtocolError:
            return [], True
        told: list[Told] = []
        refused = False
        for event in events:
            end = getattr(event, "stream_ended", None) is not None
            if isinstance(event, h2.events.RequestReceived):
                told.append(("opened", event.stream_id, [tuple(f) for f in event.headers], end))
            elif isinstance(event, h2.events.TrailersReceived):
                told.append(("headers", event.stream_id, [tuple(f) for f in event.headers], end))
            elif isinstance(event, h2.events.DataReceived):
                told.append(("data", event.stream_id, bytes(event.data), end))
                size = event.flow_controlled_length
                self.connection.acknowledge_received_data(size, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                refused = refused or not event.remote_reset
        self.connection.data_to_send()
        return told, refused


def act(ours: Ours, library: Library, what: str, number: int) -> None:
    """Answer or reset a stream at both ends."""
    stream = ours.end.link.streams.get(number)
    if stream is None or stream.state & 2:
        return
    if what == "respond":
        ours.end.link.send_headers(stream, RESPONSE, end=True)
        library.connection.send_headers(number, RESPONSE, end_stream=True)
    else:
        ours.end.link.reset(stream, NO_ERROR)
        library.connection.reset_stream(number, NO_ERROR)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
@example(  # the adapter had kept GOAWAY from h2, and so taken it within a header block
    steps=[frame(HEADERS, 0, 1, REQUEST), ("respond", 1), frame(GOAWAY, 0, 0, bytes(8))]
)
def test_what_we_take_h2_takes_and_reads_the_same(codec: Codec, steps: list[Step]) -> None:
    ours, library = Ours(codec), Library()
    for step in BEGINNING + steps:
        if isinstance(step, tuple):
            act(ours, library, *step)
            continue
        said, refused = ours.receive(step)
        told, h2_refused = library.receive(step)
        if refused:
            return
        assert not h2_refused
        assert said == told
        if step[3] == GOAWAY:  # h2 takes nothing after one; §6.8 lets streams under way be finished
            return


# What we refuse and h2 takes.
WHERE_WE_ARE_STRICTER = [
    # RFC 9113 §5.1: a connection error; h2 lets it pass.
    frame(RST_STREAM, 0, 21, bytes(4)),
    # §5.1: a stream that the peer itself has ended or reset; h2 answers RST_STREAM for ever, which
    # is how a peer makes a server work for nothing.
    frame(DATA, 0, 15, b"x"),
    frame(DATA, 0, 9, b"x"),
    # §8.6 would allow equal ones; a list is read in several ways by others (see parse_length).
    frame(HEADERS, 4, 17, REQUEST + plain(b"content-length", b"5") * 2),
    # RFC 3986 has no blank and no fragment in a path that is sent; h2 does not look at it.
    frame(HEADERS, 5, 17, b"\x83\x86" + plain(b":authority", b"a") + plain(b":path", b"/a b")),
    # Nor at what an authority is made of.
    frame(HEADERS, 5, 17, b"\x83\x86\x84" + plain(b":authority", b"a@b")),
    # No CONNECT is served but for WebSocket.
    frame(HEADERS, 5, 17, plain(b":method", b"CONNECT") + plain(b":authority", b"a")),
]


@pytest.mark.parametrize("octets", WHERE_WE_ARE_STRICTER)
def test_what_h2_takes_and_we_do_not(octets: bytes) -> None:
    ours, library = Ours(), Library()
    for step in [*BEGINNING, octets]:
        if isinstance(step, tuple):
            act(ours, library, *step)
        else:
            known = ours.receive(step)[1], library.receive(step)[1]
            assert known == (step is octets, False)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.data())
def test_cuts_change_no_event_and_no_answer(
    codec: Codec, steps: list[Step], how: st.DataObject
) -> None:
    stream = b"".join(step for step in BEGINNING + steps if isinstance(step, bytes))
    ends = [Fed(codec), Fed(codec)]
    ends[0].link.receive(stream)
    for piece in how.draw(pieces(stream)):
        ends[1].link.receive(piece)
    assert ends[0].told == ends[1].told
    assert ends[0].link.take() == ends[1].link.take()
