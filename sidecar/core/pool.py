"""Which connection a request gets: an idle one, a new one, or a place in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from sidecar.core.book import Endpoint
from sidecar.errors import OverloadError, UpstreamError

if TYPE_CHECKING:
    from sidecar.core.http1_client import Http1Client
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.types import Caller, Engine


class Waiter(Protocol):
    """Who waits for a connection."""

    place: Place | None
    """Where it waits; it leaves there when it loses interest."""

    @property
    def caller(self) -> Caller:
        """The downstream end, for a PROXY protocol header."""

    def upstream_ready(self, client: Http1Client) -> None:
        """Take `client` and use it."""

    def upstream_failed(self, error: UpstreamError) -> None:
        """No connection came about."""


@final
class Place:
    """One wait for a connection: in the queue of an endpoint, or for a dial of one's own.

    A waiter that tries again waits in another place, so that what comes of an attempt it has given
    up is never taken for what it waits for now.
    """

    __slots__ = ("cluster", "endpoint", "waiter")

    def __init__(self, cluster: ClusterPlan, endpoint: Endpoint, waiter: Waiter) -> None:
        self.cluster: Final = cluster
        self.endpoint: Final = endpoint
        self.waiter: Waiter | None = waiter
        waiter.place = self

    def leave(self) -> None:
        """Wait no longer."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.place = None
        if self in self.endpoint.waiting:
            self.endpoint.waiting.remove(self)
            self.cluster.state.pending -= 1

    def call(self) -> Waiter | None:
        """Return who waits here, and clear the place."""
        waiter = self.waiter
        self.leave()
        return waiter


def take(
    engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, waiter: Waiter, *, fresh: bool = False
) -> Http1Client | None:
    """Return an idle connection to `endpoint`, or None: then `waiter` is called later.

    `fresh` asks for a connection that was never used (the last reused one turned out dead).

    Raises:
        OverloadError: `pending-overflow`, nothing idle and the queue is full.
    """
    state = cluster.state
    if cluster.proxy_protocol != "off":
        _dial_for(engine, cluster, endpoint, waiter)
        return None
    if not fresh:
        idle = endpoint.idle
        while idle:
            client = idle.pop()
            if client.generation == state.generation and client.is_open:
                return client
            client.close()
    if state.pending >= cluster.max_pending:
        raise OverloadError("pending-overflow", f"{state.pending} requests of {cluster.name} wait")
    state.pending += 1
    endpoint.waiting.append(Place(cluster, endpoint, waiter))
    if state.connections >= cluster.max_connections:
        _evict(cluster)
    if state.connections < cluster.max_connections:
        _dial(engine, cluster, endpoint)
    return None


def _dial(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """Begin a connection for whoever waits first."""
    cluster.state.connections += 1
    endpoint.connections += 1
    endpoint.dialling += 1
    cluster.begin(engine, cluster, endpoint, None)


def _dial_for(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, waiter: Waiter) -> None:
    """Begin a connection that names this waiter's caller, and so is nobody else's."""
    state = cluster.state
    if state.connections >= cluster.max_connections:
        raise OverloadError("pending-overflow", f"{state.connections} connections are open")
    state.connections += 1
    endpoint.connections += 1
    cluster.begin(engine, cluster, endpoint, Place(cluster, endpoint, waiter))


def give(endpoint: Endpoint, client: Http1Client) -> bool:
    """Hand a usable connection to the next waiter; False: nobody waits."""
    if not endpoint.waiting:
        return False
    waiter = endpoint.waiting[0].call()
    assert waiter is not None
    waiter.upstream_ready(client)
    return True


def failed(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, error: UpstreamError) -> None:
    """A dial has failed: tell the one who waits longest."""
    endpoint.dialling -= 1
    cluster.state.connections -= 1
    endpoint.connections -= 1
    # Before others are dialled for: else one who is about to give up would be among them.
    if endpoint.waiting:
        waiter = endpoint.waiting[0].call()
        assert waiter is not None
        waiter.upstream_failed(error)
    _dial_on(engine, cluster, endpoint)


def gone(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """A connection has ended: its place goes to an endpoint of the cluster that has waiters."""
    cluster.state.connections -= 1
    endpoint.connections -= 1
    _dial_on(engine, cluster, endpoint)


def is_short(cluster: ClusterPlan) -> bool:
    """Say whether somebody waits for whom no connection may be begun: the limit is reached."""
    state = cluster.state
    return (
        state.pending > 0
        and state.connections >= cluster.max_connections
        and any(len(e.waiting) > e.dialling for e in state.endpoints.values())
    )


def _dial_on(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """Begin a connection for one who waits and has none begun, `endpoint`'s before others'."""
    state = cluster.state
    if not state.pending or state.connections >= cluster.max_connections:
        return
    for other in (endpoint, *state.endpoints.values()):
        if len(other.waiting) > other.dialling:
            _dial(engine, cluster, other)
            return


def _evict(cluster: ClusterPlan) -> None:
    """Close one idle connection of another endpoint, so that a waiter gets its place."""
    for endpoint in cluster.state.endpoints.values():
        if endpoint.idle:
            endpoint.idle[0].close()
            return
