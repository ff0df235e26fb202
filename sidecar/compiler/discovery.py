"""What a cluster can say wrongly about where its endpoints come from, and which were found."""

import ipaddress
import re
from typing import Final

from sidecar.core.book import ClusterState
from sidecar.errors import ConfigError
from sidecar.model.cluster import DISCOVERIES, Cluster
from sidecar.model.discovery import DnsLookup
from sidecar.model.endpoint import Endpoint

_NONE: Final = DnsLookup()
_SRV: Final = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?"
)


def check_discovery(cluster: Cluster, path: str, errors: list[ConfigError]) -> None:
    """Add what is wrong with where the endpoints of `cluster` come from to `errors`."""
    given = [kind for kind in ("endpoints", *DISCOVERIES) if getattr(cluster, kind)]
    if len(given) != 1:
        detail = f"expected exactly one of endpoints, {', '.join(DISCOVERIES[:-1])} and {DISCOVERIES[-1]}"
        errors.append(ConfigError(path, detail))
    if cluster.dns is not None and cluster.dns.startswith("unix:"):
        detail = "expected host:port; a unix socket goes to `endpoints`"
        errors.append(ConfigError(f"{path}.dns", detail))
    if cluster.srv and (len(cluster.srv) > 253 or not _SRV.fullmatch(cluster.srv)):
        detail = f"expected a name like _http._tcp.catalog.internal, got {cluster.srv[:80]!r}"
        errors.append(ConfigError(f"{path}.srv", detail))
    if cluster.file_sd and (not cluster.file_sd.startswith("/") or "\0" in cluster.file_sd):
        # A relative one would mean another place for the agent than for whoever calls `check`.
        detail = f"expected a path that begins with /, got {cluster.file_sd[:80]!r}"
        errors.append(ConfigError(f"{path}.file_sd", detail))
    lookup = cluster.dns_lookup
    if lookup == _NONE:
        return
    where = f"{path}.dns_lookup"
    if cluster.dns is None and not cluster.srv:
        errors.append(ConfigError(where, "needs dns or srv"))
    if lookup.min_refresh > lookup.max_refresh:
        detail = f"expected max_refresh, {lookup.max_refresh:g} s, or less"
        errors.append(ConfigError(f"{where}.min_refresh", detail))
    for index, server in enumerate(lookup.servers):
        if not _is_place(server):
            detail = f"expected an IP address and a port, got {server[:80]!r}"
            errors.append(ConfigError(f"{where}.servers[{index}]", detail))


def found_endpoints(state: ClusterState) -> tuple[Endpoint, ...]:
    """Return what was found, each address once."""
    found: dict[str, Endpoint] = {}
    for endpoint in state.resolved or ():
        found.setdefault(endpoint.address, endpoint)
    return tuple(found.values())


def _is_place(server: str) -> bool:
    try:
        ipaddress.ip_address(server.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True
