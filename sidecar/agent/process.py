"""A worker's process: how it is started, how its end is learned, how it is ended."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Protocol, final

LOOK: Final = 0.1  # seconds between looks at a process, where the kernel cannot tell us of its end


class Process(Protocol):
    """What the agent needs of a process."""

    @property
    def pid(self) -> int:
        """Its number; good for messages, not for signals: the kernel uses numbers again."""

    @property
    def ended(self) -> asyncio.Event:
        """Set once it is gone, and reaped if it was our child."""

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if it is gone."""


@final
class Watched:
    """A real process: our child, or, with `child` None, one that another agent started.

    `pidfd` is how the kernel is asked for a handle of it.
    """

    def __init__(
        self,
        pid: int,
        child: "subprocess.Popen[bytes] | None" = None,
        pidfd: Callable[[int], int] = os.pidfd_open,
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._child: Final = child
        self.pid: Final = pid
        self.ended: Final = asyncio.Event()
        self._handle = -1
        try:
            self._handle = pidfd(pid)
        except ProcessLookupError:
            self.ended.set()
        except OSError:
            self._look()  # a kernel before 5.3, or a sandbox without it
        else:
            self._loop.add_reader(self._handle, self._end)

    def signal(self, number: int) -> None:
        """See Process."""
        if self.ended.is_set():
            return
        with contextlib.suppress(ProcessLookupError):
            if self._handle >= 0:
                signal.pidfd_send_signal(self._handle, number)
            else:
                os.kill(self.pid, number)

    def _look(self) -> None:
        child = self._child
        if os.path.exists(f"/proc/{self.pid}") if child is None else child.poll() is None:
            self._loop.call_later(LOOK, self._look)
        else:
            self.ended.set()

    def _end(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self._handle = -1
        if self._child is not None:
            self._child.wait()  # it has ended: this reaps it, and does not wait
        self.ended.set()


def launch(index: int, state_dir: str) -> tuple[Process, socket.socket]:
    """Start a worker: its own interpreter, small; return it and our end of a socket pair.

    Raises:
        OSError: no process or descriptor is to be had.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    about = (str(theirs.fileno()), str(index), state_dir)
    command = [sys.executable, "-m", "sidecar.worker", *about]
    try:
        # A session of its own: Ctrl-C on a terminal is for the agent, which drains.
        child = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command, pass_fds=(theirs.fileno(),), start_new_session=True
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Watched(child.pid, child), ours


def peer_of(sock: socket.socket) -> int:
    """Return the pid of the process that listens at the other end of a unix socket."""
    size = struct.calcsize("3i")
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
    return pid
