"""The agent: composition root of the parent process."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, final

from sidecar import __version__
from sidecar.admin import pages
from sidecar.agent import sockets
from sidecar.agent.adoption import find_orphans
from sidecar.agent.aggregate import Retired, sum_endpoints
from sidecar.agent.config import Config, Source, load, watched
from sidecar.agent.discovery import Discovery, Goal
from sidecar.agent.faults import Faults
from sidecar.agent.health import Checks
from sidecar.agent.logs import bug, log, setup
from sidecar.agent.notify import Notifier
from sidecar.agent.probe import Prober
from sidecar.agent.process import Process, launch
from sidecar.agent.push import Pusher
from sidecar.agent.quota import Quota
from sidecar.agent.store import LastGood, state_dir
from sidecar.agent.supervisor import TICK, Supervisor
from sidecar.agent.watch import Watcher
from sidecar.agent.worker import DRAIN_SLACK, RUNNING as RUNNING_PLAN
from sidecar.compiler.snapshot import check
from sidecar.errors import ConfigError, ConfigErrors, OperationError, SidecarError
from sidecar.model.endpoint import Endpoint
from sidecar.model.fault import AddedFault
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.clock import wall
from sidecar.runtime.messages import Endpoints, EndpointStatus, Health, Reopen, Sample
from sidecar.runtime.tasks import spawn

REPORT_TIMEOUT: Final = 0.3  # seconds that a scrape waits for fresh numbers
RESOLVE_TIMEOUT: Final = 3.0  # seconds that a push waits for names not looked up before

STARTING, RUNNING, DRAINING = "starting", "running", "draining"


@final
class Agent:
    """Runs workers by what a source says, and answers the operator.

    `launch(index, state_dir)` starts a worker and returns it with our end of its channel.
    """

    def __init__(
        self,
        source: Source,
        launch: Callable[[int, str], tuple[Process, socket.socket]] = launch,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._faults: Final = Faults(source)
        self._source: Final[Source] = self._faults
        self._environ: Final = environ
        self._notifier: Final = Notifier(environ)
        self._retired: Final = Retired()
        self._last_good: Final = LastGood(source.name)
        self._listening: Final = sockets.Listening()
        self._discovery: Final = Discovery(self._discovered)
        self._checks: Final = Checks(Prober().ask, self._turned)
        self._pusher: Final = Pusher(self._listening, self._discovery.of, health=self._checks.of)
        self._quota: Final = Quota()
        self._supervisor: Final = Supervisor(
            lambda index: launch(index, self._state_dir),
            self._pusher,
            self._retired.fold,
            self._quota.asked,
        )
        self._watcher: Final = Watcher(self._watched, self.reload)
        self._state = STARTING
        self._state_dir = ""
        self._started: Final = time.monotonic()
        self._last_error: str | None = None
        self._pushes: Final[Counter[str]] = Counter(applied=0, refused=0, rolled_back=0)
        self._last_push = 0.0
        self._admin: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self._tasks: Final[list[asyncio.Task[None]]] = []
        self.stopping: Final = asyncio.Event()

    # Life:

    async def start(self) -> None:
        """Adopt, bind, start the workers, push; ready when this returns.

        Raises:
            ConfigErrors: the configuration is bad and no good one is kept.
            OperationError: a port is taken, or the workers do not run the plan.
        """
        self._watcher.look()
        loaded: Config | None = None
        try:
            loaded = load(self._source)
            await self._bring_up(loaded)
        except Exception as error:
            kept = self._last_good.load()
            if kept is None or (loaded is not None and loaded.version == kept.version):
                raise
            self._refused(error)
            if not isinstance(error, SidecarError):
                bug("start", error)
            for line in str(error).splitlines():
                log.error("%s", line)
            log.error("the configuration is bad: starting with the last good one")
            await self._bring_up(kept)
        self._state = RUNNING
        self._told_ready()
        self._watching = spawn(self._watcher.run(), name="watch", on_error=bug)
        if self._notifier.watchdog:
            self._tasks.append(spawn(self._feed_watchdog(), name="watchdog", on_error=bug))

    async def stop(self, seconds: float) -> None:
        """Drain the workers within `seconds`, then end them."""
        self._state = DRAINING
        self._notifier.stopping()
        self._discovery.keep_only(None)
        if self._watching is not None:  # a push that is under way is given up
            self._watching.cancel()
            await asyncio.wait({self._watching})
        self._listening.close()  # from here on new callers are refused, not queued
        self._supervisor.drain(seconds)
        await self._supervisor.wait(seconds + DRAIN_SLACK)
        self._end()

    async def abandon(self) -> None:
        """Give up a start; workers that were there before us go on without an agent."""
        await self._supervisor.abandon()
        self._listening.release()
        self._discovery.keep_only(None)
        self._end()

    def reload_soon(self) -> None:
        """Load again without waiting for a change."""
        self._watcher.ask()

    async def reload(self) -> None:
        """Load again; what is bad is told and the running plan stays, whatever goes wrong."""
        self._notifier.reloading()
        try:
            await self._reload()
            self._last_error = None
        except SidecarError as error:
            self._refused(error)
            for line in str(error).splitlines():
                log.error("config refused, the running one stays: %s", line)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not end the watching
            self._refused(error)
            bug("reload", error)
        self._told_ready()

    # The operator asks (sidecar.admin.operator.Operator):

    def faults(self) -> list[dict[str, object]]:
        """Return the faults that were added and are under way."""
        return self._faults.rows()

    def add_fault(self, wanted: AddedFault) -> int:
        """Begin one and return its number; the workers have it a moment later.

        Raises:
            ConfigErrors: there is no such route, or the fault is not understood.
        """
        running = self._pusher.running
        if running is None:
            raise ConfigErrors([ConfigError("", "no configuration runs yet")])
        secret = running.secret
        number = self._faults.add(wanted, running.snapshot, lambda s: check(s, secret))
        self.reload_soon()
        return number

    def remove_fault(self, number: int) -> bool:
        """End one; say whether there was such a one."""
        is_there = self._faults.remove(number)
        if is_there:
            self.reload_soon()
        return is_there

    def readiness(self) -> tuple[bool, str]:
        """Say whether traffic is served."""
        if self._state != RUNNING:
            return False, self._state
        if not self._supervisor.serving():
            return False, "no worker runs a plan"
        return True, "ready"

    def snapshot(self) -> Snapshot | None:
        """Return the running configuration."""
        return self._pusher.running.snapshot if self._pusher.running is not None else None

    def certificates(self) -> Secret | None:
        """Return the key material in use."""
        return self._pusher.running.secret if self._pusher.running is not None else None

    def info(self) -> dict[str, object]:
        """Return what runs here."""
        running = self._pusher.running
        return {
            "release": __version__,
            "version": running.version if running is not None else None,
            "state": self._state,
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "source": self._source.name,
            "last_error": self._last_error,
            "pushes": self._pushes["applied"],
            "workers": [
                {
                    "index": place.index,
                    "pid": place.worker.pid if place.worker is not None else None,
                    "plan": place.worker.version if place.worker is not None else None,
                    "restarts": place.restarts,
                    "state": place.state,
                }
                for place in self._supervisor.places
            ],
        }

    async def statistics(self) -> tuple[list[Sample], list[EndpointStatus]]:
        """Return numbers summed over the workers, as fresh as they answer in time."""
        workers = [w for w in self._supervisor.workers() if w.state == RUNNING_PLAN]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(w.report() for w in workers)), REPORT_TIMEOUT)
        workers = self._supervisor.everyone()  # one that ended meanwhile is among the retired
        samples = self._retired.sum(w.samples for w in workers)
        samples += self._own_samples() + self._discovery.samples() + self._quota.samples()
        running = self._pusher.running
        if running is not None:
            samples += self._checks.samples(running.snapshot.telemetry.metrics.max_series)
        return samples, self._checks.marked(sum_endpoints(w.endpoints for w in workers))

    def drain(self) -> None:
        """Begin to drain, and exit."""
        self.stopping.set()

    def reopen(self) -> None:
        """Have the workers open their log files again."""
        self._pusher.tell(Reopen())

    def log_level(self, level: str | None) -> str:
        """Return the level of the agent's log, after setting it if one is given."""
        if level is not None:
            log.setLevel(level.upper())
        return str(log.level)

    # Inside:

    async def _bring_up(self, config: Config) -> None:
        """Have every worker run `config`, the first of all."""
        process = config.snapshot.process
        if not self._supervisor.places:  # they are settled by the first attempt
            self._state_dir = state_dir(config.snapshot)
            self._listening.take(sockets.passed(self._environ))
            orphans = await find_orphans(self._state_dir)
            self._listening.take(
                self._supervisor.adopt(orphans, process.workers, process.drain_timeout)
            )
        if self._admin is None and config.snapshot.admin.address != "off":
            self._admin = await self._serve_admin(config.snapshot.admin.address)
        added = self._listening.bind(config.addresses)
        self._supervisor.fill()
        if not self._tasks:
            self._tasks.append(spawn(self._tick(), name="tick", on_error=bug))
        await self._put_into_force(config, added)

    async def _reload(self) -> None:
        before = self._pusher.running
        config = load(self._source)
        if config == before:
            return
        await self._put_into_force(config, self._listening.bind(config.addresses))
        self._pushes["applied"] += 1
        if before is not None and before.snapshot == config.snapshot:
            log.info("certificates or key files renewed")
        else:
            log.info("running plan %s", config.version)

    async def _put_into_force(self, config: Config, added: list[str]) -> None:
        """Push `config`; whatever goes wrong, it leaves no trace."""
        plans = Checks.plans(config.snapshot, config.secret)
        self._discovery.follow(config.snapshot)
        self._quota.follow(config.snapshot)
        await self._discovery.wait(RESOLVE_TIMEOUT)
        try:
            await self._pusher.push(config, [p.index for p in self._supervisor.places])
        except BaseException:
            self._listening.close(added)
            if self._pusher.running is not None:
                self._discovery.keep_only(self._pusher.running.snapshot)
                self._quota.follow(self._pusher.running.snapshot)
            raise
        self._listening.keep_only(config.addresses)
        self._discovery.keep_only(config.snapshot)
        self._checks.follow(config.snapshot, plans, self._discovery.of(config.snapshot))
        if not len(self._faults):  # a start after a crash must not begin with somebody's experiment
            self._last_good.save(config)
        self._last_push = wall()

    def _refused(self, error: Exception) -> None:
        self._last_error = str(error) or repr(error)
        is_push = isinstance(error, OperationError) and error.code == "push-refused"
        self._pushes["rolled_back" if is_push else "refused"] += 1

    def _discovered(self, goal: Goal, endpoints: tuple[Endpoint, ...]) -> None:
        """A cluster has other endpoints: whoever runs a plan with it is told."""
        if _has(self._pusher.target, goal):
            self._pusher.tell(Endpoints(goal.cluster, goal.kind, goal.target, endpoints))
        if _has(self._pusher.running, goal):
            self._checks.resolved(goal.cluster, endpoints)

    def _turned(self, cluster: str, endpoints: dict[str, bool]) -> None:
        """Endpoints have become healthy or unhealthy."""
        self._pusher.tell(Health(cluster, endpoints))

    def _watched(self) -> tuple[str, ...]:
        paths = self._source.watched()
        running = self._pusher.running
        return paths + (watched(running.snapshot) if running is not None else ())

    def _own_samples(self) -> list[Sample]:
        values = {
            "sidecar_workers": self._supervisor.serving(),
            "sidecar_workers_wanted": len(self._supervisor.places),
            "sidecar_config_last_reload_successful": int(self._last_error is None),
            "sidecar_config_last_push_timestamp_seconds": self._last_push,
            "sidecar_uptime_seconds": time.monotonic() - self._started,
        }
        samples = [Sample(name, (), (float(value),)) for name, value in values.items()]
        for name, label, counts in (
            ("sidecar_worker_restarts_total", "reason", self._supervisor.restarts),
            ("sidecar_config_pushes_total", "result", self._pushes),
        ):
            samples += [Sample(name, ((label, k),), (float(v),)) for k, v in counts.items()]
        running = self._pusher.running
        for part, when in (running.expiries() if running is not None else {}).items():
            name = "sidecar_certificate_expiry_timestamp_seconds"
            samples.append(Sample(name, (("part", part),), (when.timestamp(),)))
        return samples

    def _told_ready(self) -> None:
        running = self._pusher.running
        status = f"running plan {running.version if running is not None else '-'}"
        if self._last_error is not None:  # one line: that is what systemctl status has room for
            status += f"; refused: {self._last_error.splitlines()[0]}"
        self._notifier.ready(status)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                self._supervisor.tick()
                if self._faults.expire():
                    self.reload_soon()
            except Exception as error:  # noqa: BLE001 - without it nobody would be replaced
                bug("tick", error)

    async def _feed_watchdog(self) -> None:
        """Tell systemd that we live while somebody serves: see docs/operations.md."""
        while True:
            if self._state == DRAINING or self._supervisor.serving():
                self._notifier.alive()
            await asyncio.sleep(min(TICK, self._notifier.watchdog))

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

    def _end(self) -> None:
        self._checks.stop()
        self._quota.stop()
        for task in self._tasks:
            task.cancel()
        if self._admin is not None:
            self._admin.close()


