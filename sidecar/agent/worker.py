"""One worker process as the agent sees it: what it was told, what it said, whether it lives."""

import asyncio
import signal
import socket
from collections.abc import Sequence
from typing import Final, final

from sidecar.agent.logs import bug, log
from sidecar.agent.process import Process
from sidecar.runtime.channel import Channel
from sidecar.runtime.messages import (
    DUMP,
    Ack,
    Asks,
    Drain,
    Drained,
    EndpointStatus,
    Grants,
    Hello,
    Message,
    Nack,
    Report,
    Sample,
    Stats,
    Up,
)
from sidecar.runtime.tasks import spawn
from sidecar.traffic.lease import Granted

LINGER: Final = 1.0  # seconds that a process may outlive its channel
DUMPING: Final = 0.25  # seconds that a dump of stacks may take
DRAIN_SLACK: Final = 3.0  # seconds after a drain to write the rest of the access log and exit

STARTING, GREETED, RUNNING, LEAVING, GONE = range(5)
STATE_NAMES: Final = ("starting", "greeted", "running", "leaving", "gone")
# STEPS[state] has a bit for each state one step away.
# STARTING: no hello yet.  GREETED: it can be pushed to.  RUNNING: it has acked a push.
# LEAVING: it drains, is being ended, or has lost its channel.  GONE: its process has ended.
STEPS: Final = (
    1 << GREETED | 1 << LEAVING,  # STARTING
    1 << RUNNING | 1 << LEAVING,  # GREETED
    1 << LEAVING,  # RUNNING
    1 << GONE,  # LEAVING
    0,  # GONE
)


class Watch:
    """Who is told what becomes of a worker; each method is told which."""

    def greeted(self, worker: "Worker") -> None:
        """It can be pushed to."""

    def answered(self, worker: "Worker", answer: Ack | Nack) -> None:
        """It has taken or refused a push."""

    def asked(self, worker: "Worker", asks: Asks) -> None:
        """It wants some of a quota that is shared; before anybody leads it, nobody can tell."""
        lost = [Granted(ask.number, None) for ask in asks.asks if ask.number]
        worker.answer(Grants(tuple(lost)))

    def gone(self, worker: "Worker") -> None:
        """Its process has ended; all it ever said has been told."""


