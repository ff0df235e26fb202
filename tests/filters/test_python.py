"""Filters in Python: what they see and may do, and that nothing they do breaks the proxy."""

import builtins
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.filter import Filter, Reply, Request, Response
from sidecar.filters.python import PLUGIN, Settings
from sidecar.wire.fields import ResponseHead
from tests.core.asking import HTTP1, PROTOCOLS, Asked, ask
from tests.core.harness import GET, OK, Harness
from tests.core.reading import read_request
from tests.core.transport import OPEN

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
HOOKS = pytest.mark.parametrize("hook", ["on_request", "on_response"])
ARGUMENTS = {
    "on_request": "request",
    "on_response": "request, response",
    "on_finish": "request, outcome",
}


def filtered(make: Make, code: str, **more: Any) -> Harness:
    """Return a harness whose route has a filter of this code, below the usual imports."""
    head = "from sidecar.filter import *\nfrom tests.core.harness import later\n"
    one = {"name": "mine", "code": head + textwrap.dedent(code), **more}
    harness = make(route={"filters": [one]})
    harness.connects_at_once = True
    return harness


def hooked(make: Make, hook: str, body: str, *, waits: bool = False, **more: Any) -> Harness:
    """Return a harness whose filter has one hook with this body."""
    lines = textwrap.indent(textwrap.dedent(body), " " * 8)
    word = "async def" if waits else "def"
    code = f"class Mine(Filter[None]):\n    {word} {hook}(self, {ARGUMENTS[hook]}):\n{lines}\n"
    return filtered(make, code, **more)


def served(harness: Harness, asked: Asked, response: bytes = OK) -> bytes:
    """Answer what has gone up; return it."""
    (head,) = [got for upstream in harness.upstreams if (got := upstream.take())]
    harness.upstreams[-1].send(response)
    return bytes(head)


def number(harness: Harness, name: str, **labels: str) -> float:
    """Return what a counter or gauge of filter `mine` says."""
    wanted = {"filter": "mine", **labels}
    found = [
        values
        for n, got, values in harness.engine.counts.rows()
        if n == name and dict(got) == wanted
    ]
    return found[0][0] if found else 0.0


@BOTH
def test_it_sees_the_request(make: Make, protocol: str) -> None:
    harness = hooked(
        make,
        "on_request",
        """
        seen = [request.method, request.target, request.path, request.host, request.source,
                request.peer, request.route, request.listener, request.is_inbound, request.id,
                request.time, request.header("X-One"), request.header("x-none"),
                request.header("x-request-id"), request.cookie("b"), request.cookie("c")]
        assert ("x-one", "1") in request.headers()
        assert request.headers()[-1][0] == "traceparent"
        return Reply(200, repr(seen))
        """,
    )
    fields = [("X-One", "1"), ("Cookie", 'a=1; b="2"; ab=3')]
    seen = ask(harness, protocol, "/p%20q?r=s", *fields, host="a:80").answer()
    assert eval(seen.body) == [  # noqa: S307 - what repr has written above
        "GET", "/p%20q?r=s", "/p%20q", "a:80", "10.9.9.9", "", "all", "outbound|127.0.0.1:15001",
        False, "00000000-0000-4000-8000-000000000000", 1700001000.0, "1", None,
        "00000000-0000-4000-8000-000000000000", "2", None,
    ]  # fmt: skip


def test_it_sees_who_calls(make: Make) -> None:
    code = """
    class Mine(Filter[None]):
        def on_request(self, request):
            return Reply(200, f"{request.peer} {request.is_inbound}")
    """
    head = "from sidecar.filter import *\n"
    harness = make(
        role="inbound",
        workload={"name": "web", "trust_domain": "x"},
        listener={"filters": [{"code": head + textwrap.dedent(code)}]},
    )
    seen = ask(harness, identity="spiffe://x/ns/a/sa/b").answer()
    assert seen.body == b"spiffe://x/ns/a/sa/b True"


@BOTH
def test_it_changes_both_heads(make: Make, protocol: str) -> None:
    harness = filtered(
        make,
        """
        class Mine(Filter[None]):
            def on_request(self, request):
                request.set_header("X-One", "changed")
                request.add_header("x-two", "2")
                request.remove_header("X-Gone")
                request.set_header("x-request-id", "mine")
                request.remove_header("traceparent")
                request.state["word"] = request.header("x-one")

            def on_response(self, request, response):
                assert response.status == 200
                assert response.header("Content-Length") == "2"
                assert response.headers() == [("content-length", "2")]
                response.set_header("x-word", request.state["word"])
        """,
    )
    asked = ask(harness, protocol, "/", ("X-One", "1"), ("X-Gone", "1"))
    up = served(harness, asked).lower()
    assert b"x-one: changed\r\n" in up
    assert b"x-two: 2\r\n" in up
    assert up.count(b"x-request-id") == 1
    assert b"x-request-id: mine" in up
    assert b"x-gone" not in up
    assert b"traceparent" not in up
    assert asked.answer().fields[b"x-word"] == b"changed"


