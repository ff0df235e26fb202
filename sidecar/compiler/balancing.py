"""Which balancer a cluster gets, with which settings."""

from collections.abc import Callable, Mapping
from typing import Final

from sidecar.core.api import Balancer, Draw
from sidecar.core.book import ClusterState, Endpoint
from sidecar.core.tiers import SlowStart, Tiered
from sidecar.errors import ConfigError, nearest
from sidecar.model.balancing import Maglev, RingHash
from sidecar.model.cluster import Cluster
from sidecar.plugin import Plugin
from sidecar.traffic.maglev import is_prime
from sidecar.traffic.outlier import Policy

HASHING: Final = (RingHash, Maglev)  # settings of balancers whose choice is the hash's


def chosen_balancer(
    cluster: Cluster,
    balancers: Mapping[str, Plugin],
    zone: str,
    path: str,
    errors: list[ConfigError],
) -> tuple[Plugin, object]:
    """Return the plug-in that `cluster` names, and its settings: the field of the same name.

    `zone` is the workload's.
    """
    plugin = balancers.get(cluster.balancer)
    if plugin is None:
        names = sorted(balancers)
        near = nearest(cluster.balancer, names)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
        text = f"no balancer is called {cluster.balancer!r} ({hint})"
        errors.append(ConfigError(f"{path}.balancer", text))
        plugin = balancers["least_request"]
    for name, other in balancers.items():
        settings = getattr(cluster, name, None)
        if other is not plugin and settings != other.settings():
            # What is not looked at would be believed to matter.
            errors.append(ConfigError(f"{path}.{name}", f"needs balancer: {name}"))
    if cluster.zone_aware.enabled and not zone:
        errors.append(ConfigError(f"{path}.zone_aware", "needs workload.zone"))
    if cluster.slow_start.window and plugin.settings in HASHING:
        text = f"needs a balancer that may choose; with {plugin.name} the hash does"
        errors.append(ConfigError(f"{path}.slow_start", text))
    before = len(errors)
    _check_settings(cluster, path, errors)
    if len(errors) > before:
        plugin = balancers["least_request"]  # a table of no prime size would never be full
    return plugin, getattr(cluster, plugin.name, None)


def assemble(
    cluster: Cluster,
    zone: str,
    state: ClusterState,
    endpoints: tuple[Endpoint, ...],
    make: Callable[[tuple[Endpoint, ...], float], Balancer],
    draw: Draw,
) -> Balancer:
    """Return the balancer of all `endpoints`, with tiers and slow start around it where needed.

    `make(endpoints, panic)` makes the balancer itself.
    """
    panic = cluster.panic_threshold / 100
    tiers = _tiers(cluster, zone, endpoints)
    if len(tiers) > 1:
        balancer: Balancer = Tiered(state, tiers, make, panic, draw)
    else:
        balancer = make(endpoints, panic)
    start = cluster.slow_start
    if not start.window:
        return balancer
    least = start.min_weight_percent / 100
    return SlowStart(
        balancer,
        endpoints,
        draw,
        window=start.window,
        aggression=start.aggression,
        least=least,
    )


def outlier_policy(
    cluster: Cluster, endpoints: tuple[Endpoint, ...], path: str, errors: list[ConfigError]
) -> Policy | None:
    """Return when endpoints are ejected; None where none can be."""
    wanted = cluster.outlier_detection
    if wanted.base_ejection_time > wanted.max_ejection_time:
        text = f"expected max_ejection_time, {wanted.max_ejection_time:g} s, or less"
        errors.append(ConfigError(f"{path}.base_ejection_time", text))
    if not wanted.enabled or len(endpoints) < 2:
        return None
    percent = wanted.max_ejection_percent
    return Policy(
        consecutive_5xx=wanted.consecutive_5xx,
        consecutive_local_origin_failure=wanted.consecutive_local_origin_failure,
        interval=wanted.interval,
        base_ejection_time=wanted.base_ejection_time,
        max_ejection_time=wanted.max_ejection_time,
        max_ejection_share=None if percent is None else percent / 100,
        success_rate_minimum_hosts=wanted.success_rate_minimum_hosts,
        success_rate_request_volume=wanted.success_rate_request_volume,
        success_rate_stdev_factor=wanted.success_rate_stdev_factor / 1000,
    )


def _tiers(
    cluster: Cluster, zone: str, endpoints: tuple[Endpoint, ...]
) -> list[tuple[Endpoint, ...]]:
    """Return `endpoints` by priority, and within each those of `zone` before the others."""
    by_zone = cluster.zone_aware.enabled and len(endpoints) >= cluster.zone_aware.min_cluster_size
    found: dict[tuple[int, bool], list[Endpoint]] = {}
    for endpoint in endpoints:
        is_remote = by_zone and endpoint.zone != zone
        found.setdefault((endpoint.priority, is_remote), []).append(endpoint)
    return [tuple(found[key]) for key in sorted(found)]


def _check_settings(cluster: Cluster, path: str, errors: list[ConfigError]) -> None:
    ring, maglev = cluster.ring_hash, cluster.maglev
    if ring.minimum_ring_size > ring.maximum_ring_size:
        text = f"expected maximum_ring_size, {ring.maximum_ring_size}, or less"
        errors.append(ConfigError(f"{path}.ring_hash.minimum_ring_size", text))
    if not is_prime(maglev.table_size):
        text = f"expected a prime, got {maglev.table_size}"
        errors.append(ConfigError(f"{path}.maglev.table_size", text))
    for name, settings in (("ring_hash", ring), ("maglev", maglev)):
        if 0 < settings.hash_balance_factor < 100:
            text = f"expected 0, or 100 or more; got {settings.hash_balance_factor}"
            errors.append(ConfigError(f"{path}.{name}.hash_balance_factor", text))
