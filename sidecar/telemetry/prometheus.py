"""The agent's half of metrics: samples to the Prometheus text format."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol, final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from sidecar.telemetry.buckets import DURATION_BUCKETS, SIZE_BUCKETS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_EDGES: Final = {
    "istio_request_duration_milliseconds": DURATION_BUCKETS,
    "istio_request_bytes": SIZE_BUCKETS,
    "istio_response_bytes": SIZE_BUCKETS,
}
"""The histograms, and the upper edges of their buckets without +Inf."""

_HELP: Final = {
    "istio_requests_total": "Requests, by outcome.",
    "istio_request_duration_milliseconds": "From request head to the end of the response.",
    "istio_request_bytes": "Octets of request bodies.",
    "istio_response_bytes": "Octets of response bodies.",
    "istio_tcp_connections_opened_total": "Opaque sessions begun.",
    "istio_tcp_connections_closed_total": "Opaque sessions ended.",
    "istio_tcp_sent_bytes_total": "Octets sent to callers of opaque sessions.",
    "istio_tcp_received_bytes_total": "Octets received from callers of opaque sessions.",
    "sidecar_access_log_dropped_total": "Access log lines lost because their reader was too slow.",
    "sidecar_bugs_total": "Errors that are ours; the traceback is on standard error.",
    "sidecar_config_last_reload_successful": "0 while the source says something that was refused.",
    "sidecar_config_pushes_total": "Configurations put into force since the start.",
    "sidecar_downstream_connections_active": "Connections of callers that are open.",
    "sidecar_refused_total": "Connections and requests refused before they were served.",
    "sidecar_retries_total": "Attempts after the first of an exchange.",
    "sidecar_series_overflow_total": "Outcomes counted as `other` because max_series was reached.",
    "sidecar_uptime_seconds": "Seconds since the agent started.",
    "sidecar_worker_max_resident_bytes": "The most memory that workers have held.",
    "sidecar_worker_restarts_total": "Workers that were replaced.",
    "sidecar_workers": "Workers that run.",
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
    """Return `samples` in the text exposition format 0.0.4.

    A name that is not in our tables is a counter if it ends with `_total`, a histogram without
    edges if it has several values, else a gauge: a scrape never fails over it.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(samples))
    return generate_latest(registry)


@final
class _Samples(Collector):
    """Hands the samples to prometheus_client, family by family."""

    def __init__(self, samples: Iterable[SampleLike]) -> None:
        self._families: Final[dict[str, list[SampleLike]]] = {}
        for sample in samples:
            self._families.setdefault(sample.name, []).append(sample)

    def collect(self) -> Iterator[Metric]:
        """Yield one family after the other.

        One per name, whatever labels its series have: a name that is described twice makes
        Prometheus refuse the whole scrape, and the series that takes the overflow has fewer labels
        than the others.
        """
        for name, samples in sorted(self._families.items()):
            text = _HELP.get(name, name.replace("_", " "))
            if name in _EDGES or any(len(sample.values) > 1 for sample in samples):
                yield _histogram(name, text, samples)
            elif name.endswith("_total"):
                yield _plain(CounterMetricFamily(name, text), name, samples)
            else:
                yield _plain(GaugeMetricFamily(name, text), name, samples)


def _plain(family: Metric, name: str, samples: list[SampleLike]) -> Metric:
    for sample in samples:
        family.add_sample(name, dict(sample.labels), sample.values[0])
    return family


def _histogram(name: str, text: str, samples: list[SampleLike]) -> Metric:
    family = HistogramMetricFamily(name, text)
    edges = _EDGES.get(name, ())
    for sample in samples:
        labels = dict(sample.labels)
        total, *counts = sample.values
        running = 0.0
        # A worker that counts in other buckets than ours: their sum is still right.
        if len(counts) == len(edges) + 1:
            for edge, count in zip(edges, counts, strict=False):
                running += count
                bucket = {**labels, "le": floatToGoString(edge)}
                family.add_sample(f"{name}_bucket", bucket, running)
        count = sum(counts)
        family.add_sample(f"{name}_bucket", {**labels, "le": "+Inf"}, count)
        family.add_sample(f"{name}_count", labels, count)
        family.add_sample(f"{name}_sum", labels, total)
    return family
