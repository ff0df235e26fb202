"""What a filter may say of a request: an answer of any form, or not yet."""

from collections.abc import Callable
from typing import final

import pytest

from sidecar.core.api import Answer, HttpFilter, Verdict, Wait
from sidecar.core.exchange import Exchange
from sidecar.wire.fields import ResponseHead
from tests.core.asking import HTTP1, PROTOCOLS, ask
from tests.core.harness import GET, OK, Harness
from tests.core.transport import OPEN

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@final
class Says(HttpFilter):
    """Says the same of every request, and signs what goes back."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.seen: list[Exchange] = []

    def on_request(self, exchange: Exchange) -> Verdict:
        self.seen.append(exchange)
        return self.verdict


@final
class Signs(HttpFilter):
    def on_reply(self, exchange: Exchange, head: ResponseHead) -> None:
        head.add(b"X-Signed", b"%d" % head.status)


@final
class Stumbles(HttpFilter):
    def on_reply(self, exchange: Exchange, head: ResponseHead) -> None:
        raise LookupError


@BOTH
def test_an_answer_has_the_status_fields_and_body_that_it_says(make: Make, protocol: str) -> None:
    fields = ((b"content-type", b"application/json"), (b"X-A", b"1"))
    harness = make(filters=(Says(Answer("no-route", 410, fields, b"{}", detail="why")),))
    seen = ask(harness, protocol).answer()
    assert seen.status == 410
    assert seen.fields == {
        b"content-type": b"application/json", b"x-a": b"1", b"content-length": b"2",
    }  # fmt: skip
    assert seen.body == b"{}"
    assert harness.outcomes[0][:3] == (410, "no-route", "NR")


@BOTH
def test_an_answer_without_more_is_the_table_s(make: Make, protocol: str) -> None:
    harness = make(filters=(Says(Answer("no-route", detail="why")),))
    seen = ask(harness, protocol).answer()
    assert seen.status == 404
    assert seen.fields[b"content-type"] == b"text/plain; charset=utf-8"
    assert seen.body.startswith(b"sidecar: no route takes this request (code no-route, flag NR")
    assert b", why, request" in seen.body


@BOTH
@pytest.mark.parametrize(("status", "length"), [(204, None), (304, None), (200, b"0")])
def test_an_answer_without_body_says_no_type(
    make: Make, protocol: str, status: int, length: bytes | None
) -> None:
    harness = make(filters=(Says(Answer("no-route", status, body=b"")),))
    seen = ask(harness, protocol).answer()
    assert seen == (status, {} if length is None else {b"content-length": length}, b"")


def test_a_grpc_caller_is_told_a_status_and_the_fields(make: Make) -> None:
    fields = ((b"content-type", b"text/html"), (b"x-a", b"1"))
    harness = make(filters=(Says(Answer("no-route", 429, fields, b"slow down", 8)),))
    seen = ask(harness, HTTP1, "/", ("Content-Type", "application/grpc"), method="POST").answer()
    assert seen.status == 200
    assert seen.fields[b"grpc-status"] == b"8"
    assert seen.fields[b"grpc-message"] == b"slow down"
    assert seen.fields[b"content-type"] == b"application/grpc"
    assert seen.fields[b"x-a"] == b"1"


@BOTH
def test_filters_see_what_we_answer_ourselves(make: Make, protocol: str) -> None:
    answer = Answer("no-route", 410, ((b"x-a", b"1"),))
    harness = make(filters=(Signs(), Stumbles(), Says(answer)))
    seen = ask(harness, protocol).answer()
    assert (seen.status, seen.fields[b"x-a"], seen.fields[b"x-signed"]) == (410, b"1", b"410")
    assert [type(bug) for bug in harness.bugs] == [LookupError]
    harness.bugs.clear()


def test_nobody_looks_at_an_answer_by_default(make: Make) -> None:
    says = Says(Wait(1))
    harness = make(filters=(says,))
    harness.open(GET)
    head = ResponseHead(200, b"", 11, b"", {}, [])
    HttpFilter().on_reply(says.seen[0], head)
    assert head.pairs == []


# Waiting:


@BOTH
def test_a_request_waits_as_long_as_a_filter_says(make: Make, protocol: str) -> None:
    after = Says(None)
    harness = make(filters=(Says(Wait(2.0)), after), route={"timeout": 3})
    asked = ask(harness, protocol)
    harness.advance(1.9)
    assert (after.seen, harness.begun) == ([], [])
    harness.advance(0.2)
    assert len(after.seen) == 1
    upstream = harness.connect()
    harness.advance(2.9)  # the wait does not count towards the route's timeout
    upstream.send(OK)
    assert asked.answer()[::2] == (200, b"ok")


def test_what_comes_meanwhile_is_kept_up_to_a_limit(make: Make) -> None:
    harness = make(filters=(Says(Wait(2.0)),), route={"timeout": 3})
    caller = harness.open(POST)
    caller.send(b"3\r\nabc\r\n0\r\n\r\n")
    harness.advance(2.1)
    upstream = harness.connect()
    assert upstream.take().endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    harness.advance(3.1)
    assert harness.outcomes[0].code == "upstream-timeout"


@BOTH
def test_a_caller_that_leaves_is_not_waited_for(make: Make, protocol: str) -> None:
    asked: list[Exchange] = []
    after = Says(None)
    harness = make(filters=(Says(Wait(2.0, asked.append)), after))
    ask(harness, protocol).transport.lose()
    harness.advance(3)
    assert (asked, after.seen) == ([], [])
    assert harness.outcomes[0][:3] == (499, "downstream-closed", "DC")


def test_a_caller_that_breaks_its_body_while_it_waits_is_answered_once(make: Make) -> None:
    harness = make(filters=(Says(Wait(2.0)),))
    caller = harness.open(POST)
    caller.send(b"nonsense\r\n")
    harness.advance(3)
    assert caller.take()[:12] == b"HTTP/1.1 400"
    assert [o.code for o in harness.outcomes] == ["bad-chunk-size"]


@BOTH
@pytest.mark.parametrize(
    ("then", "status"), [("no-route", 404), (Answer("no-route", 410), 410), (Wait(1.0), 200)]
)
def test_who_asked_for_the_wait_is_asked_when_it_is_over(
    make: Make, protocol: str, then: Verdict, status: int
) -> None:
    harness = make(filters=(Says(Wait(2.0, lambda exchange: then)),))
    asked = ask(harness, protocol)
    harness.advance(2.1)
    assert asked.is_answered is (status != 200)
    if status == 200:
        harness.advance(1.1)
        harness.connect().send(OK)
    assert asked.answer().status == status


def test_a_wait_without_end_ends_when_somebody_says_so(make: Make) -> None:
    says = Says(Wait(float("inf")))
    harness = make(filters=(says,))
    caller, other = harness.open(GET), harness.open(GET)
    harness.advance(1000)
    first, second = says.seen
    first.go_on()
    second.go_on("no-route")
    harness.connect().send(OK)
    assert caller.take() == OK
    assert other.take()[:12] == b"HTTP/1.1 404"
    second.go_on()  # too late: it has ended
    assert other.take() == b""


@final
class Breaks(HttpFilter):
    def on_request(self, exchange: Exchange) -> Verdict:
        return Wait(1.0, self.then)

    def then(self, exchange: Exchange) -> Verdict:
        raise LookupError


@BOTH
def test_a_bug_after_a_wait_ends_one_exchange(make: Make, protocol: str) -> None:
    harness = make(filters=(Breaks(),))
    ask(harness, protocol)
    idle = harness.open()
    harness.advance(2)
    assert harness.outcomes[0].code == "internal-error"
    assert idle.fate == OPEN
    assert [type(bug) for bug in harness.bugs] == [LookupError]
    harness.bugs.clear()
