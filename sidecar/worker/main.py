"""The worker process: it forwards, by plans that the agent sends it."""

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import traceback
from typing import Final, final

import uvloop

from sidecar import __version__
from sidecar.compiler.clusters import make_endpoint
from sidecar.compiler.snapshot import compile_snapshot
from sidecar.core.api import Sink
from sidecar.core.book import Book
from sidecar.core.types import Engine
from sidecar.errors import ConfigErrors
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.apply import Runner
from sidecar.runtime.channel import Channel
from sidecar.runtime.clock import Clock, wall
from sidecar.runtime.dial import Dialler
from sidecar.runtime.log_writer import INTERVAL, LogWriter
from sidecar.runtime.messages import (
    Ack,
    Apply,
    Down,
    Drain,
    Drained,
    Endpoints,
    EndpointStatus,
    Hello,
    Nack,
    Reopen,
    Report,
    Sample,
    Secrets,
    Stats,
)
from sidecar.telemetry.access_log import AccessLogSink
from sidecar.telemetry.metrics import MetricsSink

REPORT_INTERVAL: Final = 1.0  # seconds between reports of numbers
DRAIN_CHECK: Final = 0.05  # seconds between looks at whether all is finished


@final
class Worker:
    """Composition root of the child process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, index: int, state_dir: str) -> None:
        self._loop: Final = loop
        self._index: Final = index
        self._state_dir: Final = state_dir
        self._clock: Final = Clock(loop)
        self._engine: Final = Engine(
            loop.time, wall, self._clock.wheel, bug=self._bug, later=loop.call_soon
        )
        self._runner: Final = Runner(loop, self._engine)
        self._dialler: Final = Dialler(loop, self._bug)
        self._book: Final = Book()
        self._snapshot: Snapshot | None = None
        self._secret: Secret | None = None
        self._metrics: MetricsSink | None = None
        self._log: LogWriter | None = None
        self._channel: Channel[Down] | None = None
        self._orphan: asyncio.AbstractServer | None = None
        self._pushes: Final[asyncio.Queue[tuple[Down, list[int]]]] = asyncio.Queue()
        self._bugs = 0
        self.done: Final = asyncio.Event()

    async def run(self, sock: socket.socket) -> None:
        """Serve until drained."""
        self._attach(sock, adopted=False)
        self._loop.add_signal_handler(signal.SIGTERM, self._terminated)
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)  # the agent decides
        self._loop.call_later(REPORT_INTERVAL, self._every_second)
        self._loop.call_later(INTERVAL, self._flush)
        handler = asyncio.ensure_future(self._handle())  # noqa: TID251 - held right here
        await self.done.wait()
        handler.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await handler
        if self._log is not None:
            self._log.close()

    # The channel:

    def _attach(self, sock: socket.socket, *, adopted: bool) -> None:
        self._channel = Channel(self._loop, sock, Down, self._received, self._orphaned)
        plan = self._runner.plan
        sockets = self._runner.sockets
        self._channel.send(
            Hello(os.getpid(), __version__, plan.version if plan else "", tuple(sockets)),
            [s.fileno() for s in sockets.values()] if adopted else (),
        )

    def _received(self, message: Down, descriptors: list[int]) -> None:
        self._pushes.put_nowait((message, descriptors))

    def _orphaned(self) -> None:
        """The agent is gone: serve on, and wait for another one to come."""
        self._channel = None
        if self._engine.draining or not self._runner.listeners:
            self.done.set() if not self._runner.connections else None
            return
        path = os.path.join(self._state_dir, f"worker-{self._index}.sock")
        self._pushes.put_nowait((Report(), []))  # wakes the handler, which may be waiting

        async def listen() -> None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            previous = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(previous)
            sock.listen(1)
            with sock:
                taken, _ = await self._loop.sock_accept(sock)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._attach(taken, adopted=True)

        self._waiter = asyncio.ensure_future(listen())  # noqa: TID251 - held by self

    async def _handle(self) -> None:
        """Do what the agent says, one message after the other."""
        while True:
            message, descriptors = await self._pushes.get()
            try:
                await self._do(message, descriptors)
            except Exception as error:  # noqa: BLE001 - a bad message must not end the forwarding
                self._bug("worker", error)

    async def _do(self, message: Down, descriptors: list[int]) -> None:
        if self._engine.draining and not isinstance(message, Report):
            for descriptor in descriptors:
                os.close(descriptor)
        elif isinstance(message, Apply):
            for address, descriptor in zip(message.addresses, descriptors, strict=True):
                old = self._runner.sockets.pop(address, None)
                if old is not None:
                    old.close()
                self._runner.sockets[address] = socket.socket(fileno=descriptor)
            await self._apply(message.snapshot, message.secret, message.version)
        elif isinstance(message, Secrets):
            if self._snapshot is not None:
                await self._apply(self._snapshot, message.secret, "")
        elif isinstance(message, Endpoints):
            self._book.cluster(message.cluster).resolved = message.addresses
            for address in message.addresses:
                make_endpoint(address)  # a bad address is refused before anything is touched
            if self._snapshot is not None:
                await self._apply(self._snapshot, self._secret, "")
        elif isinstance(message, Drain):
            self._drain(message.seconds)
        elif isinstance(message, Reopen):
            if self._log is not None:
                self._log.reopen()
        else:
            self._report()

    async def _apply(self, snapshot: Snapshot, secret: Secret | None, version: str) -> None:
        try:
            plan = compile_snapshot(snapshot, secret, self._book, self._dialler)
        except ConfigErrors as errors:
            if self._channel is not None:
                found = tuple((e.path, e.detail) for e in errors.errors)
                self._channel.send(Nack(version, found))
            return
        plan.sinks = self._sinks(snapshot)
        self._engine.sampling = snapshot.telemetry.tracing.sampling / 100
        await self._runner.apply(plan)
        self._snapshot, self._secret = snapshot, secret
        # What has lived until now lives on: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        if version and self._channel is not None:
            self._channel.send(Ack(version))

    def _sinks(self, snapshot: Snapshot) -> tuple[Sink, ...]:
        telemetry, old = snapshot.telemetry, self._snapshot
        if self._metrics is None:
            name = snapshot.workload.name
            self._metrics = MetricsSink(
                name, snapshot.workload.identity, telemetry.metrics.max_series
            )
        if old is None or old.telemetry.access_log.path != telemetry.access_log.path:
            if self._log is not None:
                self._log.close()
            path = telemetry.access_log.path
            self._log = LogWriter(path) if path != "off" else None
        if self._log is None:
            return (self._metrics,)
        return (self._metrics, AccessLogSink(self._log.write, telemetry.access_log.format))

    # Numbers:

    def _every_second(self) -> None:
        self._loop.call_later(REPORT_INTERVAL, self._every_second)
        self._report()

    def _flush(self) -> None:
        self._loop.call_later(INTERVAL, self._flush)
        if self._log is not None:
            self._log.flush()

    def _report(self) -> None:
        if self._channel is None:
            return
        samples = []
        if self._metrics is not None:
            samples = [Sample(*row) for row in self._metrics.rows()]
        dropped = self._log.dropped if self._log is not None else 0
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for name, value in (
            ("sidecar_access_log_dropped_total", dropped),
            ("sidecar_bugs_total", self._bugs),
            ("sidecar_downstream_connections_active", self._runner.connections),
            ("sidecar_worker_max_resident_bytes", memory),
        ):
            samples.append(Sample(name, (), (float(value),)))
        endpoints = [
            EndpointStatus(
                name, e.address, e.weight, e.active, e.connections, e.idle, e.requests,
                e.failures, e.available,
            )
            for name, state in self._book.clusters.items()
            for e in state.endpoints.values()
        ]  # fmt: skip
        self._channel.send(Stats(tuple(samples), tuple(endpoints)))

    def _bug(self, where: str, error: BaseException) -> None:
        self._bugs += 1
        if self._bugs <= 20:  # enough to mend it; a flood would help nobody
            lines = traceback.format_exception(error)
            sys.stderr.write(f"level=error msg=bug where={where}\n{''.join(lines)}")

    # The end:

    def _terminated(self) -> None:
        """SIGTERM: with an agent it is the agent's to decide; without one, drain."""
        if self._channel is None:
            seconds = self._snapshot.process.drain_timeout if self._snapshot else 0.0
            self._drain(seconds)

    def _drain(self, seconds: float) -> None:
        if self._engine.draining:
            return
        self._runner.stop()
        self._drain_on(self._loop.time() + seconds)

    def _drain_on(self, deadline: float) -> None:
        if self._runner.connections and self._loop.time() < deadline:
            self._loop.call_later(DRAIN_CHECK, self._drain_on, deadline)
            return
        self._runner.abort()
        self._report()
        if self._channel is not None:
            self._channel.send(Drained())
        self._loop.call_later(DRAIN_CHECK, self.done.set)


def main() -> None:
    """Run a worker: `python -m sidecar.worker --channel FD --index N --state DIR`."""
    parser = argparse.ArgumentParser(prog="sidecar.worker", description=__doc__)
    parser.add_argument(
        "--channel", type=int, required=True, help="descriptor of the agent's socket"
    )
    parser.add_argument("--index", type=int, default=0, help="which worker this is")
    parser.add_argument("--state", required=True, help="directory for the socket of an orphan")
    arguments = parser.parse_args()
    sock = socket.socket(fileno=arguments.channel)
    gc.set_threshold(50_000, 20, 50)  # few cycles are made here; pauses are what spoils p99

    async def serve() -> None:
        worker = Worker(asyncio.get_running_loop(), arguments.index, arguments.state)
        await worker.run(sock)

    uvloop.run(serve())
