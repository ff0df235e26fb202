"""The agent: composition root of the parent process."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Protocol, final

import msgspec
import uvloop

from sidecar import __version__
from sidecar.admin import pages
from sidecar.agent import sockets
from sidecar.agent.aggregate import Retired, sum_endpoints
from sidecar.agent.logs import log, setup
from sidecar.agent.notify import Notifier
from sidecar.agent.supervisor import Worker
from sidecar.compiler.snapshot import check, version_of
from sidecar.errors import ConfigErrors, OperationError, SidecarError
from sidecar.issuers import files
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import (
    Apply,
    Endpoints,
    EndpointStatus,
    Nack,
    Reopen,
    Report,
    Sample,
    Secrets,
)
from sidecar.runtime.tasks import spawn

WATCH_INTERVAL: Final = 1.0  # seconds between looks at the watched files
ACK_TIMEOUT: Final = 30.0  # seconds for a worker to compile and run a plan
REPORT_TIMEOUT: Final = 0.3  # seconds that a scrape waits for fresh numbers

STARTING, RUNNING, DRAINING = "starting", "running", "draining"


class Source(Protocol):
    """Where snapshots come from."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def load(self) -> Snapshot:
        """Return the snapshot of now, or raise ConfigErrors."""

    def locate(self, errors: ConfigErrors) -> ConfigErrors:
        """Return `errors` with the places where they are."""

    def watched(self) -> tuple[str, ...]:
        """Return files whose change means: load again."""


