"""Streams to endpoints: limits, pushes, GOAWAY, resets, loss, and what may be sent again."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.errors import IdentityError
from sidecar.wire.http2_frames import (
    CANCEL,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    frame,
)
from tests.core.harness import GET, OK, Harness
from tests.core.http2_peer import Peer
from tests.core.test_http2_endpoints import DONE, POST, h2, status_of
from tests.core.transport import CLOSED, OPEN

Make = Callable[..., Harness]

A, B = "10.0.0.1:80", "10.0.0.2:80"


# Pushes:


PUSHES: dict[str, dict[str, Any]] = {
    "another way to speak": {"cluster": {"http2": {"huffman": True}}},
    "another endpoint": {"endpoints": (B,)},
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", PUSHES)
def test_what_is_under_way_outlives_a_push_and_its_connection_does_not(
    make: Make, name: str, version: int
) -> None:
    protocol = f"http{version}"
    harness = make(cluster={"protocol": protocol})
    caller = harness.open(GET)
    upstream = harness.serve(silent=version == 1)
    push = PUSHES[name]
    harness.swap(**{**push, "cluster": {"protocol": protocol, **push.get("cluster", {})}})
    assert upstream.transport.fate == OPEN
    if version == 1:
        upstream.send(OK)
        assert caller.take() == OK
    else:
        upstream.answer(1)
        assert caller.take() == DONE
        assert upstream.read().goaways == [(0, "NO_ERROR")]
    assert upstream.transport.fate == CLOSED
    assert harness.endpoint().idle == 0
    caller.send(GET)
    assert harness.begun[0].address == (B if "endpoints" in push else A)


@pytest.mark.parametrize("name", PUSHES)
def test_a_connection_without_room_is_not_used_again_either(make: Make, name: str) -> None:
    """It is in no pool when the push looks for those it makes unfit."""
    harness = make(**h2(http2={"max_concurrent_streams": 1}))
    callers = [harness.open(GET), harness.open(GET)]
    first = harness.serve()
    push = PUSHES[name]
    harness.swap(**{**push, "cluster": {"protocol": "http2", **push.get("cluster", {})}})
    first.answer(1)
    assert callers[0].take() == DONE
    assert first.transport.fate == CLOSED
    second = harness.serve()
    second.answer(1)
    assert callers[1].take() == DONE


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_a_connection_that_comes_about_after_its_endpoint_went(
    make: Make, version: int, waits: bool
) -> None:
    harness = make(cluster={"protocol": f"http{version}"})
    caller = harness.open(GET)
    harness.swap(endpoints=(B,), cluster={"protocol": f"http{version}"})
    if not waits:
        caller.lose()
    upstream = harness.serve(silent=version == 1)
    if waits:
        assert upstream.transport.fate == OPEN
        upstream.read() if version == 2 else None
        upstream.send(OK) if version == 1 else upstream.answer(1)
        assert caller.take() == (OK if version == 1 else DONE)
    assert upstream.transport.fate == CLOSED


# Streams:


def test_as_many_streams_as_the_endpoint_allows(make: Make) -> None:
    harness = make(**h2())
    callers = [harness.open(GET) for _ in range(5)]
    first = harness.serve(options={MAX_CONCURRENT_STREAMS: 2})
    first.read()
    assert first.order == [1, 3, 5, 7, 9]  # sent before its SETTINGS came
    for stream in (5, 7, 9):
        first.reset(stream, REFUSED_STREAM)
    assert len(harness.begun) == 1
    second = harness.serve(options={MAX_CONCURRENT_STREAMS: 3})
    second.read()
    for stream in second.order:
        second.answer(stream)
    first.answer(1)
    first.answer(3)
    assert [c.take() for c in callers] == [DONE] * 5
    assert [o.attempts for o in harness.outcomes] == [2, 2, 2, 1, 1]


def test_who_finds_no_room_waits_or_gets_another_connection(make: Make) -> None:
    harness = make(
        cluster={"protocol": "http2", "http2": {"max_concurrent_streams": 2}},
        limits={"connections": 2},
    )
    callers = [harness.open(GET) for _ in range(5)]
    first = harness.serve()
    second = harness.serve()
    assert harness.begun == []
    assert (first.read().order, second.read().order) == ([1, 3], [1, 3])
    assert harness.state().pending == 1
    second.answer(1)
    assert second.read().order == [1, 3, 5]
    for peer in (first, second):
        for stream in peer.order:
            if peer is first or stream > 1:
                peer.answer(stream)
    assert [c.take() for c in callers] == [DONE] * 5


def test_an_endpoint_may_allow_more_later(make: Make) -> None:
    harness = make(**h2(), limits={"connections": 1})
    harness.open(GET)
    upstream = harness.serve(options={MAX_CONCURRENT_STREAMS: 1})
    callers = [harness.open(GET) for _ in range(3)]
    assert upstream.read().order == [1]
    upstream.settle({MAX_CONCURRENT_STREAMS: 3})
    assert upstream.read().order == [1, 3, 5]
    upstream.settle({MAX_CONCURRENT_STREAMS: 0})
    for stream in (1, 3, 5):
        upstream.answer(stream)
    assert upstream.read().order == [1, 3, 5]
    upstream.settle({MAX_CONCURRENT_STREAMS: 1})
    upstream.read()
    upstream.answer(7)
    assert [c.take() for c in callers] == [DONE] * 3


def test_an_endpoint_that_is_leaving_is_not_sent_more_for_its_new_settings(make: Make) -> None:
    harness = make(**h2())
    harness.open(GET)
    upstream = harness.serve()
    upstream.read()
    upstream.leave()
    upstream.settle({MAX_CONCURRENT_STREAMS: 50})
    harness.open(GET)
    assert upstream.read().order == [1]
    assert len(harness.begun) == 1


def test_a_connection_carries_so_many_requests_and_no_more(make: Make) -> None:
    harness = make(**h2(max_requests_per_connection=2))
    callers = [harness.open(GET) for _ in range(3)]
    first = harness.serve()
    assert first.read().order == [1, 3]
    second = harness.serve()
    assert second.read().order == [1]
    first.answer(3)
    assert first.transport.fate == OPEN
    first.answer(1)
    assert first.read().goaways == [(0, "NO_ERROR")]
    assert first.transport.fate == CLOSED
    second.answer(1)
    assert [c.take() for c in callers] == [DONE] * 3
    assert second.transport.fate == OPEN


def test_a_connection_that_names_its_caller_carries_one_request(make: Make) -> None:
    harness = make(**h2(proxy_protocol="v2"))
    callers = [harness.open(GET) for _ in range(2)]
    assert len(harness.begun) == 2
    for caller in callers:
        upstream = harness.serve()
        upstream.read()
        upstream.answer(1)
        assert caller.take() == DONE
        assert upstream.transport.fate == CLOSED


def test_an_unused_connection_makes_room_for_another_endpoint(make: Make) -> None:
    harness = make(**h2(), endpoints=(A, B), limits={"connections": 1})
    caller = harness.open(GET)
    first = harness.serve()
    first.read()
    first.answer(1)
    assert caller.take() == DONE
    caller.send(GET)
    assert first.transport.fate == CLOSED
    second = harness.serve()
    second.read()
    second.answer(1)
    assert caller.take() == DONE


# Loss, GOAWAY, resets:


@pytest.mark.parametrize("asked", [GET, POST])
def test_streams_over_the_last_of_a_goaway_are_tried_elsewhere(make: Make, asked: bytes) -> None:
    harness = make(**h2(), retry={"attempts": 1}, limits={"retries": 0, "retry_budget": 0.0})
    callers = [harness.open(asked) for _ in range(3)]
    first = harness.serve()
    first.read()
    first.leave(1, NO_ERROR, b"bye")
    assert first.transport.fate == OPEN
    assert [first[s].reset for s in (1, 3, 5)] == ["", "CANCEL", "CANCEL"]
    second = harness.serve()
    assert second.read().order == [1, 3]
    second.answer(1)
    second.answer(3)
    first.answer(1)
    assert [c.take() for c in callers] == [DONE] * 3
    assert first.transport.fate == CLOSED
    assert harness.state().retries == 0


def test_an_endpoint_that_leaves_in_two_steps_loses_nothing(make: Make) -> None:
    harness = make(**h2())
    callers = [harness.open(GET) for _ in range(2)]
    first = harness.serve()
    first.read()
    first.leave()
    first.leave(3)
    first.answer(1)
    first.answer(3)
    assert [c.take() for c in callers] == [DONE] * 2
    assert first.transport.fate == CLOSED


def test_an_idle_connection_that_is_told_to_go_goes(make: Make) -> None:
    harness = make(**h2())
    caller = harness.open(GET)
    upstream = harness.serve()
    upstream.read()
    upstream.answer(1)
    assert caller.take() == DONE
    upstream.leave()
    assert upstream.transport.fate == CLOSED


@pytest.mark.parametrize("asked", [GET, POST])
def test_what_an_endpoint_refuses_unseen_is_sent_again(make: Make, asked: bytes) -> None:
    harness = make(**h2(), endpoints=(A, B), retry={"attempts": 1})
    caller = harness.open(asked)
    first = harness.serve()
    first.read()
    first.reset(1, REFUSED_STREAM)
    second = harness.serve()
    second.read()
    second.answer(1)
    assert caller.take() == DONE
    assert first.transport.fate == OPEN
    assert harness.outcomes[0][:4] == (200, "", "", 2)


def test_an_endpoint_that_always_refuses_is_believed_in_the_end(make: Make) -> None:
    harness = make(**h2(), retry={"attempts": 1})
    caller = harness.open(GET)
    upstream = harness.serve()
    for _ in range(10):
        upstream.reset(upstream.read().order[-1], REFUSED_STREAM)
    assert status_of(caller.take()) == 503
    assert harness.outcomes[0][:4] == (503, "upstream-refused", "UR", 10)


CODES = pytest.mark.parametrize("code", [CANCEL, PROTOCOL_ERROR, NO_ERROR, REFUSED_STREAM])


@CODES
@pytest.mark.parametrize("down", [1, 2])
def test_a_reset_in_the_response_is_passed_on(make: Make, down: int, code: int) -> None:
    harness = make(**h2())
    raw, caller = harness.open(), harness.call()
    if down == 1:
        raw.send(GET)
    else:
        caller.ask()
    upstream = harness.serve()
    upstream.read()
    upstream.answer(1, end=False)
    upstream.reset(1, code)
    assert harness.outcomes[0][:3] == (200, "upstream-reset", "UR")
    if down == 1:
        assert raw.fate == CLOSED  # in the middle of its chunks
        assert not raw.take().endswith(b"0\r\n\r\n")
    else:
        expected = {CANCEL: "CANCEL", PROTOCOL_ERROR: "PROTOCOL_ERROR", NO_ERROR: "INTERNAL_ERROR"}
        assert caller[1].reset == expected.get(code, "REFUSED_STREAM")


@pytest.mark.parametrize("retry", [True, False])
def test_a_reset_before_the_response_is_tried_again_if_asked_for(make: Make, retry: bool) -> None:
    harness = make(**h2(), retry={"on": ["reset"]} if retry else {})
    caller = harness.open(GET)
    upstream = harness.serve()
    upstream.read()
    upstream.reset(1, CANCEL)
    harness.advance(1)
    if retry:
        upstream.read()
        upstream.answer(3)
        assert caller.take() == DONE
    else:
        assert status_of(caller.take()) == 502
        assert harness.outcomes[0][:3] == (502, "upstream-reset", "UR")


@pytest.mark.parametrize(
    "error", [None, ConnectionResetError(), IdentityError("peer-unknown-root", "x")]
)
@pytest.mark.parametrize("asked", [GET, POST])
def test_a_connection_that_is_lost_with_many_streams(
    make: Make, asked: bytes, error: Exception | None
) -> None:
    """One new connection is begun for all that may be sent again, not one for each."""
    harness = make(**h2(), retry={"attempts": 1})
    callers = [harness.open(asked) for _ in range(20)]
    first = harness.serve()
    first.read()
    first.answer(1, end=False)
    first.transport.lose(error)
    assert len(callers[0].take().split(b"\r\n")) > 1
    code = error.code if isinstance(error, IdentityError) else "upstream-body-cut"
    assert harness.outcomes[0][:2] == (200, code)
    if asked == POST or isinstance(error, IdentityError):
        assert {o.status for o in harness.outcomes[1:]} <= {502, 503, 403}
        assert harness.begun == []
        return
    assert len(harness.begun) == 1
    second = harness.serve()
    assert len(second.read().order) == 19
    for stream in second.order:
        second.answer(stream)
    assert [c.take() for c in callers[1:]] == [DONE] * 19


def test_the_only_stream_of_a_new_connection_is_not_sent_again_unasked(make: Make) -> None:
    harness = make(**h2())
    caller = harness.open(GET)
    harness.serve().transport.lose()
    assert status_of(caller.take()) == 502
    assert harness.outcomes[0][:3] == (502, "upstream-closed", "UC")


MALFORMED: dict[str, Callable[[Peer], None]] = {
    "no status": lambda peer: peer.send(peer.head(1, [(b"x", b"1")], end=True)),
    "a status of 101": lambda peer: peer.answer(1, 101, end=False),
    "an interim one that ends": lambda peer: peer.answer(1, 103),
    "DATA before the head": lambda peer: peer.say(1, b"x"),
    "more than it said": lambda peer: peer.answer(1, 200, [(b"content-length", b"1")], b"xx"),
    "less than it said": lambda peer: peer.answer(1, 200, [(b"content-length", b"3")], b"xx"),
    "a flood of interim ones": lambda peer: peer.send(
        *[peer.head(1, [(b":status", b"103")], end=False) for _ in range(17)]
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_response_ends_its_stream_only(make: Make, name: str) -> None:
    harness = make(**h2())
    caller = harness.open(GET)
    other = harness.open(GET)
    upstream = harness.serve()
    upstream.read()
    MALFORMED[name](upstream)
    assert harness.outcomes[0][1:3] == ("upstream-protocol", "UPE")
    assert caller.take()
    upstream.answer(3)
    assert other.take() == DONE
    assert upstream.transport.fate == OPEN


@pytest.mark.parametrize("fields", [[(b":status", b"200")], [(b"connection", b"close")]])
def test_malformed_trailers_cut_the_response(make: Make, fields: list[tuple[bytes, bytes]]) -> None:
    harness = make(**h2())
    caller = harness.open(GET)
    upstream = harness.serve()
    upstream.read()
    upstream.answer(1, end=False)
    upstream.trail(1, fields)
    assert harness.outcomes[0][:2] == (200, "upstream-protocol")
    assert caller.fate == CLOSED


def test_a_second_head_is_no_trailers(make: Make) -> None:
    harness = make(**h2())
    harness.open(GET)
    upstream = harness.serve()
    upstream.read()
    upstream.answer(1, end=False)
    upstream.answer(1, end=False)
    assert upstream[1].reset == "PROTOCOL_ERROR"
    assert harness.outcomes[0][:2] == (200, "upstream-protocol")


def test_an_endpoint_that_breaks_the_rules_is_left(make: Make) -> None:
    harness = make(**h2(), retry={"on": ["reset"], "attempts": 2})
    callers = [harness.open(GET) for _ in range(2)]
    first = harness.serve()
    first.read()
    first.answer(1, end=False)
    first.send(frame(PING, 0, 0, b"short"))
    assert [code for _, code in first.read().goaways] == ["FRAME_SIZE_ERROR"]
    assert first.transport.fate == CLOSED
    harness.advance(1)
    second = harness.serve()
    second.read()
    second.answer(1)
    assert callers[1].take() == DONE
    assert callers[0].fate == CLOSED
    assert harness.outcomes[0][:2] == (200, "upstream-protocol")


def test_an_endpoint_that_floods_is_left(make: Make) -> None:
    harness = make(**h2())
    caller = harness.open(GET)
    upstream = harness.serve(polite=False)
    for _ in range(1200):
        upstream.send(frame(PING, 0, 0, b"12345678"))
    assert [code for _, code in upstream.read().goaways] == ["ENHANCE_YOUR_CALM"]
    assert status_of(caller.take()) == 502


def test_a_connection_that_a_push_overtook_serves_only_who_waited_for_it(make: Make) -> None:
    harness = make(**h2())
    caller = harness.open(GET)
    harness.swap(**h2(http2={"huffman": True}))
    first = harness.serve(silent=True)
    second_caller = harness.open(GET)
    second = harness.serve()
    first.settle({})
    first.read()
    first.answer(1)
    assert caller.take() == DONE
    assert first.transport.fate == CLOSED
    second.read()
    second.answer(1)
    assert second_caller.take() == DONE


def test_a_connection_in_use_makes_room_when_it_is_free(make: Make) -> None:
    harness = make(**h2(), endpoints=(A, B), limits={"connections": 1})
    callers = [harness.open(GET)]
    first = harness.serve()
    callers.append(harness.open(GET))
    assert first.read().order == [1]
    assert harness.begun == []
    first.answer(1)
    assert first.transport.fate == CLOSED
    second = harness.serve()
    second.read()
    second.answer(1)
    assert [c.take() for c in callers] == [DONE] * 2


def test_nothing_is_added_to_what_a_trusted_caller_has_said(make: Make) -> None:
    harness = make(**h2())
    trace = b"00-00000000000000000000000000000001-0000000000000001-00"
    raw = harness.open(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: r\r\nTraceparent: " + trace + b"\r\n\r\n"
    )
    upstream = harness.serve()
    assert upstream[1].heads[0][4:] == [(b"x-request-id", b"r"), (b"traceparent", trace)]
    upstream.answer(1)
    assert raw.take() == DONE
