"""How endpoints are chosen: what the balancers can be told."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sidecar.model.base import Count, Duration, Model, Percent


class RingHash(Model, frozen=True, kw_only=True):
    """For `balancer: ring_hash` (Envoy: RingHashLbConfig)."""

    minimum_ring_size: Annotated[int, Meta(ge=1, le=1048576)] = 1024
    """Points on the ring, at least: more give more even shares, and make a push slower (1 ms for 1024)."""

    maximum_ring_size: Annotated[int, Meta(ge=1, le=1048576)] = 65536
    """Points on the ring, at most, unless there are more endpoints; reached only with very unequal weights."""

    hash_balance_factor: Count = 0
    """Bounded load: no endpoint gets more than this percentage of the mean load for its weight, what is over
    goes to the next on the ring. 125 is a good value; 0 means no bound."""


class Maglev(Model, frozen=True, kw_only=True):
    """For `balancer: maglev` (Envoy: MaglevLbConfig)."""

    table_size: Annotated[int, Meta(ge=2, le=5000011)] = 65537
    """Slots of the table, a prime, best a hundred times the endpoints or more; a push takes about 1 ms per 1000."""

    hash_balance_factor: Count = 0
    """Bounded load: no endpoint gets more than this percentage of the mean load for its weight, what is over
    goes to the next in the table. 125 is a good value; 0 means no bound."""


class PeakEwma(Model, frozen=True, kw_only=True):
    """For `balancer: peak_ewma` (Linkerd's balancer)."""

    decay_time: Annotated[float, Meta(gt=0, extra={"unit": "duration"})] = 10.0
    """Seconds after which a measured latency counts 37 % of what it did."""

    default_rtt: Annotated[float, Meta(gt=0, extra={"unit": "duration"})] = 0.01
    """Latency that an endpoint is thought to have before it has answered once."""


class ZoneAware(Model, frozen=True, kw_only=True):
    """Whether endpoints of the workload's own zone come first (Envoy: ZoneAwareLbConfig)."""

    SHORT: ClassVar[str] = "enabled"

    enabled: bool = False
    """The zone's own endpoints get the traffic while 71 % of them are available, the others what those cannot
    carry. For zones whose endpoints can carry what their callers send: nothing evens it out."""

    min_cluster_size: Count = 6
    """With fewer endpoints than this the zones do not matter."""


class SlowStart(Model, frozen=True, kw_only=True):
    """How an endpoint that joins a running cluster comes to its share (Envoy: SlowStartConfig)."""

    SHORT: ClassVar[str] = "window"

    window: Duration = 0.0
    """Seconds until it has its whole share; 0 means at once. Also for one that returns from ejection."""

    aggression: Annotated[float, Meta(gt=0)] = 1.0
    """1: in a straight line; more: faster at first."""

    min_weight_percent: Percent = 10.0
    """The part of its share that it begins with."""


class HashCookie(Model, frozen=True, kw_only=True):
    """A cookie to hash by (Envoy: HashPolicy.Cookie)."""

    SHORT: ClassVar[str] = "name"

    name: str
    """Its name."""

    ttl: Duration | None = None
    """Give it to callers that send none, for so many seconds (0: until the browser is closed). None: give none."""

    path: str = "/"
    """Path of a cookie that is given."""


class HashPolicy(Model, frozen=True, kw_only=True):
    """Something of a request that `ring_hash` and `maglev` hash (Envoy: RouteAction.HashPolicy); exactly one kind."""

    header: str = ""
    """The value of this request field."""

    cookie: HashCookie | None = None
    """The value of this cookie."""

    query_parameter: str = ""
    """The value of this query parameter, as it is written."""

    source_ip: bool = False
    """The address of the caller, without its port; the only kind for opaque connections."""

    terminal: bool = False
    """Where this is there, leave the ones after it aside; else all that are there are hashed together."""
