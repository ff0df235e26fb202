"""Workers without processes: real channels over socket pairs, in a time that only the loop moves."""

import asyncio
import functools
import selectors
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from sidecar import __version__
from sidecar.agent.config import Config
from sidecar.agent.process import Process
from sidecar.agent.push import Pusher
from sidecar.agent.sockets import Listening
from sidecar.agent.supervisor import Supervisor
from sidecar.compiler.snapshot import version_of
from sidecar.model.identity import Secret, Workload
from sidecar.model.listener import OutboundListener
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.channel import Channel
from sidecar.runtime.messages import (
    Ack,
    Apply,
    Down,
    Drain,
    Drained,
    Hello,
    Message,
    Nack,
    Sample,
    Secrets,
    Stats,
)
from sidecar.traffic.lease import Ask

LONG: Final = 600.0  # seconds; more than any test has to wait for


class _Selector(selectors.SelectSelector):
    """Never waits: what would take time moves the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or self.now > LONG):
            self.now = 0.0  # what is cleaned up after this may take its time
            raise AssertionError("the test waits for what will never come")
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._selector_of_ours = _Selector()
        super().__init__(self._selector_of_ours)
        self.doubles: list[Double] = []
        self.is_over = False

    def time(self) -> float:
        return self._selector_of_ours.now


Test = Callable[..., Coroutine[Any, Any, None]]


def in_no_time(test: Test) -> Callable[..., None]:
    """Run an async test in a loop whose clock jumps to the next timer when nothing else is due."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(_whole(test(*args, **kwargs)))

    return run


async def _whole(test: Coroutine[Any, Any, None]) -> None:
    """Run a test, then end all that it left."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    try:
        await test
    finally:
        loop.is_over = True
        for double in loop.doubles:
            double.die()
        await settle()


class Double:
    """What stands for a worker's process: the other end of its channel, played by the test."""

    def __init__(self, number: int, *, index: int = 0) -> None:
        self.pid = 1000 + number
        self.index = index
        self.ended = asyncio.Event()
        self.signals: list[int] = []
        self.heard: list[Down] = []
        self.holds: tuple[str, ...] = ()  # what the plan that runs needs
        self.is_lost = False
        self.is_stubborn = False  # does not even heed SIGKILL, for a while
        self._news = asyncio.Event()
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        self.channel: Channel[Down] = Channel(loop, theirs, Down, self._hear, self._lose)
        assert isinstance(loop, _Loop)
        loop.doubles.append(self)

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL and not self.is_stubborn:
            self.die()

    def hello(self, release: str = __version__, addresses: tuple[str, ...] = ()) -> None:
        self.channel.send(Hello(self.pid, release, "", addresses))

    def say(self, message: Message) -> None:
        self.channel.send(message)

    def count(self, value: float) -> None:
        """Report one counter."""
        self.say(Stats((Sample("x_total", (), (value,)),), ()))

    def ack(self) -> None:
        """Take the last push."""
        push = self.pushes()[-1]
        if isinstance(push, Apply):
            self.holds = tuple(x.address for x in push.snapshot.outbound)
        self.say(Ack(push.serial, push.version))

    def nack(self, detail: str) -> None:
        """Refuse the last push; the sockets of the plan before are kept."""
        push = self.pushes()[-1]
        self.say(Nack(push.serial, push.version, (("", detail),), self.holds))

    def die(self) -> None:
        self.channel.close()
        self.ended.set()

    def pushes(self) -> list[Apply | Secrets]:
        return [m for m in self.heard if isinstance(m, Apply | Secrets)]

    def versions(self) -> list[str]:
        return [push.version for push in self.pushes()]

    def drains(self) -> list[float]:
        return [m.seconds for m in self.heard if isinstance(m, Drain)]

    async def pushed(self, times: int = 1) -> None:
        """Wait until it was pushed to so often."""
        while len(self.pushes()) < times:
            self._news.clear()
            await self._news.wait()

    def _hear(self, message: Down, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            socket.close(descriptor)
        self.heard.append(message)
        self._news.set()
        if isinstance(message, Drain):
            self.say(Drained())

    def _lose(self) -> None:
        self.is_lost = True


class Bench:
    """A supervisor and a pusher, and the doubles that were started for them."""

    def __init__(self, places: int = 1) -> None:
        self.listening = Listening()
        self.health: dict[str, dict[str, bool]] = {}
        self.pusher = Pusher(self.listening, lambda snapshot: {}, health=lambda _: self.health)
        self.gone: list[tuple[Sample, ...]] = []
        self.asked: list[tuple[Ask, ...]] = []
        self.supervisor = Supervisor(
            self.launch,
            self.pusher,
            self.gone.append,
            lambda worker, message: self.asked.append(message.asks),
        )
        self.started: list[Double] = []
        self.starts: list[float] = []  # moments
        self.refusals = 0  # how many starts the system does not allow
        self.places = places
        self._news = asyncio.Event()

    def launch(self, index: int) -> tuple[Process, socket.socket]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        self.starts.append(loop.time())
        if self.refusals or loop.is_over:
            self.refusals -= 1
            raise OSError(11, "no more processes")
        double = Double(len(self.started), index=index)
        self.started.append(double)
        self._news.set()
        return double, double.ours

    async def start(self) -> list[Double]:
        """Start a worker in every place; each says hello."""
        self.supervisor.adopt((), self.places, 30.0)
        self.supervisor.fill()
        for double in self.started:
            double.hello()
        return self.started

    async def until_started(self, count: int) -> Double:
        """Wait until so many were started in all; return the last."""
        while len(self.started) < count:
            self._news.clear()
            await self._news.wait()
        return self.started[count - 1]

    async def run(self, config: Config) -> list[Double]:
        """Start all, and have all run `config`."""
        doubles = await self.start()
        push = asyncio.ensure_future(self.push(config))  # noqa: TID251 - awaited below
        for double in doubles:
            await double.pushed()
            double.ack()
        await push
        return doubles

    async def push(self, config: Config) -> None:
        await self.pusher.push(config, [p.index for p in self.supervisor.places])


def config(name: str, *addresses: str, secret: Secret | None = None) -> Config:
    """A config that differs from others by the workload's name."""
    listeners = tuple(OutboundListener(address=a, cluster="c") for a in addresses)
    snapshot = Snapshot(workload=Workload(name=name), outbound=listeners)
    return Config(snapshot, secret, version_of(snapshot))


async def settle() -> None:
    """Let everything happen that is due now."""
    await asyncio.sleep(0.001)
