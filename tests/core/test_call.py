"""The sidecar's own calls: exchanges like any other, whose end is told exactly once."""

from collections.abc import Callable, Container
from typing import Any, Final, final

import pytest

from sidecar.core.api import Answer, Balancer, HttpFilter, Verdict
from sidecar.core.book import Endpoint
from sidecar.core.call import Call, CallPlan, CallResult, call_head, ids_of
from sidecar.core.exchange import Exchange
from sidecar.core.plan import ClusterPlan
from sidecar.core.tcp import Session
from sidecar.core.types import Caller
from sidecar.core.unary import unary_head, unary_result
from sidecar.telemetry.access_log import AccessLogSink
from sidecar.telemetry.metrics import MetricsSink
from sidecar.wire.fields import Fields, RequestHead
from sidecar.wire.grpc import pack
from tests.core.asking import ask
from tests.core.harness import GET, OK, OWN, Harness
from tests.core.http2_peer import Peer
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

HEAD: Final = b"GET /check HTTP/1.1\r\nHost: auth\r\nx-a: 1\r\n" + OWN + b"\r\n"
TWO: Final = ("10.0.0.1:80", "10.0.0.2:80")
SERVICE: Final = [{"name": "auth", "endpoints": ["10.0.0.9:80"]}]


def cluster_of(harness: Harness) -> ClusterPlan:
    route = harness.listener.plan.routes.find(head(), Caller())
    assert route is not None
    assert route.cluster is not None
    return route.cluster


def plan_of(harness: Harness, timeout: float = 1.0, **options: Any) -> CallPlan:
    return CallPlan("check", cluster_of(harness), timeout, **options)


def head(method: bytes = b"GET", length: int | None = 0) -> RequestHead:
    return call_head(method, b"/check", b"auth", [(b"x-a", b"1")], length)


@final
class Told:
    """What a call's end was told of."""

    def __init__(self, harness: Harness) -> None:
        self.harness: Final = harness
        self.results: Final[list[CallResult]] = []

    def start(self, plan: CallPlan, body: bytes = b"", *, method: bytes = b"GET") -> Call:
        length = len(body)
        return plan.start(self.harness.engine, head(method, length), body, self.results.append)

    @property
    def result(self) -> CallResult:
        (result,) = self.results
        return result


@pytest.fixture
def told(make: Make) -> Told:
    return Told(make())


# What is asked, and answered:


def test_a_call_is_a_request_like_any_other(told: Told) -> None:
    harness = told.harness
    told.start(plan_of(harness))
    upstream = harness.connect()
    assert upstream.take() == HEAD
    assert told.results == []
    upstream.send(b"HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 4\r\n\r\nbo")
    upstream.send(b"dy")
    assert (told.result.code, told.result.status, told.result.body) == ("", 200, b"body")
    assert told.result.head is not None
    assert told.result.head.get(b"x-b") == b"2"
    assert told.result.trailers is None
    assert harness.outcomes == [(200, "", "", 1, 0, 4, "10.0.0.1:80")]
    assert harness.sink.exchanges[0].listener.name == "call|check"
    assert harness.sink.exchanges[0].listener.role == "call"
    told.start(plan_of(harness))
    upstream.send(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    assert told.results[1].status == 404


def test_a_body_has_its_length(told: Told) -> None:
    told.start(plan_of(told.harness), b"hello", method=b"POST")
    upstream = told.harness.connect()
    seen = upstream.take()
    assert b"\r\ncontent-length: 5\r\n" in seen
    assert seen.endswith(b"\r\n\r\nhello")
    upstream.send(OK)
    told.start(plan_of(told.harness), method=b"POST")
    assert b"\r\nContent-Length: 0\r\n" in upstream.take()
    upstream.send(OK)


def test_trailers_go_both_ways(told: Told) -> None:
    harness = told.harness
    trailers = Fields(b"", {}, [(b"x-sum", b"7")])
    plan_of(harness).start(
        harness.engine, head(b"POST", None), b"hello", told.results.append, trailers
    )
    upstream = harness.connect()
    assert upstream.take().endswith(b"5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n")
    upstream.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
    )
    assert told.result.body == b"ok"
    assert told.result.trailers is not None
    assert told.result.trailers.get(b"x-t") == b"1"


def test_a_call_goes_over_http2(make: Make) -> None:
    harness = make(cluster={"protocol": "http2"})
    told = Told(harness)
    told.start(plan_of(harness), b"hello", method=b"POST")
    peer = harness.serve()
    assert peer[1].head[b":authority"] == b"auth"
    assert (peer[1].head[b"content-length"], peer[1].data, peer[1].ended) == (b"5", b"hello", True)
    peer.answer(1, body=b"ok")
    assert (told.result.status, told.result.body) == (200, b"ok")


