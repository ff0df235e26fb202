"""Faults that the operator puts into routes at run time, each with an end."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar, final

from msgspec.structs import replace

from sidecar.agent.config import Source
from sidecar.errors import ConfigError, ConfigErrors
from sidecar.model.fault import AddedFault, Fault
from sidecar.model.listener import Listener
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot

Kind = TypeVar("Kind", bound=Listener)

MOST: Final = 100  # at once; each is one more look at every request of its route


class Held(NamedTuple):
    """One fault under way."""

    number: int
    route: str
    fault: Fault
    ends: float
    """In the seconds of the clock."""


@final
class Faults(Source):
    """A source that adds to what another one says; nothing of it outlives the agent's run."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source: Final = source
        self._clock: Final = clock
        self._held: dict[int, Held] = {}
        self._count = 0

    # The source:

    @property
    def name(self) -> str:
        """The other source's."""
        return self._source.name

    def load(self) -> Snapshot:
        """Return what the other source says, with the faults in its routes."""
        return self.applied(self._source.load())

    def locate(self, errors: ConfigErrors) -> ConfigErrors:
        """Return `errors` with the places where they are."""
        return self._source.locate(errors)

    def watched(self) -> tuple[str, ...]:
        """The other source's."""
        return self._source.watched()

    # The operator:

    def __len__(self) -> int:
        return len(self._held)

    def applied(self, snapshot: Snapshot) -> Snapshot:
        """Return `snapshot` with the faults; one whose route is not there waits for it."""
        if not self._held:
            return snapshot
        return replace(
            snapshot,
            inbound=tuple(self._into(listener) for listener in snapshot.inbound),
            outbound=tuple(self._into(listener) for listener in snapshot.outbound),
        )

    def add(self, wanted: AddedFault, running: Snapshot, check: Callable[[Snapshot], None]) -> int:
        """Begin one; return the number to end it by.

        Raises:
            ConfigErrors: `running` has no such route, or does not compile with the fault.
        """
        listeners = (*running.inbound, *running.outbound)
        names = [r.name for x in listeners for r in x.routes or (Route(name=x.cluster),)]
        if wanted.route not in names or not wanted.route:
            there = ", ".join(name for name in names if name) or "none with a name"
            raise ConfigErrors(
                [ConfigError("route", f"no route is called {wanted.route!r}; there are: {there}")]
            )
        if not wanted.ttl:
            raise ConfigErrors([ConfigError("ttl", "expected more than 0")])
        if len(self._held) >= MOST:
            raise ConfigErrors([ConfigError("", f"{MOST} faults are under way already")])
        self._count += 1
        name = wanted.fault.name or f"added#{self._count}"
        fault = replace(wanted.fault, name=name, lifetime=wanted.ttl)
        held = Held(self._count, wanted.route, fault, self._clock() + wanted.ttl)
        self._held[held.number] = held
        try:
            check(self.applied(running))
        except ConfigErrors:
            del self._held[held.number]
            raise
        return held.number

    def remove(self, number: int) -> bool:
        """End one; say whether there was such a one."""
        return self._held.pop(number, None) is not None

    def expire(self) -> bool:
        """End those whose time is up; say whether there were any."""
        now = self._clock()
        over = [number for number, held in self._held.items() if held.ends <= now]
        for number in over:
            del self._held[number]
        return bool(over)

    def rows(self) -> list[dict[str, object]]:
        """Return what is under way, for the operator."""
        now = self._clock()
        return [
            {
                "id": held.number,
                "route": held.route,
                "seconds_left": round(max(held.ends - now, 0.0), 1),
                "fault": held.fault,
            }
            for held in self._held.values()
        ]

    def _into(self, listener: Kind) -> Kind:
        routes = listener.routes
        if not routes and any(held.route == listener.cluster for held in self._held.values()):
            # `cluster` is short for a route of that name.
            routes = (Route(name=listener.cluster, cluster=listener.cluster),)
            listener = replace(listener, cluster="")
        return replace(listener, routes=tuple(self._with_faults(r) for r in routes))

    def _with_faults(self, route: Route) -> Route:
        found = tuple(h.fault for h in self._held.values() if h.route == route.name)
        return replace(route, faults=(*found, *route.faults)) if found else route
