"""The rules of RFC 9113, a row each: what a peer sends, and what becomes of stream and connection."""

import pytest

from sidecar.wire.hpack_table import integer_octets
from sidecar.wire.http2_frames import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    error_name,
    frame,
    goaway,
    read_goaway,
    reset,
    settings,
    window_update,
)
from tests.wire.http2_ends import REQUEST, RESPONSE, Fed, data

OPEN, SENT, DONE, RESET_BY_US, RESET_BY_PEER, SKIPPED, LAST, IDLE = 1, 3, 5, 7, 9, 11, 13, 15

# What field blocks a peer may write without a table of its own.
BLOCK = bytes.fromhex("828684") + b"\x01\x01a"  # GET, http, /, :authority a
FINAL = b"\x88"  # :status 200
GRPC = b"\x00\x0bgrpc-status\x010"


def server() -> Fed:
    """Return a server's end with a stream in each state."""
    end = Fed()
    end.feed(
        end.head(OPEN),
        end.head(SENT, end=True),
        end.head(DONE, end=True),
        end.head(RESET_BY_US),
        end.head(RESET_BY_PEER),
        reset(RESET_BY_PEER, CANCEL),
        end.head(LAST),
    )
    end.link.send_headers(end.events.streams[DONE], RESPONSE, end=True)
    end.link.reset(end.events.streams[RESET_BY_US], CANCEL)
    end.forget()
    return end


def client() -> Fed:
    """Return a caller's end: its stream 1 open, 3 whole, 5 answered, 7 and 9 reset."""
    end = Fed(client=True)
    for number in (OPEN, SENT, DONE, RESET_BY_US, RESET_BY_PEER):
        end.link.send_headers(end.link.open(), REQUEST, end=number in (SENT, DONE))
    end.feed(frame(HEADERS, END_HEADERS | END_STREAM, DONE, FINAL), reset(RESET_BY_PEER, CANCEL))
    end.link.reset(end.link.streams[RESET_BY_US], CANCEL)
    end.forget()
    return end


def head(number: int, payload: bytes = BLOCK, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, number, payload)


FINE = -1
Row = tuple[str, bytes, int]

