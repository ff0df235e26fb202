"""Requests sent before the last was answered: in order, one at a time, and never without bounds."""

from collections.abc import Callable

import pytest

from tests.core.harness import GET, OK, Harness, forwarded
from tests.core.transport import CLOSED, HALF, OPEN, RESET

Make = Callable[..., Harness]

BIG = b"x" * 200_000
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + BIG


def test_each_waits_for_the_one_before(harness: Harness) -> None:
    caller = harness.open(GET * 3)
    upstream = harness.connect()
    for _ in range(3):
        assert upstream.take() == forwarded(GET)
        upstream.send(OK)
        assert caller.take() == OK
    assert upstream.take() == b""
    assert len(harness.dials) == 1


@pytest.mark.parametrize("at", range(1, len(GET)))
def test_a_cut_in_the_next_request_changes_nothing(harness: Harness, at: int) -> None:
    caller = harness.open(GET + GET[:at])
    upstream = harness.connect()
    upstream.send(OK)
    caller.send(GET[at:] + GET)
    assert upstream.take() == forwarded(GET) * 2
    upstream.send(OK)
    upstream.send(OK)
    assert caller.take() == OK * 3


@pytest.mark.parametrize("together", [False, True])
def test_bodies_are_told_apart(harness: Harness, together: bool) -> None:
    requests = (POST, CHUNKS + b"0\r\n\r\n", CHUNKS + b"0\r\na: 1\r\n\r\n", GET)
    caller = harness.open()
    if together:
        caller.send(b"".join(requests))
    else:
        for request in requests:
            caller.send(request)
    upstream = harness.connect()
    for request in requests:
        assert upstream.take() == forwarded(request)
        upstream.send(OK)
    assert caller.take() == OK * 4


def test_hundreds_that_are_answered_at_once_need_no_deeper_stack(make: Make) -> None:
    harness = make(route={"match": {"path": "/known"}})
    caller = harness.open(GET * 2000)
    assert caller.take().count(b"HTTP/1.1 404") == 2000
    assert caller.fate == OPEN


