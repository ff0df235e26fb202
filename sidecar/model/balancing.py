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


class OutlierDetection(Model, frozen=True, kw_only=True):
    """When an endpoint that fails is left out for a while (Envoy: OutlierDetection); each worker sees for itself.

    An ejected endpoint returns through one live request: answered well it is back, else it is out again. No more are
    ejected than leave `panic_threshold` of the endpoints available, and never the last.

    An endpoint that cannot be connected to is passed over at once, while there are others: for 0.1 s, then 0.2 s and so
    on up to 5 s, each time until one request has found out.
    """

    SHORT: ClassVar[str] = "enabled"

    enabled: bool = True
    """Whether there is any of it; a cluster of one endpoint has nothing to leave out."""

    consecutive_5xx: Count = 5
    """Bad answers in a row that eject: any 5xx, 429, and of gRPC UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
    INTERNAL, UNAVAILABLE and DATA_LOSS. 0: never."""

    consecutive_local_origin_failure: Count = 5
    """Attempts in a row without any answer that eject: no connection, reset, timeout. 0: never."""

    interval: Annotated[float, Meta(gt=0, extra={"unit": "duration"})] = 10.0
    """Seconds of a window of the success rate, and between looks at whose ejection is over."""

    base_ejection_time: Duration = 30.0
    """Seconds of the first ejection; the next is twice as long, and so on. A window without failures takes one back."""

    max_ejection_time: Duration = 300.0
    """Seconds of the longest ejection."""

    max_ejection_percent: Percent | None = None
    """Endpoints that may be ejected at once, but always one. None: 10 %, or 50 % of fewer than 5."""

    success_rate_minimum_hosts: Count = 3
    """Endpoints that must have had `success_rate_request_volume` for their rates to be compared. 0: never."""

    success_rate_request_volume: Count = 100
    """Requests to an endpoint in a window, of this worker."""

    success_rate_stdev_factor: Count = 1900
    """Thousandths of the standard deviation of the others' success rates that an endpoint's must be below their mean
    to be ejected; at least 10 percentage points below it in any case. Answers and failures to answer count apart."""


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
