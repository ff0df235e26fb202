"""Which request goes where, how long it may take and how often it is tried."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sidecar.model.base import Duration, Model, Percent, Port, Size, Status


class StringMatch(Model, frozen=True, kw_only=True):
    """A condition on one text (Envoy: type.matcher.v3.StringMatcher); exactly one kind is given."""

    SHORT: ClassVar[str] = "exact"

    exact: str | None = None
    """The text is this, letter for letter."""

    prefix: str | None = None
    """The text begins with this."""

    suffix: str | None = None
    """The text ends with this."""

    regex: str | None = None
    """The whole text matches this RE2 pattern (linear time, so no look-around)."""

    present: bool | None = None
    """True: it is there, whatever its value; false: it is absent."""

    invert: bool = False
    """Turn the answer around."""


class RouteMatch(Model, frozen=True, kw_only=True):
    """What a request must have for the route to take it; all that is given must hold."""

    hosts: tuple[str, ...] = ()
    """Host names, without port: exact, `*.example.org` for any name below it, or `*`. Empty: any."""

    path: str | None = None
    """The whole path, without the query."""

    prefix: str | None = None
    """The path begins with this, by segments: `/api` takes `/api` and `/api/x`, not `/apix`."""

    regex: str | None = None
    """The whole path, without the query, matches this RE2 pattern."""

    template: str | None = None
    """The whole path, without the query, by segments: `*` or `{name}` stands for one, `**` or `{name=**}` for any
    number at the end: `/users/{id}/orders/**`."""

    methods: tuple[str, ...] = ()
    """Request methods, in capitals. Empty: any."""

    headers: dict[str, StringMatch] = {}
    """Conditions on request fields, by name; a repeated field is joined with `, ` first."""

    query: dict[str, StringMatch] = {}
    """Conditions on query parameters, by name; percent-decoded, the first of each name counts."""

    cookies: dict[str, StringMatch] = {}
    """Conditions on cookies of the request, by name; the first of each name counts."""

    peer: StringMatch | None = None
    """Condition on the caller's identity, its SPIFFE ID; absent where it showed no certificate."""

    ports: tuple[Port, ...] = ()
    """Ports that the caller has connected to. Empty: any."""

    percent: Percent = 100.0
    """The share of requests that the route takes of those that match, drawn anew for each; the rest goes on to
    the next route (Envoy: runtime_fraction)."""

    sni: tuple[str, ...] = ()
    """For `protocol: tcp`: server names in the caller's TLS hello; same forms as `hosts`."""


class WeightedCluster(Model, frozen=True, kw_only=True):
    """One share of a split (Envoy: config.route.v3.WeightedCluster)."""

    name: str
    """The cluster."""

    weight: Annotated[int, Meta(ge=0, le=1000000)]
    """Its share, relative to the sum of the weights."""


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
    """Where matching requests go. Exactly one of `cluster` and `clusters` is given."""

    clusters: tuple[WeightedCluster, ...] = ()
    """Or a split over several clusters by weight."""

    timeout: Duration | None = None
    """Seconds from the end of the request to the response's head, all tries included; 0 means no limit.
    None: 15 s on outbound listeners, no limit on inbound ones, nor for gRPC calls, whose `grpc-timeout` counts.
    A response that has begun is held only by `stream_idle_timeout` of its listener."""

    retry: RetryPolicy = RetryPolicy()
    """When a request is tried again."""

    buffer_limit: Size = 65536
    """Octets of a request body kept for a retry; a longer body is sent once."""