def test_interim_responses_are_passed_over(told: Told) -> None:
    told.start(plan_of(told.harness))
    told.harness.connect().send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    assert told.result.body == b"ok"


def test_an_endpoint_that_reads_slowly_stops_nobody(told: Told) -> None:
    told.start(plan_of(told.harness), b"x" * 300_000, method=b"POST")
    upstream = told.harness.begun[0].connect(stalled=True)
    upstream.catch_up()
    upstream.send(OK)
    assert told.result.status == 200


def test_calls_are_counted_apart_and_not_logged(told: Told) -> None:
    harness = told.harness
    metrics, lines = MetricsSink("web", "", 100), list[bytes]()
    harness.engine.sinks = (metrics, AccessLogSink(lines.append, "json"))
    told.start(plan_of(harness))
    harness.connect().send(OK)
    totals = [dict(labels) for name, labels, _ in metrics.rows() if name == "istio_requests_total"]
    assert [(t["reporter"], t["source_workload"], t["destination_service"]) for t in totals] == [
        ("call", "web", "app")
    ]
    assert lines == []


# When there is no answer:


def test_a_failure_is_told_with_its_code(told: Told) -> None:
    told.start(plan_of(told.harness, attempts=1))
    told.harness.fail()
    assert (told.result.code, told.result.status) == ("connect-failed", 0)
    assert told.result.detail == "10.0.0.1:80"
    assert told.harness.outcomes[0][:3] == (503, "connect-failed", "UF")


def test_a_failed_connection_is_tried_again_elsewhere(make: Make) -> None:
    harness = make(endpoints=TWO)
    told = Told(harness)
    told.start(plan_of(harness))
    harness.fail()
    harness.advance(0.3)
    assert {dial.address for dial in harness.dials} == set(TWO)
    harness.connect().send(OK)
    assert (told.result.code, told.result.detail, told.result.status) == ("", "", 200)


@pytest.mark.parametrize("repeatable", [True, False])
def test_only_what_may_be_repeated_is_said_twice(told: Told, repeatable: bool) -> None:
    told.start(plan_of(told.harness, repeatable=repeatable), b"x", method=b"POST")
    told.harness.connect().lose()
    told.harness.advance(0.3)
    if repeatable:
        told.harness.connect().send(OK)
        assert told.result.status == 200
    else:
        assert told.result.code == "upstream-closed"


@pytest.mark.parametrize("at", ["dial", "head", "body"])
def test_the_timeout_is_for_all_of_it(told: Told, at: str) -> None:
    told.start(plan_of(told.harness, 0.5))
    if at != "dial":
        told.harness.connect()
    if at == "body":
        told.harness.advance(0.4)
        told.harness.upstreams[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow")
    told.harness.advance(0.09 if at == "body" else 0.49)
    assert told.results == []
    told.harness.advance(0.03)
    assert (told.result.code, told.result.body) == ("upstream-timeout", b"")
    assert told.harness.outcomes[0][1:3] == ("upstream-timeout", "UT")
    assert all(upstream.fate == "closed" for upstream in told.harness.upstreams)


def test_no_other_timeout_holds(told: Told) -> None:
    told.start(plan_of(told.harness, 1000.0))
    upstream = told.harness.connect()
    told.harness.advance(400)
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    told.harness.advance(400)
    upstream.send(b"k")
    assert told.result.body == b"ok"


def test_a_body_that_breaks_off_is_no_answer(told: Told) -> None:
    told.start(plan_of(told.harness))
    upstream = told.harness.connect()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow")
    upstream.lose()
    assert (told.result.code, told.result.status) == ("upstream-body-cut", 0)


@pytest.mark.parametrize("whole", [True, False])
def test_a_body_over_the_limit_is_no_answer(told: Told, whole: bool) -> None:
    told.start(plan_of(told.harness, keeps=4))
    upstream = told.harness.connect()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n1234")
    assert told.results == []
    with told.harness.together():
        upstream.send(b"5")
        upstream.send(b"6" * (94 if whole else 1))
    assert (told.result.code, told.result.body) == ("call-too-large", b"")
    assert upstream.fate == ("open" if whole else "closed")


def test_where_nothing_is_kept_any_body_is_taken(told: Told) -> None:
    told.start(plan_of(told.harness, keeps=-1))
    upstream = told.harness.connect()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b"x" * 99)
    assert (told.result.code, told.result.status, told.result.body) == ("", 200, b"")
    assert upstream.fate == "open"


