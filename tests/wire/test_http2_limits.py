"""What a peer may cost us over HTTP/2, and how a connection ends: the same with both codecs."""

import pytest

from sidecar.wire.hpack import Decoder
from sidecar.wire.http2_frames import (
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    NO_ERROR,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    frame,
    goaway,
    read_goaway,
    reset,
    settings,
    window_update,
)
from tests.wire.field_blocks import table_octets
from tests.wire.http2_ends import (
    CODECS,
    REQUEST,
    RESPONSE,
    TRAILERS,
    Codec,
    End,
    Fed,
    Pair,
    data,
)

pytestmark = pytest.mark.parametrize("codec", CODECS)


# --- limits ---------------------------------------------------------------------------------------


def test_a_stream_too_many_is_refused_and_the_others_live(codec: Codec) -> None:
    end = Fed(codec, max_streams=2)
    for number in (1, 3, 5):
        end.request(number)
    assert end.events.names() == ["opened", "opened", "ended_early"]
    assert end.sent()[-1] == (RST_STREAM, 0, 5, bytes((0, 0, 0, REFUSED_STREAM)))


def test_there_is_room_for_as_many_streams_as_both_ends_allow(codec: Codec) -> None:
    end = Fed(codec, client=True, max_streams=50)
    assert end.link.room == 50
    end.feed(settings([(MAX_CONCURRENT_STREAMS, 2), (ENABLE_CONNECT_PROTOCOL, 1)]))
    assert end.link.room == 2
    assert end.link.connect_protocol
    end.link.send_headers(end.link.open(), REQUEST, end=True)
    assert end.link.room == 1


def test_a_field_list_over_the_limits_may_be_answered(codec: Codec) -> None:
    for end in (Fed(codec, max_list=300), Fed(codec, max_fields=5)):
        fields = [*REQUEST, (b"x-a", b"1" * 100), (b"x-b", b"2" * 100)]
        end.request(1, fields, end=True)
        assert end.told == [("too_large", 1)]
        assert not end.link.closed


def test_later_fields_over_the_limits_reset_the_stream(codec: Codec) -> None:
    end = Fed(codec, max_list=300).request(1)
    end.request(1, [(b"x-a", b"1" * 300)], end=True)
    assert end.told[1:] == [("ended_early", 1, PROTOCOL_ERROR)]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ([(b"X-A", b"1")], "upper case"),
        ([(b"x a", b"1")], "a blank in a name"),
        ([(b"x-a", b" 1")], "a blank before a value"),
        ([(b"x-a", b"1\r\n2")], "CR LF in a value"),
        ([(b"x-a", b"\0")], "NUL in a value"),
        ([(b"", b"1")], "no name"),
    ],
)
def test_malformed_fields_reset_their_stream_only(
    codec: Codec, fields: list[tuple[bytes, bytes]], why: str
) -> None:
    end = Fed(codec).request(1, [*REQUEST, *fields], end=True)
    assert end.told == [("ended_early", 1, PROTOCOL_ERROR)], why
    end.request(3, end=True)
    assert end.told[1][:2] == ("opened", 3)


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [
        ([data(1, b"123456")], "more"),
        ([data(1, b"1234", end=True)], "less"),
        ([data(1, b"", end=True)], "nothing"),
    ],
)
def test_a_body_of_another_length_than_announced_never_ends_well(
    codec: Codec, frames: list[bytes], lengths: str
) -> None:
    end = Fed(codec).request(1, [*REQUEST, (b"content-length", b"5")])
    end.events.streams[1].expected = 5
    end.feed(*frames)
    # h2 ends the connection where we reset the stream.
    assert end.told[1:] in ([("ended_early", 1, PROTOCOL_ERROR)], [("broken", PROTOCOL_ERROR)])


