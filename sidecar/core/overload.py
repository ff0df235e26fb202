"""What a worker does while it has too much: fewer requests, fewer connections, none that rest.

Theory of operation.  Whoever measures (`runtime/pressure.py`) sets pressures from 0 to 1; what
follows is worked out here, once for each change.  While nothing is over, `Engine.overload` is None,
and that is all that a request sees of it.  `Gate` is asked once for each connection.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.types import Engine, ListenerState

MEMORY, LAG, DESCRIPTORS = "memory", "loop_lag", "descriptors"
RESOURCES: Final = (MEMORY, LAG, DESCRIPTORS)

# Envoy's names of what is done (`envoy.overload_actions.…`), as metrics have them.
STOP_REQUESTS: Final = "stop_accepting_requests"
STOP_KEEPALIVE: Final = "disable_http_keepalive"
STOP_CONNECTIONS: Final = "reject_incoming_connections"
ACTIONS: Final = (STOP_REQUESTS, STOP_KEEPALIVE, STOP_CONNECTIONS)

UNLIMITED: Final = 1 << 62


@final
class Overload:
    """What is done at these pressures, by resource."""

    __slots__ = ("pressures", "reason", "rests", "share")

    def __init__(self, pressures: dict[str, float]) -> None:
        self.pressures: Final = pressures
        # A request less is less memory and a shorter turn; it is no descriptor less: connections are.
        self.share: Final = max(pressures[MEMORY], pressures[LAG])  # of requests that are shed
        # New connections cost time: where that is what lacks, those that are there are kept.
        self.rests: Final = not (pressures[MEMORY] or pressures[DESCRIPTORS])
        worst = max(pressures, key=pressures.__getitem__)
        self.reason: Final = f"{worst.replace('_', ' ')} at {pressures[worst]:.0%} of the way"

    @property
    def refuses(self) -> bool:
        """No further connection is taken."""
        return max(self.pressures.values()) >= 1.0

    def actions(self) -> dict[str, float]:
        """Return how far each action goes, 0 to 1."""
        return {
            STOP_REQUESTS: self.share,
            STOP_KEEPALIVE: float(not self.rests),
            STOP_CONNECTIONS: float(self.refuses),
        }


@final
class Gate:
    """Whether one more connection is accepted, whatever its listener says."""

    __slots__ = ("ceiling", "limit", "listeners", "overloaded")

    def __init__(self) -> None:
        self.limit = UNLIMITED  # connections of all listeners, as configured
        self.ceiling = UNLIMITED  # what the descriptors are enough for
        self.overloaded = False
        self.listeners: Collection[ListenerState] = ()

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum([len(listener.connections) for listener in self.listeners])

    def refusal(self) -> str | None:
        """Return why another connection is refused, None if it is not."""
        if self.overloaded:
            return "overloaded"
        if self.limit is UNLIMITED and self.ceiling is UNLIMITED:
            return None
        connections = self.connections
        if connections >= self.limit:
            return "connections-overflow"
        return "descriptors-overflow" if connections >= self.ceiling else None


def press(engine: Engine, pressures: dict[str, float]) -> None:
    """Have `engine` do what these pressures, one for each resource, ask for."""
    overload = Overload(pressures) if any(pressures.values()) else None
    engine.overload = overload
    engine.gate.overloaded = overload is not None and overload.refuses


def is_shed(exchange: Exchange, overload: Overload) -> bool:
    """Say whether `exchange`, whose route is found, was answered because there is too much."""
    route, engine = exchange.route, exchange.engine
    assert route is not None
    if route.bypass_overload:
        return False
    if not overload.rests:
        exchange.head.close = True
    if engine.draw() >= overload.share:
        return False
    # Not all after the same time: they would come together again.
    after = b"%d" % (1 + int(3 * engine.draw()))
    exchange.answer(Answer("overloaded", fields=((b"retry-after", after),), detail=overload.reason))
    return True
