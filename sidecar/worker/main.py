"""The worker process: it forwards, by plans that the agent sends it."""

import asyncio
import contextlib
import faulthandler
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
from sidecar.compiler.snapshot import compile_snapshot
from sidecar.core.api import Sink
from sidecar.core.book import Book
from sidecar.core.quota import Desk
from sidecar.core.types import Engine
from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.apply import Runner
from sidecar.runtime.channel import Channel
from sidecar.runtime.clock import Clock, stopwatch, wall
from sidecar.runtime.dial import Dialler
from sidecar.runtime.log_writer import INTERVAL, LogWriter
from sidecar.runtime.messages import (
    DUMP,
    Ack,
    Apply,
    Asks,
    Down,
    Drain,
    Drained,
    Endpoints,
    EndpointStatus,
    Grants,
    Health,
    Hello,
    Nack,
    Reopen,
    Report,
    Sample,
    Secrets,
    Stats,
)
from sidecar.runtime.pressure import Monitor, raise_descriptor_limit
from sidecar.runtime.tasks import background, spawn
from sidecar.telemetry.access_log import AccessLogSink
from sidecar.telemetry.metrics import MetricsSink, ejections, guards, hedges, quotas
from sidecar.traffic.lease import Ask

REPORT_INTERVAL: Final = 1.0  # seconds between reports of numbers
DRAIN_CHECK: Final = 0.05  # seconds between looks at whether all is finished
ORPHAN_RETRY: Final = 5.0  # seconds until an orphan tries again to be found
BATCH: Final = 32  # exchanges that sinks are told of at once; their lines take 0.1 ms


