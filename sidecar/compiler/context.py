"""What the parts of a snapshot are compiled by, besides themselves."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.api import Draw
from sidecar.core.plan import ClusterPlan
from sidecar.errors import ConfigError

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

    draw: Draw
    """Chance."""

    errors: list[ConfigError]
    """Where what is wrong goes."""