@BOTH
@HOOKS
@pytest.mark.parametrize("waits", [False, True])
def test_it_answers_in_place_of_the_endpoint(
    make: Make, protocol: str, hook: str, waits: bool
) -> None:
    body = 'return Reply(418, "no\\n", {"X-Why": "tea", "content-type": "text/tea"})'
    harness = hooked(make, hook, body, waits=waits)
    asked = ask(harness, protocol)
    if hook == "on_response":
        served(harness, asked)
    seen = asked.answer()
    assert (seen.status, seen.body) == (418, b"no\n")
    assert (seen.fields[b"x-why"], seen.fields[b"content-type"]) == (b"tea", b"text/tea")
    assert harness.outcomes[0][:3] == (418, "filter-answered", "")


def test_an_answer_without_a_body_says_who_decided(make: Make) -> None:
    harness = hooked(make, "on_request", "return Reply(403)")
    body = ask(harness).answer().body
    assert b"a filter written in Python answered (code filter-answered" in body
    assert b"filter mine" in body


def test_a_grpc_caller_is_told_a_grpc_status(make: Make) -> None:
    harness = hooked(make, "on_request", "return Reply(403, grpc_status=16)")
    fields = [("Content-Type", "application/grpc")]
    assert (
        ask(harness, HTTP1, "/s/m", *fields, method="POST").answer().fields[b"grpc-status"] == b"16"
    )


def test_a_response_that_was_replaced_leaves_a_good_connection(make: Make) -> None:
    harness = hooked(make, "on_response", "return Reply(403)")
    asked = ask(harness)
    served(harness, asked)
    assert asked.answer().status == 403
    assert harness.endpoint().idle == 1
    asked = ask(harness)
    served(harness, asked, OK[:-1])
    assert asked.answer().status == 403
    assert harness.endpoint().idle == 0


def test_it_logs_and_counts(make: Make) -> None:
    harness = hooked(
        make,
        "on_request",
        """
        request.log("variant", 7)
        request.log("other", "x")
        request.count("seen")
        request.count("seen", 2, kind="b")
        """,
    )
    asked = ask(harness)
    served(harness, asked)
    assert harness.sink.exchanges[0].fields == {"variant": "7", "other": "x"}
    assert number(harness, "filter_seen_total") == 1
    assert number(harness, "filter_seen_total", kind="b") == 2


def test_labels_that_callers_invent_take_no_more_than_their_room(make: Make) -> None:
    harness = hooked(
        make, "on_request", 'request.count("seen", path=request.path)\nreturn Reply(200)'
    )
    for index in range(300):
        ask(harness, HTTP1, f"/{index}").answer()
    assert number(harness, "filter_seen_total", path="other") == 100
    assert number(harness, "filter_seen_total", path="/199") == 1


def test_it_learns_how_it_ended(make: Make) -> None:
    harness = hooked(make, "on_finish", 'request.log("end", outcome)')
    asked = ask(harness)
    harness.advance(2)
    served(harness, asked)
    (fields,) = [exchange.fields for exchange in harness.sink.exchanges]
    assert fields is not None
    assert fields["end"] == (
        "Outcome(status=200, reason='', flag='', seconds=2.0, bytes_in=0, bytes_out=2, attempts=1,"
        " endpoint='10.0.0.1:80')"
    )


def test_it_learns_of_an_end_without_an_endpoint(make: Make) -> None:
    code = """
    class Mine(Filter[None]):
        def on_request(self, request):
            request.state["a"] = 1
            return Reply(401)

        def on_finish(self, request, outcome):
            assert request.state == {"a": 1}
            request.log("end", f"{outcome.status} {outcome.reason} {outcome.endpoint!r}")
    """
    harness = filtered(make, code)
    ask(harness)
    assert harness.sink.exchanges[0].fields == {"end": "401 filter-answered ''"}


