"""One worker process: started, spoken to, replaced when it dies, adopted when we are the new one."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final, final

from sidecar import __version__
from sidecar.agent.logs import log
from sidecar.runtime.channel import Channel
from sidecar.runtime.messages import (
    Ack,
    Drain,
    Drained,
    EndpointStatus,
    Hello,
    Nack,
    Sample,
    Stats,
    Up,
)

QUICK_DEATH: Final = 1.0  # seconds; a worker that lives shorter is replaced ever more slowly
BACKOFF: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)  # seconds before the n-th quick restart
ADOPTION: Final = 2.0  # seconds that a worker of an agent before us has to say hello


@final
class Worker:
    """One place for a worker; the processes in it change.

    `on_hello(worker)` is called when a process is ready for a push; `on_gone(samples)` when one
    has ended, with the last numbers it reported.
    """

    def __init__(
        self,
        index: int,
        state_dir: str,
        on_hello: Callable[["Worker"], None],
        on_gone: Callable[[tuple[Sample, ...]], None],
    ) -> None:
        self.index: Final = index
        self._state_dir: Final = state_dir
        self._on_hello: Final = on_hello
        self._on_gone: Final = on_gone
        self._loop: Final = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._quick = 0
        self._stopping = False
        self.channel: Channel[Up] | None = None
        self.pid = 0
        self.restarts = 0
        self.sent: set[str] = set()  # addresses of sockets that this process holds
        self.samples: tuple[Sample, ...] = ()
        self.endpoints: tuple[EndpointStatus, ...] = ()
        self.reported = asyncio.Event()
        self.ended = asyncio.Event()
        self.acks: dict[str, asyncio.Future[Nack | None]] = {}

    def start(self) -> None:
        """Start a process: its own interpreter, small, with one end of a socket pair."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sent = set()
        self._started = self._loop.time()
        command = [
            sys.executable, "-m", "sidecar.worker", "--channel", str(theirs.fileno()),
            "--index", str(self.index), "--state", self._state_dir,
        ]  # fmt: skip
        # A session of its own: Ctrl-C on a terminal is for the agent, which drains.
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command, pass_fds=(theirs.fileno(),), start_new_session=True
        )
        theirs.close()
        self.pid = self._process.pid
        self.ended.clear()
        self.channel = Channel(self._loop, ours, Up, self._received, self._lost)

    async def adopt(self) -> dict[str, socket.socket]:
        """Take over the worker that an agent before us left; return its listening sockets.

        One of another release hands over its sockets and drains.
        """
        path = os.path.join(self._state_dir, f"worker-{self.index}.sock")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.wait_for(self._loop.sock_connect(sock, path), ADOPTION)
        except (OSError, TimeoutError):
            sock.close()
            return {}
        hello: asyncio.Future[tuple[Hello, list[int]]] = self._loop.create_future()

        def received(message: Up, descriptors: list[int]) -> None:
            if isinstance(message, Hello) and not hello.done():
                hello.set_result((message, descriptors))
            else:
                self._received(message, descriptors)

        channel: Channel[Up] = Channel(self._loop, sock, Up, received, self._lost)
        try:
            message, descriptors = await asyncio.wait_for(hello, ADOPTION)
        except TimeoutError:
            channel.close()
            return {}
        sockets = {
            address: socket.socket(fileno=handle)
            for address, handle in zip(message.addresses, descriptors, strict=False)
        }
        if message.release != __version__:
            log.info("worker %d is of release %s: replacing it", self.index, message.release)
            channel.send(Drain(30.0))
            self._left = channel  # kept until it has drained
            return sockets
        log.info("adopted worker %d, pid %d", self.index, message.pid)
        self.channel, self.pid, self.sent = channel, message.pid, set(sockets)
        self._started = self._loop.time()
        self.ended.clear()
        return sockets

    def stop(self, seconds: float) -> None:
        """Ask it to drain; it exits within `seconds`, even if we are gone by then."""
        self._stopping = True
        if self.channel is not None:
            self.channel.send(Drain(seconds))
        else:
            self.ended.set()

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _received(self, message: Up, descriptors: list[int]) -> None:
        if isinstance(message, Hello):
            self._on_hello(self)
        elif isinstance(message, Stats):
            self.samples, self.endpoints = message.samples, message.endpoints
            self.reported.set()
        elif isinstance(message, Ack):
            self._answered(message.version, None)
        elif isinstance(message, Nack):
            self._answered(message.version, message)
        elif isinstance(message, Drained):
            self._stopping = True

    def _answered(self, version: str, nack: Nack | None) -> None:
        waiting = self.acks.pop(version, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(nack)

    def _lost(self) -> None:
        """The process is gone: another one takes its place on the same sockets."""
        self.channel = None
        self._on_gone(self.samples)
        self.samples, self.endpoints = (), ()
        for waiting in self.acks.values():
            if not waiting.done():
                waiting.cancel()
        self.acks.clear()
        if self._process is not None:
            self._reaped = self._loop.run_in_executor(None, self._process.wait)  # no zombie stays
            self._process = None
        self.ended.set()
        if self._stopping:
            return
        self.restarts += 1
        self._quick = self._quick + 1 if self._loop.time() - self._started < QUICK_DEATH else 0
        delay = BACKOFF[min(self._quick, len(BACKOFF) - 1)]
        log.warning(
            "worker %d (pid %d) is gone: another starts in %g s", self.index, self.pid, delay
        )
        self._loop.call_later(delay, self._again)

    def _again(self) -> None:
        if not self._stopping:
            self.start()
