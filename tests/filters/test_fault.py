"""Faults: how late, how they fail, whom they befall, and that none is forgotten."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.core.asking import HTTP1, PROTOCOLS, Asked, ask
from tests.core.harness import OK, Harness
from tests.core.transport import RESET

Make = Callable[..., Harness]

BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)
GRPC = ("Content-Type", "application/grpc")


def faulty(make: Make, *faults: dict[str, Any], **more: Any) -> Harness:
    harness = make(route={"faults": list(faults)}, **more)
    harness.connects_at_once = True
    return harness


def is_let_alone(harness: Harness, asked: Asked) -> bool:
    """Say whether the request has gone up; and answer it."""
    asked_of = [upstream for upstream in harness.upstreams if upstream.take()]
    for upstream in asked_of:
        upstream.send(OK)
    return bool(asked_of) and asked.answer().status == 200


@BOTH
def test_a_delayed_request_is_late_and_says_so(make: Make, protocol: str) -> None:
    harness = faulty(make, {"delay": "2s"}, listener={"stream_idle_timeout": 1})
    asked = ask(harness, protocol)
    harness.advance(1.9)
    assert harness.upstreams == []
    harness.advance(0.2)
    assert is_let_alone(harness, asked)
    assert harness.outcomes[0][:3] == (200, "", "DI")


@BOTH
def test_an_aborted_request_goes_nowhere(make: Make, protocol: str) -> None:
    harness = faulty(make, {"abort": 500})
    seen = ask(harness, protocol).answer()
    assert seen.status == 500
    assert b"a fault was injected on purpose (code fault-abort, flag FI, route all" in seen.body
    assert harness.outcomes[0][:3] == (500, "fault-abort", "FI")
    assert harness.dials == []


@BOTH
def test_an_abort_comes_behind_the_delay(make: Make, protocol: str) -> None:
    harness = faulty(make, {"delay": "2s", "abort": {}})
    asked = ask(harness, protocol)
    harness.advance(1.9)
    assert not asked.is_answered
    harness.advance(0.2)
    assert asked.answer().status == 503


@pytest.mark.parametrize(
    ("abort", "status"), [({"grpc_status": 5}, b"5"), ({"status": 401}, b"16"), ({}, b"14")]
)
def test_a_grpc_caller_is_told_a_grpc_status(make: Make, abort: Any, status: bytes) -> None:
    harness = faulty(make, {"abort": abort})
    seen = ask(harness, HTTP1, "/s/m", GRPC, method="POST").answer()
    assert (seen.status, seen.fields[b"grpc-status"]) == (200, status)


@BOTH
def test_a_reset_answers_nothing(make: Make, protocol: str) -> None:
    harness = faulty(make, {"abort": {"reset": True}})
    asked = ask(harness, protocol)
    if protocol == HTTP1:
        assert (asked.transport.fate, bytes(asked.transport.got)) == (RESET, b"")
    else:
        assert not asked.is_answered
        assert asked.is_reset
    assert harness.outcomes[0][:3] == (0, "fault-abort", "FI")


@BOTH
@pytest.mark.parametrize("delay", [{}, {"delay": "2s"}])
def test_what_falls_into_a_black_hole_is_never_heard_of(
    make: Make, protocol: str, delay: dict[str, Any]
) -> None:
    harness = faulty(make, {**delay, "abort": {"black_hole": True}, "max_active": 1})
    asked = ask(harness, protocol)
    harness.advance(10000)
    assert (asked.is_answered, harness.outcomes, harness.dials) == (False, [], [])
    assert is_let_alone(harness, ask(harness, protocol))
    asked.transport.lose()
    assert harness.outcomes[1].code == "downstream-closed"


@pytest.mark.parametrize("part", ["delay", "abort"])
def test_a_share_of_the_requests_is_drawn_to_one_in_ten_thousand(make: Make, part: str) -> None:
    what = {"delay": {"fixed": 1}, "abort": {}}[part]
    harness = faulty(make, {part: {**what, "percent": "0.01%"}})
    harness.chance = 0.0001
    assert is_let_alone(harness, ask(harness))
    harness.chance = 0.00009
    asked = ask(harness)
    assert not is_let_alone(harness, asked)
    harness.advance(2)


def test_shares_come_out_as_configured(make: Make) -> None:
    harness = faulty(make, {"abort": {"percent": 10}})
    dice = random.Random(4)  # noqa: S311 - a seeded draw, not a secret
    for _ in range(2000):
        harness.chance = dice.random()
        caller = ask(harness)
        for upstream in harness.upstreams:
            if upstream.take():
                upstream.send(OK)
        caller.transport.lose()
    aborted = sum(outcome.flag == "FI" for outcome in harness.outcomes)
    assert len(harness.outcomes) == 2000
    assert abs(aborted - 200) < 4.5 * math.sqrt(2000 * 0.1 * 0.9)


@pytest.mark.parametrize(
    ("chance", "longest", "seconds"), [(0.0, 60, 0.0), (0.5, 60, 0.693), (0.99, 2, 2.0)]
)
def test_a_mean_is_drawn_around(make: Make, chance: float, longest: float, seconds: float) -> None:
    harness = faulty(make, {"delay": {"mean": "1s", "max": longest}})
    harness.chance = chance
    asked = ask(harness)
    if seconds:
        harness.advance(seconds - 0.02)
        assert harness.upstreams == []
        harness.advance(0.05)
    assert is_let_alone(harness, asked)


@BOTH
@pytest.mark.parametrize(
    ("fields", "is_hit"), [([("x-chaos", "1")], True), ([("x-chaos", "2")], False), ([], False)]
)
def test_a_fault_befalls_those_that_match(
    make: Make, protocol: str, fields: list[tuple[str, str]], is_hit: bool
) -> None:
    harness = faulty(make, {"match": {"headers": {"x-chaos": "1"}}, "abort": {}})
    asked = ask(harness, protocol, "/", *fields)
    assert is_let_alone(harness, asked) is not is_hit


# Asked for by the caller:

D, A, G = (f"x-envoy-fault-{kind}-request" for kind in ("delay", "abort", "abort-grpc"))


@BOTH
@pytest.mark.parametrize("by_header", [{}, None])
def test_a_caller_may_ask_if_it_is_allowed(make: Make, protocol: str, by_header: Any) -> None:
    fault = {"by_header": by_header} if by_header is not None else {"abort": {"percent": 0}}
    harness = faulty(make, fault)
    asked = ask(harness, protocol, "/", (D, "2000"), (A, "418"))
    if by_header is None:
        assert is_let_alone(harness, asked)
        return
    harness.advance(1.9)
    assert not asked.is_answered
    harness.advance(0.2)
    assert asked.answer().status == 418


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(A, "199")],
        [(A, "600")],
        [(A, "none")],
        [(D, "-1")],
        [(D, "0")],
        [(G, "5")],
        [(G, "17"), GRPC],
        [(A, "500"), (f"{A}-percentage", "50")],
    ],
)
def test_what_is_no_good_question_is_passed_over(make: Make, fields: Any) -> None:
    harness = faulty(make, {"by_header": {}})
    harness.chance = 0.5
    assert is_let_alone(harness, ask(harness, HTTP1, "/", *fields))


@pytest.mark.parametrize(
    ("asked", "chance", "is_hit"),
    [
        (None, 0.29, True),
        (None, 0.3, False),
        ("20", 0.19, True),
        ("20", 0.2, False),
        ("0.5", 0.004, True),
        ("90", 0.29, True),
        ("90", 0.3, False),
        ("all", 0.29, True),
    ],
)
def test_a_caller_gets_no_more_than_is_allowed(
    make: Make, asked: str | None, chance: float, is_hit: bool
) -> None:
    harness = faulty(make, {"by_header": {"percent": 30}})
    harness.chance = chance
    fields = [(A, "500")] + ([(f"{A}-percentage", asked)] if asked is not None else [])
    assert is_let_alone(harness, ask(harness, HTTP1, "/", *fields)) is not is_hit


def test_a_caller_waits_no_longer_than_is_allowed(make: Make) -> None:
    harness = faulty(make, {"by_header": {"max_delay": "1s"}, "delay": "9s"})
    asked = ask(harness, HTTP1, "/", (D, "999999999"))
    harness.advance(1.1)
    assert is_let_alone(harness, asked)


def test_a_grpc_caller_may_ask_for_a_grpc_status(make: Make) -> None:
    harness = faulty(make, {"by_header": {}, "abort": {}})
    seen = ask(harness, HTTP1, "/", GRPC, (G, "7"), method="POST").answer()
    assert seen.fields[b"grpc-status"] == b"7"


# An end to it:


def test_only_so_many_are_befallen_at_once(make: Make) -> None:
    harness = faulty(make, {"delay": "10s", "max_active": 2})
    first, second, third = (ask(harness) for _ in range(3))
    assert is_let_alone(harness, third)
    first.transport.lose()
    fourth = ask(harness)
    assert harness.upstreams[0].take() == b""
    harness.advance(10.1)
    for upstream in harness.upstreams:
        upstream.send(OK)
    assert [a.answer().status for a in (second, fourth)] == [200, 200]
    assert [o.flag for o in harness.outcomes] == ["", "DC", "DI", "DI"]


def test_a_fault_ends_and_a_push_does_not_begin_it_anew(make: Make) -> None:
    fault = {"abort": {}, "lifetime": "10s"}
    harness = faulty(make, fault)
    harness.advance(100)  # nobody has met it yet
    assert ask(harness).answer().status == 503
    harness.advance(9)
    harness.swap(route={"faults": [fault]}, listener={"max_fields": 99})
    assert ask(harness).answer().status == 503
    harness.advance(1)
    assert is_let_alone(harness, ask(harness))
    harness.swap(route={"faults": [{**fault, "name": "another"}]})
    assert ask(harness).answer().status == 503


def test_a_fault_without_end_has_none(make: Make) -> None:
    harness = faulty(make, {"abort": {}, "lifetime": 0})
    assert ask(harness).answer().status == 503
    harness.advance(1e6)
    assert ask(harness).answer().status == 503


# Slow:

SLOW = b"HTTP/1.1 200 OK\r\nContent-Length: 2048\r\n\r\n" + b"x" * 2048


@BOTH
def test_a_slow_response_comes_at_its_rate(make: Make, protocol: str) -> None:
    harness = faulty(make, {"name": "slow", "throughput": "1KiB", "max_active": 1})
    asked = ask(harness, protocol)
    harness.upstreams[0].send(SLOW)
    harness.advance(1.7)
    assert harness.outcomes == []
    assert is_let_alone(harness, ask(harness, protocol))  # there is room for one
    harness.advance(0.3)
    assert asked.answer().body == SLOW[-2048:]
    assert harness.sink.exchanges[1].fields == {"fault": "slow"}
    assert harness.outcomes[1][:3] == (200, "", "")


@BOTH
def test_a_share_of_the_responses_is_slow(make: Make, protocol: str) -> None:
    harness = faulty(make, {"throughput": {"rate": 1, "percent": "0.01%"}})
    harness.chance = 0.0001
    assert is_let_alone(harness, ask(harness, protocol))
    harness.chance = 0.00009
    asked = ask(harness, protocol)
    harness.upstreams[-1].send(OK)
    harness.advance(0.5)
    assert len(harness.outcomes) == 1
    harness.advance(1)
    assert asked.answer().body == b"ok"


def test_a_slow_response_may_be_late_too(make: Make) -> None:
    harness = faulty(make, {"delay": "1s", "throughput": "1KiB"})
    asked = ask(harness)
    harness.advance(1.1)
    harness.upstreams[0].send(SLOW)
    harness.advance(1.7)
    assert harness.outcomes == []
    harness.advance(0.3)
    assert asked.answer().status == 200
    assert harness.outcomes[0].flag == "DI"


T = "x-envoy-fault-throughput-response"


@BOTH
@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ([(T, "1")], 2),
        ([(T, "2")], 1),
        ([(T, "0")], 0),
        ([(T, "fast")], 0),
        ([(T, "1"), (f"{T}-percentage", "40")], 0),
        ([(T, "1"), (f"{T}-percentage", "60")], 2),
    ],
)
def test_a_caller_may_ask_for_a_slow_response(
    make: Make, protocol: str, fields: list[tuple[str, str]], seconds: float
) -> None:
    harness = faulty(make, {"by_header": {}})
    asked = ask(harness, protocol, "/", *fields)
    harness.upstreams[0].send(SLOW)
    if seconds:
        harness.advance(seconds * 0.85)
        assert harness.outcomes == []
        harness.advance(seconds * 0.15)
    assert asked.answer().status == 200