def _has(config: Config | None, goal: Goal) -> bool:
    """Say whether `config` has the cluster of `goal`, found the same way."""
    return config is not None and any(
        (c.name, c.discovery) == (goal.cluster, (goal.kind, goal.target))
        for c in config.snapshot.clusters
    )


def run(source: Source) -> int:
    """Run an agent until it is told to stop; return the exit code."""
    setup()
    # asyncio's own loop: the agent is never busy, and uvloop is 2 MB and threads.
    return asyncio.run(_run(source))


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
        agent.reload_soon()

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    start = loop.create_task(agent.start())
    stopping = loop.create_task(agent.stopping.wait())
    await asyncio.wait({start, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not start.done():  # told to stop before it was ready
        start.cancel()
        await asyncio.wait({start})
    error = None if start.cancelled() else start.exception()
    if error is not None:
        stopping.cancel()
        await agent.abandon()
        if not isinstance(error, SidecarError):
            raise error
        text = str(error) if isinstance(error, ConfigErrors) else error.detail
        sys.stderr.write(f"sidecar: {text}\n")
        return 1
    snapshot = agent.snapshot()
    if snapshot is not None:
        log.info("ready: plan %s from %s", agent.info()["version"], source.name)
    await stopping
    stop = loop.create_task(agent.stop(snapshot.process.drain_timeout if snapshot else 0.0))
    force = loop.create_task(forced.wait())
    await asyncio.wait({stop, force}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.done():
        await agent.stop(0)
    force.cancel()
    return 0
