"""What both codecs of HTTP/2 do: one contract, tried with each, and with one at either end."""

import pytest

from sidecar.wire.hpack import Sensitive
from sidecar.wire.http2_frames import (
    CANCEL,
    DATA,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    RST_STREAM,
    WINDOW_UPDATE,
    reset,
    settings,
    window_update,
)
from sidecar.wire.http2_outgoing import PENDING_HIGH
from tests.wire.http2_ends import (
    CODECS,
    REQUEST,
    RESPONSE,
    TRAILERS,
    Codec,
    Fed,
    Pair,
    data,
)

pytestmark = pytest.mark.parametrize("codec", CODECS)


# --- a whole conversation -------------------------------------------------------------------------


@pytest.mark.parametrize("other", CODECS)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_request_and_its_response_cross_whole(codec: Codec, other: Codec, cut: int) -> None:
    pair = Pair(codec, other, cut=cut)
    here, there = pair.ask([*REQUEST, (b"x-a", b"b")])
    pair.client.link.send_data(here, b"ask", end=False)
    pair.client.link.end(here, TRAILERS)
    pair.pump()
    pair.server.link.send_headers(there, [(b":status", b"103")], end=False)
    pair.server.link.send_headers(there, RESPONSE, end=False)
    pair.server.link.send_data(there, b"answer", end=False)
    pair.server.link.end(there)
    pair.pump()

    assert pair.server.told == [
        ("opened", 1, [*REQUEST, (b"x-a", b"b")], False),
        ("data", 1, b"ask", False),
        ("headers", 1, TRAILERS, True),
    ]
    assert pair.client.told == [
        ("headers", 1, [(b":status", b"103")], False),
        ("headers", 1, RESPONSE, False),
        ("data", 1, b"answer", False),
        ("data", 1, b"", True),
    ]
    assert not pair.client.link.streams
    assert not pair.server.link.streams


def test_a_secret_stays_one(codec: Codec) -> None:
    for client, server in ((codec, CODECS[0]), (CODECS[0], codec)):
        pair = Pair(server, client)
        secret = Sensitive((b"x-secret", b"hush"))
        pair.ask([*REQUEST, secret], end=True)
        [(_, _, fields, end)] = pair.server.told
        assert (fields[-1], end) == ((b"x-secret", b"hush"), True)
        assert type(fields[-1]) is Sensitive
        assert all(type(field) is tuple for field in fields[:-1])


def test_the_numbers_of_streams_rise_by_two(codec: Codec) -> None:
    pair = Pair(codec)
    assert [pair.ask()[0].id for _ in range(3)] == [1, 3, 5]


def test_a_stream_given_up_before_its_head_is_never_heard_of(codec: Codec) -> None:
    pair = Pair(codec)
    link = pair.client.link
    link.reset(link.open(), CANCEL)
    assert not link.out
    assert not link.streams
    assert pair.ask()[0].id == 1
    assert pair.server.events.names() == ["opened"]


# --- windows --------------------------------------------------------------------------------------


def test_a_body_larger_than_every_window_arrives_as_the_reader_keeps_up(codec: Codec) -> None:
    pair = Pair(codec)
    here, there = pair.ask()
    body = bytes(range(256)) * 8000
    assert pair.client.link.send_data(here, body, end=True)
    pair.pump()
    assert pair.server.events.body(1) == body
    assert pair.server.told[-1][3] is True
    assert ("writable", 1) in pair.client.told
    assert here.state == there.state ^ 3 == 2


def test_a_slow_reader_costs_one_window_and_stalls_no_other(codec: Codec) -> None:
    pair = Pair(codec, stream_window=100_000)
    slow, slow_there = pair.ask()
    fast, fast_there = pair.ask()
    pair.server.link.pause(slow_there)
    pair.client.link.send_data(slow, bytes(300_000), end=True)
    pair.client.link.send_data(fast, bytes(2_000_000), end=True)
    pair.pump()
    assert len(pair.server.events.body(slow.id)) == 100_000
    assert len(pair.server.events.body(fast.id)) == 2_000_000

    pair.server.link.resume(slow_there)
    pair.pump()
    assert len(pair.server.events.body(slow.id)) == 300_000
    assert fast_there.state == 1


def test_a_paused_reader_that_goes_on_with_nothing_read_says_nothing(codec: Codec) -> None:
    pair = Pair(codec)
    _, there = pair.ask()
    pair.server.link.pause(there)
    pair.server.link.resume(there)
    assert not pair.server.link.out