def test_only_so_much_is_read_ahead(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    for _ in range(10):
        caller.send(GET * 500)
    assert caller.waiting > 50_000
    assert not caller.is_reading()
    for _ in range(5001):
        upstream.send(OK)
    assert caller.take() == OK * 5001
    assert caller.waiting == 0
    assert caller.is_reading()


def test_a_caller_may_be_stopped_for_two_reasons(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    for _ in range(10):
        caller.send(GET * 500)
    upstream.stall()
    upstream.overhead(200_000)
    upstream.catch_up()  # one reason less; what is read again is bounded all the same
    assert not caller.is_reading()
    for _ in range(5001):
        upstream.send(OK)
    assert caller.take() == OK * 5001


def test_who_asks_and_does_not_read_is_served_no_further(harness: Harness) -> None:
    caller = harness.open(GET * 10)
    caller.stall()
    upstream = harness.connect()
    for _ in range(3):
        upstream.send(ANSWER)
    assert upstream.take() == forwarded(GET)
    assert caller.buffered == len(ANSWER)
    assert harness.state().requests == 0
    caller.send(GET)
    caller.catch_up()
    assert len(harness.outcomes) == 1
    second = harness.connect()  # the first said more than it was asked
    for _ in range(10):
        second.send(ANSWER)
    assert caller.take() == ANSWER * 11
    assert caller.is_reading()


def test_who_does_not_read_at_all_is_cut_off(make: Make) -> None:
    harness = make(listener={"stream_idle_timeout": 60})
    caller = harness.open(GET * 2)
    caller.stall()
    harness.connect().send(ANSWER)
    harness.advance(61)
    assert caller.fate == RESET
    assert len(harness.outcomes) == 1


@pytest.mark.parametrize("ends", [True, False])
def test_what_is_behind_a_closing_request_is_not_served(harness: Harness, ends: bool) -> None:
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    caller = harness.open(closing + GET)
    upstream = harness.connect()
    upstream.send(OK)
    assert caller.take() == OK.replace(b"2\r\n", b"2\r\nConnection: close\r\n")
    assert caller.fate == HALF  # a reset for what is unread would destroy the answer
    caller.send(GET)
    if ends:
        caller.end()
    else:
        harness.advance(3)
    assert caller.fate == (CLOSED if ends else RESET)
    assert caller.take() == b""
    assert upstream.take() == forwarded(GET)


EARLY = {
    "a length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab|cd",
    "chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1|\r\na\r\n0\r\n\r\n",
    "trailers": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\na: 1\r\n|\r\n",
}


@pytest.mark.parametrize("name", EARLY)
@pytest.mark.parametrize("whole", [False, True])
def test_a_request_answered_early_leaves_the_next_one_alone(
    make: Make, name: str, whole: bool
) -> None:
    harness = make(route={"match": {"prefix": "/known"}})
    first, _, rest = EARLY[name].partition(b"|")
    known = b"GET /known HTTP/1.1\r\nHost: a\r\n\r\n"
    caller = harness.open(first + rest + known if whole else first)
    if not whole:
        caller.send(rest + known)
    assert caller.take().count(b"HTTP/1.1 404") == 1
    upstream = harness.connect()
    assert upstream.take() == forwarded(known)
    upstream.send(OK)
    assert caller.take() == OK


def test_the_rest_of_an_answered_request_has_its_limits(harness: Harness) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    caller = harness.open(head)
    harness.connect().send(OK)
    assert caller.take() == OK
    caller.send(b"x" * 262_144)
    assert caller.fate == OPEN
    caller.send(b"x")
    assert caller.fate == HALF


def test_the_rest_of_an_answered_request_is_not_awaited_for_long(harness: Harness) -> None:
    caller = harness.open(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
    harness.connect().send(OK)
    assert caller.fate == OPEN
    harness.advance(2.1)
    assert caller.fate == CLOSED


def test_a_caller_that_has_said_all_is_still_answered(harness: Harness) -> None:
    caller = harness.open(GET)
    upstream = harness.connect()
    caller.end()
    assert caller.fate == OPEN
    upstream.send(OK)
    assert caller.take() == OK.replace(b"2\r\n", b"2\r\nConnection: close\r\n")
    assert caller.fate == CLOSED


def test_a_caller_that_has_said_nothing_is_let_go(harness: Harness) -> None:
    caller = harness.open()
    caller.end()
    assert caller.fate == CLOSED


ENDINGS: dict[str, tuple[bytes, int, str]] = {
    "whole": (b"", 3, ""),
    "behind a cut head": (b"GET / HT", 3, ""),
    "behind a cut body": (POST[:-1], 4, "body-cut"),
    "behind a cut chunk": (CHUNKS, 4, "body-cut"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_all_that_a_caller_said_before_its_end_is_answered(harness: Harness, name: str) -> None:
    rest, count, code = ENDINGS[name]
    caller = harness.open(GET * 3 + rest)
    upstream = harness.connect()
    caller.end()
    for _ in range(3):
        assert caller.fate == OPEN
        upstream.send(OK)
    assert len(harness.outcomes) == count
    assert harness.outcomes[-1].code == code
    closing = OK.replace(b"2\r\n", b"2\r\nConnection: close\r\n")
    assert caller.take() == (OK * 3 if rest else OK * 2 + closing)
    assert caller.fate == CLOSED


def test_the_end_of_a_caller_that_reads_slowly_is_not_forgotten(harness: Harness) -> None:
    caller = harness.open(GET * 2)
    caller.stall()
    upstream = harness.connect()
    upstream.send(ANSWER)
    caller.end()
    caller.catch_up()
    upstream.send(OK)
    assert caller.take() == ANSWER + OK.replace(b"2\r\n", b"2\r\nConnection: close\r\n")
    assert caller.fate == CLOSED


def test_an_answer_that_is_read_late_is_not_cut_for_what_came_behind(make: Make) -> None:
    harness = make(listener={"stream_idle_timeout": 60})
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    caller = harness.open(closing + GET)
    caller.stall()
    harness.connect().send(OK)
    harness.advance(30)
    assert caller.fate == OPEN
    caller.catch_up()
    assert caller.take().endswith(b"ok")
    assert caller.fate == HALF
    caller.stall()
    harness.advance(31)
    assert caller.is_gone


@pytest.mark.parametrize("size", [70_000])
def test_what_is_left_unread_in_the_kernel_is_read_away(harness: Harness, size: int) -> None:
    caller = harness.open(GET)
    caller.send(b"x" * size)
    caller.send(b"y")
    upstream = harness.connect()
    assert not caller.is_reading()
    harness.engine.draining = True
    upstream.send(OK)
    assert caller.take().endswith(b"ok")
    assert caller.fate == HALF
    assert caller.waiting == 0
    caller.end()
    assert caller.fate == CLOSED
