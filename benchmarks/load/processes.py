"""What processes cost: CPU, memory, descent, and which ports are free."""

import os
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

LAST: Final = (os.cpu_count() or 2) - 1  # the core of load tools and origins
CPUCLOCK_SCHED: Final = 2


def family(pid: int) -> list[int]:
    """Return `pid` and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu(pids: Sequence[int]) -> float:
    """Return seconds of user and system time that `pids` and their descendants have spent.

    Of the process's CPU clock (clock_getcpuclockid(3)), which counts nanoseconds; `/proc/PID/stat`
    rounds to 10 ms, a twentieth of what some loads cost.
    """
    members = [member for pid in pids for member in family(pid)]
    return sum(time.clock_gettime(~member << 3 | CPUCLOCK_SCHED) for member in members)


def pss(pids: Sequence[int]) -> int:
    """Return the octets of memory that they hold, shared pages divided."""
    total = 0
    for member in (member for pid in pids for member in family(pid)):
        text = Path(f"/proc/{member}/smaps_rollup").read_text()
        found = re.search(r"Pss:\s+(\d+) kB", text)
        total += int(found[1]) * 1024 if found else 0
    return total


def free_port() -> int:
    """Return a port that the kernel picked."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Does somebody accept on `port`?"""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def answers(port: int) -> bool:
    """Is a plain HTTP/1.1 request on `port` answered 200?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            return sock.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


class SilentError(Exception):
    """A process that was started does not listen."""


def await_port(port: int, log: Path, seconds: float = 20.0) -> None:
    """Return once somebody accepts on `port`.

    Raises: SilentError, with the end of `log`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if listens(port):
            return
        time.sleep(0.02)
    raise SilentError(f"nothing listens on port {port}; {log} ends: {log.read_text()[-2000:]}")