def test_a_window_made_negative_by_settings_is_paid_back_first(codec: Codec) -> None:
    # RFC 9113 §6.9.2
    end = Fed(codec).request(1, end=True)
    stream = end.events.streams[1]
    end.link.send_headers(stream, RESPONSE, end=False)
    end.link.send_data(stream, bytes(60_000), end=False)
    end.feed(settings([(INITIAL_WINDOW_SIZE, 10_000)]))
    end.link.send_data(stream, b"x", end=True)
    end.link.take()
    end.feed(window_update(1, 49_999))
    assert not end.link.out
    end.feed(window_update(1, 1))
    assert not end.link.out
    end.feed(window_update(1, 1))
    assert end.sent() == [(DATA, 1, 1, b"x")]


def test_settings_that_widen_every_window_let_what_waits_go(codec: Codec) -> None:
    end = Fed(codec).request(1, end=True).feed(settings([(INITIAL_WINDOW_SIZE, 0)]))
    stream = end.events.streams[1]
    end.link.send_headers(stream, RESPONSE, end=False)
    end.link.send_data(stream, b"body", end=True)
    end.link.take()
    end.feed(settings([(INITIAL_WINDOW_SIZE, 4)]))
    assert (DATA, 1, 1, b"body") in end.sent()


def test_nothing_waits_for_a_window_to_say_that_a_body_is_over(codec: Codec) -> None:
    end = Fed(codec).request(1, end=True).feed(settings([(INITIAL_WINDOW_SIZE, 0)]))
    end.link.send_headers(end.events.streams[1], RESPONSE, end=False)
    end.link.take()
    end.link.end(end.events.streams[1])
    assert end.sent() == [(DATA, 1, 1, b"")]


def test_streams_take_turns_a_frame_each(codec: Codec) -> None:
    end = Fed(codec)
    for number in (1, 3, 5):
        end.request(number, end=True)
        end.link.send_headers(end.events.streams[number], RESPONSE, end=False)
    end.link.blocked = True
    for number in (1, 3, 5):
        end.link.send_data(end.events.streams[number], bytes(20_000), end=True)
    end.link.take()
    end.link.unblock()
    sent = [(number, len(payload)) for kind, _, number, payload in end.sent() if kind == DATA]
    # The connection's window of 65,535 ends it: what is left waits.
    assert sent[:6] == [(1, 16384), (3, 16384), (5, 16384), (1, 3616), (3, 3616), (5, 3616)]


def test_none_loses_its_turn_to_the_connection_s_window(codec: Codec) -> None:
    end = Fed(codec)
    for number in (1, 3, 5):
        end.request(number, end=True)
        end.link.send_headers(end.events.streams[number], RESPONSE, end=False)
    end.link.send_data(end.events.streams[1], bytes(16383), end=False)
    end.link.blocked = True
    for number in (1, 3, 5):
        end.link.send_data(end.events.streams[number], bytes(40_000), end=True)
    end.link.unblock()
    end.link.take()
    for _ in range(6):
        end.feed(window_update(0, 10))
    assert [(n, len(p)) for _, _, n, p in end.sent()] == [(1, 10), (3, 10), (5, 10)] * 2


def test_trailers_wait_for_the_data_before_them(codec: Codec) -> None:
    pair = Pair(codec)
    _, there = pair.ask(end=True)
    link = pair.server.link
    link.send_headers(there, RESPONSE, end=False)
    link.blocked = True
    assert not link.send_data(there, b"late", end=False)
    link.end(there, TRAILERS)
    assert not link.send_data(there, b"after the end", end=False)
    pair.pump()
    assert pair.client.events.names() == ["headers"]
    link.unblock()
    pair.pump()
    assert pair.client.told[1:] == [("data", 1, b"late", False), ("headers", 1, TRAILERS, True)]


@pytest.mark.parametrize("by_data", [True, False])
def test_the_end_waits_for_the_data_before_it(codec: Codec, by_data: bool) -> None:
    pair = Pair(codec)
    _, there = pair.ask(end=True)
    link = pair.server.link
    link.send_headers(there, RESPONSE, end=False)
    link.blocked = True
    link.send_data(there, b"late", end=False)
    assert not link.send_data(there, b"", end=False)
    if by_data:
        link.send_data(there, b"", end=True)
    else:
        link.end(there)
    link.unblock()
    pair.pump()
    assert pair.client.told[1:] == [("data", 1, b"late", True)]


