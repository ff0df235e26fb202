"""What HTTP/2 exchanges leave behind: nothing for the collector, few timers in the wheel."""

import gc
from collections.abc import Iterator

import pytest

from sidecar.core.exchange import Exchange
from sidecar.core.http2_attempt import Http2Attempt
from sidecar.core.http2_server import Http2Side
from sidecar.core.timers import Timer
from sidecar.wire.http2 import Link
from sidecar.wire.http2_stream import Stream
from tests.core.harness import Harness
from tests.core.transport import FakeTransport
from tests.wire.http2_ends import End

REQUEST = [
    (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"),
]  # fmt: skip
ANSWER = [(b":status", b"200")]
OURS = (Exchange, Http2Attempt, Http2Side, Stream, Timer)


class Way:
    """A caller, the engine, and an endpoint, HTTP/2 on both hops."""

    def __init__(self) -> None:
        self.harness = Harness(cluster={"protocol": "http2"})
        self.caller, self.origin = End(Link, client=True), End(Link, client=False)
        self.near = self.harness.open(self.caller.link.take())
        self.far: FakeTransport | None = None

    def ask(self) -> Stream:
        """Send one request, up to the endpoint; return its stream there."""
        stream = self.caller.link.open()
        self.caller.link.send_headers(stream, REQUEST, end=True)
        self.near.send(self.caller.link.take())
        self.harness.settle()
        if self.far is None:
            self.far = self.harness.connect()
        self.harness.settle()
        self.origin.link.receive(self.far.take())
        return list(self.origin.events.streams.values())[-1]

    def answer(self, stream: Stream, body: bytes = b"yes") -> None:
        """Answer it, down to the caller, in one piece."""
        assert self.far is not None
        self.origin.link.send_headers(stream, ANSWER, end=False)
        self.origin.link.send_data(stream, body, end=True)
        self.far.send(self.origin.link.take())
        self.harness.settle()
        self.caller.link.receive(self.near.take())

    def forget(self) -> None:
        """Hold on to nothing of the requests so far."""
        for end in (self.caller, self.origin):
            end.told.clear()
            end.events.streams.clear()


@pytest.fixture
def collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count() -> int:
    return sum(isinstance(each, OURS) for each in gc.get_objects())


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("reset", [False, True])
def test_an_exchange_that_is_over_is_gone_without_the_collector(reset: bool) -> None:
    way = Way()
    way.harness.engine.sinks = ()  # the harness's keeps every exchange
    way.answer(way.ask())
    way.forget()
    before = count()

    for _ in range(20):
        if reset:
            way.ask()
            way.caller.link.reset(next(iter(way.caller.link.streams.values())), 8)
            way.near.send(way.caller.link.take())
            way.harness.settle()
            assert way.far is not None
            way.origin.link.receive(way.far.take())
        else:
            way.answer(way.ask())
    way.forget()

    assert way.harness.state().requests == 0
    assert count() == before


@pytest.mark.usefixtures("collector")
def test_streams_use_the_timers_of_those_before_them() -> None:
    way = Way()

    def timers() -> int:
        return sum(isinstance(each, Timer) for each in gc.get_objects())

    way.answer(way.ask())
    one = timers()
    for _ in range(20):
        way.answer(way.ask())
    assert timers() == one

    streams = [way.ask() for _ in range(3)]
    for stream in streams:
        way.answer(stream)
    assert timers() == one + 2  # as many as there were streams at once


def test_a_timer_that_was_another_streams_still_ends_this_one() -> None:
    way = Way()
    way.answer(way.ask())
    way.harness.advance(10.0)
    way.ask()

    way.harness.advance(14.0)  # the first one's 15 s have passed, this one's have not
    assert len(way.harness.outcomes) == 1
    way.harness.advance(2.0)

    assert [outcome.flag for outcome in way.harness.outcomes] == ["", "UT"]