def test_trailers_end_no_body_that_is_short(codec: Codec) -> None:
    end = Fed(codec).request(1, [*REQUEST, (b"content-length", b"5")])
    end.events.streams[1].expected = 5
    end.feed(data(1, b"1234"), end.head(1, TRAILERS, end=True))
    assert end.told[-1] == ("ended_early", 1, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("what", "again"),
    [
        ("ping", frame(PING, 0, 0, bytes(8))),
        ("settings", settings([])),
        ("priority", frame(PRIORITY, 0, 1, bytes((0, 0, 0, 7, 0)))),
        ("empty data", data(1)),
        ("unknown", frame(0x55, 0, 0, b"")),
        ("goaway", goaway(0, NO_ERROR)),
        ("late data", data(3, b"")),
    ],
)
def test_frames_that_carry_nothing_are_too_many_at_some_time(
    codec: Codec, what: str, again: bytes
) -> None:
    end = Fed(codec).request(1).request(3)
    end.link.reset(end.events.streams[3], CANCEL)
    end.feed(again * 500)
    assert not end.link.closed
    end.feed(again * 600)
    assert end.told[-1] == ("broken", ENHANCE_YOUR_CALM)
    assert read_goaway(end.sent()[-1][3])[:2] == (3, ENHANCE_YOUR_CALM)


def test_time_refills_what_a_peer_may_cost(codec: Codec) -> None:
    end = Fed(codec)
    ping = frame(PING, 0, 0, bytes(8))
    for _ in range(50):
        end.feed(ping * 40)
        end.clock.time += 1.0
    assert not end.link.closed


def test_useful_frames_refill_it_too(codec: Codec) -> None:
    end = Fed(codec).request(1)
    for _ in range(3000):
        end.feed(data(1, b"x"), data(1))
    assert not end.link.closed


def test_windows_given_without_data_are_too_many_at_some_time(codec: Codec) -> None:
    end = Fed(codec).request(1)
    end.feed(window_update(1, 1) * 1900)
    assert not end.link.closed
    end.feed(window_update(0, 1) * 200)
    assert end.told[-1] == ("broken", ENHANCE_YOUR_CALM)


def test_rapid_reset_ends_the_connection(codec: Codec) -> None:
    # CVE-2023-44487
    end = Fed(codec)
    for number in range(1, 2001, 2):
        end.feed(end.head(number), reset(number, CANCEL))
    assert end.events.names().count("opened") < 250
    assert end.told[-1] == ("broken", ENHANCE_YOUR_CALM)


def test_a_peer_that_makes_us_reset_ends_the_connection(codec: Codec) -> None:
    # CVE-2025-8671
    end = Fed(codec)
    for number in range(1, 2001, 2):
        end.feed(end.head(number), window_update(number, 2**31 - 1))
    assert end.events.names().count("opened") < 250
    assert end.told[-1] == ("broken", ENHANCE_YOUR_CALM)


def test_streams_that_end_well_leave_room_for_resets(codec: Codec) -> None:
    end = Fed(codec)
    for number in range(1, 4001, 4):
        end.request(number, end=True)
        end.link.send_headers(end.events.streams[number], RESPONSE, end=True)
        end.feed(end.head(number + 2), reset(number + 2, CANCEL))
    assert not end.link.closed


def test_a_server_may_reset_all_it_likes(codec: Codec) -> None:
    end = Fed(codec, client=True)
    for _ in range(1000):
        stream = end.link.open()
        end.link.send_headers(stream, REQUEST, end=True)
        end.feed(reset(stream.id, REFUSED_STREAM))
    assert end.told == [("ended_early", 2 * n + 1, REFUSED_STREAM) for n in range(1000)]


def test_answers_that_nobody_reads_are_too_many_at_some_time(codec: Codec) -> None:
    # CVE-2019-9512
    end = Fed(codec)
    end.link.blocked = True
    for _ in range(999):
        end.feed(frame(PING, 0, 0, bytes(8)))
        end.clock.time += 1.0
    assert not end.link.closed
    for _ in range(2):
        end.feed(frame(PING, 0, 0, bytes(8)))
        end.clock.time += 1.0
    assert end.told == [("broken", ENHANCE_YOUR_CALM)]


