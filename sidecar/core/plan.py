"""What a config push becomes: tables resolved ahead, never changed once made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from sidecar.core.api import Balancer, Draw, HttpFilter, NetworkFilter, Sink
from sidecar.core.book import HTTP1, HTTP2, ClusterState, Endpoint
from sidecar.core.durations import WholeStream
from sidecar.core.retry import RetryPlan
from sidecar.wire.fields import RequestHead
from sidecar.wire.http1_head import HeadReader
from sidecar.wire.http2 import Link
from sidecar.wire.http2_fields import FieldReader
from sidecar.wire.http2_stream import Http2Link

if TYPE_CHECKING:
    from sidecar.core.affinity import HashKey
    from sidecar.core.gate import Gate
    from sidecar.core.pool import Place
    from sidecar.core.types import Caller, Engine
    from sidecar.errors import UpstreamError

INBOUND: Final = "inbound"
OUTBOUND: Final = "outbound"
SIMPLE: Final = "simple"  # a listener's `mtls`: TLS, and no certificate is asked of callers
CALL: Final = "call"  # nobody connects to it: what the sidecar itself asks a cluster

Condition = Callable[[RequestHead, "Caller"], bool]

Dial = Callable[["ClusterPlan", Endpoint, "Dialled", "Caller | None"], None]

Begin = Callable[["Engine", "ClusterPlan", Endpoint, int, "Place | None"], None]

PROTOCOL_HTTP1, PROTOCOL_HTTP2, PROTOCOL_AUTO, PROTOCOL_SAME = range(4)
# AUTO: as ALPN has it.  SAME: what the caller speaks.

Codec = Callable[..., Http2Link]
"""Makes one end of an HTTP/2 connection: `Link`, unless the config chooses another."""


class Dialled(Protocol):
    """What a dialler connects: an asyncio protocol that can also be told of failure."""

    @property
    def alpn(self) -> str:
        """What to offer under TLS: `http1`, `http2`, `auto`, or nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""

    def dial_failed(self, error: UpstreamError) -> None:
        """It is not, and will not be."""


@final
class Http2Plan:
    """How HTTP/2 is spoken on one side; `codec` makes the sans-IO end of a connection."""

    __slots__ = ("codec", "huffman", "keepalive", "keepalive_timeout", "max_streams", "window")

    def __init__(
        self,
        codec: Codec = Link,
        *,
        max_streams: int = 100,
        window: int = 262144,
        keepalive: float = 0.0,
        keepalive_timeout: float = 10.0,
        huffman: bool = False,
    ) -> None:
        self.codec: Final = codec
        self.max_streams: Final = max_streams
        self.window: Final = window  # octets a stream's sender may be ahead of its reader
        self.keepalive: Final = keepalive  # seconds of silence before a PING; 0: none
        self.keepalive_timeout: Final = keepalive_timeout
        self.huffman: Final = huffman


@final
class ClusterPlan:
    """How the endpoints of one cluster are chosen and reached.

    `dial(cluster, endpoint, protocol, caller)` begins a connection: it ends in the protocol's
    `connection_made` or `dial_failed`.  `caller` is whom a PROXY protocol header would name.
    """

    __slots__ = (
        "balancer",
        "begin",
        "connect_timeout",
        "dial",
        "endpoints",
        "fields",
        "http2",
        "identities",
        "idle_timeout",
        "max_connection_duration",
        "max_connections",
        "max_pending",
        "max_requests",
        "max_requests_per_connection",
        "max_retries",
        "max_stream_duration",
        "name",
        "pending_timeout",
        "protocol",
        "proxy_protocol",
        "reader",
        "retry_budget",
        "server_name",
        "service",
        "state",
        "tls",
    )

    def __init__(
        self,
        name: str,
        state: ClusterState,
        endpoints: tuple[Endpoint, ...],
        balancer: Balancer,
        dial: Dial,
        reader: HeadReader,
        begin: Begin,
    ) -> None:
        self.name: Final = name
        self.begin: Final = begin  # makes the client of the cluster's protocol, and dials
        self.state: Final = state
        self.endpoints = endpoints
        self.balancer = balancer
        self.dial: Final = dial
        self.reader: Final = reader
        self.fields: Final = FieldReader()
        self.http2 = Http2Plan()
        self.protocol = PROTOCOL_HTTP1
        self.service = name
        self.connect_timeout = 5.0
        self.idle_timeout = 60.0
        self.max_connections = 1024
        self.max_pending = 1024
        self.pending_timeout = 5.0  # of who waits and is dialled for by nobody; 0: for ever
        self.max_requests = 1024
        self.max_retries = 3
        self.max_requests_per_connection = 0
        self.max_connection_duration = 0.0
        self.max_stream_duration = 0.0  # of one attempt
        self.retry_budget = 0.2
        self.proxy_protocol = "off"
        self.tls: object | None = None  # an identity.tls.ClientTls, opaque here
        self.server_name = ""
        self.identities: frozenset[str] | None = None

    def narrow(self, endpoints: tuple[Endpoint, ...], balancer: Balancer) -> None:
        """Become the plan of a subset; for the copy of one, before it is used."""
        self.endpoints = endpoints
        self.balancer = balancer

    def kind(self, head: RequestHead) -> int:
        """Return which pool of an endpoint the request `head` is for."""
        protocol = self.protocol
        if protocol == PROTOCOL_SAME:
            return HTTP2 if head.version == 20 else HTTP1
        if protocol == PROTOCOL_AUTO:
            # Not every HTTP/2 peer takes an upgrade (RFC 8441); every HTTP/1.1 peer may.
            return HTTP2 if head.upgrade is None else HTTP1
        return protocol


