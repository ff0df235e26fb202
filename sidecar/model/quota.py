"""How many requests are taken."""

from typing import Annotated

from msgspec import Meta

from sidecar.model.base import Count, Duration, Model
from sidecar.model.match import RouteMatch


class RateLimit(Model, frozen=True, kw_only=True):
    """A rate that requests of a route must keep; others are answered 429 (flag RL) with `Retry-After`.

    Each worker counts by itself: with several, each has its part of the rate and of the burst, so that all together
    keep it, but a caller whose connections do not spread evenly over the workers is held to less.
    """

    name: str = ""
    """Its name in log, metrics and reply. Empty: the route's name and its place, `checkout#0`."""

    requests: Annotated[int, Meta(ge=1)]
    """How many in `per` seconds."""

    per: Duration = 1.0
    """Seconds in which they may come."""

    burst: Count = 0
    """How many may come at once. 0: `requests`."""

    by: tuple[str, ...] = ()
    """What has a rate of its own, each combination of: `peer` (identity), `source` (address), `path`, `method`,
    `host`, `header:NAME`. Empty: all requests of the route share one."""

    match: RouteMatch = RouteMatch()
    """The requests of the route that it looks at; without `hosts`. Empty: all."""

    max_keys: Annotated[int, Meta(ge=1, le=1000000)] = 10000
    """How many combinations are told apart at once, per worker; further ones share one rate."""

    shadow: bool = False
    """Refuse nothing; only count (`sidecar_rate_limit_shadow_total`) and log (`rate_limit_shadow`)."""
