"""Addresses we accept on, in both of the sidecar's roles."""

from typing import Literal

from sidecar.model.authorization import AuthorizationRule
from sidecar.model.base import Address, Count, Duration, Model, Size
from sidecar.model.credentials import ApiKeys, BasicAuth
from sidecar.model.external_authorization import ExternalAuthorization
from sidecar.model.http2 import Http2
from sidecar.model.identity import ServerCertificate
from sidecar.model.jwt import Jwt
from sidecar.model.python import PythonFilter
from sidecar.model.quota import BandwidthLimit, ConnectionLimit
from sidecar.model.route import Route

HttpProtocol = Literal["auto", "http", "tcp"]


class Listener(Model, frozen=True, kw_only=True):
    """What inbound and outbound listeners share (Envoy: config.listener.v3.Listener)."""

    name: str = ""
    """Its name in logs, metrics and the status page. Empty: role and address, `outbound|127.0.0.1:15001`."""

    protocol: HttpProtocol = "auto"
    """`http`, `tcp` (opaque bytes), or `auto`: recognised by the first bytes; a caller that stays silent for
    `detect_timeout` is served as tcp, so that protocols in which the server speaks first do not hang."""

    routes: tuple[Route, ...] = ()
    """Tried in order; the first that matches is taken. None matches: 404 with flag NR."""

    cluster: str = ""
    """Short for one route that sends everything to this cluster."""

    accept_proxy_protocol: bool = False
    """Every connection must begin with a PROXY protocol header (v1 or v2), which then names the caller."""

    detect_timeout: Duration = 0.3
    """Seconds that `auto` waits for the first bytes."""

    handshake_timeout: Duration = 5.0
    """Seconds that a caller has for its PROXY header and TLS handshake."""

    request_head_timeout: Duration = 10.0
    """Seconds that a caller has, from its first byte, to send a whole request head (408 after that)."""

    idle_timeout: Duration = 3600.0
    """Seconds that a connection without a request (or a tcp session without bytes) is kept."""

    request_timeout: Duration = 0.0
    """Seconds that a caller has for a whole request, its body included, unless a response begins before (408 after
    that); 0 means no limit."""

    min_request_rate: Size = 0
    """Octets a second, over 10 s each, that the body of a request with a Content-Length must come at (408 otherwise); time in
    which the endpoint takes no more does not count. For edges where callers are not trusted; 0 means any rate."""

    max_connection_duration: Duration = 0.0
    """Seconds after which a connection takes no further request and ends with those under way; a tcp session is closed
    (flag DT). 0 means no limit. Kept to the second."""

    max_stream_duration: Duration = 0.0
    """Seconds that one request with its response may take, streams and tunnels included; then 408 or a cut (flag DT).
    0 means no limit."""

    stream_idle_timeout: Duration = 300.0
    """Seconds without any byte in either direction after which a request is ended (flag SI)."""

    max_connections: Count = 10000
    """Connections accepted at once, per worker; one more is closed at once."""

    connection_limits: tuple[ConnectionLimit, ...] = ()
    """Connections accepted at once of one caller."""

    bandwidth_limits: tuple[BandwidthLimit, ...] = ()
    """How fast connections are; all hold."""

    bypass_overload: bool = False
    """Its connections and requests are never refused because the sidecar has too much to do (Envoy:
    bypass_overload_manager); its own `max_connections` holds."""

    max_head_size: Size = 61440
    """Octets of a request or response head; a longer one is refused (431, 502)."""

    max_fields: Count = 100
    """Fields of a request or response head; more are refused (431, 502)."""

    grpc_web: bool = False
    """Translate gRPC-Web (`application/grpc-web`, also `-text`), which browsers speak, to gRPC and back. Off for apps
    that speak gRPC-Web themselves."""

    http2: Http2 = Http2()
    """How HTTP/2 is spoken with callers. It is recognised by ALPN or by its first bytes."""

    filters: tuple[PythonFilter, ...] = ()
    """Filters in Python that every request passes, behind the policies and before those of its route."""

    authorization: tuple[AuthorizationRule, ...] = ()
    """Who may do what, on every route and for opaque sessions."""

    jwt: Jwt | None = None
    """Tokens that every request must bring. Opaque sessions are refused."""

    external_authorization: ExternalAuthorization | None = None
    """A service that is asked about every request, on every route that does not say otherwise."""
    api_keys: ApiKeys | None = None
    """API keys that every request must bring. Opaque sessions are refused."""

    basic_auth: BasicAuth | None = None
    """Names and passwords that every request must bring. Opaque sessions are refused."""

    ambiguous_paths: Literal["reject", "resolve", "keep"] = "reject"
    """What becomes of a path that programs are known to read in more than one way (`//`, `/../`, `;`, a backslash, `%2F`,
    `%5C`, `%3B`, what is encoded twice), where rules or policies of routes look at paths. `reject`: 400. `resolve`: rules see
    it decoded, cut at `;`, merged and resolved. `keep`: rules see it as it is written. The last two are safe only if the app
    reads paths that way too. Broken encodings and control octets are always refused there. The path is forwarded as it came."""


class InboundListener(Listener, frozen=True, kw_only=True):
    """Traffic to this workload: terminates mTLS, checks who calls, forwards to the app."""

    address: Address = "0.0.0.0:15006"
    """Where to listen."""

    app: Address | None = None
    """Where the app is: `127.0.0.1:8080` or `unix:/run/app.sock`. Short for a cluster with this one endpoint
    and one route to it; `cluster` or `routes` may be given instead."""

    mtls: Literal["strict", "permissive", "off"] = "strict"
    """`strict`: callers must show a certificate of our roots; plaintext is refused. `permissive`: mTLS and
    plaintext side by side, for moving a service in. `off`: no certificate is asked for; plaintext, unless `tls` is given."""

    tls: ServerCertificate | None = None
    """TLS as a web server offers it: callers are shown this certificate and asked for none. For browsers, curl and others
    outside the mesh; plaintext is refused. Needs `mtls: off` beside it (Istio: mode SIMPLE)."""

    allow: tuple[str, ...] = ()
    """SPIFFE IDs that may call, compared whole, or `spiffe://example.org/*` for all of a trust domain. Empty: every
    identity of our own trust domain (and, unless `mtls` is strict, callers without one). `authorization` says more."""


class OutboundListener(Listener, frozen=True, kw_only=True):
    """Traffic from this workload: routed, balanced, retried, secured."""

    address: Address = "127.0.0.1:15001"
    """Where to listen."""