@final
class Worker:
    """A process and its channel.

    A successor in the same place is another object with a channel of its own, so nothing that this
    one still says is ever taken for the successor's.
    """

    def __init__(
        self, index: int, process: Process, sock: socket.socket, watch: Watch, *, is_ours: bool
    ) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._process: Final = process
        self.is_ours: Final = is_ours  # started by this agent
        self._deadline: asyncio.TimerHandle | None = None
        self._state = STARTING
        self.watch = watch
        self.index = index
        self.started: Final = self._loop.time()
        self.release = ""
        self.cause = ""  # why we ended it; empty: it ended by itself
        self.serial = 0  # of the last push that it was sent
        self.answered = 0  # of the last push that it took or refused
        self.acked = 0  # of the last push that it took
        self.version = ""  # of the plan that this made it run
        self.holds: set[str] = set()  # addresses of the listening sockets that it has
        self.handed_over: dict[str, socket.socket] = {}  # copies of them, when it was an orphan
        self.silent = 0  # ticks of the agent since its last word
        self.unanswered = 0  # ticks of the agent since a push that it has not answered
        self.samples: tuple[Sample, ...] = ()
        self.endpoints: tuple[EndpointStatus, ...] = ()
        self.reported: Final = asyncio.Event()
        self.settled: Final = asyncio.Event()  # set once no longer STARTING
        self.parted: Final = asyncio.Event()  # set once GONE
        self._channel: Final[Channel[Up]] = Channel(
            self._loop, sock, Up, self._received, self._lost
        )
        self._end: Final = spawn(self._await_end(), name=f"worker {process.pid}", on_error=bug)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def state(self) -> int:
        """One of STATE_NAMES."""
        return self._state

    @property
    def is_busy(self) -> bool:
        """Say whether an answer to a push is still to come."""
        return self.serial != self.answered

    @property
    def is_reachable(self) -> bool:
        """Say whether it can be pushed to."""
        return self._state in (GREETED, RUNNING)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send what needs no answer; one that is not reachable is not told.

        Raises:
            OSError: the limit of open files does not allow it.
        """
        if self.is_reachable:
            self._channel.send(message, fds)

    def answer(self, message: Message) -> None:
        """Send what it has asked for; also one that drains has requests that wait for it."""
        self._channel.send(message)

    async def report(self) -> None:
        """Ask for numbers, and wait until they have come."""
        self.reported.clear()
        self._channel.send(Report())
        await self.reported.wait()

    def terminate(self) -> None:
        """Ask what may be an orphan, and has not said hello, to drain; others do not heed it."""
        self._process.signal(signal.SIGTERM)

    def drain(self, seconds: float) -> None:
        """Ask it to finish and exit within `seconds`; it does so even if we are gone by then."""
        self._channel.send(Drain(seconds))
        self._leave()
        self._end_in(seconds + DRAIN_SLACK)

    def end(self, cause: str) -> None:
        """End it at once."""
        self.cause = self.cause or cause
        self._leave()
        self._kill()

    def dump_and_end(self, cause: str) -> None:
        """Have it write where it is stuck, then end it."""
        self.cause = self.cause or cause
        self._leave()
        self._channel.close()  # one that wakes up now must not do what it was told meanwhile
        self._process.signal(DUMP)
        self._end_in(DUMPING)

    def let_be(self) -> None:
        """Have no more to do with it: it serves on, and waits for the next agent."""
        self._end.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        self._channel.close()

    def _received(self, message: Up, descriptors: list[int]) -> None:
        self.silent = 0
        if isinstance(message, Hello):
            self._hello(message, descriptors)
        elif isinstance(message, Stats):
            self.samples, self.endpoints = message.samples, message.endpoints
            self.reported.set()
        elif isinstance(message, Asks):
            self.watch.asked(self, message)
        elif isinstance(message, Drained):
            self._leave()
            self._end_in(DRAIN_SLACK)
        else:
            self.answered, self.unanswered = message.serial, 0
            if isinstance(message, Ack):
                self.acked, self.version = message.serial, message.version
                if self._state == GREETED:
                    self._step(RUNNING)
            self.watch.answered(self, message)

    def _hello(self, message: Hello, descriptors: list[int]) -> None:
        self.release = message.release
        self.handed_over = {
            address: socket.socket(fileno=handle)
            for address, handle in zip(message.addresses, descriptors, strict=False)
        }
        self.holds = set(self.handed_over)
        if self._state == STARTING:
            self._step(GREETED)
            self.watch.greeted(self)

    def _lost(self) -> None:
        """The channel is closed: the process has ended, or must end, since nobody leads it."""
        if self._state == GONE:
            return
        is_known = self.is_ours or self._state != STARTING
        self._leave()
        if is_known:  # else it may have another agent than us
            self._end_in(LINGER)

    async def _await_end(self) -> None:
        await self._process.ended.wait()
        if self._deadline is not None:
            self._deadline.cancel()
        self._leave()
        self._channel.finish()
        self._step(GONE)
        self.parted.set()
        self.watch.gone(self)

    def _leave(self) -> None:
        if self._state < LEAVING:
            self._step(LEAVING)

    def _end_in(self, seconds: float) -> None:
        """Kill it if it lives on after `seconds`; the earliest of several moments counts."""
        when = self._loop.time() + seconds
        if self._deadline is None or when < self._deadline.when():
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self._loop.call_at(when, self._kill)

    def _kill(self) -> None:
        log.debug("worker %d (pid %d) is killed", self.index, self.pid)
        self._process.signal(signal.SIGKILL)

    def _step(self, to: int) -> None:
        """Move to state `to`; a step that STEPS does not list is a bug."""
        if not STEPS[self._state] >> to & 1:
            raise AssertionError(f"{STATE_NAMES[self._state]} -> {STATE_NAMES[to]} is no step")
        self._state = to
        self.settled.set()
