"""Which connection a request gets: one that has room, a new one, or a place in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from sidecar.core.lifetimes import Lifetimes
from sidecar.core.timers import Timer
from sidecar.errors import OverloadError, UpstreamError

if TYPE_CHECKING:
    from sidecar.core.book import Endpoint, Pool
    from sidecar.core.plan import ClusterPlan
    from sidecar.core.sides import Upstream
    from sidecar.core.types import Caller, Engine


SPENT: Final = -1  # the generation of what has lasted long enough

CROWDED: Final = "pending-timeout"
"""What a waiter hears that no connection was begun for: no endpoint is to blame."""


class Lender(Protocol):
    """A connection that is in a pool while it has room for a request."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it leads."""

    @property
    def is_open(self) -> bool:
        """It can still carry a request."""

    @property
    def is_unused(self) -> bool:
        """It carries no request."""

    generation: int
    """The cluster's that it was made in; another than the cluster's now: it is not used again."""

    def join(self) -> None:
        """Enter the pool, if there is room for a request."""

    def lease(self) -> Upstream:
        """Return what carries one request; leave the pool when there is no more room."""

    def retire(self) -> None:
        """Leave the pool, and close when what is under way is finished."""


class Waiter(Protocol):
    """Who waits for a connection."""

    place: Place | None
    """Where it waits; it leaves there when it loses interest."""

    @property
    def caller(self) -> Caller:
        """The downstream end, for a PROXY protocol header."""

    def upstream_ready(self, client: Upstream) -> None:
        """Take `client` and use it."""

    def upstream_failed(self, error: UpstreamError) -> None:
        """No connection came about."""


