"""How many requests are taken."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sidecar.model.base import Count, Duration, Model, Size, Timeout
from sidecar.model.match import RouteMatch


class Shared(Model, frozen=True, kw_only=True):
    """With whom a rate is kept together, and what becomes of requests while that cannot be asked.

    A worker takes up to 50 ms of requests in advance, so that a rule that many requests meet is not asked about for
    each of them; rarer ones are, and wait for the answer.
    """

    SHORT: ClassVar[str] = "store"

    store: str = ""
    """One of `stores`: all sidecars that name the same keep the rate together. Empty: the workers of this sidecar do,
    through its agent."""

    key: str = ""
    """What the rule is called in the store. Empty: its `name`."""

    timeout: Duration = 0.02
    """Seconds that a request waits for an answer; then `on_failure` decides. In steps of 10 ms."""

    on_failure: Literal["local", "open", "closed"] = "local"
    """While there is no answer in time. `local`: this sidecar keeps the rate by itself. `open`: all are let through.
    `closed`: all are answered 503 with flag RLSE."""

    local_requests: Count = 0
    """With `local`: how many this sidecar takes by itself in `per` seconds, and at once. 0: `requests` and `burst`."""


class RateLimitService(Model, frozen=True, kw_only=True):
    """A service that keeps rates for whoever asks: Envoy's rate limit protocol, `envoy.service.ratelimit.v3`.

    Every request of the rule waits for its answer. It is told the domain and one descriptor, made of what `by` names: the
    keys are `peer`, `remote_address` (of `source`), `path`, `method`, `host` and the name of a header in lower case or of a
    claim; without `by`, `generic_key` with the rule's name. A request that lacks one of these is not asked about and
    passes, as with Envoy. Fields that the service adds go to the endpoint, or to the caller.
    """

    cluster: str
    """Who is asked; it speaks HTTP/2 (`protocol: http2` where there is no TLS)."""

    domain: Annotated[str, Meta(min_length=1)]
    """Which of the service's configurations holds."""

    authority: str = ""
    """The host that is named. Empty: the cluster's name."""

    keys: dict[str, str] = {}
    """Other keys of the descriptor: `{source: ip, "header:x-tenant": tenant}`."""

    timeout: Timeout = 0.02
    """Seconds that a request waits for an answer; then `on_failure` decides. In steps of 10 ms."""

    on_failure: Literal["open", "closed"] = "open"
    """While there is no answer in time, or an error. `open`: all are let through. `closed`: all are answered 503 with flag
    RLSE."""


class RateLimit(Model, frozen=True, kw_only=True):
    """A rate that requests of a route must keep; others are answered 429 (flag RL) with `Retry-After`.

    Without `shared` each worker counts by itself: with several, each has its part of the rate and of the burst, so that
    all together keep it, but a caller whose connections do not spread evenly over the workers is held to less.
    """

    name: str = ""
    """Its name in log, metrics and reply. Empty: the route's name and its place, `checkout#0`."""

    requests: Count = 0
    """How many in `per` seconds; needed unless a `service` says it."""

    per: Duration = 1.0
    """Seconds in which they may come."""

    burst: Count = 0
    """How many may come at once. 0: `requests`."""

    by: tuple[str, ...] = ()
    """What has a rate of its own, each combination of: `peer` (identity), `source` (address), `path`, `method`,
    `host`, `user` (of a verified key or password), `header:NAME`, `claim:NAME` (of a verified token). Empty: all
    requests of the route share one."""

    match: RouteMatch = RouteMatch()
    """The requests of the route that it looks at; without `hosts`. Empty: all."""

    max_keys: Annotated[int, Meta(ge=1, le=1000000)] = 10000
    """How many combinations are told apart at once, per worker; further ones share one rate."""

    shared: Shared | None = None
    """Keep the rate together with other workers (`shared: {}`) or other sidecars (`shared: {store: NAME}`)."""

    service: RateLimitService | None = None
    """Or a service that others use too keeps the rate, and says how many; `name`, `by`, `match` and `shadow` hold as well."""

    shadow: bool = False
    """Refuse nothing; only count (`sidecar_rate_limit_shadow_total`) and log (`rate_limit_shadow`)."""


class BandwidthLimit(Model, frozen=True, kw_only=True):
    """Octets a second; what is faster is held up, never refused.

    On a listener, of connections: all their octets but those of TLS count. On a route, of bodies. Each worker has its
    part of the rate, at least 1 KiB a second: with several workers one connection gets no more than that.
    """

    name: str = ""
    """What to call it; it is not told to callers, who only find it slow."""

    up: Size = 0
    """Octets a second that come from callers. 0: as fast as they come."""

    down: Size = 0
    """Octets a second that go to them. 0: as fast as they read."""

    burst: Size = 0
    """Octets that may pass at once after a pause, each way. At least, and with 0, a tenth of a second's."""

    by: tuple[Literal["peer", "source"], ...] = ()
    """Who has a rate of its own, each combination of: `peer` (identity), `source` (address). Empty: all share one."""

    max_keys: Annotated[int, Meta(ge=1, le=1000000)] = 10000
    """How many combinations are told apart at once, per worker; further ones share one rate."""


class ConnectionLimit(Model, frozen=True, kw_only=True):
    """Connections that one caller may have open to a listener; one more is refused.

    A caller over HTTP/1.1 is answered 429 (flag RL), over HTTP/2 told ENHANCE_YOUR_CALM; others are only cut. Each worker
    has its part of the number, at least one.
    """

    name: str = ""
    """Its name in replies. Empty: what it goes by, `connections by peer`."""

    connections: Annotated[int, Meta(ge=1)]
    """How many at once."""

    by: tuple[Literal["peer", "source"], ...] = ("source",)
    """Who is one caller: `peer` (identity), `source` (address), or each combination of both. All without an identity are
    one peer."""
