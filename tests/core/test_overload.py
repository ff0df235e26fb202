"""What is refused while a worker has too much, and what is not."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.overload import (
    ACTIONS,
    DESCRIPTORS,
    MEMORY,
    RESOURCES,
    STOP_CONNECTIONS,
    STOP_KEEPALIVE,
    STOP_REQUESTS,
    Overload,
    press,
)
from tests.core.harness import GET, OK, Harness
from tests.core.transport import OPEN, RESET

Make = Callable[..., Harness]


def at(**pressures: float) -> dict[str, float]:
    return {name: pressures.get(name, 0.0) for name in RESOURCES}


def status_of(data: bytes) -> bytes:
    return data[9:12]


@pytest.mark.parametrize(
    ("pressures", "expected"),
    [
        (at(memory=0.5), (0.5, 1.0, 0.0)),
        (at(memory=1.0), (1.0, 1.0, 1.0)),
        (at(loop_lag=0.25), (0.25, 0.0, 0.0)),
        (at(loop_lag=1.0), (1.0, 0.0, 1.0)),
        (at(descriptors=0.5), (0.0, 1.0, 0.0)),
        (at(descriptors=1.0), (0.0, 1.0, 1.0)),
        (at(memory=0.1, loop_lag=0.2, descriptors=0.3), (0.2, 1.0, 0.0)),
    ],
)
def test_each_resource_has_its_remedies(
    pressures: dict[str, float], expected: tuple[float, ...]
) -> None:
    found = Overload(pressures).actions()
    assert tuple(found[a] for a in (STOP_REQUESTS, STOP_KEEPALIVE, STOP_CONNECTIONS)) == expected
    assert tuple(found) == ACTIONS


@pytest.mark.parametrize(("chance", "status"), [(0.29, b"503"), (0.31, b"200")])
def test_a_share_of_requests_is_refused(make: Make, chance: float, status: bytes) -> None:
    harness = make()
    harness.chance = chance
    press(harness.engine, at(loop_lag=0.3))
    caller = harness.open(GET)
    if status == b"200":
        harness.connect().send(OK)
    answer = caller.take()
    assert status_of(answer) == status
    assert caller.fate == OPEN  # time is not won by new connections
    if status == b"503":
        assert b"retry-after: 1\r\n" in answer
        assert b"code overloaded, flag OM, route all, loop lag at 30% of the way" in answer
        assert harness.outcomes[0][:4] == (503, "overloaded", "OM", 0)
        assert harness.dials == []


def test_a_grpc_call_is_unavailable(make: Make) -> None:
    harness = make()
    press(harness.engine, at(memory=0.9))
    caller = harness.call()
    stream = caller.ask(b"POST", fields=[(b"content-type", b"application/grpc")])
    head = caller[stream].head
    assert (head[b"grpc-status"], b"retry-after" in head) == (b"14", True)


@pytest.mark.parametrize("short", [MEMORY, DESCRIPTORS])
def test_connections_end_with_their_response_where_that_gives_something_back(
    make: Make, short: str
) -> None:
    harness = make()
    harness.chance = 0.9
    press(harness.engine, at(**{short: 0.5}))
    caller = harness.open(GET)
    harness.connect().send(OK)
    assert b"Connection: close\r\n" in caller.take()
    assert caller.is_gone


def test_when_it_is_over_all_is_as_before(make: Make) -> None:
    harness = make()
    press(harness.engine, at(memory=1.0))
    assert harness.open(GET).fate == RESET
    press(harness.engine, at())
    caller = harness.open(GET)
    harness.connect().send(OK)
    assert (caller.take(), caller.fate) == (OK, OPEN)
    assert harness.engine.overload is None


@pytest.mark.parametrize("where", ["listener", "route"])
def test_who_must_be_served_is(make: Make, where: str) -> None:
    config: dict[str, Any] = {where: {"bypass_overload": True}}
    harness = make(**config)
    known = harness.open()
    press(harness.engine, at(memory=1.0, descriptors=1.0))
    known.send(GET)
    harness.connect().send(OK)
    assert (known.take(), known.fate) == (OK, OPEN)
    other = harness.open(GET)
    assert other.fate == (OPEN if where == "listener" else RESET)
    if where == "listener":
        assert status_of(other.take()) == b""


def test_no_connection_is_taken_at_the_end_of_a_resource(make: Make) -> None:
    harness = make()
    press(harness.engine, at(loop_lag=1.0))
    assert harness.open(GET).fate == RESET
    assert harness.sink.refusals == [("outbound|127.0.0.1:15001", "overloaded", "10.9.9.9:5000")]


def test_all_listeners_together_have_a_limit(make: Make) -> None:
    harness = make()
    gate = harness.engine.gate
    gate.listeners = [harness.listener]
    gate.limit = 2
    callers = [harness.open() for _ in range(3)]
    assert [caller.fate for caller in callers] == [OPEN, OPEN, RESET]
    callers[0].lose()
    gate.limit, gate.ceiling = 10, 1
    assert harness.open().fate == RESET
    assert [code for _, code, _ in harness.sink.refusals] == [
        "connections-overflow",
        "descriptors-overflow",
    ]
    callers[1].lose()
    assert harness.open().fate == OPEN


def test_a_listener_s_own_limit_holds_whatever_it_bypasses(make: Make) -> None:
    harness = make(listener={"max_connections": 1, "bypass_overload": True})
    harness.engine.gate.listeners = [harness.listener]
    harness.engine.gate.limit = 0
    assert [harness.open().fate for _ in range(2)] == [OPEN, RESET]
    assert harness.sink.refusals[0][1] == "connections-overflow"


def test_who_drains_refuses_without_a_word(make: Make) -> None:
    harness = make()
    harness.engine.draining = True
    assert harness.open(GET).fate == RESET
    assert harness.sink.refusals == []


def test_a_worker_that_lags_still_ends_what_has_begun(make: Make) -> None:
    harness = make()
    caller = harness.open(GET)
    upstream = harness.connect()
    press(harness.engine, at(loop_lag=1.0))
    upstream.send(OK)
    assert (caller.take(), caller.fate) == (OK, OPEN)
