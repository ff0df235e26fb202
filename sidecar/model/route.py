"""Which request goes where, how long it may take and how often it is tried."""

from typing import Annotated, Literal

from msgspec import Meta

from sidecar.model.action import Cors, HeaderEdit, Redirect, Respond, Rewrite
from sidecar.model.balancing import HashPolicy
from sidecar.model.base import Duration, Model, Size, Status
from sidecar.model.fault import Fault
from sidecar.model.match import RouteMatch
from sidecar.model.quota import RateLimit


class WeightedCluster(Model, frozen=True, kw_only=True):
    """One share of a split (Envoy: config.route.v3.WeightedCluster)."""

    name: str
    """The cluster."""

    weight: Annotated[int, Meta(ge=0, le=1000000)]
    """Its share, relative to the sum of the weights."""

    subset: dict[str, str] = {}
    """Labels that an endpoint must have; see the route's."""


RetryCondition = Literal[
    "connect-failure",
    "reset",
    "gateway-error",
    "5xx",
    "retriable-4xx",
    "retriable-status-codes",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
]


class RetryPolicy(Model, frozen=True, kw_only=True):
    """How often, and for what, one exchange may be tried again (Envoy: RetryPolicy)."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Tries in all, the first included; 1 means never retry."""

    on: tuple[RetryCondition, ...] = ("connect-failure",)
    """What is tried again. `connect-failure`: no connection came about. `reset`: the endpoint closed before any
    response. `gateway-error`: 502, 503 or 504. `5xx`: any 5xx, or a reset. `retriable-4xx`: 409. `retriable-status-codes`:
    those in `status_codes`. All these but `connect-failure` hold for idempotent methods only. `cancelled`,
    `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`: a gRPC call that ends with this status before
    any message has gone back. A reused connection that died before any response is always tried again for idempotent
    methods, and never for others; a request that the endpoint refused unseen is always tried elsewhere."""

    status_codes: tuple[Status, ...] = ()
    """Response codes for `retriable-status-codes`."""

    per_try_timeout: Duration | None = None
    """Seconds for one try, from pick to response head. None: only the route's timeout counts."""

    backoff: Duration = 0.025
    """Base of the full-jitter back-off between tries: the n-th wait is random between 0 and base * 2**n."""

    backoff_max: Duration = 0.25
    """The longest wait between tries."""


class Route(Model, frozen=True, kw_only=True):
    """One rule for requests (Envoy: config.route.v3.Route); the first that matches is taken."""

    name: str = ""
    """Its name in logs and replies. Empty: its place in the list, `routes[2]`."""

    match: RouteMatch = RouteMatch()
    """What it takes. Empty: everything."""

    cluster: str = ""
    """Where matching requests go. Exactly one of `cluster`, `clusters`, `redirect` and `respond` is given."""

    subset: dict[str, str] = {}
    """With `cluster`: only its endpoints with these labels, `{version: v1}` (Envoy: metadata_match)."""

    clusters: tuple[WeightedCluster, ...] = ()
    """Or a split over several clusters by weight."""

    hash_policy: tuple[HashPolicy, ...] = ()
    """What `ring_hash` and `maglev` hash. Empty, or where nothing of it is there: any endpoint."""

    redirect: Redirect | None = None
    """Or they are sent elsewhere."""

    respond: Respond | None = None
    """Or they are answered here."""

    rewrite: Rewrite | None = None
    """Another path or host for the endpoint."""

    request_headers: HeaderEdit = HeaderEdit()
    """Changes to the request's fields; they see it as it was rewritten."""

    response_headers: HeaderEdit = HeaderEdit()
    """Changes to the response's fields, also of our own replies on this route."""

    cors: Cors | None = None
    """Whose pages may read the answers."""

    rate_limits: tuple[RateLimit, ...] = ()
    """How many requests are taken; all must have room."""

    faults: tuple[Fault, ...] = ()
    """Faults for tests of who calls."""

    timeout: Duration | None = None
    """Seconds from the end of the request to the response's head, all tries included; 0 means no limit.
    None: 15 s on outbound listeners, no limit on inbound ones, nor for gRPC calls, whose `grpc-timeout` counts.
    A response that has begun is held only by `stream_idle_timeout` of its listener."""

    retry: RetryPolicy = RetryPolicy()
    """When a request is tried again."""

    buffer_limit: Size = 65536
    """Octets of a request body kept for a retry; a longer body is sent once."""
