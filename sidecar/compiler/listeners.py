"""Listeners of a snapshot to listener plans."""

from typing import Final

from sidecar.compiler.access import Access, access_filters, knows, session_filters
from sidecar.compiler.authorization import Ground
from sidecar.compiler.context import Context
from sidecar.compiler.durations import listener_times
from sidecar.compiler.external import external_authorization_filter
from sidecar.compiler.hooks import python_filters
from sidecar.compiler.http2 import http2_plan
from sidecar.compiler.pacing import gate_of
from sidecar.compiler.retries import INBOUND_RETRIES, OUTBOUND_RETRIES
from sidecar.compiler.routes import OUTBOUND_TIMEOUT, compile_routes
from sidecar.core.plan import INBOUND, OUTBOUND, SIMPLE, ListenerPlan
from sidecar.errors import ConfigError, IdentityError
from sidecar.filters.allow_peers import AllowPeers, Settings
from sidecar.identity.spiffe import is_spiffe_id
from sidecar.identity.tls import ServerTls, server_tls, simple_server_tls
from sidecar.model.cluster import Cluster
from sidecar.model.endpoint import Endpoint
from sidecar.model.identity import Secret
from sidecar.model.listener import InboundListener, Listener, OutboundListener
from sidecar.model.match import RouteMatch
from sidecar.model.route import Route
from sidecar.model.snapshot import Snapshot
from sidecar.wire.http1_head import HeadReader

_ANY: Final = RouteMatch()
_HTTP_MATCHES: Final = frozenset(RouteMatch.__struct_fields__) - {"hosts", "sni"}
_PLAIN: Final = Route()
_HTTP_ACTIONS: Final = (
    "redirect", "respond", "rewrite", "request_headers", "response_headers", "cors",
    "hedge", "rate_limits", "authorization", "jwt", "api_keys", "basic_auth",
    "mirror", "filters", "stream_idle_timeout", "max_stream_duration", "external_authorization",
)  # fmt: skip
APP: Final = "app|"  # begins the names of the clusters that `app` is short for


def app_cluster(listener: InboundListener) -> Cluster | None:
    """Return the cluster that `app` is short for."""
    if listener.app is None:
        return None
    return Cluster(
        name=APP + listener.address,
        service="",
        endpoints=(Endpoint(address=listener.app),),
    )


def compile_inbound(
    listener: InboundListener,
    path: str,
    snapshot: Snapshot,
    context: Context,
    tls: ServerTls | None,
) -> ListenerPlan:
    """Return the plan of an inbound listener."""
    errors = context.errors
    for index, identity in enumerate(listener.allow):
        if not is_spiffe_id(f"{identity[:-1]}x" if identity.endswith("/*") else identity):
            errors.append(ConfigError(f"{path}.allow[{index}]", f"no SPIFFE ID: {identity!r}"))
    if listener.mtls == "off" and listener.allow:
        errors.append(ConfigError(f"{path}.allow", "needs mtls: without it nobody has an identity"))
    if listener.tls is not None and listener.mtls != "off":
        errors.append(
            ConfigError(
                f"{path}.tls",
                f"asks callers for no certificate, while mtls {listener.mtls} does: set"
                " `mtls: off` beside it, or give mesh callers a listener of their own",
            )
        )
    elif listener.mtls != "off" and snapshot.certificates is None and tls is None:
        errors.append(
            ConfigError(
                f"{path}.mtls",
                f"{listener.mtls} needs the workload's certificates: set `certificates`, or"
                " `mtls: off` for plaintext",
            )
        )
    guard = AllowPeers(
        Settings(
            listener.allow,
            snapshot.workload.trust_domain,
            listener.mtls != "strict" and not listener.allow,
        )
    )
    if listener.app is not None and (listener.cluster or listener.routes):
        errors.append(ConfigError(f"{path}.app", "expected one of app, cluster and routes"))
    plan = _compile(
        listener, path, INBOUND, listener.address, context, guard,
        app=APP + listener.address if listener.app is not None else "",
    )  # fmt: skip
    plan.mtls = listener.mtls if listener.tls is None else SIMPLE
    plan.tls = tls
    return plan


def compile_outbound(
    listener: OutboundListener,
    path: str,
    context: Context,
) -> ListenerPlan:
    """Return the plan of an outbound listener."""
    return _compile(listener, path, OUTBOUND, listener.address, context, None)


def make_server_tls(
    secret: Secret | None, errors: list[ConfigError], *, notes_names: bool = False
) -> ServerTls | None:
    """Return the server side of mTLS, or None without key material."""
    if secret is None or not secret.has_identity:
        return None
    try:
        return server_tls(secret.certificate, secret.key, secret.roots, notes_names=notes_names)
    except IdentityError as error:
        errors.append(ConfigError("certificates", error.detail))
        return None


