"""A named set of endpoints and how to reach them."""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from sidecar.model.admission import AdaptiveConcurrency, AdmissionControl
from sidecar.model.balancing import (
    Maglev,
    OutlierDetection,
    PeakEwma,
    RingHash,
    SlowStart,
    ZoneAware,
)
from sidecar.model.base import Address, Count, Duration, Model, Percent
from sidecar.model.discovery import DnsLookup
from sidecar.model.endpoint import Endpoint
from sidecar.model.health import HealthCheck
from sidecar.model.http2 import Http2


class ClusterTls(Model, frozen=True, kw_only=True):
    """How connections to the endpoints are secured (Envoy: UpstreamTlsContext)."""

    SHORT: ClassVar[str] = "mode"

    mode: Literal["off", "simple", "mutual"] = "off"
    """`off`: plaintext. `simple`: TLS, the server's name is checked against the system's roots or `roots`.
    `mutual`: mTLS with this workload's certificate; the peer's SPIFFE ID must be in `identities`."""

    identities: tuple[str, ...] = ()
    """For `mutual`: SPIFFE IDs that the endpoints may have, compared whole. Empty: any of the trust domain."""

    sni: str = ""
    """Server name sent in the TLS hello and, for `simple`, expected in the certificate. Empty: the endpoint's host."""

    roots: str = ""
    """For `simple`: PEM file with the accepted roots. Empty: the system's."""


class Limits(Model, frozen=True, kw_only=True):
    """Circuit breaking: what the cluster may hold at once, per worker (Envoy: CircuitBreakers)."""

    connections: Count = 1024
    """Connections open to all endpoints together; over it, requests wait among `pending`."""

    pending: Count = 1024
    """Requests waiting for a connection; one more is answered 503 with flag UO."""

    pending_timeout: Duration | None = None
    """Seconds that a request waits when `connections` are open already, until it is answered 503 with flag UO.
    None: as long as `connect_timeout`. 0: until the route's timeout."""

    requests: Count = 1024
    """Requests under way; one more is answered 503 with flag UO."""

    retries: Count = 3
    """Retries that may always be under way; beyond it, the budget decides."""

    retry_budget: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Retries under way as a share of requests under way (0.2 is 20 %), or, where that is more, retries of the last 10 s
    as a share of the requests of these 10 s, and 10 more. 0: nothing beyond `retries`."""


class Cluster(Model, frozen=True, kw_only=True):
    """A named set of places (Envoy: config.cluster.v3.Cluster), from one of `endpoints`, `dns`, `srv` and `file_sd`."""

    name: str
    """The name that routes use."""

    endpoints: tuple[Endpoint, ...] = ()
    """Its addresses."""

    dns: Address | None = None
    """Or a DNS name with a port, `catalog.internal:8080`: every address it resolves to is an endpoint."""

    srv: str = ""
    """Or a DNS name with SRV records, `_http._tcp.catalog.internal`: they say names, ports, weights and priorities."""

    file_sd: str = ""
    """Or a file in Prometheus's `file_sd` format, YAML or JSON, watched for changes: lists of `targets` with `labels`.
    The labels `weight`, `priority`, `zone` and `hostname` mean the endpoint's fields; all that do not begin with `__`
    are its labels, for subsets. A file that is bad or gone leaves the last good endpoints."""

    dns_refresh: Duration = 5.0
    """Seconds between look-ups where no TTL says when, as for names in /etc/hosts. A look-up that fails keeps the last
    addresses, and is tried again sooner at first."""

    dns_lookup: DnsLookup = DnsLookup()
    """How the names of `dns` and `srv` are looked up."""

    service: str = ""
    """`destination_service` in metrics. Empty: the cluster's name."""

    protocol: Literal["auto", "http1", "http2", "same-as-downstream"] = "auto"
    """What is spoken with the endpoints. `auto`: what ALPN chooses under TLS, HTTP/1.1 in plaintext. `http2` in
    plaintext: by prior knowledge, as gRPC servers expect. `same-as-downstream`: what the caller speaks."""

    http2: Http2 = Http2()
    """How HTTP/2 is spoken with the endpoints."""

    balancer: str = "least_request"
    """Who picks the endpoint, always by weight: `least_request` (the less busy of two drawn), `round_robin`, `random`,
    `peak_ewma` (the sooner of two, by latency and queue), `ring_hash` or `maglev` (like requests to one endpoint, see
    `hash_policy` of routes)."""

    ring_hash: RingHash = RingHash()
    """Settings of the balancer of this name."""

    maglev: Maglev = Maglev()
    """Settings of the balancer of this name."""

    peak_ewma: PeakEwma = PeakEwma()
    """Settings of the balancer of this name."""

    panic_threshold: Percent = 50.0
    """While fewer endpoints than this are available, all are used as if they were: better some failures than the
    whole load on the few that are left. 0 means never."""

    zone_aware: ZoneAware = ZoneAware()
    """Whether the own zone comes first."""

    outlier_detection: OutlierDetection = OutlierDetection()
    """When an endpoint that fails is left out for a while."""

    slow_start: SlowStart = SlowStart()
    """How a new endpoint comes to its share; not for `ring_hash` and `maglev`."""

    tls: ClusterTls = ClusterTls()
    """How the connections are secured."""

    connect_timeout: Duration = 5.0
    """Seconds until a connection, its TLS handshake included, must be there."""

    idle_timeout: Duration = 60.0
    """Seconds that an unused connection is kept for the next request."""

    max_connection_duration: Duration = 0.0
    """Seconds after which a connection takes no further request, so that new ones are balanced anew; 0 means no limit.
    Kept to the second; not for tcp sessions, which their listener limits."""

    max_stream_duration: Duration = 0.0
    """Seconds that one try may take, from pick to the response's end; then another under `reset`, 408 or a cut (flag
    UMSDR). 0 means no limit."""

    max_requests_per_connection: Count = 0
    """Requests after which a connection is closed; 0 means no limit."""

    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    """Begin each connection with a PROXY protocol header that names the caller's address."""

    limits: Limits = Limits()
    """What it may hold at once."""

    adaptive_concurrency: AdaptiveConcurrency = AdaptiveConcurrency()
    """Whether latency makes the limit of requests lower. To protect the own app with it, write the app as a cluster
    (`cluster: app` of an inbound listener) and not as `app`."""

    admission_control: AdmissionControl = AdmissionControl()
    """Whether requests are held back while most of them fail."""

    health_checks: tuple[HealthCheck, ...] = ()
    """How the agent finds out which endpoints to leave out; an endpoint must pass all. Empty: none is left out."""

    @property
    def discovery(self) -> tuple[str, str] | None:
        """How its endpoints are found, and by what; None where they are listed."""
        for kind in DISCOVERIES:
            target = getattr(self, kind)
            if target:
                return kind, target
        return None


DISCOVERIES: Final = ("dns", "srv", "file_sd")
"""Fields that say where endpoints come from."""
