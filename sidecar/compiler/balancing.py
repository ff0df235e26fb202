"""Which balancer a cluster gets, with which settings."""

import difflib
from collections.abc import Mapping

from sidecar.errors import ConfigError
from sidecar.model.cluster import Cluster
from sidecar.plugin import Plugin
from sidecar.traffic.maglev import is_prime


def chosen_balancer(
    cluster: Cluster, balancers: Mapping[str, Plugin], path: str, errors: list[ConfigError]
) -> tuple[Plugin, object]:
    """Return the plug-in that `cluster` names, and its settings: the field of the same name."""
    plugin = balancers.get(cluster.balancer)
    if plugin is None:
        names = sorted(balancers)
        near = difflib.get_close_matches(cluster.balancer, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        text = f"no balancer is called {cluster.balancer!r} ({hint})"
        errors.append(ConfigError(f"{path}.balancer", text))
        plugin = balancers["least_request"]
    for name, other in balancers.items():
        settings = getattr(cluster, name, None)
        if other is not plugin and settings != other.settings():
            # What is not looked at would be believed to matter.
            errors.append(ConfigError(f"{path}.{name}", f"needs balancer: {name}"))
    before = len(errors)
    _check_settings(cluster, path, errors)
    if len(errors) > before:
        plugin = balancers["least_request"]  # a table of no prime size would never be full
    return plugin, getattr(cluster, plugin.name, None)


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
