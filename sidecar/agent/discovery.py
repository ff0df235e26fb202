"""Which endpoints there are for clusters that do not list them, kept up to date."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol, final

from sidecar.agent.logs import bug, log
from sidecar.agent.lookup import Found, LookupFailed, NoSuchName
from sidecar.agent.nameswitch import stamp_of
from sidecar.core.api import Draw
from sidecar.errors import ConfigErrors
from sidecar.model.cluster import Cluster
from sidecar.model.discovery import DnsLookup
from sidecar.model.endpoint import Endpoint
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.clock import wall
from sidecar.runtime.messages import Sample
from sidecar.runtime.tasks import spawn
from sidecar.sources import file_sd
from sidecar.traffic.refresh import Refresh

FILE_INTERVAL: Final = 0.5  # seconds between looks at a file


class Goal(NamedTuple):
    """What is looked up, and for whom."""

    cluster: str
    kind: str
    target: str
    refresh: float
    options: DnsLookup


class Finder(Protocol):
    """Who looks names up."""

    async def find(self, kind: str, target: str, options: DnsLookup) -> Found:
        """Return what is found, or raise NoSuchName or LookupFailed."""


OnChange = Callable[[Goal, tuple[Endpoint, ...]], None]


@final
class Discovery:
    """Follows names and files; `on_change(goal, endpoints)` is told what is new.

    Nothing that fails takes endpoints away: the last good ones stay until there are others, or a
    name was said several times not to be there.
    """

    def __init__(
        self,
        on_change: OnChange,
        finder: Callable[[], Finder] | None = None,
        draw: Draw = random.random,
    ) -> None:
        self._on_change: Final = on_change
        self._make_finder: Final = finder or _finder
        self._finder: Finder | None = None
        self._draw: Final = draw
        self._tasks: Final[dict[Goal, asyncio.Task[None]]] = {}
        self._asked: Final[set[Goal]] = set()  # looked up once, whatever came of it
        self._known: Final[dict[Goal, tuple[Endpoint, ...]]] = {}
        self._troubles: Final[dict[Goal, str]] = {}
        self._times: Final[dict[Goal, float]] = {}  # of the last success
        self._counts: Final[Counter[tuple[str, str]]] = Counter()
        self._news: Final = asyncio.Condition()

    def follow(self, snapshot: Snapshot) -> None:
        """Follow what `snapshot` names as well."""
        for goal in _goals(snapshot):
            if goal not in self._tasks:
                work = self._follow_file(goal) if goal.kind == "file_sd" else self._follow(goal)
                self._tasks[goal] = spawn(work, name=f"discover {goal.target}", on_error=bug)

    def keep_only(self, snapshot: Snapshot | None) -> None:
        """Follow nothing else than what `snapshot` names any more."""
        wanted = set(_goals(snapshot)) if snapshot is not None else set()
        for goal in self._tasks.keys() - wanted:
            self._tasks.pop(goal).cancel()
            self._asked.discard(goal)
            for kept in (self._known, self._troubles, self._times):
                kept.pop(goal, None)
        clusters = {goal.cluster for goal in wanted}
        for key in [key for key in self._counts if key[0] not in clusters]:
            del self._counts[key]

    def of(self, snapshot: Snapshot) -> dict[str, tuple[Endpoint, ...]]:
        """Return the endpoints of each cluster for which some were found by now, or none for sure."""
        return {g.cluster: self._known[g] for g in _goals(snapshot) if g in self._known}

    async def wait(self, seconds: float) -> None:
        """Wait until all was looked up once, so that no request comes before the answer."""
        async with self._news:
            waiting = self._news.wait_for(lambda: self._asked >= self._tasks.keys())
            try:
                await asyncio.wait_for(waiting, seconds)
            except TimeoutError:
                log.warning("not every name of a cluster is resolved yet")

    def samples(self) -> list[Sample]:
        """Return numbers."""
        found = [
            Sample("sidecar_discovery_updates_total", (("cluster", c), ("result", r)), (float(n),))
            for (c, r), n in self._counts.items()
        ]
        for goal, endpoints in self._known.items():
            labels = (("cluster", goal.cluster),)
            found.append(Sample("sidecar_discovery_endpoints", labels, (float(len(endpoints)),)))
        for goal, when in self._times.items():
            name = "sidecar_discovery_last_success_timestamp_seconds"
            found.append(Sample(name, (("cluster", goal.cluster),), (when,)))
        return found

    # Inside:

    async def _follow(self, goal: Goal) -> None:
        """Look a name up again and again."""
        options = goal.options
        # Whoever wants to know each `dns_refresh` may want it sooner than TTLs are believed.
        shortest = min(options.min_refresh, max(goal.refresh, 0.1))
        pace = Refresh(goal.refresh, shortest, options.max_refresh)
        if self._finder is None:
            self._finder = self._make_finder()
        while True:
            try:
                found = await self._finder.find(goal.kind, goal.target, options)
            except NoSuchName as error:
                wait = pace.denied(error.ttl if options.respect_ttl else None, self._draw())
                is_gone = pace.is_gone or not self._known.get(goal)
                await self._note(goal, "empty", () if is_gone else None, str(error))
            except LookupFailed as error:
                wait = pace.failed(self._draw())
                partial = error.partial if goal not in self._known else ()
                await self._note(goal, "failure", partial or None, str(error))
            else:
                wait = pace.succeeded(found.ttl if options.respect_ttl else None, self._draw())
                await self._note(goal, "success", found.endpoints)
            await asyncio.sleep(wait)

    async def _follow_file(self, goal: Goal) -> None:
        """Read a file again whenever it has changed, and does not change any more."""
        read: tuple[int, ...] | None = ()
        before = read
        while True:
            stamp = stamp_of(goal.target)
            # One that was put in the other's place is whole; one that is written to may not be.
            is_other = stamp is not None and (not read or stamp[1] != read[1])
            if stamp != read and (is_other or stamp == before):
                read = stamp
                try:
                    endpoints = file_sd.read(goal.target)
                except ConfigErrors as errors:
                    await self._note(goal, "failure", None, str(errors))
                else:
                    await self._note(goal, "success", endpoints)
            before = stamp
            await asyncio.sleep(FILE_INTERVAL)

    async def _note(
        self, goal: Goal, result: str, endpoints: tuple[Endpoint, ...] | None, trouble: str = ""
    ) -> None:
        """Take up what came of one look; without `endpoints`, those before stay."""
        self._counts[goal.cluster, result] += 1
        if not trouble:
            self._times[goal] = wall()
        if trouble != self._troubles.get(goal, ""):
            self._tell(goal, trouble, stay=endpoints is None)
        self._troubles[goal] = trouble
        self._asked.add(goal)
        is_news = endpoints is not None and endpoints != self._known.get(goal)
        if is_news:
            assert endpoints is not None
            self._known[goal] = endpoints
        async with self._news:
            self._news.notify_all()
        if is_news:
            assert endpoints is not None
            self._on_change(goal, endpoints)

    def _tell(self, goal: Goal, trouble: str, *, stay: bool) -> None:
        if not trouble:
            log.info("%s of cluster %s is found again", goal.target, goal.cluster)
            return
        kept = len(self._known.get(goal, ()))
        what = f"the last {kept} endpoints stay" if stay and kept else "it has no endpoints"
        for line in trouble.splitlines():
            log.warning("cluster %s: %s; %s", goal.cluster, line, what)


def _finder() -> Finder:
    # Not at the top: what speaks DNS takes 0.15 s and 5 MB to load, and most have no use for it.
    from sidecar.agent.resolver import Resolver  # noqa: PLC0415

    return Resolver()


def _goals(snapshot: Snapshot) -> Iterable[Goal]:
    return [goal for cluster in snapshot.clusters if (goal := _goal(cluster)) is not None]


def _goal(cluster: Cluster) -> Goal | None:
    found = cluster.discovery
    if found is None:
        return None
    return Goal(cluster.name, *found, cluster.dns_refresh, cluster.dns_lookup)
