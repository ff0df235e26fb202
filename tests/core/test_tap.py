"""A filter has the body of a request: when it is whole, or has become too long."""

from collections.abc import Callable
from math import inf
from typing import Final, final

import pytest

from sidecar.core.api import HttpFilter, Verdict, Wait
from sidecar.core.exchange import HOLD_LIMIT, Exchange
from sidecar.core.tap import gather, invite
from tests.core.harness import OK, Harness

Make = Callable[..., Harness]

LONG: Final = 3 * HOLD_LIMIT


@final
class Reads(HttpFilter):
    """Has requests wait for their bodies."""

    def __init__(self, limit: int, *, waits: bool = True) -> None:
        self._limit: Final = limit
        self._waits: Final = waits
        self.seen: Final[list[tuple[bytes, bool]]] = []

    def on_request(self, exchange: Exchange) -> Verdict:
        invite(exchange)
        gather(exchange, self._limit, self._gathered)
        return Wait(inf) if self._waits and not self.seen else None

    def _gathered(self, exchange: Exchange, body: bytes, whole: bool) -> None:
        self.seen.append((body, whole))
        exchange.go_on()


def post(*fields: bytes, method: bytes = b"POST") -> bytes:
    return b"%b / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method, b"".join(f + b"\r\n" for f in fields))


@pytest.mark.parametrize(
    ("pieces", "limit", "seen"),
    [
        ([b"1234"], 4, (b"1234", True)),
        ([b"", b"12", b"34"], 4, (b"1234", True)),
        ([b"12", b"34"], 9, (b"1234", True)),
        ([b"1234"], 3, (b"1234", False)),
        ([b"12", b"34"], 3, (b"1234", False)),
        ([b"12", b"34"], 1, (b"12", False)),
    ],
)
def test_a_request_waits_for_its_body(
    make: Make, pieces: list[bytes], limit: int, seen: tuple[bytes, bool]
) -> None:
    reads = Reads(limit)
    harness = make(filters=(reads,))
    caller = harness.open(post(b"Content-Length: 4") + pieces[0])
    for piece in pieces[1:]:
        caller.send(piece)
    assert reads.seen == [seen]
    upstream = harness.connect()
    assert upstream.take().endswith(b"\r\n\r\n1234")
    upstream.send(OK)
    assert caller.take() == OK


def test_a_body_of_unknown_length_is_whole_at_its_end(make: Make) -> None:
    reads = Reads(9)
    harness = make(filters=(reads,))
    caller = harness.open(post(b"Transfer-Encoding: chunked"))
    caller.send(b"3\r\nabc\r\n")
    assert reads.seen == []
    caller.send(b"0\r\n\r\n")
    assert reads.seen == [(b"abc", True)]
    harness.connect().send(OK)


def test_over_http2_the_length_says_it_before_the_end_does(make: Make) -> None:
    reads = Reads(9)
    harness = make(filters=(reads,))
    peer = harness.call()
    peer.ask(b"POST", b"/", [(b"content-length", b"2")], end=False)
    peer.say(1, b"h")
    assert reads.seen == []
    peer.say(1, b"i")
    assert reads.seen == [(b"hi", True)]
    peer.say(1, b"", end=True)
    harness.connect().send(OK)
    assert peer[1].status == 200


def test_a_request_without_body_does_not_wait(make: Make) -> None:
    reads = Reads(9)
    harness = make(filters=(reads,))
    harness.open(post(method=b"GET"))
    assert reads.seen == [(b"", True)]
    harness.connect().send(OK)


def test_what_follows_an_upgrade_is_no_body(make: Make) -> None:
    reads = Reads(9)
    harness = make(filters=(reads,), cluster={"protocol": "http2"})
    peer = harness.call()
    peer.open_tunnel()
    assert reads.seen == [(b"", True)]


def test_a_body_longer_than_is_held_is_read_if_a_filter_wants_it(make: Make) -> None:
    reads = Reads(LONG)
    harness = make(filters=(reads,))
    caller = harness.open(post(b"Content-Length: %d" % LONG))
    for _ in range(3):
        caller.send(b"x" * HOLD_LIMIT)
    assert reads.seen == [(b"x" * LONG, True)]
    upstream = harness.connect()
    assert upstream.take().endswith(b"x" * LONG)
    upstream.send(OK)


def test_a_filter_that_does_not_wait_has_it_as_it_goes_by(make: Make) -> None:
    reads = Reads(LONG, waits=False)
    harness = make(filters=(reads,))
    caller = harness.open(post(b"Content-Length: %d" % LONG))
    upstream = harness.begun[0].connect(stalled=True)
    for _ in range(3):
        caller.send(b"x" * HOLD_LIMIT)
    assert reads.seen == []
    assert not caller.is_reading()  # the endpoint is slow: wanting the body does not change that
    upstream.catch_up()
    assert reads.seen == [(b"x" * LONG, True)]
    upstream.send(OK)


@pytest.mark.parametrize("expect", [True, False])
def test_a_caller_that_waits_with_its_body_is_asked_for_it(make: Make, expect: bool) -> None:
    reads = Reads(9)
    harness = make(filters=(reads,))
    fields = [b"Content-Length: 2", *([b"Expect: 100-continue"] if expect else [])]
    caller = harness.open(post(*fields))
    assert caller.take() == (b"HTTP/1.1 100 Continue\r\n\r\n" if expect else b"")
    caller.send(b"hi")
    upstream = harness.connect()
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert caller.take() == OK
