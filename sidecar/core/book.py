"""What is known about clusters and endpoints across config pushes: load, connections, failures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from sidecar.core.http1_client import Http1Client
    from sidecar.core.pool import Place


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
        "dialling",
        "failures",
        "host",
        "idle",
        "labels",
        "path",
        "port",
        "requests",
        "waiting",
        "weight",
    )

    def __init__(
        self, address: str, host: str = "", port: int = 0, path: str = "", weight: int = 1
    ) -> None:
        self.address: Final = address
        self.host: Final = host
        self.port: Final = port
        self.path: Final = path
        self.weight = weight
        self.labels: dict[str, str] = {}
        self.available = True
        self.active = 0  # attempts and sessions under way
        self.connections = 0  # open or being opened
        self.dialling = 0  # being opened for whoever waits
        self.requests = 0  # attempts ever
        self.failures = 0  # attempts that the endpoint failed
        self.idle: Final[list[Http1Client]] = []
        self.waiting: Final[deque[Place]] = deque()


@final
class ClusterState:
    """What one cluster has under way, in this worker."""

    __slots__ = (
        "connections",
        "endpoints",
        "fingerprint",
        "generation",
        "pending",
        "requests",
        "resolved",
        "retries",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.pending = 0
        self.requests = 0
        self.retries = 0
        self.endpoints: Final[dict[str, Endpoint]] = {}
        self.resolved: tuple[str, ...] | None = None  # the last DNS answer
        self.fingerprint = b""  # of whatever makes old connections unfit: TLS, key material
        self.generation = 0  # connections of an older one are not used again

    def renew(self, fingerprint: bytes) -> None:
        """Retire all connections if `fingerprint` is another than before."""
        if fingerprint == self.fingerprint:
            return
        self.fingerprint = fingerprint
        self.generation += 1
        for endpoint in self.endpoints.values():
            for client in endpoint.idle[:]:
                client.close()


@final
class Book:
    """All clusters' states, by cluster name."""

    __slots__ = ("clusters",)

    def __init__(self) -> None:
        self.clusters: Final[dict[str, ClusterState]] = {}

    def cluster(self, name: str) -> ClusterState:
        """Return the state of cluster `name`, begun if there is none."""
        state = self.clusters.get(name)
        if state is None:
            state = self.clusters[name] = ClusterState()
        return state
