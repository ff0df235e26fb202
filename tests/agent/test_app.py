"""When the agent says that it is ready, and what it does with a source that fails."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.agent.app import Agent
from sidecar.agent.process import Process
from sidecar.agent.store import LastGood
from sidecar.agent.supervisor import SILENCE, TICK
from sidecar.errors import ConfigError, ConfigErrors, OperationError
from sidecar.model.bootstrap import Admin
from sidecar.model.cluster import Cluster
from sidecar.model.endpoint import Endpoint
from sidecar.model.health import HealthCheck, TcpHealthCheck
from sidecar.model.identity import Workload
from sidecar.model.listener import OutboundListener
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import EndpointStatus, Health, Stats
from tests.agent.bench import Double, in_no_time, settle


class Script:
    """A source that says what the test wants."""

    name = "script"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.error: Exception | None = None
        self.names = "a"  # workload, and one listener for each letter
        self.checks: tuple[HealthCheck, ...] = ()

    def load(self) -> Snapshot:
        if self.error is not None:
            raise self.error
        return Snapshot(
            workload=Workload(name=self.names),
            outbound=tuple(
                OutboundListener(address=f"unix:{self.path(name)}", cluster="c")
                for name in self.names
            ),
            clusters=(Cluster(name="c", endpoints=(self.nobody,), health_checks=self.checks),),
            admin=Admin(address="off"),
        )

    def locate(self, errors: ConfigErrors) -> ConfigErrors:
        return errors

    def watched(self) -> tuple[str, ...]:
        return ()

    def path(self, name: str) -> Path:
        return self._directory / name

    @property
    def nobody(self) -> Endpoint:
        """An endpoint where nobody listens."""
        return Endpoint(address=f"unix:{self.path('nobody')}")


class Stage:
    """An agent, its doubles, and what it told the service manager."""

    def __init__(self, directory: Path, manager: socket.socket) -> None:
        self.source = Script(directory)
        self.doubles: list[Double] = []
        self.first_push = "ack"  # what a worker does with it: `ack`, `die` or nothing
        self._manager = manager
        environ = {"NOTIFY_SOCKET": str(manager.getsockname()), "WATCHDOG_USEC": "4000000"}
        self.agent = Agent(self.source, self._launch, environ)

    def _launch(self, index: int, state_dir: str) -> tuple[Process, socket.socket]:
        double = Double(len(self.doubles), index=index)
        self.doubles.append(double)
        double.hello()
        self._acting = asyncio.ensure_future(self._act(double))  # noqa: TID251 - held by self
        return double, double.ours

    async def _act(self, double: Double) -> None:
        await double.pushed()
        if self.first_push:
            double.die() if self.first_push == "die" else double.ack()

    def told(self) -> list[str]:
        """What the service manager was told since; the watchdog's food is left out."""
        return [line for line in self.heard() if line != "WATCHDOG=1"]

    def heard(self) -> list[str]:
        """The first line of each message to the service manager."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._manager.recv(500).decode().partition("\n")[0])
        return found

    async def reload(self, *answers: str) -> None:
        """Load again; the last worker answers each push by one of `ack` and `nack`."""
        task = asyncio.ensure_future(self.agent.reload())  # noqa: TID251 - awaited below
        double = self.doubles[-1]
        for answer in answers:
            await double.pushed(len(double.pushes()) + 1)
            double.ack() if answer == "ack" else double.nack("no")
        await task


@contextlib.asynccontextmanager
async def stage(directory: Path) -> AsyncIterator[Stage]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / f"notify-{len(os.listdir(directory))}"))
        manager.setblocking(False)
        built = Stage(directory, manager)
        try:
            yield built
        finally:
            await built.agent.abandon()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def kept() -> str | None:
    config = LastGood(Script.name).load()
    return config.snapshot.workload.name if config is not None else None


@in_no_time
async def test_ready_is_said_once_every_worker_runs_the_plan(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        assert s.agent.readiness() == (False, "starting")
        assert s.told() == []
        await s.agent.start()

        assert s.agent.readiness() == (True, "ready")
        assert s.told() == ["READY=1"]
        assert kept() == "a"


@in_no_time
async def test_ready_is_never_said_when_workers_die_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.first_push = "die"
        with pytest.raises(OperationError, match="workers end when they are given it"):
            await s.agent.start()

        assert not s.agent.readiness()[0]
        assert s.told() == []
        assert kept() is None


@in_no_time
async def test_not_ready_while_no_worker_runs_a_plan(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.agent.start()
        s.first_push = ""
        s.doubles[0].die()
        while len(s.doubles) < 2:
            await settle()
        await s.doubles[1].pushed()
        assert s.agent.readiness() == (False, "no worker runs a plan")

        s.doubles[1].ack()
        await settle()
        assert s.agent.readiness() == (True, "ready")


@in_no_time
async def test_a_refused_push_leaves_no_trace(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.agent.start()
        before = s.agent.info()["version"]
        s.source.names = "ab"
        await s.reload("nack", "ack")

        assert s.agent.info()["last_error"] == "push-refused: no"
        assert s.agent.info()["version"] == before
        assert kept() == "a"
        assert not s.source.path("b").exists()
        assert s.source.path("a").is_socket()
        counts = {x.labels: x.values for x in (await s.agent.statistics())[0]}
        assert counts[(("result", "rolled_back"),)] == (1.0,)

        await s.reload("ack")  # the same again, and this time there is room
        assert (s.agent.info()["last_error"], kept()) == (None, "ab")
        assert s.source.path("b").is_socket()


@in_no_time
@pytest.mark.parametrize(
    "error",
    [
        ConfigErrors([ConfigError("x", "is wrong")]),
        RecursionError("too deep"),
        KeyError("who knows"),
        MemoryError(),
    ],
    ids=repr,
)
async def test_whatever_a_source_raises_the_running_plan_stays(
    tmp_path: Path, error: Exception
) -> None:
    async with stage(tmp_path) as s:
        await s.agent.start()
        before = s.agent.info()["version"]
        s.source.error = error
        await s.agent.reload()

        assert s.agent.info()["last_error"]
        assert s.agent.info()["version"] == before
        assert s.told() == ["READY=1", "RELOADING=1", "READY=1"]
        assert s.agent.readiness() == (True, "ready")

        s.source.error, s.source.names = None, "b"
        await s.reload("ack")
        assert s.agent.info()["last_error"] is None
        assert kept() == "b"


@in_no_time
async def test_a_start_that_workers_refuse_goes_back_to_the_last_good(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.agent.start()
    async with stage(tmp_path) as s:
        s.source.names, s.first_push = "ab", ""
        start = asyncio.ensure_future(s.agent.start())  # noqa: TID251 - awaited below
        while not s.doubles:
            await settle()
        await s.doubles[0].pushed()
        s.doubles[0].nack("no room")
        await s.doubles[0].pushed(2)
        s.doubles[0].ack()
        await start

        assert s.agent.info()["last_error"] == "push-refused: no room"
        snapshot = s.agent.snapshot()
        assert snapshot is not None
        assert snapshot.workload.name == kept() == "a"
        assert not s.source.path("b").exists()


@in_no_time
async def test_the_watchdog_is_fed_while_a_worker_serves(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        await s.agent.start()
        s.doubles[0].is_stubborn = True  # hangs, and is not even ended by SIGKILL
        await asyncio.sleep(SILENCE * TICK)
        fed = s.heard().count("WATCHDOG=1")
        assert SILENCE - 1 <= fed <= SILENCE + 1
        await asyncio.sleep(30)
        assert s.heard().count("WATCHDOG=1") <= 1

        s.doubles[0].die()
        while len(s.doubles) < 2:
            await settle()
        await s.doubles[1].pushed()
        await asyncio.sleep(2 * TICK)
        assert "WATCHDOG=1" in s.heard()


@in_no_time
async def test_what_health_checks_find_reaches_workers_and_the_operator(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        s.source.checks = (HealthCheck(tcp=TcpHealthCheck()),)
        await s.agent.start()
        await asyncio.sleep(1)
        address = s.source.nobody.address
        (first,) = s.doubles
        told = [message for message in first.heard if isinstance(message, Health)]
        assert told == [Health("c", {address: False})]

        first.die()
        while len(s.doubles) < 2:
            await settle()
        second = s.doubles[1]
        await second.pushed()
        await settle()
        assert getattr(second.pushes()[0], "health", None) == {"c": {address: False}}

        second.say(Stats((), (EndpointStatus("c", address, 1, 0, 0, 0, 0, 0, False),)))
        samples, (status,) = await s.agent.statistics()
        assert (status.health, status.last_failure[:14]) == ("unhealthy", "connect-failed")
        assert ("sidecar_endpoint_healthy", (0.0,)) in [(x.name, x.values) for x in samples]

        s.source.checks = ()
        await s.reload("ack")
        assert getattr(second.pushes()[1], "health", None) == {}
        await asyncio.sleep(100)  # in which nobody is asked
        assert second.heard[-1] is second.pushes()[1]
