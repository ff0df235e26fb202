"""How often, after what and how soon one exchange is tried again."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from sidecar.model.base import Duration, Model, Status
from sidecar.model.match import StringMatch

RetryCondition = Literal[
    "connect-failure",
    "refused-stream",
    "reset-before-request",
    "reset",
    "gateway-error",
    "5xx",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
]


class RetryPolicy(Model, frozen=True, kw_only=True):
    """How often, and for what, one exchange may be tried again (Envoy: RetryPolicy).

    Each try goes to another endpoint while there is one that was not tried. Whatever the policy says: an idempotent
    request whose reused connection died before any response is sent again, and so is every request that the endpoint
    refused unseen.
    """

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Tries in all, the first included; 1 means never retry."""

    on: tuple[RetryCondition, ...] | None = None
    """What is tried again, by Envoy's names. None: `connect-failure`, and on outbound listeners `gateway-error` too.

    Whatever the method, since nothing was processed: `connect-failure` and `reset-before-request` (no connection came
    about), `refused-stream` (HTTP/2; always tried again, listed or not).

    For idempotent methods, and what `idempotency_key` vouches for: `reset` (no response came, for whatever reason),
    `gateway-error` (502, 503 or 504, or a reset), `5xx` (any 5xx, or a reset), `retriable-4xx` (409),
    `retriable-status-codes` (those in `status_codes`), `retriable-headers` (a response with any of `retriable_headers`),
    `envoy-ratelimited` (a response with `x-envoy-ratelimited`, which nothing else tries again).

    For gRPC calls, whatever the method: `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`,
    `unavailable` (the call ends with this status before any message has gone back)."""

    status_codes: tuple[Status, ...] = ()
    """Response codes for `retriable-status-codes`."""

    retriable_headers: dict[str, StringMatch] = {}
    """Conditions on response fields for `retriable-headers`, by name; one that holds is enough."""

    idempotency_key: str = "Idempotency-Key"
    """A request field with which a caller vouches that its request may be processed twice, whatever the method.
    Empty: there is none."""

    per_try_timeout: Duration | None = None
    """Seconds for one try, from pick to response head. None: only the route's timeout counts."""

    per_try_idle_timeout: Duration | None = None
    """Seconds in which nothing moves after which one try is given up: tried again under `reset` while no head has come,
    cut after that. Not while the caller still sends, or reads slowly. None: only `stream_idle_timeout` counts."""

    backoff: Duration = 0.025
    """Base of the full-jitter back-off between tries: the n-th wait is random between 0 and base * 2**n."""

    backoff_max: Duration = 0.25
    """The longest wait between tries."""

    retry_after_max: Duration = 5.0
    """The longest wait that a response may ask for, by `Retry-After` or `RateLimit-Reset` (Envoy: rate_limited_retry_back_off)
    or, of gRPC, `grpc-retry-pushback-ms`; it comes before the back-off. If it asks for more, or for more than the route's
    `timeout` leaves, it is not tried again but passed on. 0: such fields are not looked at."""

    attempt_count: bool = False
    """Tell the endpoint which try this is, in `x-envoy-attempt-count` (Envoy: include_request_attempt_count)."""


class Hedge(Model, frozen=True, kw_only=True):
    """A second attempt, at another endpoint, beside one that takes long (Envoy: HedgePolicy; gRPC: hedgingPolicy).

    The first good response goes to the caller, the other attempt is cancelled. 5xx, 429, what `retry.on` lists and bad
    gRPC statuses are no good ones while the other attempt may have a better. It happens once for a request, if its body is
    whole and held (`buffer_limit`), if its method is idempotent or `retry.idempotency_key` vouches for it, within
    `retry.attempts` and the retry budget. Exactly one of `delay` and `percentile` is given.
    """

    SHORT: ClassVar[str] = "delay"

    delay: Annotated[float, Meta(gt=0, extra={"unit": "duration"})] | None = None
    """Seconds without a response head after which the second attempt begins."""

    percentile: Annotated[float, Meta(gt=0, lt=100, extra={"unit": "percent"})] | None = None
    """Or the time that this part of the cluster's answers took in the last 10 to 20 s, as this worker has seen it: with
    95 %, about one request of twenty is sent twice. Nothing is with fewer than 100 answers in that time."""

    methods: tuple[str, ...] = ()
    """Further methods whose requests may be processed twice, such as POST for gRPC calls that only read."""
