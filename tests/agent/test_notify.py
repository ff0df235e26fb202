"""The service manager is spoken to, and never waited for."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.agent.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def heard(manager: socket.socket) -> list[str]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(manager.recv(500).decode())
    return found


def test_a_manager_that_does_not_read_is_not_waited_for(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(manager.getsockname())})
    count = 5000  # more than any queue of datagrams holds
    for _ in range(count):
        notifier.alive()

    assert 0 < len(heard(manager)) < count
    notifier.ready("again")
    assert heard(manager) == ["READY=1\nSTATUS=again"]


@pytest.mark.parametrize("path", ["", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(path: str) -> None:
    Notifier({"NOTIFY_SOCKET": path}).ready("fine")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
    ],
    ids=["no watchdog", "ours", "another's"],
)
def test_how_often_the_watchdog_is_fed(environ: dict[str, str], seconds: float) -> None:
    assert Notifier(environ).watchdog == seconds
