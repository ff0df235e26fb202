"""Clusters of a snapshot to cluster plans."""

import hashlib
from collections.abc import Callable, Mapping
from copy import copy
from typing import Final, final

from sidecar.compiler.admission import guard_cluster
from sidecar.compiler.balancing import assemble, chosen_balancer, outlier_policy
from sidecar.compiler.discovery import check_discovery, found_endpoints
from sidecar.compiler.health import check_health
from sidecar.compiler.http2 import http2_plan
from sidecar.core.api import Balancer, Draw
from sidecar.core.book import Book, ClusterState, Endpoint
from sidecar.core.connect import begin
from sidecar.core.ejection import Probing
from sidecar.core.plan import (
    PROTOCOL_AUTO,
    PROTOCOL_HTTP1,
    PROTOCOL_HTTP2,
    PROTOCOL_SAME,
    ClusterPlan,
    Dial,
)
from sidecar.errors import ConfigError, IdentityError
from sidecar.identity.spiffe import is_spiffe_id
from sidecar.identity.tls import ClientTls, mutual_tls, simple_tls
from sidecar.model.cluster import Cluster, ClusterTls
from sidecar.model.identity import Secret
from sidecar.model.snapshot import Snapshot
from sidecar.plugin import Plugin
from sidecar.wire.http1_head import HeadReader

_PROTOCOLS: Final = {
    "auto": PROTOCOL_AUTO,
    "http1": PROTOCOL_HTTP1,
    "http2": PROTOCOL_HTTP2,
    "same-as-downstream": PROTOCOL_SAME,
}


