"""When requests are refused before they are sent, by what became of those before."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sidecar.model.base import Model, Percent

Positive = Annotated[float, Meta(gt=0, extra={"unit": "duration"})]
AtLeastOne = Annotated[int, Meta(ge=1)]


class AdaptiveConcurrency(Model, frozen=True, kw_only=True):
    """A limit of the requests under way that follows the endpoints' latency (Envoy: AdaptiveConcurrency, gradient).

    Each worker finds its own. What is over it is answered 503 with flag UO. The limit grows while latency is near the least
    there is, and shrinks by their ratio when requests begin to queue. To learn the least latency, the limit is
    `min_concurrency` for as long as `min_rtt_request_count` answers take, every `min_rtt_interval`.
    """

    SHORT: ClassVar[str] = "enabled"

    enabled: bool = False
    """Whether there is any of it."""

    sample_aggregate_percentile: Percent = 50.0
    """Which of the latencies since the last step counts: the median by default."""

    max_concurrency_limit: AtLeastOne = 1000
    """The limit, at most, and at the start; `limits.requests` holds as well."""

    concurrency_update_interval: Positive = 0.1
    """Seconds between two steps, and at least 10 answers."""

    min_rtt_interval: Positive = 60.0
    """Seconds between two measurements of the least latency."""

    min_rtt_request_count: AtLeastOne = 50
    """Answers that such a measurement takes."""

    min_rtt_jitter_percent: Percent = 15.0
    """Part of the interval that is added by chance, so that not all callers measure at once."""

    min_concurrency: AtLeastOne = 3
    """The limit, at least, and during a measurement."""

    min_rtt_buffer_percent: Percent = 25.0
    """Part of the least latency that answers may vary by without being thought to queue."""


class AdmissionControl(Model, frozen=True, kw_only=True):
    """Requests that are refused by chance while the cluster fails most (Envoy: AdmissionControl, for the client's side).

    Each worker sees for itself. The chance is what is missing to `success_rate_threshold` in the last `sampling_window`.
    Failures are 5xx, 429, no answer, and of gRPC DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE and
    DATA_LOSS. What is refused is answered 503 with flag UO and is not counted.
    """

    SHORT: ClassVar[str] = "enabled"

    enabled: bool = False
    """Whether there is any of it."""

    sampling_window: Positive = 30.0
    """Seconds that are looked back."""

    success_rate_threshold: Annotated[float, Meta(ge=1, le=100, extra={"unit": "percent"})] = 95.0
    """The rate of success below which requests are refused."""

    aggression: Annotated[float, Meta(ge=1)] = 1.0
    """1: in proportion to what is missing; more: more of them."""

    rps_threshold: Annotated[float, Meta(ge=0)] = 0.0
    """Requests a second, over the window, below which none is refused."""

    max_rejection_percent: Percent = 80.0
    """Part of the requests that is refused at most; the others find out whether it has recovered."""