# What is not allowed:


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ('request.set_header("a b", "1")', "no field can be called 'a b'"),
        ('request.set_header("a\\r\\nb", "1")', "no field can be called"),
        ('request.add_header("a", "1\\r\\nb: 2")', "no field can have the value"),
        ('request.set_header("a", " 1")', "no field can have the value"),
        ('request.set_header("a", "\\u20ac")', "no field can have the value"),
        ('request.set_header("Content-Length", "1")', "frames the message"),
        ('request.remove_header("host")', "frames the message"),
        ('request.add_header("Transfer-Encoding", "chunked")', "frames the message"),
        ('request.log("No", 1)', "expected lower-case letters, digits and _"),
        ('request.count("a-b")', "expected lower-case letters, digits and _"),
        ('request.count("a", **{"A": "1"})', "expected lower-case letters, digits and _"),
        ('request.count("a", -1)', "expected an amount from 0 on"),
        ('request.count("a", filter="x")', "expected an amount from 0 on"),
        ('request.count("a", b="1", c="1", d="1", e="1", f="1", g="1")', "labels of yours"),
        ('Reply(199)', "expected a status from 200 to 599, got 199"),
        ('Reply(204, "text")', "a 204 has no body"),
        ('Reply(200, grpc_status=17)', "expected a grpc_status from 0 to 16, got 17"),
        ('Reply(200, headers={"connection": "close"})', "frames the message"),
        ('Reply(200, headers={"x": "\\n"})', "no field can have the value"),
    ],
)  # fmt: skip
def test_what_would_break_the_message_or_the_numbers_is_refused(
    make: Make, call: str, text: str
) -> None:
    harness = hooked(make, "on_request", call)
    assert ask(harness).answer().status == 500
    ((_, error),) = harness.told
    assert isinstance(error, ValueError)
    assert text in str(error)


