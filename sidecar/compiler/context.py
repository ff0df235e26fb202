"""What the parts of a snapshot are compiled by, besides themselves."""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.core.api import Draw
from sidecar.core.call import CallPlan
from sidecar.core.plan import PROTOCOL_HTTP1, ClusterPlan
from sidecar.errors import ConfigError, nearest

_EVERYWHERE: Final = ("0.0.0.0", "[::]")  # noqa: S104 - looked for, not listened on

Keep = Callable[[Hashable, Callable[[], Any]], Any]
"""Returns what is remembered under a key across pushes, begun by the second if there is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What routes are compiled by, besides themselves."""

    clusters: Mapping[str, ClusterPlan]
    """By name."""

    subset: Callable[[ClusterPlan, Mapping[str, str], str], ClusterPlan]
    """Makes the plan of the endpoints with some labels; the path is for errors."""

    keep: Keep
    """What outlives this plan."""

    workers: int
    """How many workers share what a filter limits."""

    stores: Collection[str]
    """Names of the stores that shared rates may be kept in."""

    draw: Draw
    """Chance."""

    errors: list[ConfigError]
    """Where what is wrong goes."""

    runs_filters: bool = True
    """Whether the code of filters is run; else it is looked at only."""

    listeners: tuple[str, ...] = ()
    """Addresses that this sidecar listens on."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    """What is in the files that policies name, by path."""

    def read(self, file: str, path: str) -> bytes | None:
        """Return what is in `file`, which is named at `path`; without it, None and an error."""
        if file not in self.files:
            self.errors.append(ConfigError(path, f"the file {file!r} was not read"))
        return self.files.get(file)

    def call(
        self,
        purpose: str,
        cluster: str,
        path: str,
        timeout: float,
        *,
        keeps: int = 65536,
        attempts: int = 3,
        repeatable: bool = False,
        grpc: bool = False,
    ) -> CallPlan | None:
        """Return how a filter asks the cluster that its config names at `path`; None after an error.

        `purpose` is what metrics call it (`ext_authz`); for the rest see `CallPlan`.
        """
        plan = cluster_named(cluster, path, self.clusters, self.errors)
        if plan is None:
            return None
        if grpc and plan.protocol == PROTOCOL_HTTP1:
            detail = f"gRPC needs HTTP/2: set `protocol: http2` for cluster {cluster!r}"
            self.errors.append(ConfigError(path, detail))
        for endpoint in plan.endpoints:
            if any(_leads_to(endpoint.address, address) for address in self.listeners):
                # The one way in which a call could cause itself.
                detail = f"{endpoint.address} of cluster {cluster!r} is a listener of this sidecar"
                self.errors.append(ConfigError(path, detail))
        return CallPlan(
            purpose, plan, timeout, keeps=keeps, attempts=attempts, repeatable=repeatable
        )


def cluster_named(
    name: str, path: str, clusters: Mapping[str, ClusterPlan], errors: list[ConfigError]
) -> ClusterPlan | None:
    """Return the cluster called `name`, or None after an error that offers the nearest name."""
    plan = clusters.get(name)
    if plan is None:
        near = nearest(name, clusters)
        hint = f" (did you mean {near!r}?)" if near else ""
        errors.append(ConfigError(path, f"no cluster is named {name!r}{hint}"))
    return plan


def _leads_to(address: str, listener: str) -> bool:
    """Say whether a connection to `address` ends at `listener`, as far as can be seen."""
    if address == listener:
        return True
    host, _, port = address.rpartition(":")
    where, _, there = listener.rpartition(":")
    is_here = host.startswith("127.") or host in ("localhost", "[::1]")
    return port == there and where in _EVERYWHERE and is_here