@final
class Agent:
    """Runs workers by what a source says, and answers the operator."""

    def __init__(self, source: Source) -> None:
        self._source: Final = source
        self._notifier: Final = Notifier()
        self._workers: Final[list[Worker]] = []
        self._retired: Final = Retired()
        self._sockets: Final[dict[str, socket.socket]] = {}
        self._snapshot: Snapshot | None = None
        self._secret: Secret | None = None
        self._resolved: Final[dict[str, tuple[str, ...]]] = {}
        self._state = STARTING
        self._state_dir = ""
        self._started: Final = time.monotonic()
        self._last_error: str | None = None
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._admin: asyncio.Server | None = None
        self._resolvers: Final[dict[str, asyncio.Task[None]]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._pushing: Final = asyncio.Lock()
        self._pushes = 0
        self.stopping: Final = asyncio.Event()

    # Life:

    async def start(self) -> None:
        """Bind, start the workers, push; ready when this returns.

        Raises:
            ConfigErrors: the configuration is bad and no good one is kept.
            OperationError: a port is taken, or no worker runs the plan.
        """
        snapshot, secret = self._load_first()
        self._state_dir = _state_dir(snapshot)
        self._sockets.update(sockets.passed(os.environ))
        for index in range(snapshot.process.workers):
            worker = Worker(index, self._state_dir, self._greeted, self._retired.fold)
            self._workers.append(worker)
            for address, sock in (await worker.adopt()).items():
                if address in self._sockets:
                    sock.close()
                else:
                    self._sockets[address] = sock
        self._bind(snapshot)
        self._snapshot, self._secret = snapshot, secret
        if snapshot.admin.address != "off":
            self._admin = await self._serve_admin(snapshot.admin.address)
        self._follow_names(snapshot)
        greeted = []
        for worker in self._workers:
            if worker.channel is None:
                worker.start()
            else:
                greeted.append(self._push(worker))
        results = await asyncio.gather(*greeted, *(self._first_push(w) for w in self._workers))
        problem = next((r for r in results if r), None)
        if problem is not None:
            await self.stop(0)
            raise OperationError("worker-failed", problem)
        self._remember(snapshot)
        self._state = RUNNING
        self._notifier.ready(f"running plan {version_of(snapshot)}")
        self._watcher = spawn(self._watch(), name="watch", on_error=_bug)
        if self._notifier.watchdog:
            _ = spawn(self._feed_watchdog(), name="watchdog", on_error=_bug)

    async def stop(self, seconds: float) -> None:
        """Drain the workers within `seconds`, then end them."""
        self._state = DRAINING
        self._notifier.stopping()
        if self._watcher is not None:
            self._watcher.cancel()
        for task in self._resolvers.values():
            task.cancel()
        for address, sock in self._sockets.items():
            sockets.close(address, sock)  # from here on new callers are refused, not queued
        self._sockets.clear()
        for worker in self._workers:
            worker.stop(seconds)
        ends = [asyncio.ensure_future(w.ended.wait()) for w in self._workers]  # noqa: TID251
        if ends:
            await asyncio.wait(ends, timeout=seconds + 1)
        for worker in self._workers:
            if not worker.ended.is_set():
                worker.kill()
        if ends:
            await asyncio.wait(ends, timeout=1)
        if self._admin is not None:
            self._admin.close()

    async def reload(self) -> None:
        """Load again; what is bad is told and the running plan stays."""
        async with self._pushing:
            self._notifier.reloading()
            try:
                await self._reload()
                self._last_error = None
            except SidecarError as error:
                self._last_error = str(error)
                for line in str(error).splitlines():
                    log.error("config refused, the running one stays: %s", line)
            assert self._snapshot is not None
            self._notifier.ready(f"running plan {version_of(self._snapshot)}")

    # The operator asks (sidecar.admin.operator.Operator):

    def readiness(self) -> tuple[bool, str]:
        """Say whether traffic is served."""
        if self._state != RUNNING:
            return False, self._state
        if not any(w.channel is not None for w in self._workers):
            return False, "no worker runs"
        return True, "ready"

    def snapshot(self) -> Snapshot | None:
        """Return the running configuration."""
        return self._snapshot

    def certificates(self) -> Secret | None:
        """Return the key material in use."""
        return self._secret

    def info(self) -> dict[str, object]:
        """Return what runs here."""
        return {
            "release": __version__,
            "version": version_of(self._snapshot) if self._snapshot is not None else None,
            "state": self._state,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "source": self._source.name,
            "last_error": self._last_error,
            "pushes": self._pushes,
            "workers": [
                {
                    "index": w.index,
                    "pid": w.pid,
                    "restarts": w.restarts,
                    "state": "running" if w.channel is not None else "gone",
                }
                for w in self._workers
            ],
        }

    async def statistics(self) -> tuple[list[Sample], list[EndpointStatus]]:
        """Return numbers summed over the workers, as fresh as they answer in time."""
        waits = []
        for worker in self._workers:
            if worker.channel is not None:
                worker.reported.clear()
                worker.channel.send(Report())
                waits.append(worker.reported.wait())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waits), REPORT_TIMEOUT)
        samples = self._retired.sum(w.samples for w in self._workers)
        own = {
            "sidecar_worker_restarts_total": sum(w.restarts for w in self._workers),
            "sidecar_workers": sum(w.channel is not None for w in self._workers),
            "sidecar_config_pushes_total": self._pushes,
            "sidecar_config_last_reload_successful": int(self._last_error is None),
            "sidecar_uptime_seconds": time.monotonic() - self._started,
        }
        samples += [Sample(name, (), (float(value),)) for name, value in own.items()]
        return samples, sum_endpoints(w.endpoints for w in self._workers)

    def drain(self) -> None:
        """Begin to drain, and exit."""
        self.stopping.set()

    def reopen(self) -> None:
        """Have the workers open their log files again."""
        for worker in self._workers:
            if worker.channel is not None:
                worker.channel.send(Reopen())

    def log_level(self, level: str | None) -> str:
        """Return the level of the agent's log, after setting it if one is given."""
        if level is not None:
            log.setLevel(level.upper())
        return str(log.level)

    # Config:

    def _load_first(self) -> tuple[Snapshot, Secret | None]:
        try:
            return self._load()
        except ConfigErrors as errors:
            kept = self._last_good()
            if kept is None:
                raise
            self._last_error = str(errors)
            for line in str(errors).splitlines():
                log.error("%s", line)
            log.error("the configuration is bad: starting with the last good one")
            return kept

    def _load(self) -> tuple[Snapshot, Secret | None]:
        snapshot = self._source.load()
        try:
            secret = None
            if snapshot.certificates is not None:
                secret = files.load(snapshot.certificates)
            check(snapshot, secret)
        except ConfigErrors as errors:
            raise self._source.locate(errors) from None
        return snapshot, secret

    async def _reload(self) -> None:
        old, before = self._snapshot, self._secret
        assert old is not None
        snapshot, secret = self._load()
        if snapshot == old and secret == before:
            return
        if snapshot == old and secret is not None:
            self._secret = secret
            for worker in self._workers:
                if worker.channel is not None:
                    worker.channel.send(Secrets(secret))
            log.info("certificates renewed")
            return
        added = self._bind(snapshot)
        self._snapshot, self._secret = snapshot, secret
        self._follow_names(snapshot)
        results = await asyncio.gather(*(self._push(w) for w in self._workers if w.channel))
        problem = next((r for r in results if r), None)
        if problem is not None:
            self._snapshot, self._secret = old, before
            for address in added:
                sockets.close(address, self._sockets.pop(address))
            raise OperationError("push-refused", problem)
        kept = _addresses(snapshot)
        for address in [a for a in self._sockets if a not in kept]:
            sockets.close(address, self._sockets.pop(address))
        self._remember(snapshot)
        self._pushes += 1
        log.info("running plan %s", version_of(snapshot))

    def _bind(self, snapshot: Snapshot) -> list[str]:
        """Bind what is not bound yet; all or nothing."""
        added = []
        try:
            for address in _addresses(snapshot):
                if address not in self._sockets:
                    self._sockets[address] = sockets.bind(address)
                    added.append(address)
        except OperationError:
            for address in added:
                sockets.close(address, self._sockets.pop(address))
            raise
        return added

    def _last_good(self) -> tuple[Snapshot, Secret | None] | None:
        """Return what this source said when it was last good, if it is kept and still compiles."""
        try:
            data = _last_good_path(self._source.name).read_bytes()
            snapshot = msgspec.msgpack.decode(data, type=Snapshot)
            secret = files.load(snapshot.certificates) if snapshot.certificates else None
            check(snapshot, secret)
        except (OSError, msgspec.MsgspecError, ConfigErrors):
            return None
        return snapshot, secret

    def _remember(self, snapshot: Snapshot) -> None:
        path = _last_good_path(self._source.name)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            spare = path.with_suffix(".new")
            handle = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.msgpack.encode(snapshot))
            spare.rename(path)
        except OSError as error:
            log.warning("the last good config is not kept: %s", error)

    # Workers:

    def _greeted(self, worker: Worker) -> None:
        _ = spawn(self._push(worker), name="push", on_error=_bug)

    async def _first_push(self, worker: Worker) -> str | None:
        """Wait until a worker that was started runs the plan."""
        assert self._snapshot is not None
        version = version_of(self._snapshot)
        waiting = worker.acks.get(version)
        if waiting is None:
            waiting = worker.acks[version] = asyncio.get_running_loop().create_future()
        return await _answer(waiting)

    async def _push(self, worker: Worker) -> str | None:
        """Send the running snapshot to a worker; return what is wrong."""
        snapshot = self._snapshot
        assert snapshot is not None
        if worker.channel is None or self._state == DRAINING:
            return None  # a worker that starts while we drain has no sockets to serve on
        version = version_of(snapshot)
        waiting = worker.acks.get(version)
        if waiting is None:
            waiting = worker.acks[version] = asyncio.get_running_loop().create_future()
        wanted = _addresses(snapshot)
        worker.sent &= wanted
        new = tuple(a for a in self._sockets if a in wanted and a not in worker.sent)
        worker.sent |= wanted
        for cluster, addresses in self._resolved.items():
            worker.channel.send(Endpoints(cluster, addresses))
        worker.channel.send(
            Apply(version, snapshot, self._secret, new),
            [self._sockets[a].fileno() for a in new],
        )
        return await _answer(waiting)

    # Watching:

    async def _watch(self) -> None:
        self._changed()
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            if self._changed():
                await self.reload()

    def _changed(self) -> bool:
        paths = self._source.watched()
        if self._snapshot is not None and self._snapshot.certificates is not None:
            paths += files.watched(self._snapshot.certificates)
        seen = {}
        for path in paths:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                seen[path] = (status.st_mtime_ns, status.st_ino, status.st_size)
        changed = seen != self._seen
        self._seen = seen
        return changed

    async def _feed_watchdog(self) -> None:
        while self._state == RUNNING:
            if self.readiness()[0]:
                self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog)

    def _follow_names(self, snapshot: Snapshot) -> None:
        """Keep the addresses of every cluster that is a DNS name."""
        wanted = {c.name: (c.dns, c.dns_refresh) for c in snapshot.clusters if c.dns is not None}
        for task in self._resolvers.values():
            task.cancel()
        self._resolvers.clear()
        for name in [n for n in self._resolved if n not in wanted]:
            del self._resolved[name]
        for name, (address, refresh) in wanted.items():
            self._resolvers[name] = spawn(
                self._resolve(name, address, refresh), name=f"resolve {address}", on_error=_bug
            )

    async def _resolve(self, cluster: str, address: str, refresh: float) -> None:
        loop = asyncio.get_running_loop()
        host, _, port = address.rpartition(":")
        failed = False
        while True:
            try:
                answer = await loop.getaddrinfo(host.strip("[]"), int(port), type=1)
                found = {a[4][0] for a in answer}
                addresses = tuple(
                    sorted(f"[{a}]:{port}" if ":" in str(a) else f"{a}:{port}" for a in found)
                )
                failed = False
            except OSError as error:
                if not failed:
                    log.warning("%s does not resolve, the last addresses stay: %s", host, error)
                failed = True
                addresses = self._resolved.get(cluster, ())
            if addresses != self._resolved.get(cluster):
                self._resolved[cluster] = addresses
                for worker in self._workers:
                    if worker.channel is not None:
                        worker.channel.send(Endpoints(cluster, addresses))
            await asyncio.sleep(max(refresh, 0.1))

    async def _serve_admin(self, address: str) -> asyncio.Server:
        try:
            return await pages.start(self, address)
        except OSError as error:
            port = address.rpartition(":")[2]
            who = sockets.owner(int(port)) if port.isdigit() else ""
            detail = f"port {port} is taken{f' by {who}' if who else ''}: the admin interface"
            if error.errno != 98:
                detail = f"{error.strerror}: the admin interface"
            raise OperationError("cannot-listen", f"{detail} cannot listen on {address}") from None