def test_answers_that_were_read_are_forgotten(codec: Codec) -> None:
    end = Fed(codec)
    for _ in range(3):
        end.link.blocked = True
        for _ in range(900):
            end.feed(frame(PING, 0, 0, bytes(8)))
            end.clock.time += 1.0
        end.link.unblock()
    assert not end.link.closed


# --- the connection -------------------------------------------------------------------------------


def test_frames_about_a_stream_that_is_over_hurt_nobody(codec: Codec) -> None:
    end = Fed(codec).request(1, end=True)
    end.link.send_headers(end.events.streams[1], RESPONSE, end=True)
    end.forget()
    end.feed(window_update(1, 5), reset(1, CANCEL), frame(PRIORITY, 0, 1, bytes(5)))
    assert end.told == []
    assert not end.link.closed


def test_a_peer_that_allows_a_large_table_costs_no_large_one(codec: Codec) -> None:
    end = Fed(codec).request(1).feed(settings([(HEADER_TABLE_SIZE, 2**30)]))
    end.link.take()
    stream = end.events.streams[1]
    big = [(b"x-%d" % n, b"v" * 1000) for n in range(40)]
    decoder = Decoder(max_table=2**30)
    for fields in (RESPONSE + big, big):
        end.link.send_headers(stream, fields, end=fields is big)
        block = b"".join(p for kind, _, _, p in end.sent() if kind in (HEADERS, CONTINUATION))
        assert decoder.decode(block)[-40:] == big
        assert table_octets(decoder) <= 4096


def test_a_ping_is_answered_with_its_octets(codec: Codec) -> None:
    end = Fed(codec).feed(frame(PING, 0, 0, b"12345678"))
    assert end.sent() == [(PING, 1, 0, b"12345678")]


def test_our_ping_is_answered(codec: Codec) -> None:
    pair = Pair(codec)
    pair.client.link.ping()
    pair.pump()
    assert pair.client.told == [("pong",)]


def test_settings_are_acknowledged_and_told(codec: Codec) -> None:
    end = Fed(codec).feed(settings([(MAX_FRAME_SIZE, 32768), (0x99, 1)]))
    assert end.told == [("settled",)]
    assert end.sent() == [(SETTINGS, 1, 0, b"")]


def test_longer_frames_are_sent_only_when_the_peer_allows(codec: Codec) -> None:
    end = Fed(codec).request(1, end=True)
    stream = end.events.streams[1]
    end.link.send_headers(stream, RESPONSE, end=False)
    end.link.send_data(stream, bytes(16385), end=False)
    end.feed(settings([(MAX_FRAME_SIZE, 20_000)]))
    end.link.send_data(stream, bytes(20_001), end=False)
    assert [len(p) for kind, _, _, p in end.sent() if kind == DATA] == [16384, 1, 20_000, 1]


def test_a_long_head_is_sent_in_several_frames(codec: Codec) -> None:
    pair = Pair(codec)
    fields = [*REQUEST, *((b"x-%d" % n, bytes((65 + n % 50,)) * 2000) for n in range(20))]
    pair.ask(fields, end=True)
    assert pair.server.told == [("opened", 1, fields, True)]


def test_an_end_announced_and_then_made(codec: Codec) -> None:
    # RFC 9113 §6.8
    pair = Pair(codec)
    pair.ask()
    pair.server.link.go_away(soon=True)
    pair.pump()
    _, there = pair.ask()
    pair.server.link.go_away()
    pair.pump()
    assert [told for told in pair.client.told if told[0] == "going_away"] == [
        ("going_away", LARGEST_STREAM, NO_ERROR, b""),
        ("going_away", 3, NO_ERROR, b""),
    ]
    late = pair.client.link.open()
    pair.client.link.send_headers(late, REQUEST, end=True)
    pair.server.link.send_headers(there, RESPONSE, end=True)
    pair.pump()
    assert pair.server.events.names() == ["opened", "opened"]
    assert ("headers", 3, RESPONSE, True) in pair.client.told
    assert not pair.server.link.closed


