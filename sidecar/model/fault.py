"""Faults put into a route on purpose."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sidecar.model.action import AnswerStatus
from sidecar.model.base import Count, Duration, Model, Percent, Size
from sidecar.model.match import RouteMatch


class FaultDelay(Model, frozen=True, kw_only=True):
    """Requests wait before they are sent on (flag DI); no timeout of the route counts meanwhile."""

    SHORT: ClassVar[str] = "fixed"

    fixed: Duration | None = None
    """Seconds, the same for each. Exactly one of `fixed` and `mean` is given."""

    mean: Duration | None = None
    """Seconds on the average, drawn for each from an exponential distribution."""

    max: Duration = 60.0
    """The longest that is drawn."""

    percent: Percent = 100.0
    """The share of requests that wait; steps of 0.0001 % and finer are kept."""


class FaultAbort(Model, frozen=True, kw_only=True):
    """Requests are answered in place of the endpoint (flag FI), behind the delay if there is one."""

    SHORT: ClassVar[str] = "status"

    status: AnswerStatus = 503
    """The code of the answer."""

    grpc_status: Annotated[int, Meta(ge=0, le=16)] | None = None
    """What gRPC callers are told. None: what `status` means to them."""

    reset: bool = False
    """No answer: the connection ends, over HTTP/2 the stream."""

    black_hole: bool = False
    """No answer and no end: the request hangs until the caller gives up, or its gRPC deadline has passed."""

    percent: Percent = 100.0
    """The share of requests that are answered so."""


class FaultThroughput(Model, frozen=True, kw_only=True):
    """Bodies of responses come slowly (Envoy: response_rate_limit); each of them, whatever others do."""

    SHORT: ClassVar[str] = "rate"

    rate: Size
    """Octets a second, 1 or more."""

    percent: Percent = 100.0
    """The share of responses that are slow."""


class FaultByHeader(Model, frozen=True, kw_only=True):
    """Callers may ask for faults by Envoy's fields.

    `x-envoy-fault-delay-request` (milliseconds), `x-envoy-fault-abort-request` (a status),
    `x-envoy-fault-abort-grpc-request` and `x-envoy-fault-throughput-response` (KiB a second), each with its
    `...-percentage` (`x-envoy-fault-abort-request-percentage` for both aborts). What is asked for goes before `delay`,
    `abort` and `throughput`.
    """

    percent: Percent = 100.0
    """The share of those that ask that get what they ask for, at most."""

    max_delay: Duration = 30.0
    """Seconds of delay, at most."""


class Fault(Model, frozen=True, kw_only=True):
    """One fault (Envoy: HTTPFault).

    On a listener with `protocol: tcp` it befalls sessions: `delay`, and `abort` with `reset` (a TCP reset) or `black_hole`;
    `match` has `peer`, `ports` and `percent` there.
    """

    name: str = ""
    """Its name in the log, field `fault`. Empty: the route's name and its place, `checkout#0`."""

    match: RouteMatch = RouteMatch()
    """The requests of the route that it may befall; without `hosts`. Empty: all."""

    delay: FaultDelay | None = None
    """Make them late."""

    abort: FaultAbort | None = None
    """Make them fail."""

    throughput: FaultThroughput | None = None
    """Make their responses slow."""

    by_header: FaultByHeader | None = None
    """Let callers ask."""

    max_active: Count = 100
    """Requests under way that it has befallen at most, per worker; one more is let alone."""

    lifetime: Duration = 3600.0
    """Seconds after its first request, in each worker, from which on it does nothing, so that none is forgotten;
    a push that leaves it as it is does not begin them anew. 0: no end."""


class AddedFault(Model, frozen=True, kw_only=True):
    """One that an operator adds at run time."""

    route: str
    """The name of its route."""

    fault: Fault
    """What it does; its `lifetime` is `ttl`."""

    ttl: Duration = 600.0
    """Seconds until it ends."""
