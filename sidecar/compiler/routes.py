"""Routes of a listener to a route table."""

from collections.abc import Sequence
from typing import Final

from sidecar.compiler.access import OPEN, Access, access_filters, path_guards
from sidecar.compiler.actions import action_filters, cors_filter
from sidecar.compiler.affinity import hash_policy
from sidecar.compiler.context import Context, cluster_named
from sidecar.compiler.durations import Times
from sidecar.compiler.external import own_filter
from sidecar.compiler.fields import conditions
from sidecar.compiler.hooks import python_filters
from sidecar.compiler.limits import fault_filter, rate_limit_filter
from sidecar.compiler.mirrors import mirror_filters
from sidecar.compiler.pacing import bandwidth_filter
from sidecar.compiler.retries import INBOUND_RETRIES, hedge_filters, retry_filters, retry_plan
from sidecar.core.api import HttpFilter
from sidecar.core.plan import ClusterPlan, RoutePlan, RouteTable
from sidecar.errors import ConfigError
from sidecar.filters import fault
from sidecar.model.route import Route

_GOALS: Final = ("cluster", "clusters", "redirect", "respond")
OUTBOUND_TIMEOUT: Final = 15.0  # seconds; Envoy's default route timeout


def compile_routes(
    routes: tuple[Route, ...],
    path: str,
    context: Context,
    filters: tuple[HttpFilter, ...],
    default_timeout: float,
    *,
    scope: str = "",
    retries: tuple[str, ...] = INBOUND_RETRIES,
    is_short: bool = False,
    access: Access = OPEN,
    shared: Sequence[HttpFilter] = (),
    times: Times = Times(),  # noqa: B008 - immutable
) -> RouteTable:
    """Return the table of `routes`; `filters` are asked before those of each route.

    `access`: the listener's policy comes behind CORS, since a preflight has nothing to show for itself.

    `scope` is the listener: what is remembered across pushes is told apart by it and the route's name.
    `retries` is what is tried again where a route does not say, `times` how long it may take then.

    `shared` are the listener's filters in Python, asked before those of a route.

    `is_short`: the only route was written as the listener's own `cluster`, at `path` itself.
    """
    errors = context.errors
    entries = []
    names: set[str] = set()
    last = len(routes) - 1  # the last route that is reached
    guards = path_guards(routes, access.ground)
    for index, route in enumerate(routes):
        where = path if is_short else f"{path}[{index}]"
        if route.name and route.name in names:
            errors.append(ConfigError(f"{where}.name", f"two routes are called {route.name!r}"))
        names.add(route.name)
        match = route.match
        hosts = tuple(h.lower().rstrip(".") for h in (*match.hosts, *match.sni))
        _check_hosts(match.hosts, f"{where}.match.hosts", errors)
        _check_hosts(match.sni, f"{where}.match.sni", errors)
        tests = conditions(match, f"{where}.match", errors, context.draw)
        shares = _shares(route, where, context)
        if not shares and route.redirect is None and route.respond is None:
            continue
        hash_keys, cookies = hash_policy(route, where, shares, errors)
        timeout = default_timeout if route.timeout is None else route.timeout
        name = route.name or f"routes[{index}]"
        policy = (
            *access.filters,
            *access_filters(route, where, access.ground, context),
            *own_filter(route, where, context, access.external),
        )
        is_tcp = access.ground.is_tcp
        stops = _filters(route, (scope, name), where, context, policy, shared, is_tcp=is_tcp)
        stops += hedge_filters(route, shares, where, errors)
        guard = guards[index]
        plan = RoutePlan(
            name,
            shares,
            filters=(
                *times.filters(route),
                *filters,
                *([guard] if guard is not None else ()),
                *cookies,
                *stops,
            ),
            hash_policy=hash_keys,
            session_filters=tuple(s for s in stops if is_tcp and isinstance(s, fault.Fault)),
            retry=retry_plan(route.retry, retries, f"{where}.retry", errors),
            timeout=timeout,
            grpc_timeout=route.timeout or 0.0,
            per_try_timeout=route.retry.per_try_timeout or 0.0,
            per_try_idle_timeout=route.retry.per_try_idle_timeout or 0.0,
            stream_idle_timeout=times.idle(route),
            bypass_overload=route.bypass_overload or times.bypass_overload,
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


def _shares(route: Route, path: str, context: Context) -> tuple[tuple[int, ClusterPlan], ...]:
    clusters, errors = context.clusters, context.errors
    given = [kind for kind in _GOALS if getattr(route, kind)]
    if len(given) != 1:
        expected = f"{', '.join(_GOALS[:-1])} and {_GOALS[-1]}"
        errors.append(ConfigError(path, f"expected exactly one of {expected}"))
        return ()
    if route.subset and not route.cluster:
        errors.append(
            ConfigError(f"{path}.subset", "needs `cluster`; each of `clusters` has its own")
        )
    if route.cluster:
        plan = cluster_named(route.cluster, f"{path}.cluster", clusters, errors)
        if plan is not None and route.subset:
            plan = context.subset(plan, route.subset, f"{path}.subset")
        return ((1, plan),) if plan is not None else ()
    if not route.clusters:
        return ()
    found = []
    for index, share in enumerate(route.clusters):
        plan = cluster_named(share.name, f"{path}.clusters[{index}].name", clusters, errors)
        if plan is not None and share.subset:
            plan = context.subset(plan, share.subset, f"{path}.clusters[{index}].subset")
        if plan is not None and share.weight:
            found.append((share.weight, plan))
    if not sum(share.weight for share in route.clusters):
        errors.append(ConfigError(f"{path}.clusters", "the weights add up to 0"))
    return tuple(found)


def _filters(
    route: Route,
    place: tuple[str, str],
    path: str,
    context: Context,
    policy: tuple[HttpFilter, ...],
    shared: Sequence[HttpFilter],
    *,
    is_tcp: bool,
) -> list[HttpFilter]:
    """Return the route's own filters and `policy`, in the order in which they are asked."""
    found: list[HttpFilter] = []
    if route.cors is not None:
        found.append(cors_filter(route.cors, f"{path}.cors", context.errors))
    found += policy
    scope, name = place
    for index, limit in enumerate(route.rate_limits):
        at = (scope, f"{name}#{index}")
        found.append(rate_limit_filter(limit, at, f"{path}.rate_limits[{index}]", context))
    for index, model in enumerate(route.bandwidth_limits):
        at = (scope, f"{name}#{index}")
        found.append(bandwidth_filter(model, at, f"{path}.bandwidth_limits[{index}]", context))
    for index, wanted in enumerate(route.faults):
        at = (scope, f"{name}#{index}")
        found.append(fault_filter(wanted, at, f"{path}.faults[{index}]", context, is_tcp=is_tcp))
    found += [*shared, *python_filters(route.filters, place, f"{path}.filters", context)]
    found += action_filters(route, path, context.errors)
    return [*found, *mirror_filters(route, path, context), *retry_filters(route.retry)]


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
