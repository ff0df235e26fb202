"""How many connections a caller may have, and how one too many is told so."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.gate import Gate, Most, Pace
from sidecar.core.types import Caller
from sidecar.telemetry.access_log import AccessLogSink
from sidecar.traffic.pace import Table
from sidecar.wire.http2_frames import ENHANCE_YOUR_CALM, PREFACE, goaway, settings
from tests.core.asking import HTTP1, PROTOCOLS, ask
from tests.core.harness import GET, OK, Harness
from tests.core.transport import CLOSED, OPEN, FakeTransport

Make = Callable[..., Harness]

ONE = {"connection_limits": [{"connections": 1}]}


def refusals(harness: Harness) -> list[str]:
    return [code for _, code, _ in harness.sink.refusals]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_too_many_is_refused_until_another_ends(make: Make, protocol: str) -> None:
    harness = make(listener=ONE)
    harness.connects_at_once = True
    first = harness.open(GET)
    harness.upstreams[0].send(OK)
    ask(harness, protocol)
    assert refusals(harness) == ["connection-limit"]
    other = ask(harness, protocol, source="10.0.0.2")
    harness.upstreams[0].send(OK)
    assert other.answer().status == 200
    first.lose()
    asked = ask(harness, protocol)
    harness.upstreams[0].send(OK)
    assert asked.answer().status == 200


def test_over_http1_it_is_answered(make: Make) -> None:
    harness = make(listener={"connection_limits": [{"connections": 1, "name": "few"}]})
    harness.open()  # that one says nothing makes it no less open
    seen = ask(harness, HTTP1).answer()
    assert (seen.status, seen.fields[b"connection"]) == (429, b"close")
    assert seen.body.endswith(b"(code connection-limit, flag RL, limit few)\n")
    assert harness.callers[1].fate == CLOSED


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_says_by_which_flag(make: Make, form: str) -> None:
    harness, lines = make(listener=ONE), list[bytes]()
    harness.engine.sinks = (*harness.engine.sinks, AccessLogSink(lines.append, form))
    harness.open(GET)
    ask(harness, HTTP1)
    (line,) = lines
    wanted = b'" 0 RL 0' if form == "text" else b'"response_flags":"RL"'
    assert wanted in line
    assert b"connection-limit" in line
    assert b"10.9.9.9" in line


def test_who_may_not_know_our_names_is_told_none(make: Make) -> None:
    harness = make(role="inbound", listener=ONE)
    harness.open(GET)
    seen = ask(harness, HTTP1).answer()
    assert seen.body.endswith(b"(code connection-limit, flag RL)\n")


def test_over_http2_it_is_told_to_calm_down(make: Make) -> None:
    harness = make(listener=ONE)
    harness.open(GET)
    transport = harness.open(PREFACE + settings(()))
    assert transport.take() == settings(()) + goaway(0, ENHANCE_YOUR_CALM, b"connection-limit")
    assert transport.fate == CLOSED


def test_of_opaque_octets_it_is_only_closed(make: Make) -> None:
    harness = make(protocol="tcp", listener=ONE)
    harness.connects_at_once = True
    assert harness.open(b"x").fate == OPEN
    second = harness.open(b"x")
    assert (second.fate, bytes(second.got)) == (CLOSED, b"")
    assert len(harness.dials) == 1
    assert refusals(harness) == ["connection-limit"]


def test_a_silent_one_too_many_of_an_unknown_protocol_is_closed(make: Make) -> None:
    harness = make(protocol="auto", listener=ONE)
    harness.connects_at_once = True
    harness.open(b"\x00\x01")
    second = harness.open()
    second.end()
    assert second.fate == CLOSED


def test_a_push_knows_the_connections_that_there_are(make: Make) -> None:
    harness = make(listener=ONE)
    first = harness.open(GET)
    harness.swap(listener={"connection_limits": [{"connections": 2}]})
    second = harness.open(GET)
    assert harness.open(GET).fate == CLOSED
    first.lose()
    second.lose()
    harness.open(GET)
    harness.swap(listener={**ONE, "max_fields": 99})
    assert harness.open(GET).fate == CLOSED


def caller(identity: str, host: str = "10.0.0.1") -> Caller:
    found = Caller(host, 1)
    found.identity = identity
    return found


def test_each_rule_counts_by_its_own_name_for_a_caller(harness: Harness) -> None:
    peers: dict[Any, int] = {}
    hosts: dict[Any, int] = {}
    gate = Gate(
        (
            Most("peer", lambda c: c.identity, 2, peers),
            Most("source", lambda c: c.host, 1, hosts),
        ),
        (Pace(lambda c: c.identity, Table(1e6, 0, 9), None), Pace(lambda c: "", None, None)),
    )
    transports = [FakeTransport(harness.soon) for _ in range(2)]
    for transport, host in zip(transports, ("10.0.0.1", "10.0.0.2"), strict=True):
        assert gate.refuses(caller("a", host)) == ""
        gate.enter(harness.listener, caller("a", host), transport)
    assert gate.refuses(caller("a", "10.0.0.3")) == "peer"
    assert gate.refuses(caller("b", "10.0.0.2")) == "source"
    assert gate.refuses(caller("b", "10.0.0.3")) == ""
    assert peers == {"a": 2}
    assert hosts == {"10.0.0.1": 1, "10.0.0.2": 1}


def test_what_a_caller_has_is_forgotten_with_its_last_connection(make: Make) -> None:
    harness = make(listener={"connection_limits": [{"connections": 3, "by": ["peer", "source"]}]})
    callers = [harness.open(GET) for _ in range(2)]
    counts = harness.book.kept["connections", "127.0.0.1:15001", ("peer", "source")]
    assert counts == {("", "10.9.9.9"): 2}
    for transport in callers:
        transport.lose()
    assert counts == {}


@pytest.mark.parametrize("protocol", ["http", "auto"])
def test_a_silent_one_too_many_is_not_kept_for_long(make: Make, protocol: str) -> None:
    harness = make(protocol=protocol, listener=ONE)
    harness.connects_at_once = True
    harness.open()
    second = harness.open()
    harness.advance(0.35)
    assert second.fate == CLOSED
    assert refusals(harness) == ["connection-limit"]