@final
class RoutePlan:
    """All that one route needs per request, resolved ahead.

    `shares` holds (cumulated weight, cluster) up to `total`; with one cluster `cluster` says it all.
    """

    __slots__ = (
        "buffer_limit",
        "bypass_overload",
        "cluster",
        "grpc_timeout",
        "hash_policy",
        "idle_timeout",
        "is_limited",
        "limits_tries",
        "name",
        "on_finish",
        "on_reply",
        "on_request",
        "on_response",
        "on_session",
        "on_session_end",
        "own_grpc_timeout",
        "own_timeout",
        "per_try_idle_timeout",
        "per_try_timeout",
        "retry",
        "shares",
        "stream_idle_timeout",
        "timeout",
        "total",
    )

    def __init__(
        self,
        name: str,
        clusters: tuple[tuple[int, ClusterPlan], ...],
        *,
        filters: tuple[HttpFilter, ...] = (),
        retry: RetryPlan | None = None,
        timeout: float = 0.0,
        grpc_timeout: float = 0.0,
        per_try_timeout: float = 0.0,
        per_try_idle_timeout: float = 0.0,
        stream_idle_timeout: float = 300.0,
        bypass_overload: bool = False,
        buffer_limit: int = 65536,
        hash_policy: tuple[HashKey, ...] = (),
        session_filters: tuple[NetworkFilter, ...] = (),
    ) -> None:
        self.name: Final = name
        self.cluster: Final = clusters[0][1] if len(clusters) == 1 else None
        total = 0
        shares = []
        for weight, cluster in clusters:
            total += weight
            shares.append((total, cluster))
        self.shares: Final = tuple(shares)
        self.total: Final = total
        self.retry: Final = retry or RetryPlan()
        self.is_limited: Final = any(isinstance(f, WholeStream) for f in filters)
        self.own_timeout: Final = timeout
        self.own_grpc_timeout: Final = grpc_timeout
        # What most exchanges look at; 0 where there is more to look at.
        self.timeout: Final = 0.0 if self.is_limited else timeout
        self.grpc_timeout: Final = (
            0.0 if self.is_limited else grpc_timeout
        )  # gRPC calls bring a deadline of their own
        self.per_try_timeout: Final = per_try_timeout
        self.per_try_idle_timeout: Final = per_try_idle_timeout
        self.stream_idle_timeout: Final = stream_idle_timeout
        self.bypass_overload: Final = bypass_overload
        silences = [s for s in (stream_idle_timeout, per_try_idle_timeout) if s]
        self.idle_timeout: Final = min(silences, default=0.0)  # the first that may be over
        self.limits_tries: Final = bool(per_try_timeout or per_try_idle_timeout) or any(
            cluster.max_stream_duration for _, cluster in clusters
        )
        self.hash_policy: Final = hash_policy
        self.buffer_limit: Final = buffer_limit
        self.on_request: Final = tuple(f for f in filters if overrides(f, "on_request"))
        self.on_response: Final = tuple(f for f in filters if overrides(f, "on_response"))
        self.on_reply: Final = tuple(f for f in filters if overrides(f, "on_reply"))
        self.on_finish: Final = tuple(f for f in reversed(filters) if overrides(f, "on_finish"))
        self.on_session: Final = session_filters
        self.on_session_end: Final = tuple(
            f for f in session_filters if overrides(f, "on_session_end")
        )

    def pick(self, draw: Draw) -> ClusterPlan:
        """Return the cluster for one request, by weight."""
        if self.cluster is not None:
            return self.cluster
        point = draw() * self.total
        for edge, cluster in self.shares:
            if point < edge:
                return cluster
        return self.shares[-1][1]


