"""Which request goes where, how long it may take and how often it is tried."""

from typing import Annotated

from msgspec import Meta

from sidecar.model.action import Cors, HeaderEdit, Redirect, Respond, Rewrite
from sidecar.model.authorization import AuthorizationRule
from sidecar.model.balancing import HashPolicy
from sidecar.model.base import Duration, Model, Size
from sidecar.model.credentials import ApiKeys, BasicAuth
from sidecar.model.external_authorization import ExternalAuthorization
from sidecar.model.fault import Fault
from sidecar.model.jwt import Jwt
from sidecar.model.match import RouteMatch
from sidecar.model.mirror import Mirror
from sidecar.model.python import PythonFilter
from sidecar.model.quota import BandwidthLimit, RateLimit
from sidecar.model.retry import Hedge, RetryPolicy


class WeightedCluster(Model, frozen=True, kw_only=True):
    """One share of a split (Envoy: config.route.v3.WeightedCluster)."""

    name: str
    """The cluster."""

    weight: Annotated[int, Meta(ge=0, le=1000000)]
    """Its share, relative to the sum of the weights."""

    subset: dict[str, str] = {}
    """Labels that an endpoint must have; see the route's."""


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

    jwt: Jwt | None = None
    """Tokens that requests must bring here."""

    api_keys: ApiKeys | None = None
    """API keys that requests must bring here."""

    basic_auth: BasicAuth | None = None
    """Names and passwords that requests must bring here."""

    authorization: tuple[AuthorizationRule, ...] = ()
    """Who may do what here, besides what the listener's rules say."""

    external_authorization: ExternalAuthorization | None = None
    """A service that is asked about requests here, in place of the listener's."""

    bandwidth_limits: tuple[BandwidthLimit, ...] = ()
    """How fast bodies are; all hold."""

    rate_limits: tuple[RateLimit, ...] = ()
    """How many requests are taken; all must have room."""

    mirror: tuple[Mirror, ...] = ()
    """Clusters that get copies of the requests."""
    filters: tuple[PythonFilter, ...] = ()
    """Filters in Python, asked when all policies have let a request pass, before it is rewritten, redirected or answered."""

    faults: tuple[Fault, ...] = ()
    """Faults for tests of who calls."""

    timeout: Duration | None = None
    """Seconds from the end of the request to the response's head, all tries included; 0 means no limit.
    None: 15 s on outbound listeners, no limit on inbound ones, nor for gRPC calls, whose `grpc-timeout` counts.
    A response that has begun is held only by `stream_idle_timeout` and `max_stream_duration`."""

    stream_idle_timeout: Duration | None = None
    """In place of the listener's; 0 means no limit (Envoy: RouteAction.idle_timeout)."""

    max_stream_duration: Duration | None = None
    """In place of the listener's; 0 means no limit."""

    bypass_overload: bool = False
    """Its requests are never refused because the sidecar has too much to do: for health checks."""

    retry: RetryPolicy = RetryPolicy()
    """When a request is tried again."""

    hedge: Hedge | None = None
    """When a request is sent a second time although the first attempt may still be answered. None: never."""

    buffer_limit: Size = 65536
    """Octets of a request body kept for a retry; a longer body is sent once."""