@final
class Place:
    """One wait for a connection: in the queue of a pool, or for a dial of one's own.

    A waiter that tries again waits in another place, so that what comes of an attempt it has given
    up is never taken for what it waits for now.
    """

    __slots__ = ("cluster", "pool", "timer", "waiter")

    def __init__(self, cluster: ClusterPlan, pool: Pool, waiter: Waiter) -> None:
        self.cluster: Final = cluster
        self.pool: Final = pool
        self.waiter: Waiter | None = waiter
        self.timer: Timer | None = None  # where no connection is begun for it
        waiter.place = self

    def leave(self) -> None:
        """Wait no longer."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.place = None
        if self.timer is not None:
            self.timer.retire()
        if self in self.pool.waiting:
            self.pool.waiting.remove(self)
            self.cluster.state.pending -= 1

    def call(self) -> Waiter | None:
        """Return who waits here, and clear the place."""
        waiter = self.waiter
        self.leave()
        return waiter

    def wait_at_most(self, engine: Engine, seconds: float) -> None:
        """Give up when no connection has become free by then."""
        self.timer = Timer(self._expire)
        engine.wheel.arm(self.timer, engine.now() + seconds)

    def _expire(self, now: float) -> None:
        waiter = self.call()
        assert waiter is not None  # who leaves stops the timer
        detail = (
            f"all {self.cluster.state.connections} connections of {self.cluster.name} are in use"
        )
        waiter.upstream_failed(UpstreamError(CROWDED, detail, sent=False))


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
            if (
                lender.is_open
                and lender.generation == state.generation
                and not endpoint.removed  # this and the line before are `_is_fit`
            ):
                return lender.lease()
            lender.retire()
    if state.pending >= cluster.max_pending:
        raise OverloadError("pending-overflow", f"{state.pending} requests of {cluster.name} wait")
    state.pending += 1
    place = Place(cluster, pool, waiter)
    pool.waiting.append(place)
    if pool.is_short:
        if state.connections >= cluster.max_connections:
            _evict(cluster)
        if state.connections < cluster.max_connections:
            dial(engine, cluster, endpoint, kind)
        elif cluster.pending_timeout:
            place.wait_at_most(engine, cluster.pending_timeout)
    return None


def free(cluster: ClusterPlan, pool: Pool, lender: Lender) -> None:
    """`lender` has room for a request again."""
    if not _is_fit(cluster, lender):
        lender.retire()
        return
    if not cluster.state.pending:  # nobody waits for any endpoint
        lender.join()
        return
    if not pool.waiting and lender.is_unused and _is_short(cluster):
        lender.retire()  # its place is of use to who waits for another endpoint
        return
    lender.join()
    give(pool)


def give(pool: Pool) -> None:
    """Let those who wait use the connections that have room."""
    waiting, idle = pool.waiting, pool.idle
    while waiting and idle:
        waiter = waiting[0].call()
        assert waiter is not None
        waiter.upstream_ready(idle[-1].lease())


def dialled(
    engine: Engine,
    cluster: ClusterPlan,
    endpoint: Endpoint,
    kind: int,
    lender: Lender,
    owner: Place | None,
) -> None:
    """A connection is there: it goes to its owner, or to those who wait."""
    if cluster.max_connection_duration:
        limit_lifetime(engine, cluster, lender)
    if owner is not None:
        waiter = owner.call()
        if waiter is None:
            lender.retire()
        else:
            waiter.upstream_ready(lender.lease())
        return
    pool = endpoint.pools[kind]
    pool.dialling -= 1
    lender.join()
    give(pool)
    if lender.is_unused and not _is_fit(cluster, lender):
        lender.retire()  # a push came meanwhile, and nobody needs it any more
    if pool.waiting:  # it carries fewer than was expected of it
        _dial_on(engine, cluster, endpoint)


def dial_failed(
    engine: Engine,
    cluster: ClusterPlan,
    endpoint: Endpoint,
    kind: int,
    error: UpstreamError,
    owner: Place | None,
) -> None:
    """A connection did not come about: its owner hears of it, or those who hoped for it longest."""
    if owner is not None:
        gone(engine, cluster, endpoint)
        waiter = owner.call()
        if waiter is not None:
            waiter.upstream_failed(error)
        return
    pool = endpoint.pools[kind]
    hoped = min(pool.streams, len(pool.waiting) - (pool.dialling - 1) * pool.streams)
    pool.dialling -= 1
    cluster.state.connections -= 1
    endpoint.connections -= 1
    # Before others are dialled for: else one who is about to give up would be among them.
    for waiter in [pool.waiting[0].call() for _ in range(hoped)]:
        assert waiter is not None  # it waits, so it is there
        waiter.upstream_failed(error)
    _dial_on(engine, cluster, endpoint)


def gone(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """A connection has ended: its place goes to an endpoint of the cluster that has waiters."""
    cluster.state.connections -= 1
    endpoint.connections -= 1
    _dial_on(engine, cluster, endpoint)


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
    cluster.begin(engine, cluster, endpoint, kind, Place(cluster, endpoint.pools[kind], waiter))


def limit_lifetime(engine: Engine, cluster: ClusterPlan, lender: Lender) -> None:
    """Have `lender` take no further request when it has lasted as long as the cluster allows."""
    lifetimes = cluster.state.lifetimes
    if lifetimes is None:
        lifetimes = cluster.state.lifetimes = Lifetimes(engine, _is_there, _expire)
    lifetimes.add(lender, cluster.max_connection_duration)


def _is_there(lender: Lender) -> bool:
    return lender.is_open


def _expire(lender: Lender) -> None:
    if lender.is_unused:
        lender.retire()
    else:
        lender.generation = SPENT  # it retires when it is free again


def _is_fit(cluster: ClusterPlan, lender: Lender) -> bool:
    """Say whether no push has made the connection one of yesterday's."""
    return lender.generation == cluster.state.generation and not lender.endpoint.removed


def _is_short(cluster: ClusterPlan) -> bool:
    """Say whether somebody waits for whom no connection may be begun: the limit is reached."""
    state = cluster.state
    return (
        state.pending > 0
        and state.connections >= cluster.max_connections
        and any(pool.is_short for e in state.endpoints.values() for pool in e.pools)
    )


def _dial_on(engine: Engine, cluster: ClusterPlan, endpoint: Endpoint) -> None:
    """Begin connections for who waits and has none begun, `endpoint`'s before others'."""
    state = cluster.state
    if not state.pending:
        return
    for other in (endpoint, *state.endpoints.values()):
        for kind, pool in enumerate(other.pools):
            while pool.is_short and state.connections < cluster.max_connections:
                dial(engine, cluster, other, kind)


def _evict(cluster: ClusterPlan) -> None:
    """Close one connection that nobody uses, so that a waiter gets its place."""
    for endpoint in cluster.state.endpoints.values():
        for pool in endpoint.pools:
            for lender in pool.idle:
                if lender.is_unused:
                    lender.retire()
                    return