# What ends the connection, sent to a server.
CONNECTION: list[Row] = [
    ("4.2 a frame over our limit", frame(DATA, 0, OPEN, bytes(16385)), FRAME_SIZE_ERROR),
    ("5.1 DATA on an idle stream", data(IDLE), PROTOCOL_ERROR),
    ("5.1 DATA on a closed stream", data(DONE), STREAM_CLOSED),
    ("5.1 DATA after the peer's own reset", data(RESET_BY_PEER), STREAM_CLOSED),
    ("5.1 HEADERS on a closed stream", head(DONE), STREAM_CLOSED),
    ("5.1 RST_STREAM on an idle stream", reset(IDLE, CANCEL), PROTOCOL_ERROR),
    ("5.1 WINDOW_UPDATE on an idle stream", window_update(IDLE, 1), PROTOCOL_ERROR),
    ("5.1.1 a skipped number", head(SKIPPED), PROTOCOL_ERROR),
    ("5.1.1 an even number", head(16), PROTOCOL_ERROR),
    ("5.1.1 DATA on stream 0", data(0), PROTOCOL_ERROR),
    ("5.1.1 HEADERS on stream 0", head(0), PROTOCOL_ERROR),
    ("5.1.1 a cut HEADERS on stream 0", head(0, flags=0), PROTOCOL_ERROR),
    ("4.3 a block interrupted", head(IDLE, flags=0) + data(OPEN), PROTOCOL_ERROR),
    (
        "4.3 a block interrupted by an unknown frame",
        head(IDLE, flags=0) + frame(0x77, 0, IDLE, b""),
        PROTOCOL_ERROR,
    ),
    (
        "4.3 a block continued on another stream",
        head(IDLE, flags=0) + frame(CONTINUATION, END_HEADERS, OPEN, b""),
        PROTOCOL_ERROR,
    ),
    ("4.3 a block that is no HPACK", head(IDLE, b"\x80"), COMPRESSION_ERROR),
    ("4.3 the same for trailers", head(OPEN, b"\x80", 5), COMPRESSION_ERROR),
    ("4.3 the same on a closed stream", head(RESET_BY_US, b"\x80"), COMPRESSION_ERROR),
    ("6.1 padding of the frame's size", data(OPEN, b"\x03ab", flags=PADDED), PROTOCOL_ERROR),
    ("6.1 padding without its length", data(OPEN, b"", flags=PADDED), PROTOCOL_ERROR),
    ("6.2 padding over HEADERS", head(IDLE, b"\xff" + BLOCK, 4 | PADDED), PROTOCOL_ERROR),
    ("6.2 priority cut", head(IDLE, b"\0\0\0\0", 4 | PRIORITIZED), FRAME_SIZE_ERROR),
    ("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    ("6.4 RST_STREAM on stream 0", reset(0, CANCEL), PROTOCOL_ERROR),
    ("6.4 RST_STREAM of 3 octets", frame(RST_STREAM, 0, OPEN, bytes(3)), FRAME_SIZE_ERROR),
    ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, OPEN, b""), PROTOCOL_ERROR),
    ("6.5 SETTINGS of 5 octets", frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    ("6.5 an answer with octets", frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    ("6.5.2 ENABLE_PUSH of 2", settings([(ENABLE_PUSH, 2)]), PROTOCOL_ERROR),
    (
        "6.5.2 a window of 2^31",
        settings([(INITIAL_WINDOW_SIZE, 2**31)]),
        FLOW_CONTROL_ERROR,
    ),
    ("6.5.2 frames too short", settings([(MAX_FRAME_SIZE, 16383)]), PROTOCOL_ERROR),
    ("6.5.2 frames too long", settings([(MAX_FRAME_SIZE, 2**24)]), PROTOCOL_ERROR),
    ("8441 CONNECT of 2", settings([(ENABLE_CONNECT_PROTOCOL, 2)]), PROTOCOL_ERROR),
    (
        "6.6 PUSH_PROMISE",
        frame(PUSH_PROMISE, END_HEADERS, OPEN, b"\0\0\0\2" + BLOCK),
        PROTOCOL_ERROR,
    ),
    ("6.7 PING on a stream", frame(PING, 0, OPEN, bytes(8)), PROTOCOL_ERROR),
    ("6.7 PING of 7 octets", frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, OPEN, bytes(8)), PROTOCOL_ERROR),
    ("6.8 GOAWAY of 7 octets", frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("6.9 an increment of 3 octets", frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    ("6.9 an increment of 0", window_update(0, 0), PROTOCOL_ERROR),
    ("6.9.1 a window over 2^31-1", window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
    (
        "6.9.2 SETTINGS that make one so",
        window_update(OPEN, 2**31 - 1 - 65535) + settings([(INITIAL_WINDOW_SIZE, 65536)]),
        FLOW_CONTROL_ERROR,
    ),
    ("6.10 CONTINUATION alone", frame(CONTINUATION, 4, OPEN, b""), PROTOCOL_ERROR),
    (
        "10.5 65 frames of a block",
        head(IDLE, b"", 0) + frame(CONTINUATION, 0, IDLE, b"") * 64,
        ENHANCE_YOUR_CALM,
    ),
    (
        "10.5 a block without end",
        head(IDLE, b"", 0) + frame(CONTINUATION, 0, IDLE, bytes(16384)) * 6,
        ENHANCE_YOUR_CALM,
    ),
]

# What ends one stream, sent to a server: the stream, and the code.
STREAM: list[tuple[str, bytes, int, int]] = [
    ("5.1 DATA after the end", data(SENT), SENT, STREAM_CLOSED),
    ("5.1 HEADERS after the end", head(SENT), SENT, STREAM_CLOSED),
    (
        "5.3.1 depends on itself",
        head(IDLE, IDLE.to_bytes(4, "big") + b"\0" + BLOCK, 4 | PRIORITIZED),
        IDLE,
        PROTOCOL_ERROR,
    ),
    (
        "5.3.1 PRIORITY on itself",
        frame(PRIORITY, 0, OPEN, OPEN.to_bytes(4, "big") + b"\0"),
        OPEN,
        PROTOCOL_ERROR,
    ),
    ("6.3 PRIORITY of 4 octets", frame(PRIORITY, 0, OPEN, bytes(4)), OPEN, FRAME_SIZE_ERROR),
    (
        "6.3 the same, on a stream that is idle",
        frame(PRIORITY, 0, IDLE, bytes(4)),
        IDLE,
        FRAME_SIZE_ERROR,
    ),
    ("6.9 an increment of 0", window_update(OPEN, 0), OPEN, PROTOCOL_ERROR),
    ("6.9 the same on a closed stream", window_update(DONE, 0), DONE, PROTOCOL_ERROR),
    (
        "6.9.1 a window over 2^31-1",
        window_update(OPEN, 2**31 - 1),
        OPEN,
        FLOW_CONTROL_ERROR,
    ),
    ("8.1 trailers that end nothing", head(OPEN, GRPC), OPEN, PROTOCOL_ERROR),
    ("8.2.1 upper case", head(IDLE, BLOCK + b"\x00\x01X\x01a"), IDLE, PROTOCOL_ERROR),
    ("8.2.1 upper case in trailers", head(OPEN, b"\x00\x01X\x01a", 5), OPEN, PROTOCOL_ERROR),
]

# What is none.
FINES: list[tuple[str, bytes]] = [
    ("4.1 unknown frames", frame(0xFF, 0xFF, 99, b"?")),
    ("4.1 unknown flags", frame(PING, ACK | 0xF0, 0, bytes(8))),
    ("4.1 the reserved bit", frame(DATA, 0, OPEN | 0x80000000, b"x")),
    ("5.1 PRIORITY on an idle stream", frame(PRIORITY, 0, IDLE, bytes(5))),
    ("5.1 PRIORITY on a closed stream", frame(PRIORITY, 0, DONE, bytes(5))),
    ("5.1 WINDOW_UPDATE on a closed stream", window_update(DONE, 1)),
    ("5.1 RST_STREAM on a closed stream", reset(DONE, CANCEL)),
    ("5.1 what crosses our reset", data(RESET_BY_US, b"x") + head(RESET_BY_US, GRPC, 5)),
    ("6.1 padding", data(OPEN, b"\x03ab\0\0\0", flags=PADDED)),
    ("6.2 padding and priority", head(IDLE, b"\x01" + bytes(5) + BLOCK + b"\0", 0x2C)),
    ("6.2 in pieces", head(IDLE, BLOCK[:2], 0) + frame(CONTINUATION, 4, IDLE, BLOCK[2:])),
    ("6.5.2 unknown settings", settings([(0x1234, 1)])),
    ("6.5.2 the largest values", settings([(INITIAL_WINDOW_SIZE, 2**31 - 1), (5, 2**24 - 1)])),
    ("6.5.2 the smallest", settings([(HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (5, 16384)])),
    ("6.5 an answer", frame(SETTINGS, ACK, 0, b"")),
    ("6.8 GOAWAY", goaway(0, 99, b"text")),
    ("7 an unknown error code", reset(OPEN, 0xFFFF)),
]


@pytest.mark.parametrize(("rule", "octets", "code"), CONNECTION, ids=[r[0] for r in CONNECTION])
def test_an_error_of_the_connection(rule: str, octets: bytes, code: int) -> None:
    end = server().feed(octets)
    assert end.told[-1] == ("broken", code), f"{rule}: expected {error_name(code)}"
    kind, _, _, payload = end.sent()[-1]
    last, said, text = read_goaway(payload)
    assert (kind, said) == (GOAWAY, code)
    assert last >= LAST
    assert text


@pytest.mark.parametrize(("rule", "octets", "number", "code"), STREAM, ids=[r[0] for r in STREAM])
def test_an_error_of_a_stream(rule: str, octets: bytes, number: int, code: int) -> None:
    end = server()
    known = number in end.link.streams
    end.feed(octets)
    assert (RST_STREAM, 0, number, code.to_bytes(4, "big")) in end.sent(), rule
    assert number not in end.link.streams
    if known:
        assert ("ended_early", number, code) in end.told
    assert not end.link.closed
    end.request(21, end=True)
    assert end.told[-1][:2] == ("opened", 21)


@pytest.mark.parametrize(("rule", "octets"), FINES, ids=[row[0] for row in FINES])
def test_no_error(rule: str, octets: bytes) -> None:
    end = server().feed(octets)
    assert [frame[0] for frame in end.sent() if frame[0] in (RST_STREAM, GOAWAY)] == [], rule
    assert not end.link.closed


# The same rules where the peer is a server.
FROM_SERVERS: list[Row] = [
    ("5.1 HEADERS on an idle stream", head(11, FINAL), PROTOCOL_ERROR),
    ("5.1 DATA on an idle stream", data(11), PROTOCOL_ERROR),
    ("5.1 RST_STREAM on an idle stream", reset(11, CANCEL), PROTOCOL_ERROR),
    ("5.1.1 an even number, never promised", head(2, FINAL), PROTOCOL_ERROR),
    ("6.5.2 a server's ENABLE_PUSH", settings([(ENABLE_PUSH, 1)]), PROTOCOL_ERROR),
    ("6.6 PUSH_PROMISE", frame(PUSH_PROMISE, 4, OPEN, b"\0\0\0\2" + BLOCK), PROTOCOL_ERROR),
    ("5.1 late frames", data(RESET_BY_US, b"x") + data(RESET_BY_PEER) + head(DONE, GRPC, 5), FINE),
    ("5.1 WINDOW_UPDATE on a closed stream", window_update(DONE, 1), FINE),
    ("6.3 PRIORITY of a strange size", frame(PRIORITY, 0, OPEN, bytes(4)), FINE),
    ("6.3 the same on a closed stream", frame(PRIORITY, 0, DONE, bytes(4)), FINE),
    ("8.1 heads that end nothing", head(OPEN, FINAL) + head(OPEN, GRPC), FINE),
]


@pytest.mark.parametrize(("rule", "octets", "code"), FROM_SERVERS, ids=[r[0] for r in FROM_SERVERS])
def test_what_a_server_sends(rule: str, octets: bytes, code: int) -> None:
    end = client().feed(octets)
    if code == FINE:
        assert not end.link.closed, rule
    else:
        assert end.told[-1] == ("broken", code), rule


@pytest.mark.parametrize("octets", [frame(PING, 0, 0, bytes(8)), frame(0x77, 0, 0, b"")])
def test_settings_come_first(octets: bytes) -> None:
    # RFC 9113 §3.4
    end = Fed(fresh=True).feed(PREFACE, octets)
    assert end.told == [("broken", PROTOCOL_ERROR)]


@pytest.mark.parametrize("padding", [b"", bytes(256)])
def test_data_over_the_stream_s_window_ends_the_stream(padding: bytes) -> None:
    # Padding counts (§6.1); nothing is given back to a reader that is paused.
    end = Fed(stream_window=65535 + len(padding)).request(1)
    end.link.pause(end.link.streams[1])
    end.feed(data(1, bytes(16384)) * 3, data(1, bytes(16383)))
    if padding:
        end.feed(data(1, b"\xff" + padding[1:], flags=PADDED))
    assert "ended_early" not in end.events.names()
    end.feed(data(1, b"x"))
    assert end.told[-1] == ("ended_early", 1, FLOW_CONTROL_ERROR)


def test_a_reset_of_a_stream_that_both_ends_reset_closes_it_for_good() -> None:
    end = server().feed(reset(RESET_BY_US, CANCEL), data(RESET_BY_US))
    assert end.told == [("broken", STREAM_CLOSED)]


def test_resets_of_ours_are_remembered_only_so_long() -> None:
    end = Fed(max_streams=2000)
    for number in range(1, 2203, 2):
        end.request(number)
        end.link.reset(end.link.streams[number], CANCEL)
    end.feed(data(2201))
    assert not end.link.closed
    end.feed(data(1))
    assert end.told[-1] == ("broken", STREAM_CLOSED)


def test_a_table_size_is_said_before_it_is_used() -> None:
    # RFC 7541 §4.2
    end = server().feed(settings([(HEADER_TABLE_SIZE, 0)]))
    end.link.send_headers(end.events.streams[OPEN], RESPONSE, end=True)
    [block] = [payload for kind, _, _, payload in end.sent() if kind == HEADERS]
    assert block == integer_octets(0, 5, 0x20) + FINAL


def test_streams_run_out_with_their_numbers() -> None:
    # RFC 9113 §5.1.1
    end = Fed(client=True, max_streams=2**31 - 1).feed(
        settings([(MAX_CONCURRENT_STREAMS, 2**32 - 1)])
    )
    assert end.link.room == 2**31 - 1
    end.link._next = 2**31 - 1  # type: ignore[attr-defined]
    assert end.link.room == 0


def test_an_owner_that_breaks_off_is_not_asked_again() -> None:
    # Everything behind the frame that ended the connection is left alone.
    end = server().feed(data(OPEN, b"x"), data(DONE), data(OPEN, b"y"))
    assert end.told == [("data", OPEN, b"x", False), ("broken", STREAM_CLOSED)]


@pytest.mark.parametrize("size", [1, 3, 4096])
def test_a_slow_frame_is_kept_in_pieces_and_joined_once(size: int) -> None:
    # Joined each time, a frame of n octets that come one by one would cost n * n / 2 copied ones.
    whole = data(OPEN, bytes(16384), end=True)
    end = server()
    pieces = end.link._buffer  # type: ignore[attr-defined]
    end.link.receive(whole[:9])
    for count, at in enumerate(range(9, len(whole), size)):
        assert len(pieces) == count + 1
        end.link.receive(whole[at : at + size])
    assert end.told == [("data", OPEN, bytes(16384), True)]
    assert pieces == []
