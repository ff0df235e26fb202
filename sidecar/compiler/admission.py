"""Who refuses a cluster's requests before they are sent."""

from sidecar.core.admission import Guard
from sidecar.core.api import Draw
from sidecar.core.book import ClusterState, Endpoint
from sidecar.errors import ConfigError
from sidecar.model.admission import AdaptiveConcurrency, AdmissionControl
from sidecar.model.cluster import Cluster
from sidecar.traffic import admission, gradient


def guard_cluster(
    cluster: Cluster,
    state: ClusterState,
    endpoints: tuple[Endpoint, ...],
    path: str,
    draw: Draw,
    errors: list[ConfigError],
) -> None:
    """Have `state` keep room as `cluster` says; what was learned stays while the settings do."""
    latency, failures = cluster.adaptive_concurrency, cluster.admission_control
    if latency.min_concurrency > latency.max_concurrency_limit:
        text = f"expected max_concurrency_limit, {latency.max_concurrency_limit}, or less"
        errors.append(ConfigError(f"{path}.adaptive_concurrency.min_concurrency", text))
    settings = (latency, failures)
    guard = state.guard
    if guard is None or guard.settings != settings:
        for endpoint in endpoints:
            endpoint.watchers = tuple(w for w in endpoint.watchers if w is not guard)
        guard = state.guard = None
        if latency.enabled or failures.enabled:
            limit = _gradient(latency, draw) if latency.enabled else None
            rate = _admission(failures) if failures.enabled else None
            guard = state.guard = Guard(state, settings, limit, rate, draw)
    state.room = cluster.limits.requests
    if guard is not None:
        guard.watch(endpoints, cluster.limits.requests)


def _gradient(model: AdaptiveConcurrency, draw: Draw) -> gradient.Gradient:
    policy = gradient.Policy(
        sample_aggregate_percentile=model.sample_aggregate_percentile,
        max_concurrency_limit=model.max_concurrency_limit,
        concurrency_update_interval=model.concurrency_update_interval,
        min_rtt_interval=model.min_rtt_interval,
        min_rtt_request_count=model.min_rtt_request_count,
        min_rtt_jitter=model.min_rtt_jitter_percent / 100,
        min_concurrency=model.min_concurrency,
        min_rtt_buffer=model.min_rtt_buffer_percent / 100,
    )
    return gradient.Gradient(policy, draw)


def _admission(model: AdmissionControl) -> admission.Admission:
    policy = admission.Policy(
        sampling_window=model.sampling_window,
        success_rate_threshold=model.success_rate_threshold / 100,
        aggression=model.aggression,
        rps_threshold=model.rps_threshold,
        max_rejection=model.max_rejection_percent / 100,
    )
    return admission.Admission(policy)
