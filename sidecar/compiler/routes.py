"""Routes of a listener to a route table."""

import difflib
from collections.abc import Mapping
from typing import Final

from sidecar.compiler.affinity import hash_policy
from sidecar.compiler.fields import conditions
from sidecar.core.api import HttpFilter
from sidecar.core.grpc import STATUSES
from sidecar.core.plan import ClusterPlan, RetryPlan, RoutePlan, RouteTable
from sidecar.errors import ConfigError
from sidecar.model.route import RetryPolicy, Route

OUTBOUND_TIMEOUT: Final = 15.0  # seconds; Envoy's default route timeout

_CONDITIONS: Final = {
    "gateway-error": frozenset({502, 503, 504}),
    "5xx": frozenset(range(500, 600)),
    "retriable-4xx": frozenset({409}),
}


def compile_routes(
    routes: tuple[Route, ...],
    path: str,
    clusters: Mapping[str, ClusterPlan],
    filters: tuple[HttpFilter, ...],
    default_timeout: float,
    errors: list[ConfigError],
    *,
    is_short: bool = False,
) -> RouteTable:
    """Return the table of `routes`; what is wrong goes to `errors`.

    `is_short`: the only route was written as the listener's own `cluster`, at `path` itself.
    """
    entries = []
    names: set[str] = set()
    last = len(routes) - 1  # the last route that is reached
    for index, route in enumerate(routes):
        where = path if is_short else f"{path}[{index}]"
        if route.name and route.name in names:
            errors.append(ConfigError(f"{where}.name", f"two routes are called {route.name!r}"))
        names.add(route.name)
        match = route.match
        hosts = tuple(h.lower() for h in (*match.hosts, *match.sni))
        _check_hosts(match.hosts, f"{where}.match.hosts", errors)
        _check_hosts(match.sni, f"{where}.match.sni", errors)
        tests = conditions(match, f"{where}.match", errors)
        shares = _shares(route, where, clusters, errors)
        if not shares:
            continue
        hash_keys, cookies = hash_policy(route, where, shares, errors)
        timeout = default_timeout if route.timeout is None else route.timeout
        plan = RoutePlan(
            route.name or f"routes[{index}]",
            shares,
            filters=(*filters, *cookies),
            hash_policy=hash_keys,
            retry=_retry(route.retry, f"{where}.retry", errors),
            timeout=timeout,
            grpc_timeout=route.timeout or 0.0,
            per_try_timeout=route.retry.per_try_timeout or 0.0,
            buffer_limit=route.buffer_limit,
        )
        entries.append((hosts, tests, plan))
        if not tests and (not hosts or "*" in hosts):
            last = min(last, index)
    if last < len(routes) - 1:
        errors.append(
            ConfigError(
                f"{path}[{last + 1}]",
                f"never reached: {path}[{last}] takes every request; put it last",
            )
        )
    return RouteTable(tuple(entries))


def cluster_named(
    name: str, path: str, clusters: Mapping[str, ClusterPlan], errors: list[ConfigError]
) -> ClusterPlan | None:
    """Return the cluster called `name`, or None after an error that offers the nearest name."""
    plan = clusters.get(name)
    if plan is None:
        near = difflib.get_close_matches(name, list(clusters), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        errors.append(ConfigError(path, f"no cluster is named {name!r}{hint}"))
    return plan


def _shares(
    route: Route, path: str, clusters: Mapping[str, ClusterPlan], errors: list[ConfigError]
) -> tuple[tuple[int, ClusterPlan], ...]:
    if bool(route.cluster) == bool(route.clusters):
        errors.append(ConfigError(path, "expected exactly one of cluster and clusters"))
        return ()
    if route.cluster:
        plan = cluster_named(route.cluster, f"{path}.cluster", clusters, errors)
        return ((1, plan),) if plan is not None else ()
    found = []
    for index, share in enumerate(route.clusters):
        plan = cluster_named(share.name, f"{path}.clusters[{index}].name", clusters, errors)
        if plan is not None and share.weight:
            found.append((share.weight, plan))
    if not sum(share.weight for share in route.clusters):
        errors.append(ConfigError(f"{path}.clusters", "the weights add up to 0"))
    return tuple(found)


def _retry(policy: RetryPolicy, path: str, errors: list[ConfigError]) -> RetryPlan:
    statuses: set[int] = set()
    for condition in policy.on:
        statuses |= _CONDITIONS.get(condition, frozenset())
    if "retriable-status-codes" in policy.on:
        statuses |= set(policy.status_codes)
        if not policy.status_codes:
            errors.append(ConfigError(f"{path}.on", "retriable-status-codes needs status_codes"))
    return RetryPlan(
        policy.attempts,
        on_connect="connect-failure" in policy.on or "5xx" in policy.on,
        on_reset="reset" in policy.on or "5xx" in policy.on,
        on_status=frozenset(statuses),
        on_grpc=frozenset(STATUSES[c] for c in policy.on if c in STATUSES),
        backoff=policy.backoff,
        backoff_max=policy.backoff_max,
    )


def _check_hosts(hosts: tuple[str, ...], path: str, errors: list[ConfigError]) -> None:
    for index, host in enumerate(hosts):
        name = host[2:] if host.startswith("*.") else host
        is_v6 = name.startswith("[") and name.endswith("]")
        if host != "*" and (not name or "*" in name or "/" in name or (":" in name and not is_v6)):
            errors.append(
                ConfigError(
                    f"{path}[{index}]",
                    f"expected a name, *.name or *, without port or path; got {host!r}",
                )
            )