@final
class ClusterCompiler:
    """Makes the cluster plans of one snapshot; equal TLS settings share one context."""

    def __init__(
        self,
        snapshot: Snapshot,
        secret: Secret | None,
        book: Book,
        balancers: Mapping[str, Plugin],
        dial: Dial,
        draw: Draw,
        errors: list[ConfigError],
    ) -> None:
        self._snapshot: Final = snapshot
        self._secret: Final = secret
        self._book: Final = book
        self._balancers: Final = balancers
        self._dial: Final = dial
        self._draw: Final = draw
        self._errors: Final = errors
        self._tls: Final[dict[str, ClientTls | None]] = {}
        # Makes the balancer of each cluster, for some of its endpoints.
        self._made: Final[dict[str, Callable[[tuple[Endpoint, ...]], Balancer]]] = {}
        # Clusters whose endpoints may have other labels any time: a subset may be empty for now.
        self._open: Final = {c.name for c in snapshot.clusters if c.file_sd}
        self._reader: Final = HeadReader()

    def compile(self, cluster: Cluster, path: str) -> ClusterPlan:
        """Return the plan of `cluster`; what is wrong goes to the errors."""
        self._check(cluster, path)
        state = self._book.cluster(cluster.name)
        endpoints = self._endpoints(cluster, state, path)
        balancer = self._balancer(cluster, state, endpoints, path)
        for endpoint in endpoints:  # the routes that need it set it up again
            endpoint.watchers = tuple(w for w in endpoint.watchers if w is not state.hedges)
        guard_cluster(cluster, state, endpoints, path, self._draw, self._errors)
        plan = ClusterPlan(
            cluster.name,
            state,
            endpoints,
            balancer,
            self._dial,
            self._reader,
            begin,
        )
        plan.service = cluster.service or cluster.name
        plan.connect_timeout = cluster.connect_timeout
        plan.idle_timeout = cluster.idle_timeout
        plan.max_connection_duration = cluster.max_connection_duration
        plan.max_stream_duration = cluster.max_stream_duration
        plan.max_connections = cluster.limits.connections
        plan.max_pending = cluster.limits.pending
        patience = cluster.limits.pending_timeout
        plan.pending_timeout = cluster.connect_timeout if patience is None else patience
        plan.max_requests = cluster.limits.requests
        plan.max_retries = cluster.limits.retries
        plan.retry_budget = cluster.limits.retry_budget
        plan.max_requests_per_connection = cluster.max_requests_per_connection
        plan.proxy_protocol = cluster.proxy_protocol
        plan.server_name = cluster.tls.sni
        if not plan.server_name and cluster.dns is not None:
            plan.server_name = cluster.dns.rpartition(":")[0].strip("[]")
        if cluster.tls.mode == "mutual":
            identities = cluster.tls.identities
            plan.identities = frozenset(identities) if identities else None
        plan.tls = self._client_tls(cluster.tls, f"{path}.tls")
        plan.protocol = _PROTOCOLS[cluster.protocol]
        if plan.protocol == PROTOCOL_AUTO and cluster.tls.mode == "off":
            plan.protocol = PROTOCOL_HTTP1
        plan.http2 = http2_plan(cluster.http2)
        return plan

    def subset(self, plan: ClusterPlan, labels: Mapping[str, str], path: str) -> ClusterPlan:
        """Return `plan` with those of its endpoints that have `labels`: one state, one more balancer."""
        wanted = labels.items()
        endpoints = tuple(e for e in plan.endpoints if wanted <= e.labels.items())
        if not endpoints and plan.name not in self._open:
            text = ", ".join(f"{key}: {value}" for key, value in wanted)
            detail = f"no endpoint of cluster {plan.name!r} has the labels {text}"
            self._errors.append(ConfigError(path, detail))
        part = copy(plan)
        part.narrow(endpoints, self._made[plan.name](endpoints))
        return part

    def fingerprint(self, cluster: Cluster) -> bytes:
        """Return what makes open connections of `cluster` unfit when it changes.

        Not the certificate: a renewed one is used from the next connection on, and the old ones
        are as good as they were.
        """
        digest = hashlib.sha256(
            repr((cluster.tls, cluster.proxy_protocol, cluster.protocol, cluster.http2)).encode()
        )
        if self._secret is not None and cluster.tls.mode == "mutual":
            digest.update(self._secret.roots)
        return digest.digest()

    def _check(self, cluster: Cluster, path: str) -> None:
        errors = self._errors
        check_discovery(cluster, path, errors)
        self._check_tls(cluster.tls, f"{path}.tls")
        check_health(cluster, path, errors)

    def _balancer(
        self, cluster: Cluster, state: ClusterState, endpoints: tuple[Endpoint, ...], path: str
    ) -> Balancer:
        """Return who picks among `endpoints`."""
        zone = self._snapshot.workload.zone
        plugin, settings = chosen_balancer(cluster, self._balancers, zone, path, self._errors)
        if state.balancer != (plugin.name, settings):
            state.balancer = (plugin.name, settings)
            for endpoint in endpoints:
                endpoint.watchers = ()  # what the balancer before wanted to know
        state.changes += 1

        def make(some: tuple[Endpoint, ...], panic: float) -> Balancer:
            balancer = plugin.make(some, self._draw, panic, settings)
            assert isinstance(balancer, Balancer)
            return balancer

        policy = outlier_policy(cluster, endpoints, f"{path}.outlier_detection", self._errors)
        state.detector.watch(endpoints, policy, cluster.panic_threshold / 100)

        def over(some: tuple[Endpoint, ...]) -> Balancer:
            balancer = assemble(cluster, zone, state, some, make, self._draw)
            return balancer if policy is None else Probing(balancer, state.detector, some)

        self._made[cluster.name] = over
        return over(endpoints)

    def _check_tls(self, tls: ClusterTls, path: str) -> None:
        errors = self._errors
        # What is not looked at would be believed to protect.
        if tls.identities and tls.mode != "mutual":
            errors.append(ConfigError(f"{path}.identities", "needs mode: mutual"))
        if tls.roots and tls.mode != "simple":
            errors.append(ConfigError(f"{path}.roots", "needs mode: simple"))
        for index, identity in enumerate(tls.identities):
            if not is_spiffe_id(identity):
                errors.append(
                    ConfigError(f"{path}.identities[{index}]", f"no SPIFFE ID: {identity!r}")
                )

    def _endpoints(self, cluster: Cluster, state: ClusterState, path: str) -> tuple[Endpoint, ...]:
        """Return the endpoints, those that were there before with their connections and load."""
        known = state.endpoints
        if not cluster.health_checks:  # nobody would ever say that one is well again
            state.health.clear()
        wanted = cluster.endpoints if cluster.discovery is None else found_endpoints(state)
        found: dict[str, Endpoint] = {}
        for index, place in enumerate(wanted):
            address = place.address
            if address in found:
                self._errors.append(
                    ConfigError(f"{path}.endpoints[{index}]", f"{address} is listed twice")
                )
                continue
            endpoint = known.get(address) or make_endpoint(address)
            endpoint.hostname = place.hostname
            endpoint.weight = place.weight
            endpoint.labels = place.labels
            endpoint.priority = place.priority
            endpoint.zone = place.zone
            state.judge_one(endpoint, healthy=state.health.get(address, True))
            found[address] = endpoint
        for address, endpoint in known.items():
            if address not in found:
                endpoint.remove()
        known.clear()
        known.update(found)
        for address in state.health.keys() - found.keys():
            del state.health[address]
        return tuple(found.values())

    def _client_tls(self, tls: ClusterTls, path: str) -> ClientTls | None:
        if tls.mode == "off":
            return None
        key = tls.roots if tls.mode == "simple" else "\x00"
        if key not in self._tls:
            self._tls[key] = self._make_tls(tls, path)
        return self._tls[key]

    def _make_tls(self, tls: ClusterTls, path: str) -> ClientTls | None:
        try:
            if tls.mode == "simple":
                return simple_tls(tls.roots)
            secret = self._secret
            if secret is None or not secret.has_identity:
                self._errors.append(
                    ConfigError(
                        path, "mutual needs the workload's certificates: set `certificates`"
                    )
                )
                return None
            return mutual_tls(secret.certificate, secret.key, secret.roots)
        except IdentityError as error:
            self._errors.append(ConfigError(path, error.detail))
            return None


def make_endpoint(address: str, hostname: str = "") -> Endpoint:
    """Return a new endpoint for `host:port`, `[v6]:port` or `unix:/path`."""
    if address.startswith("unix:"):
        endpoint = Endpoint(address, path=address[5:])
    else:
        host, _, port = address.rpartition(":")
        endpoint = Endpoint(address, host.strip("[]"), int(port))
    endpoint.hostname = hostname
    return endpoint
