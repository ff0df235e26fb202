"""The agent's half of metrics: samples to the Prometheus text format.

Written by hand: the format is a page, and prometheus_client brings an HTTP server, a client and
e-mail along, 4 MB that the agent would keep.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from sidecar.telemetry.buckets import DURATION_BUCKETS, SIZE_BUCKETS

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
    families: dict[str, list[SampleLike]] = {}
    for sample in samples:
        families.setdefault(sample.name, []).append(sample)
    lines: list[str] = []
    for name, rows in sorted(families.items()):
        edges = _EDGES.get(name)
        text = _HELP.get(name, name.replace("_", " "))
        kind = "counter" if name.endswith("_total") else "gauge" if edges is None else "histogram"
        lines += (f"# HELP {name} {text}\n", f"# TYPE {name} {kind}\n")
        for row in rows:
            labels = ",".join(f'{k}="{v.translate(_ESCAPES)}"' for k, v in sorted(row.labels))
            if edges is None:
                lines.append(_line(name, labels, row.values[0]))
            else:
                lines += _histogram(name, labels, edges, row.values)
    return "".join(lines).encode()


_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {_number(value)}\n" if labels else f"{name} {_number(value)}\n"


def _number(value: float) -> str:
    """Return `value` as the format has it, which knows three words beside numbers."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))


def _histogram(
    name: str, labels: str, edges: tuple[float, ...], values: tuple[float, ...]
) -> Iterator[str]:
    """Yield the lines of one series; `values` are the sum and a count for each bucket."""
    total, *counts = values
    comma = "," if labels else ""
    running = 0.0
    for edge, count in zip((*edges, math.inf), counts, strict=True):
        running += count
        yield _line(f"{name}_bucket", f'{labels}{comma}le="{_number(edge)}"', running)
    yield _line(f"{name}_count", labels, running)
    yield _line(f"{name}_sum", labels, total)
