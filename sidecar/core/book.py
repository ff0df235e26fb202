"""What is known about clusters and endpoints across config pushes: load, connections, failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

from sidecar.core.ejection import Detector
from sidecar.traffic.budget import Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.core.admission import Guard
    from sidecar.core.api import Watcher
    from sidecar.core.hedge import Hedges
    from sidecar.core.lifetimes import Lifetimes
    from sidecar.core.pool import Lender, Place


HTTP1, HTTP2 = range(2)  # which of an endpoint's pools


@final
class Pool:
    """Connections to one endpoint that can take another request, and who waits for one."""

    __slots__ = ("dialling", "idle", "streams", "waiting")

    def __init__(self, streams: int) -> None:
        self.idle: Final[list[Lender]] = []
        self.waiting: Final[deque[Place]] = deque()
        self.dialling = 0  # connections on their way, for whoever waits
        self.streams = streams  # requests that one of them is expected to carry at once

    @property
    def is_short(self) -> bool:
        """More wait than the connections on their way will carry."""
        return len(self.waiting) > self.dialling * self.streams


@final
class Endpoint:
    """One address and its state; compared by identity.

    `host` is a DNS name, an IP or empty; then `path` is a unix socket's.
    """

    __slots__ = (
        "active",
        "address",
        "available",
        "connections",
        "ejected",
        "failures",
        "healthy",
        "host",
        "hostname",
        "labels",
        "path",
        "pools",
        "port",
        "priority",
        "removed",
        "requests",
        "since",
        "watchers",
        "weight",
        "zone",
    )

    def __init__(
        self, address: str, host: str = "", port: int = 0, path: str = "", weight: int = 1
    ) -> None:
        self.address: Final = address
        self.host: Final = host
        self.port: Final = port
        self.path: Final = path
        self.weight = weight
        self.hostname = ""  # for TLS, where it is not `host`
        self.labels: dict[str, str] = {}
        self.removed = False  # by a push: who tried it under the old plan keeps it until the end
        self.priority = 0  # 0 is wanted most
        self.zone = ""
        # When it came, in a cluster with slow start; inf: it was not looked at yet.
        self.since = inf
        self.healthy = True  # as far as health checks know
        self.ejected = False  # for what its answers were
        self.available = True  # healthy and not ejected: what balancers look at
        self.active = 0  # attempts and sessions under way
        self.connections = 0  # open or being opened
        self.requests = 0  # attempts ever
        self.failures = 0  # attempts that the endpoint failed
        self.watchers: tuple[Watcher, ...] = ()  # told of its answers and failures
        self.pools: Final = (Pool(1), Pool(100))

    @property
    def idle(self) -> int:
        """How many connections could take another request."""
        return sum(len(pool.idle) for pool in self.pools)

    def remove(self) -> None:
        """Keep no connection for later."""
        self.removed = True
        self.retire()

    def retire(self) -> None:
        """Use none of the connections again; what is under way on them is finished."""
        for pool in self.pools:
            for lender in pool.idle[:]:
                lender.retire()


@final
class ClusterState:
    """What one cluster has under way, in this worker."""

    __slots__ = (
        "balancer",
        "changes",
        "connections",
        "detector",
        "endpoints",
        "fingerprint",
        "generation",
        "guard",
        "health",
        "hedges",
        "ledger",
        "lifetimes",
        "pending",
        "requests",
        "resolved",
        "retries",
        "room",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.pending = 0
        self.requests = 0
        self.retries = 0
        self.room = 1024  # requests under way before `core/admission` is asked
        self.guard: Guard | None = None  # who has a say in that, beside the configured limit
        self.ledger: Final = Ledger()  # of retries lately
        self.hedges: Hedges | None = None  # of the routes that send a second attempt here
        self.endpoints: Final[dict[str, Endpoint]] = {}
        self.health: Final[dict[str, bool]] = {}  # what checks found, by address
        # What discovery found last, as the model has it; (): the name has no address.
        self.resolved: tuple[Any, ...] | None = None
        self.fingerprint = b""  # of whatever makes old connections unfit: TLS, key material
        self.balancer: object = None  # which one, and its settings, the endpoints are watched for
        self.detector: Final = Detector(self)
        self.lifetimes: Lifetimes[Lender] | None = None  # of connections that have an end
        self.changes = 0  # of who is available
        self.generation = 0  # connections of an older one are not used again

    @property
    def attempts(self) -> int:
        """How many there ever were, at the endpoints that there are."""
        return sum(endpoint.requests for endpoint in self.endpoints.values())

    def judge(self, health: Mapping[str, bool]) -> None:
        """Note what health checks found, by address; endpoints not named are as they were."""
        self.health.update(health)
        for address, healthy in health.items():
            endpoint = self.endpoints.get(address)
            if endpoint is not None:  # else the one that comes is told when it does
                self.judge_one(endpoint, healthy=healthy)

    def judge_one(self, endpoint: Endpoint, *, healthy: bool) -> None:
        """Note what health checks found of `endpoint`."""
        endpoint.healthy = healthy
        self._settle(endpoint)

    def eject(self, endpoint: Endpoint, *, ejected: bool) -> None:
        """Leave `endpoint` out for what its answers were, or take it back."""
        endpoint.ejected = ejected
        self._settle(endpoint)

    def _settle(self, endpoint: Endpoint) -> None:
        endpoint.available = endpoint.healthy and not endpoint.ejected
        self.changes += 1

    def renew(self, fingerprint: bytes) -> None:
        """Retire all connections if `fingerprint` is another than before."""
        if fingerprint == self.fingerprint:
            return
        self.fingerprint = fingerprint
        self.generation += 1
        for endpoint in self.endpoints.values():
            endpoint.retire()


@final
class Book:
    """All clusters' states, by cluster name, and what filters remember."""

    __slots__ = ("clusters", "kept")

    def __init__(self) -> None:
        self.clusters: Final[dict[str, ClusterState]] = {}
        self.kept: dict[Hashable, Any] = {}  # what filters count, by their config and place

    def cluster(self, name: str) -> ClusterState:
        """Return the state of cluster `name`, begun if there is none."""
        state = self.clusters.get(name)
        if state is None:
            state = self.clusters[name] = ClusterState()
        return state

    def outline(self) -> Book:
        """Return another one that knows no more than what was discovered, and what filters keep."""
        other = Book()
        other.kept = self.kept
        for name, state in self.clusters.items():
            other.cluster(name).resolved = state.resolved
        return other
