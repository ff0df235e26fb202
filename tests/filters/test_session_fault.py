"""Faults of tcp listeners: sessions that begin late, are reset, or hang."""

import socket
import struct
from collections.abc import Callable
from typing import Any, final

import pytest

from sidecar.compiler.snapshot import check
from sidecar.core.tcp import reset_on_close
from sidecar.errors import ConfigErrors
from sidecar.model.snapshot import Snapshot
from sidecar.sources.decode import decode
from tests.core.harness import Harness, tree
from tests.core.transport import CLOSED, OPEN, RESET, FakeTransport

Make = Callable[..., Harness]


def faulty(make: Make, *faults: dict[str, Any], **more: Any) -> Harness:
    return make(protocol="tcp", route={"faults": list(faults)}, **more)


def test_a_late_session_keeps_what_was_said_meanwhile(make: Make) -> None:
    harness = faulty(make, {"name": "late", "delay": "2s"})
    caller = harness.open(b"early")
    harness.advance(1.9)
    assert harness.dials == []
    harness.advance(0.2)
    upstream = harness.connect()
    assert upstream.take() == b"early"
    caller.send(b"later")
    assert upstream.take() == b"later"
    caller.lose()
    assert harness.sink.sessions[0][1:3] == ("", "DI")


def test_an_end_that_comes_while_it_waits_is_passed_on(make: Make) -> None:
    harness = faulty(make, {"delay": "2s"})
    caller = harness.open()
    caller.end()
    harness.advance(2.1)
    upstream = harness.connect()
    assert upstream.fate != OPEN
    upstream.send(b"answer")
    assert caller.take() == b"answer"
    upstream.end()
    assert caller.fate == CLOSED


@pytest.mark.parametrize("delay", [{}, {"delay": "2s"}])
def test_a_reset_session_goes_nowhere(make: Make, delay: dict[str, Any]) -> None:
    harness = faulty(make, {"name": "cut", "abort": {"reset": True}, **delay})
    caller = harness.open(b"early")
    if delay:
        assert caller.fate == OPEN
        harness.advance(2.1)
    assert caller.fate == RESET
    assert harness.dials == []
    assert harness.sink.sessions[0][1:3] == ("fault-abort", "FI")


@pytest.mark.parametrize("end", ["end", "lose"])
def test_a_session_in_a_black_hole_hangs_until_its_caller_gives_up(make: Make, end: str) -> None:
    harness = faulty(make, {"abort": {"black_hole": True}, "max_active": 1})
    caller = harness.open(b"early")
    for _ in range(10):
        caller.send(b"x" * 100_000)
    harness.advance(3000)
    assert (caller.fate, caller.waiting, caller.take()) == (OPEN, 0, b"")
    harness.open(b"other")
    assert harness.connect().take() == b"other"  # there is room for one
    getattr(caller, end)()
    assert caller.is_gone
    assert harness.sink.sessions[0][1:3] == ("", "FI")


def test_a_black_hole_is_idle_sometime(make: Make) -> None:
    harness = faulty(make, {"abort": {"black_hole": True}}, listener={"idle_timeout": "10s"})
    caller = harness.open()
    harness.advance(10.1)
    assert caller.is_gone
    assert harness.sink.sessions[0].code == "stream-idle"


def test_a_black_hole_without_an_idle_timeout_has_no_end(make: Make) -> None:
    harness = faulty(make, {"abort": {"black_hole": True}}, listener={"idle_timeout": 0})
    caller = harness.open()
    harness.advance(1e6)
    assert caller.fate == OPEN


def test_a_delay_may_be_longer_than_sessions_may_be_idle(make: Make) -> None:
    harness = faulty(make, {"delay": "5s"}, listener={"idle_timeout": "2s"})
    harness.open(b"early")
    harness.advance(2.1)
    assert harness.sink.sessions[0].code == "stream-idle"


def test_faults_are_asked_one_after_the_other(make: Make) -> None:
    harness = faulty(make, {"delay": "1s"}, {"delay": "1s"}, {"abort": {"reset": True}})
    caller = harness.open()
    harness.advance(1.9)
    assert caller.fate == OPEN
    harness.advance(0.2)
    assert caller.fate == RESET


@pytest.mark.parametrize("part", ["delay", "abort"])
def test_a_share_of_the_sessions_is_drawn_to_one_in_ten_thousand(make: Make, part: str) -> None:
    what: dict[str, Any] = {"fixed": 1} if part == "delay" else {"reset": True}
    harness = faulty(make, {part: {**what, "percent": "0.01%"}})
    harness.chance = 0.0001
    harness.open(b"a")
    assert harness.connect().take() == b"a"
    harness.chance = 0.00009
    harness.open(b"b")
    assert len(harness.begun) == 0
    harness.advance(2)


def test_it_befalls_those_that_match(make: Make) -> None:
    harness = faulty(make, {"match": {"ports": [9]}, "abort": {"reset": True}})
    assert harness.open(b"a").fate == OPEN
    assert harness.connect().take() == b"a"


def test_a_fault_ends(make: Make) -> None:
    harness = faulty(make, {"abort": {"reset": True}, "lifetime": "10s"})
    assert harness.open().fate == RESET
    harness.advance(10.1)
    assert harness.open().fate == OPEN


def test_a_cluster_that_is_full_by_then_takes_no_late_session(make: Make) -> None:
    harness = faulty(make, {"delay": "1s"}, limits={"connections": 1})
    callers = [harness.open() for _ in range(2)]
    harness.advance(1.1)
    harness.connect()
    assert [caller.fate for caller in callers] == [OPEN, RESET]
    assert harness.sink.sessions[0].code == "pending-overflow"


@pytest.mark.parametrize(
    ("fault", "path", "text"),
    [
        ({"throughput": 9}, ".throughput", "a tcp listener sees no requests"),
        ({"by_header": {}}, ".by_header", "a tcp listener sees no requests"),
        ({"abort": 503}, ".abort", "a tcp listener answers nothing: expected reset or black_hole"),
        ({"delay": 1, "match": {"path": "/"}}, ".match", "a tcp listener can match `peer`, `ports` and `percent` only"),
    ],
)  # fmt: skip
def test_what_only_requests_have_is_refused(fault: Any, path: str, text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(decode(tree(protocol="tcp", route={"faults": [fault]}), Snapshot), None)
    assert [(e.path, e.detail) for e in caught.value.errors] == [
        (f"outbound[0].routes[0].faults[0]{path}", text)
    ]


@final
class Sock:
    def __init__(self) -> None:
        self.options: list[tuple[int, int, bytes]] = []

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        self.options.append((level, name, value))


@final
class Wired(FakeTransport):  # type: ignore[misc] # one with a socket
    def __init__(self, sock: Sock) -> None:
        super().__init__(lambda call: call())
        self.sock = sock

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.sock if name == "socket" else default


def test_a_reset_throws_away_what_is_unsent() -> None:
    sock = Sock()
    reset_on_close(Wired(sock))
    assert sock.options == [(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))]
    reset_on_close(FakeTransport(lambda call: call()))
