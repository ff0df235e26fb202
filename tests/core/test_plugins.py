"""What filters see and may do, and that a plug-in's bug ends one exchange at most."""

from collections.abc import Callable, Container
from typing import final

import pytest

from sidecar.core.api import Balancer, HttpFilter, NetworkFilter, Sink
from sidecar.core.book import Endpoint
from sidecar.core.durations import due
from sidecar.core.exchange import Exchange
from sidecar.core.states import REPLYING
from sidecar.core.tcp import Session
from sidecar.core.timers import Wheel
from sidecar.core.types import Engine
from sidecar.wire.fields import ResponseHead
from tests.core.harness import GET, OK, Harness, forwarded, later
from tests.core.transport import OPEN, RESET

Make = Callable[..., Harness]

NO_BODY = b"HTTP/1.1 204 None\r\n\r\n"


@final
class Scribe(HttpFilter):
    """Writes into both heads, and down what it was called for."""

    def __init__(self, name: str, calls: list[str], refusal: str | None = None) -> None:
        self.name = name
        self.calls = calls
        self.refusal = refusal

    def on_request(self, exchange: Exchange) -> str | None:
        self.calls.append(f"request {self.name}")
        exchange.head.add(b"X-Filter", self.name.encode())
        return self.refusal

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        self.calls.append(f"response {self.name}")
        head.set(b"x-filter", self.name.encode())

    def on_finish(self, exchange: Exchange) -> None:
        self.calls.append(f"finish {self.name} {exchange.status}")


def test_filters_see_request_response_and_end(make: Make) -> None:
    calls: list[str] = []
    harness = make(filters=(Scribe("a", calls), Scribe("b", calls)))
    caller = harness.open(GET)
    upstream = harness.connect()
    head = GET[:-2] + b"X-Filter: a\r\nX-Filter: b\r\n\r\n"
    assert upstream.take() == forwarded(head)
    upstream.send(NO_BODY)
    assert caller.take() == NO_BODY[:-2] + b"x-filter: b\r\n\r\n"
    assert calls == [
        "request a", "request b", "response a", "response b", "finish b 204", "finish a 204",
    ]  # fmt: skip


def test_a_filter_may_refuse(make: Make) -> None:
    calls: list[str] = []
    harness = make(filters=(Scribe("a", calls, "peer-not-allowed"), Scribe("b", calls)))
    caller = harness.open(GET)
    assert caller.take()[:12] == b"HTTP/1.1 403"
    assert calls == ["request a", "finish b 403", "finish a 403"]
    assert harness.outcomes[0][:3] == (403, "peer-not-allowed", "RBAC")


def test_hooks_that_nobody_overrides_let_everything_pass(harness: Harness) -> None:
    kept: list[Exchange] = []

    class Keep(Sink):
        def exchange(self, exchange: Exchange) -> None:
            kept.append(exchange)

    harness.engine.sinks = (Keep(), harness.sink)
    harness.open(GET)
    harness.connect().send(OK)
    assert HttpFilter().on_request(kept[0]) is None
    assert HttpFilter().on_response(kept[0], ResponseHead(200, b"", 11, b"", {})) is None
    assert NetworkFilter().on_session(Session(harness.listener, kept[0].caller)) is None


def test_sinks_are_told_of_several_at_once_or_when_somebody_wants_to_know(harness: Harness) -> None:
    told: list[float] = []

    class Keep(Sink):
        def exchange(self, exchange: Exchange) -> None:
            told.append(exchange.ended)
            if len(told) == 1:
                raise BugError

    harness.engine.sinks = (Keep(),)
    harness.engine.batch = 2
    harness.engine.tell_ended()  # of nobody
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK)
    assert told == []
    harness.advance(1)
    caller.send(GET)
    upstream.send(OK)
    assert told == [1000.0, 1001.0]
    assert [type(bug) for bug in harness.bugs] == [BugError]
    harness.bugs.clear()
    caller.send(GET)
    upstream.send(OK)
    harness.engine.tell_ended()
    assert told == [1000.0, 1001.0, 1001.0]


class BugError(Exception):
    """What no part expects."""


@final
class Request(HttpFilter):
    def on_request(self, exchange: Exchange) -> str | None:
        raise BugError


@final
class Response(HttpFilter):
    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        raise BugError


@final
class Finish(HttpFilter):
    def on_finish(self, exchange: Exchange) -> None:
        raise BugError


def bugs(harness: Harness) -> int:
    """Return how many bugs were told of, and forget them."""
    assert all(isinstance(bug, BugError) for bug in harness.bugs)
    count = len(harness.bugs)
    harness.bugs.clear()
    return count