def test_what_a_peer_says_with_its_goaway_is_told(codec: Codec) -> None:
    end = Fed(codec, client=True)
    stream = end.link.open()
    end.link.send_headers(stream, REQUEST, end=True)
    end.feed(goaway(1, NO_ERROR, b"bye"), end.head(1, RESPONSE, end=True))
    assert end.told == [("going_away", 1, NO_ERROR, b"bye"), ("headers", 1, RESPONSE, True)]


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (frame(DATA, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
        (frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION_ERROR),
        (frame(RST_STREAM, 0, 5, bytes(4)), PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
        (window_update(0, 2**31 - 1), FLOW_CONTROL_ERROR),
        (settings([(INITIAL_WINDOW_SIZE, 2**31)]), FLOW_CONTROL_ERROR),
        (settings([(MAX_FRAME_SIZE, 1)]), PROTOCOL_ERROR),
    ],
)
def test_an_error_of_the_connection_is_said_and_nothing_is_read_after_it(
    codec: Codec, octets: bytes, code: int
) -> None:
    end = Fed(codec).feed(octets)
    assert end.told == [("broken", code)]
    [(kind, _, _, payload)] = end.sent()
    assert (kind, read_goaway(payload)[1]) == (GOAWAY, code)
    assert end.link.closed
    end.feed(frame(PING, 0, 0, bytes(8)))
    assert not end.link.out


@pytest.mark.parametrize("octets", [frame(PING, 0, 1, bytes(8)), reset(9, CANCEL)])
def test_an_owner_may_give_up_its_streams_when_the_connection_is_over(
    codec: Codec, octets: bytes
) -> None:
    end = Fed(codec).request(1).request(3).feed(data(3, bytes(16384)))

    def give_up() -> None:
        first, second = end.events.streams.values()
        end.link.resume(second)
        end.link.send_headers(first, RESPONSE, end=False)
        end.link.send_data(first, b"x", end=True)
        end.link.reset(second, CANCEL)

    end.events.on_broken = give_up
    end.feed(octets)
    assert end.told[-1] == ("broken", PROTOCOL_ERROR)
    assert end.sent()[0][0] == GOAWAY
    assert not end.link.streams.get(3)


def test_a_preface_must_be_one(codec: Codec) -> None:
    end = Fed(codec, fresh=True)
    end.link.receive(b"GET / HTTP/1.1\r\n\r\n")
    assert end.told == [("broken", PROTOCOL_ERROR)]


def test_a_preface_may_come_in_pieces(codec: Codec) -> None:
    end = Fed(codec, fresh=True)
    for octet in PREFACE + settings([]):
        end.link.receive(bytes((octet,)))
    assert end.told == [("settled",)]


def test_each_end_says_what_it_allows(codec: Codec) -> None:
    for client in (True, False):
        known = Fed(codec, client=client, fresh=True, max_streams=7, stream_window=70_000)
        like = Fed(CODECS[0], client=client, fresh=True, max_streams=7, stream_window=70_000)
        assert known.link.take() == like.link.take()


def test_an_owner_that_acts_at_once_is_served(codec: Codec) -> None:
    pair = Pair(codec)
    server: End = pair.server

    def answer(what: str, stream: object) -> None:
        if what == "opened":
            there = server.events.streams[1]
            server.link.send_headers(there, RESPONSE, end=False)
            server.link.send_data(there, b"at once", end=True)

    server.events.on = answer
    pair.ask(end=True)
    assert pair.client.told == [("headers", 1, RESPONSE, False), ("data", 1, b"at once", True)]