def run(source: Source) -> int:
    """Run an agent until it is told to stop; return the exit code."""
    setup()
    return uvloop.run(_run(source))


async def _run(source: Source) -> int:
    agent = Agent(source)
    loop = asyncio.get_running_loop()
    forced = asyncio.Event()

    def terminated() -> None:
        if agent.stopping.is_set():
            forced.set()
        agent.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated)

    def hung_up() -> None:
        agent.reopen()
        _ = spawn(agent.reload(), name="reload", on_error=_bug)

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        await agent.start()
    except SidecarError as error:
        text = str(error) if isinstance(error, ConfigErrors) else error.detail
        sys.stderr.write(f"sidecar: {text}\n")
        await agent.stop(0)
        return 1
    snapshot = agent.snapshot()
    assert snapshot is not None
    log.info("ready: plan %s from %s", version_of(snapshot), source.name)
    await agent.stopping.wait()
    stop = asyncio.ensure_future(agent.stop(snapshot.process.drain_timeout))  # noqa: TID251
    force = asyncio.ensure_future(forced.wait())  # noqa: TID251
    await asyncio.wait({stop, force}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.done():
        await agent.stop(0)
    force.cancel()
    return 0


async def _answer(waiting: "asyncio.Future[Nack | None]") -> str | None:
    try:
        nack = await asyncio.wait_for(asyncio.shield(waiting), ACK_TIMEOUT)
    except TimeoutError:
        return "a worker did not answer in time"
    except asyncio.CancelledError:
        return None  # the worker is gone; the next one gets the snapshot of then
    if nack is None:
        return None
    return "; ".join(f"{path}: {detail}" for path, detail in nack.errors)


def _addresses(snapshot: Snapshot) -> set[str]:
    """Return where `snapshot` listens."""
    return {x.address for x in snapshot.inbound} | {x.address for x in snapshot.outbound}


def _state_dir(snapshot: Snapshot) -> str:
    """Return the state directory, made if need be."""
    directory = snapshot.process.state_dir or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    directory = directory or os.path.join(_state_home(), snapshot.workload.name)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        fallback = tempfile.mkdtemp(prefix="sidecar-")
        log.warning("state directory %s: %s; using %s", directory, error.strerror, fallback)
        return fallback
    return directory


def _state_home() -> str:
    """Return where state is kept unless the configuration says otherwise."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return given
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "sidecar")


def _last_good_path(source: str) -> Path:
    """Return where the last good config of `source` is kept.

    It does not depend on what the config says: it is needed when that cannot be read.
    """
    name = hashlib.sha256(os.path.abspath(source).encode()).hexdigest()[:12]
    return Path(_state_home()) / f"last-good-{name}.msgpack"


def _bug(where: str, error: BaseException) -> None:
    log.error("bug in %s", where, exc_info=error)