def test_nobody_is_told_before_the_call_is_there(make: Make) -> None:
    harness = make(limits={"requests": 0})
    told = Told(harness)
    with harness.together():
        told.start(plan_of(harness))
        assert told.results == []
        told.start(plan_of(harness)).cancel()
    assert told.result.code == "requests-overflow"


def test_a_call_that_is_given_up_is_told_to_nobody(told: Told) -> None:
    call = told.start(plan_of(told.harness))
    upstream = told.harness.connect()
    call.cancel()
    call.cancel()
    assert told.results == []
    assert upstream.fate == "closed"
    assert told.harness.outcomes[0][:3] == (499, "downstream-closed", "DC")


# Bugs:


class Broken(Balancer):
    def pick(self, exchange: Exchange | Session, tried: Container[Endpoint]) -> Endpoint | None:
        raise RuntimeError("a bug")


def raise_it(*anything: object) -> None:
    raise RuntimeError("a bug")


def test_a_bug_in_who_is_told_stays_there(told: Told) -> None:
    harness = told.harness
    plan_of(harness).start(harness.engine, head(), b"", raise_it)
    harness.connect().send(OK)
    assert [str(bug) for bug in harness.bugs] == ["a bug"]
    harness.bugs.clear()
    assert harness.outcomes[0].status == 200


@pytest.mark.parametrize("later", [False, True])
def test_a_bug_on_the_way_is_told(told: Told, later: bool) -> None:
    plan = plan_of(told.harness)
    if later:
        told.start(plan)
        told.harness.fail()
    plan.cluster.balancer = Broken()
    if later:
        told.harness.advance(0.3)
    else:
        told.start(plan)
    assert told.result.code == "internal-error"
    assert [str(bug) for bug in told.harness.bugs] == ["a bug"]
    told.harness.bugs.clear()


# For a request that waits:


@final
class Asks(HttpFilter):
    """Asks `auth` about each request; `says` makes the verdict."""

    def __init__(self) -> None:
        self.plan: CallPlan | None = None
        self.says: Callable[[Exchange, CallResult], Verdict] = lambda exchange, result: None
        self.seen: Final[list[CallResult]] = []

    def on_request(self, exchange: Exchange) -> Verdict:
        assert self.plan is not None
        question = call_head(b"GET", b"/check", b"auth", ids_of(exchange), 0)
        return self.plan.ask(exchange, question, b"", self._decide)

    def _decide(self, exchange: Exchange, result: CallResult) -> Verdict:
        self.seen.append(result)
        return self.says(exchange, result)

    def on_finish(self, exchange: Exchange) -> None:
        assert self.plan is not None
        self.plan.forget(exchange)


@pytest.fixture
def asks() -> Asks:
    return Asks()


@pytest.fixture
def asked(make: Make, asks: Asks) -> tuple[Harness, FakeTransport]:
    """A request that waits for `asks`, and its caller."""
    harness = make(filters=(asks,))
    asks.plan = plan_of(harness)
    return harness, harness.open(GET)


def test_a_request_waits_for_the_answer(asked: tuple[Harness, FakeTransport], asks: Asks) -> None:
    harness, caller = asked
    service = harness.connect()
    assert service.take() == b"GET /check HTTP/1.1\r\nHost: auth\r\n" + OWN + b"\r\n"
    service.send(OK)
    assert asks.seen[0].status == 200
    assert service.take().startswith(b"GET / HTTP/1.1")  # to the same cluster, so to the same place
    service.send(OK)
    assert caller.take() == OK
    assert [o.status for o in harness.outcomes] == [200, 200]
    assert asks.plan is not None
    assert asks.plan.waiting == {}


def test_the_answer_may_be_no(asked: tuple[Harness, FakeTransport], asks: Asks) -> None:
    harness, caller = asked
    asks.says = lambda exchange, result: Answer("peer-not-allowed", body=result.body)
    harness.connect().send(OK)
    assert caller.take().endswith(b"\r\n\r\nok")


def test_a_caller_that_goes_away_needs_no_answer(
    asked: tuple[Harness, FakeTransport], asks: Asks
) -> None:
    harness, caller = asked
    service = harness.connect()
    caller.lose()
    assert service.fate == "closed"
    assert [o.code for o in harness.outcomes] == ["downstream-closed", "downstream-closed"]
    assert asks.seen == []


