"""A bug met by one stream of HTTP/2 ends its exchange, and never those beside it."""

from collections.abc import Callable, Container
from typing import Any

import pytest

from sidecar.core.api import Balancer, HttpFilter, Sink
from sidecar.core.book import Endpoint
from sidecar.core.exchange import Exchange
from sidecar.wire.fields import ResponseHead
from tests.core.harness import GET, OK, Harness
from tests.core.http2_peer import Peer
from tests.core.transport import CLOSED

Make = Callable[..., Harness]

H2: dict[str, Any] = {"cluster": {"protocol": "http2"}}


SWITCH = b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class BugError(Exception):
    """What no part expects."""


class Broken(HttpFilter):
    """Raises for those who ask for it."""

    def on_request(self, exchange: Exchange) -> str | None:
        if exchange.head.target == b"/request":
            raise BugError
        return None

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        if exchange.head.target == b"/response":
            raise BugError


def forget(harness: Harness) -> None:
    (bug,) = harness.bugs
    assert isinstance(bug, BugError)
    harness.bugs.clear()


@pytest.fixture
def both(make: Make) -> tuple[Harness, Peer, int]:
    """A caller with a stream under way, by HTTP/2 on both sides."""
    harness = make(filters=(Broken(),), **H2)
    caller = harness.call()
    return harness, caller, caller.ask()


def finish(caller: Peer, beside: int, upstream: Peer) -> None:
    upstream.answer(1, body=b"ok")
    assert caller[beside].data == b"ok"
    assert caller.goaways == upstream.goaways == []


def test_in_the_request(both: tuple[Harness, Peer, int]) -> None:
    harness, caller, beside = both
    stream = caller.ask(path=b"/request")
    assert caller[stream].reset == "INTERNAL_ERROR"
    assert harness.outcomes[0][:3] == (500, "internal-error", "LR")
    forget(harness)
    finish(caller, beside, harness.serve())


@pytest.mark.parametrize("end", [True, False])
def test_in_the_response(both: tuple[Harness, Peer, int], end: bool) -> None:
    harness, caller, beside = both
    stream = caller.ask(path=b"/response")
    upstream = harness.serve()
    upstream.answer(3, end=end)
    assert upstream[3].reset == ("" if end else "INTERNAL_ERROR")
    forget(harness)
    assert caller[stream].status == 500
    assert harness.outcomes[0][:2] == (500, "internal-error")
    finish(caller, beside, upstream)


class Once(Balancer):
    """Picks once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint: Endpoint | None = endpoint

    def pick(self, exchange: object, tried: Container[Endpoint]) -> Endpoint | None:
        endpoint, self.endpoint = self.endpoint, None
        if endpoint is None:
            raise BugError
        return endpoint


def test_when_time_is_up(harness: Harness) -> None:
    caller = harness.call()
    beside = caller.ask()
    upstream = harness.connect()
    cluster = harness.dials[0].cluster
    setattr(cluster, "balancer", Once(harness.endpoint()))  # noqa: B010 - none is broken
    stream = caller.ask()
    harness.fail()
    harness.advance(1)
    forget(harness)
    assert caller[stream].reset == "INTERNAL_ERROR"
    upstream.send(OK)
    assert caller[beside].data == b"ok"


@pytest.mark.parametrize("how", ["data", "end", "trailers"])
def test_in_the_request_s_body(harness: Harness, how: str) -> None:
    caller = harness.call()
    beside = caller.ask()
    stream = caller.ask(b"POST", end=False)
    first, second = harness.connect(), harness.connect()
    second.faults["write"] = BugError()
    if how == "trailers":
        caller.trail(stream, [(b"x", b"1")])
    else:
        caller.say(stream, b"x" if how == "data" else b"", end=how == "end")
    assert caller[stream].reset == "INTERNAL_ERROR"
    assert harness.outcomes[0][:2] == (500, "internal-error")
    forget(harness)
    first.send(OK)
    assert caller[beside].data == b"ok"


@pytest.mark.parametrize("how", ["data", "end"])
def test_in_the_response_s_body(make: Make, how: str) -> None:
    harness = make(**H2)
    caller, other = harness.open(GET), harness.open(GET)
    upstream = harness.serve()
    upstream.answer(1, end=False)
    caller.faults["write"] = BugError()
    upstream.say(1, b"x" if how == "data" else b"", end=how == "end")
    forget(harness)
    assert harness.outcomes[0][:2] == (200, "internal-error")
    upstream.answer(3)
    assert other.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert upstream.goaways == []


def test_behind_the_end_of_an_exchange(make: Make) -> None:
    harness = make(**H2)
    caller, other = (
        harness.open(GET.replace(b"a\r\n", b"a\r\nConnection: close\r\n")),
        harness.open(GET),
    )
    upstream = harness.serve()
    caller.faults["close"] = BugError()
    upstream.answer(1)
    forget(harness)
    assert harness.outcomes[0][:2] == (200, "")
    upstream.answer(3)
    assert other.take().startswith(b"HTTP/1.1 200 ")


def test_behind_the_end_of_a_caller_s_exchange(harness: Harness) -> None:
    caller = harness.call()
    stream = caller.open_tunnel()
    upstream = harness.connect()
    upstream.send(SWITCH)
    upstream.end()
    for connection in tuple(harness.listener.connections):
        connection.drain()
    harness.settle()
    caller.read()
    caller.transport.faults["close"] = BugError()
    caller.say(stream, b"", end=True)
    forget(harness)
    assert harness.outcomes[0][:2] == (101, "")


class DeafSink(Sink):
    """Raises, once."""

    def __init__(self) -> None:
        self.is_broken = True

    def refused(self, listener: str, code: str, peer: str) -> None:
        if self.is_broken:
            self.is_broken = False
            raise BugError


def test_of_no_stream_in_particular_ends_the_connection(harness: Harness) -> None:
    caller = harness.call()
    caller.ask()
    harness.engine.sinks = (*harness.engine.sinks, DeafSink())
    caller.ask(fields=[(b"connection", b"close")])
    assert caller.read().goaways == [(3, "INTERNAL_ERROR")]
    assert caller.transport.fate == CLOSED
    assert harness.outcomes[0][:2] == (499, "downstream-reset")
    forget(harness)