@final
class Worker:
    """Composition root of the child process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, index: int, state_dir: str) -> None:
        self._loop: Final = loop
        self._index: Final = index
        self._state_dir: Final = state_dir
        self._clock: Final = Clock(loop)
        self._engine: Final = Engine(
            loop.time,
            wall,
            self._clock.wheel,
            bug=self._bug,
            later=loop.call_soon,
            tell=_tell,
            stopwatch=stopwatch,
            background=background,
        )
        self._desk: Final = Desk(self._engine, self._post)
        self._engine.desk = self._desk
        self._engine.batch = BATCH
        self._runner: Final = Runner(loop, self._engine)
        self._dialler: Final = Dialler(loop, self._bug)
        self._book: Final = Book()
        self._snapshot: Snapshot | None = None
        self._secret: Secret | None = None
        self._metrics: MetricsSink | None = None
        self._log: LogWriter | None = None
        self._channel: Channel[Down] | None = None
        self._waiter: asyncio.Task[None] | None = None  # while we are an orphan
        self._inbox: Final[asyncio.Queue[tuple[Channel[Down], Down, list[int]]]] = asyncio.Queue()
        self._bugs = 0
        limit = raise_descriptor_limit()
        self._monitor: Final = Monitor(self._engine, self._book, INTERVAL, limit)
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
        self._engine.tell_ended()
        if self._log is not None:
            self._log.close()

    # The channel:

    def _attach(self, sock: socket.socket, *, adopted: bool) -> None:
        # What is answered goes to who asked: this agent may be gone, and another here, by then.
        channel: Channel[Down] = Channel(
            self._loop,
            sock,
            Down,
            lambda message, fds: self._received(channel, message, fds),
            lambda: self._orphaned(channel),
        )
        self._channel = channel
        plan = self._runner.plan
        sockets = self._runner.sockets
        channel.send(
            Hello(os.getpid(), __version__, plan.version if plan else "", tuple(sockets)),
            [s.fileno() for s in sockets.values()] if adopted else (),
        )

    def _received(self, channel: Channel[Down], message: Down, descriptors: list[int]) -> None:
        if isinstance(message, Grants):
            self._desk.answered(message.answers)  # requests wait for it: not behind a push
        else:
            self._inbox.put_nowait((channel, message, descriptors))

    def _post(self, asks: tuple[Ask, ...]) -> bool:
        """Ask the agent about shared quota; say whether there is one."""
        if self._channel is None:
            return False
        self._channel.send(Asks(asks))
        return True

    def _orphaned(self, channel: Channel[Down]) -> None:
        """The agent is gone: serve on, and wait for another one to come."""
        if channel is not self._channel:
            return
        self._channel = None
        self._desk.lost()
        if self._engine.draining:
            return  # which ends us
        if not self._runner.listeners:
            self.done.set()
            return
        self._waiter = spawn(self._wait_for_agent(), name="orphan", on_error=self._bug)

    async def _wait_for_agent(self) -> None:
        path = os.path.join(self._state_dir, f"worker-{self._index}-{os.getpid()}.sock")
        failed = False
        sock: socket.socket | None = None
        while sock is None:
            try:
                sock = _listen_alone(path)
            except OSError as error:
                if not failed:
                    sys.stderr.write(
                        f'level=error msg="cannot wait for an agent" error="{error}"\n'
                    )
                failed = True
                await asyncio.sleep(ORPHAN_RETRY)
        try:
            with sock:
                taken, _ = await self._loop.sock_accept(sock)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._attach(taken, adopted=True)

    async def _handle(self) -> None:
        """Do what the agent says, one message after the other."""
        while True:
            channel, message, descriptors = await self._inbox.get()
            try:
                await self._do(channel, message, descriptors)
            except Exception as error:  # noqa: BLE001 - a bad message must not end the forwarding
                self._bug("worker", error)

    async def _do(self, channel: Channel[Down], message: Down, descriptors: list[int]) -> None:
        if self._engine.draining and not isinstance(message, Report):
            for descriptor in descriptors:
                os.close(descriptor)
        elif isinstance(message, Apply | Secrets):
            channel.send(await self._take(message, descriptors))
        elif isinstance(message, Endpoints):
            await self._found(message)
        elif isinstance(message, Health):
            state = self._book.clusters.get(message.cluster)
            if state is not None:
                state.judge(message.endpoints)
        elif isinstance(message, Drain):
            self._drain(message.seconds)
        elif isinstance(message, Reopen):
            if self._log is not None:
                self._log.reopen()
        else:
            self._report()

    async def _take(self, message: Apply | Secrets, descriptors: list[int]) -> Ack | Nack:
        """Put a push into force; whatever stops it, the agent is told."""
        before = {name: state.resolved for name, state in self._book.clusters.items()}
        try:
            if isinstance(message, Apply):
                self._hold(message.addresses, descriptors)
                self._resolve(message)
                for name, health in message.health.items():
                    self._book.cluster(name).judge(health)
                await self._apply(message.snapshot, message.secret)
            elif self._snapshot is not None:
                await self._apply(self._snapshot, message.secret)
            return Ack(message.serial, message.version)
        except ConfigErrors as errors:
            found = tuple((e.path, e.detail) for e in errors.errors)
        except Exception as error:  # noqa: BLE001 - a bug of ours: the agent takes it back
            self._bug("apply", error)
            found = (("", f"a worker failed with {error!r}"),)
        for name, addresses in before.items():
            self._book.cluster(name).resolved = addresses
        for address in [a for a in self._runner.sockets if a not in self._runner.listeners]:
            self._runner.sockets.pop(address).close()  # or callers would queue on it for nobody
        return Nack(message.serial, message.version, found, tuple(self._runner.sockets))

    def _hold(self, addresses: tuple[str, ...], descriptors: list[int]) -> None:
        if len(addresses) != len(descriptors):
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            text = f"listening sockets did not arrive: is the limit of {limit} open files reached?"
            raise ConfigErrors([ConfigError("", text)])
        for address, descriptor in zip(addresses, descriptors, strict=True):
            old = self._runner.sockets.pop(address, None)
            if old is not None:
                old.close()
            self._runner.sockets[address] = socket.socket(fileno=descriptor)

    async def _found(self, message: Endpoints) -> None:
        """Take up other endpoints; those before stay if there is anything wrong with these."""
        snapshot = self._snapshot
        wanted = (message.cluster, (message.kind, message.target))
        if snapshot is None or wanted not in ((c.name, c.discovery) for c in snapshot.clusters):
            return  # the push that names it brings them, or has taken it away
        state = self._book.cluster(message.cluster)
        before = state.resolved
        state.resolved = _known(message.kind, message.endpoints)
        try:
            await self._apply(snapshot, self._secret)
        except ConfigErrors as errors:
            state.resolved = before
            sys.stderr.write(f'level=error msg="endpoints refused" error="{errors}"\n')

    def _resolve(self, message: Apply) -> None:
        """Note endpoints that were found; what was known stays, unless it is looked for elsewhere."""
        old = self._snapshot.clusters if self._snapshot is not None else ()
        known = {cluster.name: cluster.discovery for cluster in old}
        for cluster in message.snapshot.clusters:
            goal = cluster.discovery
            if goal is not None and cluster.name in message.resolved:
                found = _known(goal[0], message.resolved[cluster.name])
                self._book.cluster(cluster.name).resolved = found
            elif goal is not None and known.get(cluster.name) != goal:
                self._book.cluster(cluster.name).resolved = None

    async def _apply(self, snapshot: Snapshot, secret: Secret | None) -> None:
        plan = compile_snapshot(snapshot, secret, self._book, self._dialler)
        plan.sinks = self._sinks(snapshot)
        self._monitor.configure(snapshot.overload, snapshot.process.workers)
        self._engine.sampling = snapshot.telemetry.tracing.sampling / 100
        await self._runner.apply(plan)
        self._snapshot, self._secret = snapshot, secret
        # What has lived until now lives on: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    def _sinks(self, snapshot: Snapshot) -> tuple[Sink, ...]:
        telemetry, old = snapshot.telemetry, self._snapshot
        if self._metrics is None:
            name = snapshot.workload.name
            self._metrics = MetricsSink(
                name, snapshot.workload.identity, telemetry.metrics.max_series
            )
        if old is None or old.telemetry.access_log.path != telemetry.access_log.path:
            if self._log is not None:
                self._engine.tell_ended()
                self._log.close()
            path = telemetry.access_log.path
            self._log = LogWriter(path) if path != "off" else None
        if self._log is None:
            return (self._metrics,)
        return (self._metrics, AccessLogSink(self._log.write, telemetry.access_log.format))

    # Numbers:

    def _every_second(self) -> None:
        self._loop.call_later(REPORT_INTERVAL, self._every_second)
        self._monitor.sample()
        self._report()

    def _flush(self) -> None:
        self._loop.call_later(INTERVAL, self._flush)
        self._monitor.tick()
        self._engine.tell_ended()
        if self._log is not None:
            self._log.flush()

    def _report(self) -> None:
        if self._channel is None or self._channel.is_behind:
            return  # an agent that does not read is not written to: what waits takes memory
        samples = []
        if self._metrics is not None:
            self._engine.tell_ended()
            book = self._book
            rows = (
                *self._metrics.rows(), *ejections(book), *guards(book), *hedges(book),
                *quotas(book), *self._engine.counts.rows(),
                *self._monitor.rows(self._index),
            )  # fmt: skip
            samples = [Sample(*row) for row in rows]
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
                e.failures, e.available, ejected=state.detector.reason(e),
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
        if self._waiter is not None:
            self._waiter.cancel()  # nobody adopts what is about to end
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


def _known(kind: str, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...] | None:
    """Return `endpoints` as the book has them: only a name can be without addresses (flag DF)."""
    return endpoints or (None if kind == "file_sd" else ())


def _tell(text: str, error: BaseException | None) -> None:
    """Write down what an operator should know; filters see to it that it is not too much."""
    trace = "" if error is None else "".join(traceback.format_exception(error))
    sys.stderr.write(f"level={'warning' if error is None else 'error'} {text}\n{trace}")


def _listen_alone(path: str) -> socket.socket:
    """Return a listening unix socket that only this user may connect to."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(1)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(previous)
    return sock


def main() -> None:
    """Run a worker: `python -m sidecar.worker CHANNEL INDEX STATE`, as the agent does.

    They are the descriptor of the agent's socket, which worker this is, and the directory for the
    socket of an orphan.
    """
    if len(sys.argv) != 4:
        sys.exit("sidecar.worker: a worker is started by its agent; run `sidecar run CONFIG`")
    channel, index, state_dir = sys.argv[1:]
    # The agent asks for this before it ends a worker that is stuck: the stacks say where.
    faulthandler.register(DUMP, all_threads=True, chain=False)
    sock = socket.socket(fileno=int(channel))
    gc.set_threshold(50_000, 20, 50)  # few cycles are made here; pauses are what spoils p99

    async def serve() -> None:
        worker = Worker(asyncio.get_running_loop(), int(index), state_dir)
        await worker.run(sock)

    uvloop.run(serve())