def test_values_pass_unchanged_whatever_octets_they_are(make: Make) -> None:
    harness = hooked(make, "on_request", 'request.set_header("x-b", request.header("x-a"))')
    caller = harness.open(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: caf\xc3\xa9 \xff\r\n\r\n")
    got = harness.upstreams[0].take()
    assert b"x-b: caf\xc3\xa9 \xff\r\n" in got
    harness.upstreams[0].send(OK)
    assert caller.take() == OK


# What goes wrong:

FAILURES = [
    "raise ValueError('mine')",
    "raise SystemExit(3)",
    "raise KeyboardInterrupt",
    "import asyncio; raise asyncio.CancelledError",
    "return 42",
    "return ValueError('not raised')",
    "def f(): f()\nf()",
]


@BOTH
@HOOKS
@pytest.mark.parametrize("on_error", ["open", "closed"])
@pytest.mark.parametrize("failure", FAILURES)
def test_an_error_breaks_nothing(
    make: Make, protocol: str, hook: str, on_error: str, failure: str
) -> None:
    harness = hooked(make, hook, failure, on_error=on_error)
    other = harness.open()
    asked = ask(harness, protocol)
    if hook == "on_response" or on_error == "open":
        served(harness, asked)
    seen = asked.answer()
    if on_error == "open":
        assert (seen.status, harness.outcomes[0].code) == (200, "")
    else:
        assert (seen.status, harness.outcomes[0].code) == (500, "filter-failed")
        assert b"a filter written in Python failed" in seen.body
    assert (other.fate, asked.transport.fate) == (OPEN, OPEN)
    ((text, error),) = harness.told
    assert text == f'msg="filter failed" hook={hook} filter=mine'
    assert error is not None
    assert number(harness, "sidecar_filter_errors_total", hook=hook) == 1
    assert number(harness, "sidecar_filter_calls_total", hook=hook) == 1


@pytest.mark.parametrize("failure", [*FAILURES, "return Reply(200)"])
def test_an_error_at_the_end_is_only_told(make: Make, failure: str) -> None:
    harness = hooked(make, "on_finish", failure)
    asked = ask(harness)
    served(harness, asked)
    assert asked.answer().status == 200
    assert len(harness.told) == 1
    assert number(harness, "sidecar_filter_errors_total", hook="on_finish") == 1


def test_a_flood_of_errors_is_told_in_part(make: Make) -> None:
    harness = hooked(make, "on_request", "1 / 0")
    for _ in range(50):
        ask(harness).answer()
    assert len(harness.told) == 10
    harness.advance(10.1)
    ask(harness).answer()
    assert len(harness.told) == 11
    assert number(harness, "sidecar_filter_errors_total", hook="on_request") == 51


# Hooks that wait:

WAITING = """
request.state["n"] = await later()
request.set_header("x-n", "1")
"""


@BOTH
def test_a_request_waits_for_its_filter_and_others_do_not(make: Make, protocol: str) -> None:
    harness = hooked(make, "on_request", WAITING, waits=True)
    first, second = ask(harness, protocol), ask(harness, protocol)
    assert harness.upstreams == []
    harness.jobs[1].step(7)
    assert b"x-n: 1" in served(harness, second)
    assert second.answer().status == 200
    assert not first.is_answered
    harness.jobs[0].step(7)
    served(harness, first)
    assert first.answer().status == 200


@BOTH
def test_a_response_waits_for_its_filter(make: Make, protocol: str) -> None:
    body = 'await later()\nresponse.set_header("x-n", request.method)'
    harness = hooked(make, "on_response", body, waits=True)
    asked = ask(harness, protocol)
    served(harness, asked)
    assert not asked.is_answered
    harness.jobs[0].step()
    seen = asked.answer()
    assert (seen.status, seen.fields[b"x-n"], seen.body) == (200, b"GET", b"ok")


def test_both_hooks_may_wait_one_after_the_other(make: Make) -> None:
    code = """
    class Mine(Filter[None]):
        async def on_request(self, request):
            request.state["a"] = await later()

        async def on_response(self, request, response):
            response.set_header("x-a", request.state["a"] + await later())
    """
    harness = filtered(make, code, timeout=1)
    asked = ask(harness)
    harness.advance(0.9)
    harness.jobs[0].step("1")
    served(harness, asked)
    harness.advance(0.9)
    harness.jobs[1].step("2")
    assert asked.answer().fields[b"x-a"] == b"12"
    harness.advance(5)
    assert harness.told == []


@BOTH
@HOOKS
@pytest.mark.parametrize("on_error", ["open", "closed"])
def test_a_filter_that_waits_too_long_is_cancelled(
    make: Make, protocol: str, hook: str, on_error: str
) -> None:
    body = """
    try:
        await later()
    finally:
        request.log("over", 1)
    """
    harness = hooked(make, hook, body, waits=True, timeout="2s", on_error=on_error)
    asked = ask(harness, protocol)
    if hook == "on_response":
        served(harness, asked)
    harness.advance(1.9)
    assert [job.is_over for job in harness.jobs] == [False]
    harness.advance(0.2)
    assert [job.is_over for job in harness.jobs] == [True]
    if hook == "on_request" and on_error == "open":
        served(harness, asked)
    seen = asked.answer()
    assert seen.status == (200 if on_error == "open" else 504)
    assert harness.outcomes[0].code == ("" if on_error == "open" else "filter-timeout")
    assert harness.sink.exchanges[0].fields == {"over": "1"}
    assert number(harness, "sidecar_filter_timeouts_total", hook=hook) == 1
    assert number(harness, "sidecar_filter_overruns_total", hook=hook) == 1


@HOOKS
def test_who_will_not_be_cancelled_is_not_waited_for(make: Make, hook: str) -> None:
    code = f"""
    import asyncio

    class Mine(Filter[None]):
        async def {hook}(self, {ARGUMENTS[hook]}):
            try:
                await later()
            except asyncio.CancelledError:
                return Reply(200)
    """
    harness = filtered(make, code, timeout=1)
    asked = ask(harness)
    if hook == "on_response":
        served(harness, asked)
    harness.advance(1.1)
    assert asked.answer().status == 504
    assert len(harness.outcomes) == 1


@BOTH
@HOOKS
def test_a_caller_that_goes_away_ends_the_waiting(make: Make, protocol: str, hook: str) -> None:
    harness = hooked(make, hook, "await later()", waits=True)
    asked = ask(harness, protocol)
    if hook == "on_response":
        served(harness, asked, OK[:-1])
    asked.transport.lose()
    assert harness.jobs[0].is_over
    assert harness.outcomes[0].code == "downstream-closed"
    harness.advance(5)
    assert (harness.told, len(harness.outcomes)) == ([], 1)


@HOOKS
@pytest.mark.parametrize("on_error", ["open", "closed"])
@pytest.mark.parametrize("failure", [f for f in FAILURES if "CancelledError" not in f])
def test_an_error_of_who_waits_breaks_nothing(
    make: Make, hook: str, on_error: str, failure: str
) -> None:
    harness = hooked(make, hook, f"await later()\n{failure}", waits=True, on_error=on_error)
    asked = ask(harness)
    if hook == "on_response":
        served(harness, asked)
    harness.jobs[0].step()
    if hook == "on_request" and on_error == "open":
        served(harness, asked)
    assert asked.answer().status == (200 if on_error == "open" else 500)
    assert number(harness, "sidecar_filter_errors_total", hook=hook) == 1


@HOOKS
def test_who_cancels_itself_is_waited_for_in_vain(make: Make, hook: str) -> None:
    harness = hooked(make, hook, "import asyncio; raise asyncio.CancelledError", waits=True)
    asked = ask(harness)
    if hook == "on_response":
        served(harness, asked)
    harness.advance(1.1)
    assert asked.answer().status == 504


def test_a_bug_of_ours_behind_the_wait_ends_one_exchange(make: Make) -> None:
    harness = hooked(make, "on_response", "await later()", waits=True)
    asked = ask(harness)
    served(harness, asked)
    asked.transport.faults["write"] = RuntimeError()
    harness.jobs[0].step()
    assert [type(bug) for bug in harness.bugs] == [RuntimeError]
    harness.bugs.clear()
    assert harness.outcomes[0].code == "internal-error"


# Over budget:


def introduce(harness: Harness) -> None:
    """Let the filter, which lies in a module of its own, know whose clock it can move."""
    sys.modules["sidecar_filter_mine"].Mine.harness = harness


def slow(make: Make, **more: Any) -> Harness:
    code = """
    class Mine(Filter[None]):
        harness = None

        def on_request(self, request):
            Mine.harness.spent += float(request.header("x-takes") or 0)
            return Reply(200)

        def on_finish(self, request, outcome):
            request.log("asked", 1)
    """
    harness = filtered(make, code, budget="100ms", max_overruns=3, off_time="30s", **more)
    introduce(harness)
    return harness


def ask_slowly(harness: Harness, seconds: str = "0.2") -> Asked:
    return ask(harness, HTTP1, "/", ("x-takes", seconds))


def test_what_is_over_budget_is_counted(make: Make) -> None:
    harness = slow(make)
    assert ask_slowly(harness).answer().status == 200
    assert ask_slowly(harness, "0.09").answer().status == 200
    assert number(harness, "sidecar_filter_overruns_total", hook="on_request") == 1
    assert number(harness, "sidecar_filter_calls_total", hook="on_request") == 2
    seconds = number(harness, "sidecar_filter_seconds_total", hook="on_request")
    assert seconds == pytest.approx(0.29)
    assert harness.told == [
        ('msg="filter took too long" hook=on_request seconds=0.200 filter=mine', None)
    ]


@pytest.mark.parametrize("on_error", ["open", "closed"])
def test_once_too_often_it_is_switched_off_for_a_while(make: Make, on_error: str) -> None:
    harness = slow(make, on_error=on_error)
    for _ in range(4):
        assert ask_slowly(harness).answer().status == 200
    assert harness.told[-1] == ('msg="filter switched off" filter=mine seconds=30', None)
    assert number(harness, "sidecar_filter_off") == 1
    asked = ask_slowly(harness)
    if on_error == "open":
        served(harness, asked)
        assert asked.answer().status == 200
    else:
        seen = asked.answer()
        assert seen.status == 503
        assert b"switched off: it took too long" in seen.body
        assert harness.outcomes[-1].code == "filter-off"
    assert harness.sink.exchanges[-1].fields is None
    harness.advance(31)
    assert harness.told[-1] == ('msg="filter switched on again" filter=mine', None)
    assert number(harness, "sidecar_filter_off") == 0
    for _ in range(3):
        assert ask_slowly(harness).answer().status == 200


def test_now_and_then_is_not_too_often(make: Make) -> None:
    harness = slow(make)
    for _ in range(20):
        assert ask_slowly(harness).answer().status == 200
        harness.advance(21)
    assert number(harness, "sidecar_filter_off") == 0


def test_a_filter_may_be_told_never_to_be_off(make: Make) -> None:
    harness = filtered(
        make,
        """
        class Mine(Filter[None]):
            async def on_request(self, request):
                await later()
        """,
        max_overruns=0,
        timeout="1s",
    )
    for _ in range(30):
        asked = ask(harness)
        harness.advance(1.1)
        assert asked.answer().status == 504


def test_responses_of_a_filter_that_is_off_are_as_configured(make: Make) -> None:
    code = """
    class Mine(Filter[None]):
        async def on_request(self, request):
            await later()

        async def on_response(self, request, response):
            pass
    """
    harness = filtered(make, code, max_overruns=1, timeout="1s")
    under_way = ask(harness)
    harness.advance(0.5)
    harness.jobs[0].step()
    late = [ask(harness), ask(harness)]
    harness.advance(1.1)
    assert [asked.answer().status for asked in late] == [504, 504]
    served(harness, under_way)
    assert under_way.answer().status == 503
    assert ask(harness).answer().status == 503


def test_a_plain_response_hook_that_is_off(make: Make) -> None:
    code = """
    class Mine(Filter[None]):
        async def on_request(self, request):
            await later()

        def on_response(self, request, response):
            pass
    """
    harness = filtered(make, code, max_overruns=1, timeout="1s")
    under_way = ask(harness)
    harness.advance(0.5)
    harness.jobs[0].step()
    for _ in range(2):
        ask(harness)
    harness.advance(1.1)
    served(harness, under_way)
    assert under_way.answer().status == 503


def test_each_step_of_who_waits_has_the_budget(make: Make) -> None:
    code = """
    import sys

    class Mine(Filter[None]):
        harness = None

        async def on_request(self, request):
            Mine.harness.spent += 0.2
            await later()
            Mine.harness.spent += 0.05
            return Reply(200)
    """
    harness = filtered(make, code, budget="100ms")
    introduce(harness)
    asked = ask(harness)
    harness.jobs[0].step()
    assert asked.answer().status == 200
    assert number(harness, "sidecar_filter_overruns_total", hook="on_request") == 1
    seconds = number(harness, "sidecar_filter_seconds_total", hook="on_request")
    assert seconds == pytest.approx(0.25)


# Pushes:

COUNTING = """
from sidecar.filter import Filter, Reply

class Mine(Filter[None]):
    def __init__(self, settings):
        super().__init__(settings)
        self.count = 0

    def on_request(self, request):
        self.count += 1
        return Reply(200, str(self.count))
"""


def test_a_push_leaves_a_filter_that_has_not_changed_as_it_is(make: Make) -> None:
    one = {"name": "mine", "code": COUNTING}
    harness = make(route={"filters": [one]})
    assert ask(harness).answer().body == b"1"
    harness.swap(route={"filters": [one]}, listener={"max_fields": 99})
    assert ask(harness).answer().body == b"2"
    harness.swap(route={"filters": [{**one, "code": COUNTING + "\n"}]})
    assert ask(harness).answer().body == b"1"


def test_its_code_runs_once_for_each_place_and_not_for_a_trial(make: Make) -> None:
    code = "import builtins\nbuiltins.ran = getattr(builtins, 'ran', 0) + 1\n" + COUNTING
    harness = make(route={"name": "plain"})
    harness.swap(route={"filters": [{"name": "mine", "code": code}]})
    harness.swap(route={"filters": [{"name": "mine", "code": code}], "timeout": 3})
    try:
        assert builtins.ran == 1  # type: ignore[attr-defined]
    finally:
        del builtins.ran  # type: ignore[attr-defined]


def test_a_listeners_filters_come_before_its_routes(make: Make) -> None:
    code = """
    from sidecar.filter import Filter

    class Mine(Filter[None]):
        def on_request(self, request):
            request.add_header("x-by", NAME)
    """
    one, two = [
        {"name": name, "code": f"NAME = {name!r}\n" + textwrap.dedent(code)} for name in ("a", "b")
    ]
    harness = make(listener={"filters": [one]}, route={"filters": [two]})
    harness.connects_at_once = True
    caller = harness.open(GET)
    request = read_request(harness.upstreams[0].take())
    assert [v for n, v in request.fields if n == b"x-by"] == [b"a", b"b"]  # type: ignore[union-attr]
    harness.upstreams[0].send(OK)
    assert caller.take() == OK


def test_a_reply_is_made_once_and_compared_by_what_it_says() -> None:
    assert Reply(200, "a", {"x": "1"}) == Reply(200, "a", {"x": "1"})
    assert Reply(200, b"a").answer("n").body == b"a"


def test_hooks_that_are_not_overridden_say_nothing(make: Make) -> None:
    plain: Filter[int] = Filter(3)
    harness = make()
    harness.connects_at_once = True
    asked = ask(harness)
    served(harness, asked)
    request = Request(harness.sink.exchanges[0], "plain")
    assert plain.settings == 3
    assert plain.on_request(request) is None
    assert plain.on_response(request, Response(ResponseHead(200, b"", 11, b"", {}))) is None
    assert PLUGIN.make(Settings("plain", plain, 1.0, 1.0, 1, 1.0, is_open=True)) is not None