@final
class RouteTable:
    """Finds the route of a request: the first whose hosts and conditions hold.

    The rows that can apply are worked out ahead for every host that is named, so a table of a
    thousand hosts costs one look-up.
    """

    __slots__ = ("_any", "_by_host", "_wild")

    def __init__(
        self, entries: tuple[tuple[tuple[str, ...], tuple[Condition, ...], RoutePlan], ...]
    ) -> None:
        exact = {h for hosts, _, _ in entries for h in hosts if "*" not in h}
        wild = {h[1:] for hosts, _, _ in entries for h in hosts if h.startswith("*.")}

        def takes(hosts: tuple[str, ...], host: str) -> bool:
            return not hosts or any(
                h in ("*", host) or (h.startswith("*.") and host.endswith(h[1:])) for h in hosts
            )

        def rows(host: str) -> tuple[tuple[tuple[Condition, ...], RoutePlan], ...]:
            return tuple((c, r) for hosts, c, r in entries if takes(hosts, host))

        self._by_host: Final = {h.encode(): rows(h) for h in exact}
        # The longest suffix first: it decides which of the wild rows can apply at all.
        self._wild: Final = tuple(
            (w.encode(), rows("x" + w)) for w in sorted(wild, key=len, reverse=True)
        )
        self._any: Final = rows("\x00")

    def find(self, head: RequestHead, caller: Caller) -> RoutePlan | None:
        """Return the route that takes `head` from `caller`, or None."""
        rows = self._any
        if self._by_host or self._wild:
            rows = self._rows(_PORT.sub(b"", head.authority))
        for conditions, route in rows:
            for condition in conditions:
                if not condition(head, caller):
                    break
            else:
                return route
        return None

    def find_name(self, name: str) -> RoutePlan | None:
        """Return the route for a server name (opaque TLS), or None."""
        rows = self._rows(name.encode())
        return rows[0][1] if rows else None

    def _rows(self, host: bytes) -> tuple[tuple[tuple[Condition, ...], RoutePlan], ...]:
        rows = self._by_host.get(host)
        if rows is not None:
            return rows
        for suffix, wild in self._wild:
            if host.endswith(suffix) and len(host) > len(suffix):
                return wild
        return self._any


# A name with a dot behind it is the same name (RFC 3986 §3.2.2), and so it is to
# many apps: it must not lead past the route, and the policy, of the name.
_PORT: Final = re.compile(rb"\.+(?::[0-9]*)?$|:[0-9]*$")


@final
class ListenerPlan:
    """How connections of one listener are served."""

    __slots__ = (
        "accept_proxy_protocol",
        "allow",
        "bypass_overload",
        "detect_timeout",
        "fields",
        "gate",
        "grpc_web",
        "handshake_timeout",
        "http2",
        "idle_timeout",
        "max_connection_duration",
        "max_connections",
        "mtls",
        "name",
        "network_filters",
        "protocol",
        "reader",
        "request_head_timeout",
        "role",
        "routes",
        "sni_routed",
        "stream_idle_timeout",
        "tls",
        "trust_domain",
    )

    def __init__(
        self, name: str, role: str, protocol: str, routes: RouteTable, reader: HeadReader
    ) -> None:
        self.name: Final = name
        self.role: Final = role
        self.protocol: Final = protocol  # auto, http or tcp
        self.routes: Final = routes
        self.reader: Final = reader
        self.fields: Final = FieldReader()
        self.http2 = Http2Plan()
        self.grpc_web = False
        self.network_filters: tuple[NetworkFilter, ...] = ()
        self.gate: Gate | None = None  # limits of connections and of their octets
        self.sni_routed = False
        self.accept_proxy_protocol = False
        self.mtls = "off"
        self.tls: object | None = None  # an identity.tls.ServerTls, opaque here
        self.allow: frozenset[str] | None = None
        self.trust_domain = ""
        self.detect_timeout = 0.3
        self.handshake_timeout = 5.0
        self.request_head_timeout = 10.0
        self.idle_timeout = 3600.0
        self.stream_idle_timeout = 300.0
        self.max_connections = 10000
        self.bypass_overload = False
        self.max_connection_duration = 0.0


@final
class Plan:
    """Everything one worker forwards by, at one version."""

    __slots__ = ("clusters", "identity", "listeners", "sinks", "snapshot", "version")

    def __init__(
        self,
        version: str,
        identity: str,
        listeners: dict[str, ListenerPlan],
        clusters: dict[str, ClusterPlan],
        snapshot: Any,  # the model's Snapshot it was made of; the engine does not look inside
    ) -> None:
        self.version: Final = version
        self.identity: Final = identity
        self.listeners: Final = listeners
        self.clusters: Final = clusters
        self.snapshot: Final = snapshot
        self.sinks: tuple[Sink, ...] = ()


def overrides(plugin: object, hook: str) -> bool:
    """Say whether `plugin` has a `hook` of its own: one that it inherits does nothing."""
    base = HttpFilter if isinstance(plugin, HttpFilter) else NetworkFilter
    return getattr(type(plugin), hook, None) is not getattr(base, hook, None)
