"""Which endpoints are healthy: who is asked when, and what the answers add up to."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, final

import msgspec

from sidecar.agent.logs import bug, log
from sidecar.compiler.clusters import make_endpoint
from sidecar.compiler.snapshot import compile_clusters, no_dial
from sidecar.core.api import Draw
from sidecar.core.book import Endpoint
from sidecar.core.plan import ClusterPlan
from sidecar.model.cluster import Cluster
from sidecar.model.endpoint import Endpoint as Place
from sidecar.model.health import HealthCheck
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import EndpointStatus, Sample
from sidecar.runtime.tasks import spawn
from sidecar.traffic.health import Verdict

STEP: Final = 0.01  # seconds between the first questions to endpoints that are new together

Ask = Callable[[ClusterPlan, Endpoint, HealthCheck], Awaitable[str]]
Changed = Callable[[str, dict[str, bool]], None]

NAMES: Final = {True: "healthy", False: "unhealthy", None: "unknown"}


@final
class Series:
    """One check of one endpoint, again and again."""

    __slots__ = ("failure", "task", "verdict")

    def __init__(self, check: HealthCheck, healthy: bool | None) -> None:
        self.verdict: Final = Verdict(check.healthy_threshold, check.unhealthy_threshold, healthy)
        self.failure = ""  # the last one, however long ago
        self.task: asyncio.Task[None] | None = None


@final
class Subject:
    """One endpoint of one cluster; its checks take turns."""

    __slots__ = ("place", "series", "turn")

    def __init__(self, place: Place) -> None:
        self.place: Final = make_endpoint(place.address, place.hostname)
        self.series: Final[dict[HealthCheck, Series]] = {}
        self.turn: Final = asyncio.Lock()

    @property
    def healthy(self) -> bool | None:
        """False if it fails any check, None while some have no answer."""
        found = [s.verdict.healthy for s in self.series.values()]
        if False in found:
            return False
        return None if None in found or not found else True

    @property
    def failure(self) -> str:
        """The last failure of a check that is not known to be passed, or of any."""
        found = sorted(self.series.values(), key=lambda s: s.verdict.healthy is True)
        return next((s.failure for s in found if s.failure), "")

    def stop(self, checks: Iterable[HealthCheck]) -> None:
        """Ask `checks` no more."""
        for check in tuple(checks):
            task = self.series.pop(check).task
            if task is not None:
                task.cancel()


@final
class Group:
    """One cluster that has checks."""

    __slots__ = ("checks", "plan", "subjects")

    def __init__(self, checks: tuple[HealthCheck, ...], plan: ClusterPlan) -> None:
        self.checks = checks
        self.plan = plan
        self.subjects: Final[dict[str, Subject]] = {}


@final
class Checks:
    """Asks the endpoints of the running configuration, and tells `on_change` of each that turns.

    `ask(cluster, endpoint, check)` returns why the endpoint failed, empty if it did not.
    """

    def __init__(self, ask: Ask, on_change: Changed, draw: Draw = random.random) -> None:
        self._ask: Final = ask
        self._on_change: Final = on_change
        self._draw: Final = draw
        self._groups: Final[dict[str, Group]] = {}
        self._counts: Final[Counter[tuple[str, str]]] = Counter()

    @staticmethod
    def plans(snapshot: Snapshot, secret: Secret | None) -> dict[str, ClusterPlan]:
        """Return how to reach the endpoints of the clusters that have checks.

        Raises:
            ConfigErrors: something in them is wrong.
        """
        names = {cluster.name for cluster in snapshot.clusters if cluster.health_checks}
        return compile_clusters(snapshot, secret, names, no_dial) if names else {}

    def follow(
        self,
        snapshot: Snapshot,
        plans: Mapping[str, ClusterPlan],
        resolved: Mapping[str, tuple[Place, ...]],
    ) -> None:
        """Ask the endpoints of `snapshot`, and no others.

        What is known of an endpoint that stays is kept, that of a check too if it stays the same.
        `resolved` has the endpoints of clusters that do not list them.
        """
        for name in self._groups.keys() - plans.keys():
            self._drop(name)
        for cluster in snapshot.clusters:
            plan = plans.get(cluster.name)
            if plan is not None:
                group = self._groups.setdefault(cluster.name, Group(cluster.health_checks, plan))
                group.checks, group.plan = cluster.health_checks, plan
                self._settle(cluster.name, _places(cluster, resolved))

    def resolved(self, cluster: str, places: Iterable[Place]) -> None:
        """Take up what was found for `cluster` now."""
        if cluster in self._groups:
            self._settle(cluster, places)

    def stop(self) -> None:
        """Ask nobody any more."""
        for name in tuple(self._groups):
            self._drop(name)

    def of(self, snapshot: Snapshot) -> dict[str, dict[str, bool]]:
        """Return what is known of the endpoints of `snapshot`, by cluster and address."""
        found = {}
        for cluster in snapshot.clusters:
            group = self._groups.get(cluster.name)
            if group is not None and cluster.health_checks:
                found[cluster.name] = {
                    address: subject.healthy
                    for address, subject in group.subjects.items()
                    if subject.healthy is not None
                }
        return found

    def marked(self, statuses: Iterable[EndpointStatus]) -> list[EndpointStatus]:
        """Return `statuses` with what is known of the health of each."""
        found = []
        for status in statuses:
            group = self._groups.get(status.cluster)
            subject = group.subjects.get(status.address) if group is not None else None
            if subject is not None:
                status = msgspec.structs.replace(
                    status, health=NAMES[subject.healthy], last_failure=subject.failure
                )
            found.append(status)
        return found

    def samples(self, limit: int) -> list[Sample]:
        """Return numbers; those of single endpoints for the first `limit` of them."""
        found = [
            Sample("sidecar_health_checks_total", (("cluster", c), ("result", r)), (float(n),))
            for (c, r), n in self._counts.items()
        ]
        rows = [
            (cluster, address, subject.healthy)
            for cluster, group in self._groups.items()
            for address, subject in group.subjects.items()
        ]
        sizes = Counter((cluster, NAMES[healthy]) for cluster, _, healthy in rows)
        for (cluster, health), count in sizes.items():
            labels = (("cluster", cluster), ("health", health))
            found.append(Sample("sidecar_health_endpoints", labels, (float(count),)))
        for cluster, address, healthy in rows[:limit]:
            labels = (("cluster", cluster), ("endpoint", address))
            found.append(Sample("sidecar_endpoint_healthy", labels, (float(healthy is not False),)))
        return found

    # Inside:

    def _drop(self, name: str) -> None:
        for subject in self._groups.pop(name).subjects.values():
            subject.stop(subject.series)
        for key in [k for k in self._counts if k[0] == name]:
            del self._counts[key]

    def _settle(self, name: str, places: Iterable[Place]) -> None:
        """Have exactly `places` asked exactly the checks of their cluster."""
        group = self._groups[name]
        wanted = {place.address: place for place in places}
        for address in group.subjects.keys() - wanted:
            subject = group.subjects.pop(address)
            subject.stop(subject.series)
        begun: list[tuple[Subject, HealthCheck]] = []
        turned: dict[str, bool] = {}
        for address, place in wanted.items():
            subject = group.subjects.setdefault(address, Subject(place))
            before = subject.healthy
            subject.stop(subject.series.keys() - set(group.checks))
            for check in group.checks:
                if check not in subject.series:
                    subject.series[check] = Series(check, before)
                    begun.append((subject, check))
            if (before is False) is not (subject.healthy is False):
                turned[address] = subject.healthy is not False
        if turned:
            self._on_change(name, turned)
        for subject, check in begun:
            # Not all at once, and not later than each would be asked again.
            delay = self._draw() * min(check.interval, len(begun) * STEP)
            subject.series[check].task = spawn(
                self._follow(group, name, subject, check, delay),
                name=f"health of {subject.place.address}",
                on_error=bug,
            )

    async def _follow(
        self, group: Group, name: str, subject: Subject, check: HealthCheck, delay: float
    ) -> None:
        """Ask one check again and again; the next question comes after the answer."""
        series = subject.series[check]
        pause = check.interval * check.interval_jitter_percent / 100
        await asyncio.sleep(delay)
        while True:
            async with subject.turn:
                try:
                    failure = await self._ask(group.plan, subject.place, check)
                except Exception as error:  # noqa: BLE001 - a bug says nothing about the endpoint
                    bug("health check", error)
                else:
                    self._note(name, subject, series, failure)
            await asyncio.sleep(check.interval + pause * self._draw())

    def _note(self, name: str, subject: Subject, series: Series, failure: str) -> None:
        before = subject.healthy
        self._counts[name, "failure" if failure else "success"] += 1
        series.verdict.add(good=not failure)
        series.failure = failure or series.failure
        after = subject.healthy
        if after is before:
            return
        address = subject.place.address
        if after is False:
            log.warning("endpoint %s of cluster %s is unhealthy: %s", address, name, failure)
        elif before is False:
            log.info("endpoint %s of cluster %s is healthy again", address, name)
        self._on_change(name, {address: after is not False})


def _places(cluster: Cluster, resolved: Mapping[str, tuple[Place, ...]]) -> tuple[Place, ...]:
    return cluster.endpoints if cluster.discovery is None else resolved.get(cluster.name, ())
