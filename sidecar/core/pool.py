"""Which connection a request gets: an idle one, a new one, or a place in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.core.book import Endpoint
from sidecar.errors import OverloadError, UpstreamError

if TYPE_CHECKING:
    from sidecar.core.http1_client import Http1Client
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.types import Caller, Engine


class Waiter(Protocol):
    """Who waits for a connection."""

    waiting: bool
    """Still interested; one that is not is passed over."""

    @property
    def caller(self) -> Caller:
        """The downstream end, for a PROXY protocol header."""

    def upstream_ready(self, client: Http1Client) -> None:
        """Take `client` and use it."""

    def upstream_failed(self, error: UpstreamError) -> None:
        """No connection came about."""


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
    waiter.waiting = True
    endpoint.waiting.append(waiter)
    if state.connections >= cluster.max_connections:
        _evict(cluster)
    if state.connections < cluster.max_connections:
        dial(engine, cluster, endpoint)
    return None


def dial(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """Begin a connection for whoever waits first."""
    cluster.state.connections += 1
    endpoint.connections += 1
    cluster.begin(engine, cluster, endpoint, None)


def _dial_for(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, waiter: Waiter) -> None:
    """Begin a connection that names this waiter's caller, and so is nobody else's."""
    state = cluster.state
    if state.connections >= cluster.max_connections:
        raise OverloadError("pending-overflow", f"{state.connections} connections are open")
    state.connections += 1
    endpoint.connections += 1
    waiter.waiting = True
    cluster.begin(engine, cluster, endpoint, waiter)


def give(cluster: ClusterPlan, endpoint: Endpoint, client: Http1Client) -> bool:
    """Hand a usable connection to the next waiter; False: nobody waits."""
    waiting = endpoint.waiting
    while waiting:
        waiter = waiting.popleft()
        cluster.state.pending -= 1
        if waiter.waiting:
            waiter.waiting = False
            waiter.upstream_ready(client)
            return True
    return False


def fail(cluster: ClusterPlan, endpoint: Endpoint, error: UpstreamError) -> None:
    """Tell the one who waits longest that its connection failed."""
    waiting = endpoint.waiting
    while waiting:
        waiter = waiting.popleft()
        cluster.state.pending -= 1
        if waiter.waiting:
            waiter.waiting = False
            waiter.upstream_failed(error)
            return


def gone(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """A connection has ended: its place goes to an endpoint of the cluster that has waiters."""
    state = cluster.state
    state.connections -= 1
    endpoint.connections -= 1
    if not state.pending or state.connections >= cluster.max_connections:
        return
    for other in (endpoint, *state.endpoints.values()):
        if any(w.waiting for w in other.waiting) and other.connections < len(other.waiting):
            dial(engine, cluster, other)
            return


def _evict(cluster: ClusterPlan) -> None:
    """Close one idle connection of another endpoint, so that a waiter gets its place."""
    for endpoint in cluster.state.endpoints.values():
        if endpoint.idle:
            endpoint.idle[0].close()
            return
