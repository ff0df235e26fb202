"""The end of a process is learned, whoever started it, and no child stays unreaped."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.agent.process import Watched, peer_of
from sidecar.agent.sockets import Listening
from sidecar.errors import OperationError

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]
# Starts a process of its own, tells its pid, and ends: whoever it is, it is not our child.
FOSTER = (
    "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL).pid)"
)


def no_pidfd(pid: int) -> int:
    """What a kernel says that has none."""
    raise OSError(errno.ENOSYS, "not here")


both_ways = pytest.mark.parametrize("pidfd", [os.pidfd_open, no_pidfd])


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


@pytest.fixture
def foster_child() -> Iterator[int]:
    told = subprocess.run([sys.executable, "-c", FOSTER], stdout=subprocess.PIPE, timeout=20)
    pid = int(told.stdout)
    yield pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_known(pid: int) -> bool:
    """Whether the kernel has such a process; one that waits to be reaped counts."""
    return os.path.exists(f"/proc/{pid}")


@both_ways
async def test_a_child_is_reaped_when_it_ends(
    child: "subprocess.Popen[bytes]", pidfd: Callable[[int], int]
) -> None:
    process = Watched(child.pid, child, pidfd)
    assert not process.ended.is_set()
    process.signal(signal.SIGKILL)
    await process.ended.wait()

    assert child.returncode == -signal.SIGKILL
    assert not is_known(child.pid)
    process.signal(signal.SIGKILL)  # to nobody: its number may be another's by now


async def test_the_end_of_anothers_child_is_learned(foster_child: int) -> None:
    process = Watched(foster_child)
    assert not process.ended.is_set()
    process.signal(signal.SIGTERM)
    await process.ended.wait()


@both_ways
async def test_a_process_that_is_gone_already_has_ended(
    child: "subprocess.Popen[bytes]", pidfd: Callable[[int], int]
) -> None:
    child.kill()
    child.wait(20)

    assert Watched(child.pid, pidfd=pidfd).ended.is_set()


def test_who_listens_at_the_other_end(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(path)
        listener.listen()
        caller.connect(path)
        assert peer_of(caller) == os.getpid()


@pytest.mark.parametrize("wrong", ["127.0.0.1:70000", "127.0.0.1:x"])
def test_what_is_no_address_binds_nothing(tmp_path: Path, wrong: str) -> None:
    listening = Listening()
    right = f"unix:{tmp_path}/a"
    with pytest.raises(OperationError, match="cannot listen on 127"):
        listening.bind([right, wrong])

    assert list(tmp_path.iterdir()) == []
    assert listening.bind([right]) == [right]
    listening.close()