def test_a_bug_before_the_exchange_is_under_way_ends_the_connection(make: Make) -> None:
    harness = make(filters=(Request(),))
    caller, other = harness.open(GET), harness.open()
    assert (caller.fate, other.fate) == (RESET, OPEN)
    assert bugs(harness) == 1
    assert harness.outcomes[0][:3] == (500, "internal-error", "LR")


def test_a_bug_before_the_response_is_on_its_way_is_answered(make: Make) -> None:
    harness = make(filters=(Response(),))
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(OK)
    assert caller.take()[:12] == b"HTTP/1.1 500"
    assert caller.fate == OPEN
    assert upstream.is_gone
    assert bugs(harness) == 1
    assert harness.outcomes[0][:3] == (500, "internal-error", "LR")


def test_a_bug_at_the_end_keeps_nobody(make: Make) -> None:
    harness = make(filters=(Finish(),))
    caller = harness.open(GET * 2)
    upstream = harness.connect()
    upstream.send(OK)
    upstream.send(OK)
    assert caller.take() == OK * 2
    assert bugs(harness) == 2
    assert len(harness.outcomes) == 2


@final
class BrokenSink(Sink):
    def exchange(self, exchange: Exchange) -> None:
        raise BugError

    def session_opened(self, session: Session) -> None:
        pass


def test_a_broken_sink_keeps_nobody_from_the_others(harness: Harness) -> None:
    harness.engine.sinks = (BrokenSink(), harness.sink)
    caller = harness.open(GET)
    harness.connect().send(OK)
    assert caller.take() == OK
    assert bugs(harness) == 1
    assert len(harness.outcomes) == 1


@final
class BrokenBalancer(Balancer):
    """Picks once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint: Endpoint | None = endpoint

    def pick(self, exchange: object, tried: Container[Endpoint]) -> Endpoint | None:
        endpoint, self.endpoint = self.endpoint, None
        if endpoint is None:
            raise BugError
        return endpoint


def test_a_bug_when_time_is_up_leaves_other_timers_alone(harness: Harness) -> None:
    other = harness.open(GET)
    harness.connect()
    cluster = harness.dials[0].cluster
    setattr(cluster, "balancer", BrokenBalancer(harness.endpoint()))  # noqa: B010 - none is broken
    caller = harness.open(GET)
    harness.fail()
    harness.advance(1)
    assert caller.fate == RESET
    assert bugs(harness) == 1
    harness.advance(15)
    assert other.take()[:12] == b"HTTP/1.1 504"


@pytest.mark.parametrize("answer", [OK[:-1], OK])
def test_the_rest_of_what_came_with_a_bug_is_dropped(make: Make, answer: bytes) -> None:
    harness = make(filters=(Response(),))
    caller = harness.open(GET)
    upstream = harness.connect()
    upstream.send(answer + OK)
    assert caller.take().count(b"HTTP/1.1") == 1
    assert bugs(harness) == 1


def test_an_exchange_that_has_ended_has_ended(make: Make) -> None:
    kept: list[Exchange] = []

    class Keep(HttpFilter):
        def on_finish(self, exchange: Exchange) -> None:
            kept.append(exchange)

    harness = make(filters=(Keep(),))
    caller = harness.open(GET)
    harness.connect().send(OK)
    (exchange,) = kept
    due(exchange, harness.now + 1000)
    exchange.downstream_lost()
    with pytest.raises(AssertionError, match="DONE -> REPLYING is no step"):
        exchange.step(REPLYING)
    assert caller.take() == OK
    assert len(harness.outcomes) == 1


CLOSING = GET.replace(b"a\r\n", b"a\r\nConnection: close\r\n")


@pytest.mark.parametrize("method", ["write", "close"])
def test_a_loop_that_fails_us_ends_one_connection(harness: Harness, method: str) -> None:
    other = harness.open(GET)
    spare = harness.connect()
    caller = harness.open(CLOSING)
    upstream = harness.connect()
    caller.faults[method] = BugError()
    upstream.send(OK)
    assert bugs(harness) == 1
    assert upstream.is_gone
    assert len(harness.outcomes) == 1
    spare.send(OK)
    assert other.take() == OK


def test_a_loop_that_fails_us_without_an_exchange_ends_the_connection(harness: Harness) -> None:
    caller = harness.open(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    harness.connect().send(OK)
    caller.faults["write_eof"] = BugError()
    caller.send(b"x" * 300_000)
    assert bugs(harness) == 1
    assert caller.fate == RESET


def test_an_engine_without_a_loop_has_nothing_waiting() -> None:
    engine = Engine(lambda: 0.0, lambda: 0.0, Wheel(lambda when: None))
    with pytest.raises(AssertionError, match="nothing waits here"):
        engine.background(later(), lambda said, error: None)
