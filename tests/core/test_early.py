"""Answers before the request is whole, and callers that wait to be told to go on."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.core.harness import GET, OK, Harness, forwarded
from tests.core.transport import CLOSED, HALF, OPEN, RESET

Make = Callable[..., Harness]

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
EXPECT = POST.replace(b"a\r\n", b"a\r\nExpect: 100-continue\r\n")
CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
NO = b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"
NO_CLOSING = NO.replace(b"2\r\n", b"2\r\nConnection: close\r\n")


class Body(NamedTuple):
    head: bytes
    body: bytes


BODIES = {
    "a length": Body(EXPECT, b"body"),
    "chunks": Body(CHUNKED, b"4\r\nbody\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("waits", [True, False])
def test_a_caller_is_told_to_go_on(harness: Harness, name: str, waits: bool) -> None:
    head, body = BODIES[name]
    caller = harness.open(head if waits else head + body[:-1])
    upstream = harness.connect()
    upstream.send(CONTINUE)
    assert caller.take() == CONTINUE
    caller.send(body if waits else body[-1:])
    assert upstream.take() == forwarded(head) + body
    upstream.send(OK)
    assert caller.take() == OK
    caller.send(GET)
    assert upstream.take() == forwarded(GET)


def test_a_second_100_is_not_passed_on(harness: Harness) -> None:
    caller = harness.open(EXPECT)
    upstream = harness.connect()
    upstream.send(CONTINUE * 2)
    assert caller.take() == CONTINUE


def test_an_expectation_without_a_body_is_none(harness: Harness) -> None:
    caller = harness.open(EXPECT.replace(b": 4", b": 0"))
    harness.connect().send(CONTINUE + OK)
    assert caller.take() == OK


@pytest.mark.parametrize("at", range(1, len(NO)))
def test_an_answer_in_place_of_100_closes(harness: Harness, at: int) -> None:
    caller = harness.open(EXPECT)
    upstream = harness.connect()
    upstream.send(NO[:at])
    upstream.send(NO[at:])
    assert caller.take() == NO_CLOSING
    assert caller.fate == HALF  # it may have begun the body: no reset may destroy the answer
    assert upstream.fate == RESET
    caller.send(b"body" + GET)
    assert len(harness.outcomes) == 1
    caller.end()
    assert caller.is_gone


def test_our_own_answer_in_place_of_100_closes(make: Make) -> None:
    harness = make(route={"match": {"path": "/other"}})
    caller = harness.open(EXPECT)
    assert b"\r\nConnection: close\r\n" in caller.take()
    assert caller.fate == HALF


def test_our_own_answer_behind_100_does_not(harness: Harness) -> None:
    caller = harness.open(EXPECT)
    upstream = harness.connect()
    upstream.send(CONTINUE)
    caller.take()
    upstream.lose()
    data = caller.take()
    assert data[:12] == b"HTTP/1.1 502"
    assert b"Connection: close" not in data
    caller.send(b"body" + GET)
    assert len(harness.begun) == 1


@pytest.mark.parametrize("at", [len(NO), len(NO) - 1])
def test_an_early_answer_keeps_the_caller_s_connection(harness: Harness, at: int) -> None:
    caller = harness.open(POST + b"b")
    upstream = harness.connect()
    upstream.send(NO[:at])
    upstream.send(NO[at:])
    assert caller.take() == NO
    assert upstream.fate == RESET  # the rest of the body is not what it waits for
    caller.send(b"ody" + GET)
    second = harness.connect()
    assert second.take() == forwarded(GET)
    second.send(OK)
    assert caller.take() == OK


def test_an_early_answer_to_http_1_0_says_that_it_keeps(harness: Harness) -> None:
    ten = b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\n"
    caller = harness.open(ten)
    harness.connect().send(NO)
    assert caller.take() == NO.replace(b"2\r\n", b"2\r\nConnection: keep-alive\r\n")
    assert caller.fate == OPEN


def test_both_may_speak_at_once(harness: Harness) -> None:
    caller = harness.open(POST)
    upstream = harness.connect()
    upstream.send(NO[:-2])
    for octet in (b"b", b"o", b"d", b"y"):
        caller.send(octet)
    upstream.send(NO[-2:])
    assert caller.take() == NO
    assert upstream.take() == forwarded(POST) + b"body"
    assert upstream.fate == OPEN
    assert harness.outcomes[0][:6] == (413, "", "", 1, 4, 2)


def test_an_early_answer_to_a_closing_request_lingers(harness: Harness) -> None:
    caller = harness.open(POST.replace(b"a\r\n", b"a\r\nConnection: close\r\n"))
    harness.connect().send(NO)
    assert caller.take() == NO_CLOSING
    assert caller.fate == HALF
    caller.end()
    assert caller.is_gone


@pytest.mark.parametrize("count", [16, 17])
@pytest.mark.parametrize("together", [True, False])
def test_interim_responses_have_a_limit(harness: Harness, count: int, together: bool) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    hint = b"HTTP/1.1 103 Hints\r\n\r\n"
    if together:
        upstream.send(hint * count + OK)
    else:
        for _ in range(count):
            upstream.send(hint)
        upstream.send(OK)
    data = caller.take()
    assert data[: 16 * len(hint)] == hint * 16
    if count == 16:
        assert data[16 * len(hint) :] == OK
        return
    assert data[16 * len(hint) :][:12] == b"HTTP/1.1 502"
    assert harness.outcomes[0][:3] == (502, "upstream-protocol", "UPE")
    assert upstream.fate == CLOSED


def test_an_answer_before_the_endpoint_is_asked_is_none(harness: Harness) -> None:
    harness.open(GET).lose()
    upstream = harness.connect()
    upstream.send(OK)
    assert upstream.fate == CLOSED
    caller = harness.open(GET)
    harness.connect().send(OK)
    assert caller.take() == OK