def make_simple_tls(
    listener: InboundListener,
    path: str,
    secret: Secret | None,
    errors: list[ConfigError],
    *,
    notes_names: bool,
) -> ServerTls | None:
    """Return the server side of a listener's `tls`, or None without key material."""
    pair = secret.servers.get(listener.address) if secret is not None else None
    if pair is None:
        return None
    try:
        return simple_server_tls(
            pair.certificate, pair.key, is_http=listener.protocol != "tcp", notes_names=notes_names
        )
    except IdentityError as error:
        errors.append(ConfigError(f"{path}.tls", error.detail))
        return None


def _compile(
    listener: Listener,
    path: str,
    role: str,
    address: str,
    context: Context,
    guard: AllowPeers | None,
    app: str = "",
) -> ListenerPlan:
    errors = context.errors
    guards = (guard,) if guard is not None else ()
    routes = listener.routes
    if app:
        routes = (Route(name="app", cluster=app),)
    elif listener.cluster:
        if routes:
            errors.append(ConfigError(f"{path}.cluster", "expected one of cluster and routes"))
        routes = (Route(name=listener.cluster, cluster=listener.cluster),)
    elif not routes:
        expected = "app, cluster or routes" if role == INBOUND else "cluster or routes"
        errors.append(ConfigError(path, f"goes nowhere: expected {expected}"))
    if listener.protocol == "tcp":
        _check_tcp(routes, path, errors)
        if listener.filters:
            errors.append(ConfigError(f"{path}.filters", "a tcp listener sees no requests"))
    ground = Ground(
        listener.ambiguous_paths,
        isinstance(listener, InboundListener) and listener.mtls != "off",
        listener.protocol == "tcp",
    )
    external = external_authorization_filter(
        listener.external_authorization, f"{path}.external_authorization", context
    )
    if external is not None and listener.protocol == "tcp":
        text = "a tcp listener sees no requests"
        errors.append(ConfigError(f"{path}.external_authorization", text))
    own = access_filters(listener, path, ground, context)
    access = Access(knows(ground, listener), own, external)
    table = compile_routes(
        routes,
        f"{path}.routes" if listener.routes else path,
        context,
        guards,
        OUTBOUND_TIMEOUT if role == OUTBOUND else 0.0,
        scope=address,
        retries=OUTBOUND_RETRIES if role == OUTBOUND else INBOUND_RETRIES,
        is_short=not listener.routes,
        access=access,
        shared=python_filters(listener.filters, (address, ""), f"{path}.filters", context),
        times=listener_times(listener, path, errors),
    )
    reader = HeadReader(listener.max_head_size, listener.max_fields)
    name = listener.name or f"{role}|{address}"
    plan = ListenerPlan(name, role, listener.protocol, table, reader)
    plan.network_filters = (*guards, *session_filters(listener, access))
    plan.sni_routed = listener.protocol == "tcp" and any(r.match.sni for r in routes)
    plan.accept_proxy_protocol = listener.accept_proxy_protocol
    plan.detect_timeout = listener.detect_timeout
    plan.handshake_timeout = listener.handshake_timeout
    plan.request_head_timeout = listener.request_head_timeout
    plan.idle_timeout = listener.idle_timeout
    plan.stream_idle_timeout = listener.stream_idle_timeout
    plan.max_connections = listener.max_connections
    plan.bypass_overload = listener.bypass_overload
    plan.max_connection_duration = listener.max_connection_duration
    plan.gate = gate_of(listener, address, path, context)
    plan.grpc_web = listener.grpc_web
    plan.http2 = http2_plan(listener.http2)
    return plan


def _check_tcp(routes: tuple[Route, ...], path: str, errors: list[ConfigError]) -> None:
    for index, route in enumerate(routes):
        where = f"{path}.routes[{index}]"
        if any(getattr(route.match, name) != getattr(_ANY, name) for name in _HTTP_MATCHES):
            errors.append(ConfigError(f"{where}.match", "a tcp listener can match `sni` only"))
        errors += [
            ConfigError(f"{where}.{name}", "a tcp listener sees no requests")
            for name in _HTTP_ACTIONS
            if getattr(route, name) != getattr(_PLAIN, name)
        ]
        if route.bandwidth_limits:
            detail = "of a tcp listener are the listener's own"
            errors.append(ConfigError(f"{where}.bandwidth_limits", detail))
        if any(not policy.source_ip for policy in route.hash_policy):
            errors.append(
                ConfigError(f"{where}.hash_policy", "a tcp listener has `source_ip` only")
            )