def test_a_source_is_told_when_it_is_too_far_ahead_and_when_it_may_go_on(codec: Codec) -> None:
    pair = Pair(codec)
    _, there = pair.ask(end=True)
    link = pair.server.link
    link.send_headers(there, RESPONSE, end=False)
    link.blocked = True
    assert not link.send_data(there, bytes(PENDING_HIGH), end=False)
    assert link.send_data(there, b"x", end=False)
    assert not pair.server.events.names().count("writable")
    link.unblock()
    pair.pump()
    assert pair.server.events.names().count("writable") == 1


def test_much_is_handed_over_in_portions(codec: Codec) -> None:
    end = Fed(codec).request(1, end=True)
    stream = end.events.streams[1]
    end.feed(settings([(INITIAL_WINDOW_SIZE, 2**24)]), window_update(0, 2**24))
    end.link.send_headers(stream, RESPONSE, end=False)
    end.link.send_data(stream, bytes(1_000_000), end=True)
    assert end.events.names().count("flush") == 3


def test_the_connection_s_window_is_given_back_whatever_becomes_of_the_octets(codec: Codec) -> None:
    end = Fed(codec).request(1)
    end.link.reset(end.events.streams[1], CANCEL)
    for _ in range(33):
        end.feed(data(1, bytes(16384)))
    updates = [p for kind, _, number, p in end.sent() if kind == WINDOW_UPDATE and number == 0]
    assert updates
    assert not end.link.closed


# --- the end of a stream --------------------------------------------------------------------------


def test_a_reset_reaches_the_other_end_with_its_code(codec: Codec) -> None:
    pair = Pair(codec)
    here, there = pair.ask()
    pair.client.link.reset(here, CANCEL)
    pair.client.link.reset(here, CANCEL)  # once is enough
    pair.pump()
    assert pair.server.told[1:] == [("ended_early", 1, CANCEL)]
    for link, stream in ((pair.client.link, here), (pair.server.link, there)):
        assert not link.streams
        link.send_headers(stream, TRAILERS, end=True)
        assert not link.send_data(stream, b"x", end=True)
        assert not link.out


def test_a_fault_is_told_at_both_ends(codec: Codec) -> None:
    pair = Pair(codec)
    pair.server.events.on = lambda what, stream: (
        pair.server.link.fault(stream, INTERNAL_ERROR, "no") if what == "opened" else None
    )
    pair.ask()
    assert pair.server.told[1:] == [("ended_early", 1, INTERNAL_ERROR)]
    assert pair.client.told == [("ended_early", 1, INTERNAL_ERROR)]


def test_a_last_frame_that_is_wrong_ends_its_stream_only(codec: Codec) -> None:
    end = Fed(codec, client=True)
    end.events.on = lambda what, stream: (
        end.link.fault(stream, PROTOCOL_ERROR, "no") if what == "headers" else None
    )
    for number in (1, 3):
        end.link.send_headers(end.link.open(), REQUEST, end=True)
        end.forget()
        end.feed(end.head(number, RESPONSE, end=True))
        assert end.told[1:] == [("ended_early", number, PROTOCOL_ERROR)]
        assert [sent[0] for sent in end.sent()] == [RST_STREAM]


def test_what_waits_is_forgotten_with_its_stream(codec: Codec) -> None:
    pair = Pair(codec)
    here, _ = pair.ask()
    pair.client.link.blocked = True
    pair.client.link.send_data(here, bytes(1000), end=True)
    pair.client.link.reset(here, CANCEL)
    pair.client.link.unblock()
    pair.pump()
    assert pair.server.events.names() == ["opened", "ended_early"]


def test_an_early_answer_wants_no_more_of_the_question(codec: Codec) -> None:
    # RFC 9113 §8.1
    for body in (b"", b"x" * 100):
        pair = Pair(codec)
        _, there = pair.ask()
        link = pair.server.link
        link.send_headers(there, RESPONSE, end=False)
        link.blocked = True
        link.send_data(there, body, end=True)
        link.dismiss(there)
        link.unblock()
        pair.pump()
        assert pair.client.told[-2:] == [("data", 1, body, True), ("ended_early", 1, NO_ERROR)]


@pytest.mark.parametrize("late", [b"", b"later"])
def test_frames_that_cross_our_reset_are_let_pass(codec: Codec, late: bytes) -> None:
    end = Fed(codec).request(1)
    end.link.reset(end.events.streams[1], CANCEL)
    end.forget()
    end.feed(data(1, late), end.head(1, TRAILERS, end=True), reset(1, CANCEL), window_update(1, 9))
    assert end.told == []
    assert not end.link.closed