def test_a_bug_in_the_decision_is_answered(
    asked: tuple[Harness, FakeTransport], asks: Asks
) -> None:
    harness, caller = asked
    asks.says = lambda exchange, result: raise_it()
    harness.connect().send(OK)
    assert caller.take()[:12] == b"HTTP/1.1 500"
    assert len(harness.bugs) == 1
    harness.bugs.clear()


def test_a_bug_in_a_filter_behind_it_is_answered(make: Make, asks: Asks) -> None:
    class Breaks(HttpFilter):
        def on_request(self, exchange: Exchange) -> Verdict:
            raise RuntimeError("a bug")

    harness = make(filters=(asks, Breaks()))
    asks.plan = plan_of(harness)
    caller = harness.open(GET)
    harness.connect().send(OK)
    assert caller.take()[:12] == b"HTTP/1.1 500"
    assert harness.outcomes[1][:3] == (500, "internal-error", "LR")
    assert len(harness.bugs) == 1
    harness.bugs.clear()


def test_a_bug_in_the_answer_itself_ends_the_request(
    asked: tuple[Harness, FakeTransport], asks: Asks
) -> None:
    harness, caller = asked
    asks.says = lambda exchange, result: Answer("peer-not-allowed")
    caller.faults["write"] = RuntimeError("a bug")
    harness.connect().send(OK)
    assert [str(bug) for bug in harness.bugs] == ["a bug"]
    harness.bugs.clear()


# gRPC:

PATH: Final = b"/auth.v1.Check/Do"


def call_grpc(harness: Harness) -> tuple[Peer, list[CallResult]]:
    results: list[CallResult] = []
    plan = plan_of(harness, 0.5)
    body = pack(b"question")
    plan.start(
        harness.engine,
        unary_head(PATH, b"auth", 0.5, len(body), [(b"x-request-id", b"77")]),
        body,
        lambda result: results.append(unary_result(result)),
    )
    return harness.serve(), results


def test_a_unary_call_is_one_message_each_way(make: Make) -> None:
    harness = make(cluster={"protocol": "same-as-downstream"})
    peer, results = call_grpc(harness)
    seen = peer[1].head
    assert (seen[b":path"], seen[b"content-type"], seen[b"te"], seen[b"grpc-timeout"]) == (
        PATH, b"application/grpc", b"trailers", b"500000u",
    )  # fmt: skip
    assert seen[b"x-request-id"] == b"77"
    assert (peer[1].data, peer[1].ended) == (b"\0\0\0\0\x08question", True)
    peer.answer(1, body=pack(b"answer"), end=False)
    peer.trail(1, [(b"grpc-status", b"0")])
    assert (results[0].code, results[0].body) == ("", b"answer")


@pytest.mark.parametrize(
    ("status", "fields", "body", "trailers", "code", "detail"),
    [
        (200, [], b"", [(b"grpc-status", b"7"), (b"grpc-message", b"no%21")],
         "call-refused", "status 200, grpc-status 7 no!"),
        (200, [(b"grpc-status", b"12")], b"", None, "call-refused", "status 200, grpc-status 12"),
        (503, [], b"busy", None, "call-refused", "status 503, no grpc-status"),
        (200, [], b"\1\0\0\0\1x", [(b"grpc-status", b"0")],
         "call-bad-answer", "expected one message, not compressed"),
    ],
)  # fmt: skip
def test_whatever_is_not_ok_has_a_code(
    make: Make, status: int, fields: Any, body: bytes, trailers: Any, code: str, detail: str
) -> None:
    harness = make(cluster={"protocol": "http2"})
    peer, results = call_grpc(harness)
    peer.answer(1, status, fields, body, end=not trailers)
    if trailers:
        peer.trail(1, trailers)
    assert (results[0].code, results[0].detail, results[0].body) == (code, detail, b"")


def test_a_unary_call_that_fails_says_why(make: Make) -> None:
    harness = make(cluster={"protocol": "http2"})
    _, results = call_grpc(harness)
    harness.advance(0.52)
    assert results[0].code == "upstream-timeout"


def test_a_call_on_behalf_of_a_call_is_impossible(make: Make) -> None:
    # No config can put a filter on the one route of a call; the filter is not asked about it.
    asks = Asks()
    harness = make(filters=(asks,), clusters=SERVICE)
    asks.plan = plan_of(harness)
    asked = ask(harness)
    assert len(harness.dials) == 1
    harness.connect().send(OK)
    assert len(asks.seen) == 1
    harness.upstreams[0].send(OK)
    assert asked.answer().status == 200
