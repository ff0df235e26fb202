"""Which connection a request gets: one that has room, a new one, or a place in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sidecar.errors import OverloadError, UpstreamError

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint, Pool
    from sidecar.core.exchange import Upstream
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.types import Caller, Engine


class Lender(Protocol):
    """A connection that is in a pool while it has room for a request."""

    @property
    def is_open(self) -> bool:
        """It can still carry a request."""

    @property
    def generation(self) -> int:
        """The cluster's generation that it was made in."""

    @property
    def is_unused(self) -> bool:
        """It carries no request."""

    def lease(self) -> Upstream:
        """Return what carries one request; leave the pool when there is no more room."""

    def retire(self) -> None:
        """Leave the pool, and close when what is under way is finished."""


class Waiter(Protocol):
    """Who waits for a connection."""

    waiting: bool
    """Still interested; one that is not is passed over."""

    @property
    def caller(self) -> Caller:
        """The downstream end, for a PROXY protocol header."""

    def upstream_ready(self, client: Upstream) -> None:
        """Take `client` and use it."""

    def upstream_failed(self, error: UpstreamError) -> None:
        """No connection came about."""


def take(
    engine: Engine,
    cluster: ClusterPlan,
    endpoint: Endpoint,
    kind: int,
    waiter: Waiter,
    *,
    fresh: bool = False,
) -> Upstream | None:
    """Return what carries a request to `endpoint`, or None: then `waiter` is called later.

    `kind` is which of the endpoint's pools.  `fresh` asks for a connection that was never used (the
    last reused one turned out dead).

    Raises:
        OverloadError: `pending-overflow`, nothing has room and the queue is full.
    """
    state = cluster.state
    if cluster.proxy_protocol != "off":
        _dial_for(engine, cluster, endpoint, kind, waiter)
        return None
    pool = endpoint.pools[kind]
    if not fresh:
        idle = pool.idle
        while idle:
            lender = idle[-1]
            if lender.generation == state.generation and lender.is_open:
                return lender.lease()
            lender.retire()
    if state.pending >= cluster.max_pending:
        raise OverloadError("pending-overflow", f"{state.pending} requests of {cluster.name} wait")
    state.pending += 1
    waiter.waiting = True
    pool.waiting.append(waiter)
    if pool.dialling * pool.streams >= len(pool.waiting) and not fresh:
        return None  # those on their way have room for all
    if state.connections >= cluster.max_connections:
        _evict(cluster)
    if state.connections < cluster.max_connections:
        dial(engine, cluster, endpoint, kind)
    return None


def dial(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, kind: int) -> None:
    """Begin a connection for whoever waits first."""
    cluster.state.connections += 1
    endpoint.connections += 1
    endpoint.pools[kind].dialling += 1
    cluster.begin(engine, cluster, endpoint, kind, None)


def _dial_for(
    engine: Engine, cluster: ClusterPlan, endpoint: Endpoint, kind: int, waiter: Waiter
) -> None:
    """Begin a connection that names this waiter's caller, and so is nobody else's."""
    state = cluster.state
    if state.connections >= cluster.max_connections:
        raise OverloadError("pending-overflow", f"{state.connections} connections are open")
    state.connections += 1
    endpoint.connections += 1
    waiter.waiting = True
    cluster.begin(engine, cluster, endpoint, kind, waiter)


def dialled(
    engine: Engine,
    cluster: ClusterPlan,
    endpoint: Endpoint,
    kind: int,
    lender: Lender,
    owner: Waiter | None,
) -> None:
    """A connection is there: it goes to its owner, or to those who wait."""
    if owner is not None:
        if owner.waiting:
            owner.waiting = False
            owner.upstream_ready(lender.lease())
        else:
            lender.retire()
        return
    pool = endpoint.pools[kind]
    pool.dialling -= 1
    give(cluster, pool)
    if pool.dialling * pool.streams < len(pool.waiting):
        # It carries fewer than was expected of it.
        _serve(engine, cluster)


def dial_failed(
    engine: Engine,
    cluster: ClusterPlan,
    endpoint: Endpoint,
    kind: int,
    error: UpstreamError,
    owner: Waiter | None,
) -> None:
    """A connection did not come about: who hears of it is its owner, or all that hoped for it."""
    if owner is not None:
        gone(engine, cluster, endpoint)
        if owner.waiting:
            owner.waiting = False
            owner.upstream_failed(error)
        return
    pool = endpoint.pools[kind]
    pool.dialling -= 1
    state = cluster.state
    hoped = min(len(pool.waiting) - pool.dialling * pool.streams, pool.streams)
    failed = []
    for _ in range(hoped):
        waiter = pool.waiting.popleft()
        state.pending -= 1
        if waiter.waiting:
            waiter.waiting = False
            failed.append(waiter)
    gone(engine, cluster, endpoint)
    for waiter in failed:
        waiter.upstream_failed(error)


def give(cluster: ClusterPlan, pool: Pool) -> None:
    """Let those who wait use the connections that have room."""
    waiting, idle = pool.waiting, pool.idle
    while waiting and idle:
        waiter = waiting.popleft()
        cluster.state.pending -= 1
        if waiter.waiting:
            waiter.waiting = False
            waiter.upstream_ready(idle[-1].lease())


def gone(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """A connection has ended: its place goes to whoever of the cluster waits."""
    cluster.state.connections -= 1
    endpoint.connections -= 1
    if cluster.state.pending:
        _serve(engine, cluster)


def _serve(engine: Engine, cluster: ClusterPlan) -> None:
    """Dial for those who wait and for whom no connection is on its way."""
    state = cluster.state
    for endpoint in state.endpoints.values():
        for kind, pool in enumerate(endpoint.pools):
            if state.connections >= cluster.max_connections:
                return
            live = sum(waiter.waiting for waiter in pool.waiting)
            if live > pool.dialling * pool.streams:
                dial(engine, cluster, endpoint, kind)


def _evict(cluster: ClusterPlan) -> None:
    """Close one connection that nobody uses, so that a waiter gets its place."""
    for endpoint in cluster.state.endpoints.values():
        for pool in endpoint.pools:
            for lender in pool.idle:
                if lender.is_unused:
                    lender.retire()
                    return
