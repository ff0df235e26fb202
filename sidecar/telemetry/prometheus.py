"""The agent's half of metrics: samples to the Prometheus text format."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Protocol, final

from sidecar.telemetry.buckets import DURATION_BUCKETS, SIZE_BUCKETS

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_EDGES: Final = {
    "istio_request_duration_milliseconds": DURATION_BUCKETS,
    "istio_request_bytes": SIZE_BUCKETS,
    "istio_response_bytes": SIZE_BUCKETS,
}
_HELP: Final = {
    "istio_requests_total": "Requests, by outcome.",
    "istio_request_duration_milliseconds": "From request head to the end of the response.",
    "istio_request_bytes": "Octets of request bodies.",
    "istio_response_bytes": "Octets of response bodies.",
    "istio_request_messages_total": "gRPC messages from callers.",
    "istio_response_messages_total": "gRPC messages from endpoints.",
    "istio_tcp_connections_opened_total": "Opaque sessions begun.",
    "istio_tcp_connections_closed_total": "Opaque sessions ended.",
    "istio_tcp_sent_bytes_total": "Octets sent to callers of opaque sessions.",
    "istio_tcp_received_bytes_total": "Octets received from callers of opaque sessions.",
    "sidecar_refused_total": "Connections and requests refused before they were served.",
    "sidecar_outlier_ejections_total": "Endpoints ejected because they failed, by reason.",
    "sidecar_outlier_ejected_endpoints": "Endpoints that are ejected, added up over workers.",
    "sidecar_concurrency_limit": "Requests that latency allows at once, added up over workers.",
    "sidecar_admission_refused_total": "Requests refused before they were sent, by reason.",
    "sidecar_hedges_total": "Second attempts beside slow ones: begun, and who answered first.",
    "sidecar_retries_total": "Attempts after the first of an exchange.",
    "sidecar_health_checks_total": "Answers to health checks, by cluster and result.",
    "sidecar_health_endpoints": "Endpoints of clusters that have health checks, by health.",
    "sidecar_endpoint_healthy": "0 if the endpoint fails a health check.",
    "sidecar_authorization_denied_total": "What a rule has refused, by rule and caller.",
    "sidecar_authorization_shadow_total": "What shadow rules would have decided otherwise.",
    "sidecar_ext_authz_total": "Requests that an authorization service was asked about, by what came of it.",
    "sidecar_mirror_skipped_total": "Requests that a mirror has not copied, by reason.",
    "sidecar_rate_limit_service_total": "Requests that a rate limit service was asked about, by what came of it.",
    "sidecar_rate_limit_shadow_total": "Requests that a shadow rule would have refused, by rule.",
    "sidecar_filter_calls_total": "Calls of filters in Python, by filter and hook.",
    "sidecar_filter_seconds_total": "Seconds that filters in Python held up everything else.",
    "sidecar_filter_errors_total": "Calls of filters in Python that failed.",
    "sidecar_filter_overruns_total": "Calls of filters in Python over their budget or timeout.",
    "sidecar_filter_timeouts_total": "Calls of filters in Python that were cancelled.",
    "sidecar_filter_off": "Workers in which a filter in Python is switched off.",
    "sidecar_discovery_endpoints": "Endpoints that are known of a cluster that does not list them.",
    "sidecar_discovery_updates_total": "Looks for endpoints, by what came of them.",
    "sidecar_discovery_last_success_timestamp_seconds": "When endpoints were last found.",
    "sidecar_overload_pressure": "From 0, enough is left, to 1, nothing is; by resource.",
    "sidecar_overload_active": "From 0 to 1, how far a worker goes in doing less; by action.",
    "sidecar_worker_resident_bytes": "Memory of each worker.",
    "sidecar_worker_loop_lag_seconds": "How late each worker comes to what is due.",
    "sidecar_worker_restarts_total": "Workers that were replaced, by reason.",
    "sidecar_workers": "Workers that run a plan and report.",
    "sidecar_workers_wanted": "Workers that there are to be.",
    "sidecar_config_pushes_total": "Configurations, by what became of them.",
    "sidecar_config_last_push_timestamp_seconds": "When one was last put into force.",
    "sidecar_certificate_expiry_timestamp_seconds": "When the first certificate of a part ends.",
}


class SampleLike(Protocol):
    """One series: see `runtime.messages.Sample`."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def values(self) -> tuple[float, ...]: ...


def render(samples: Iterable[SampleLike]) -> bytes:
    """Return `samples` in the text exposition format 0.0.4, family by family."""
    # 4 MB, an HTTP server and e-mail among them: for agents that are asked for metrics.
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(samples))
    return generate_latest(registry)


@final
class _Samples:
    """Hands the samples to prometheus_client, family by family (`Collector`, by its protocol)."""

    def __init__(self, samples: Iterable[SampleLike]) -> None:
        self._families: Final[dict[str, list[SampleLike]]] = {}
        for sample in samples:
            self._families.setdefault(sample.name, []).append(sample)

    def collect(self) -> "Iterator[Metric]":
        """Yield one family after the other; its series need not have the same labels."""
        from prometheus_client.core import Metric  # noqa: PLC0415 - see `render`

        for name, samples in sorted(self._families.items()):
            edges = _EDGES.get(name)
            kind = (
                "counter" if name.endswith("_total") else "gauge" if edges is None else "histogram"
            )
            family = Metric(
                name.removesuffix("_total"), _HELP.get(name, name.replace("_", " ")), kind
            )
            for sample in samples:
                labels = dict(sample.labels)
                if edges is None:
                    family.add_sample(name, labels, sample.values[0])
                else:
                    _add_histogram(family, labels, edges, sample.values)
            yield family


def _add_histogram(
    family: "Metric", labels: dict[str, str], edges: tuple[float, ...], values: tuple[float, ...]
) -> None:
    """Add one series; `values` are the sum and a count for each bucket."""
    total, *counts = values
    running = 0.0
    for edge, count in zip((*map(str, edges), "+Inf"), counts, strict=True):
        running += count
        family.add_sample(f"{family.name}_bucket", {**labels, "le": edge}, running)
    family.add_sample(f"{family.name}_count", labels, running)
    family.add_sample(f"{family.name}_sum", labels, total)
