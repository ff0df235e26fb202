"""When a route's requests are tried again."""

from typing import Final

from sidecar.compiler.fields import is_field_name, text_test
from sidecar.core.api import HttpFilter
from sidecar.core.grpc import STATUSES
from sidecar.core.hedge import Hedges, Hedging
from sidecar.core.plan import ClusterPlan
from sidecar.core.retry import ResponseTest, RetryPlan
from sidecar.errors import ConfigError
from sidecar.filters.attempt_count import AttemptCount
from sidecar.model.match import StringMatch
from sidecar.model.retry import RetryPolicy
from sidecar.model.route import Route

INBOUND_RETRIES: Final = ("connect-failure",)
"""What is tried again on the way to the app: who sent it here tries again as well, and sees more endpoints."""

OUTBOUND_RETRIES: Final = ("connect-failure", "gateway-error")
"""What is tried again on the way from the app: decision 25."""

# As in Envoy, whoever lists statuses of no answer means no answer, too.
_RESETS: Final = frozenset({"reset", "gateway-error", "5xx"})
_CONNECTS: Final = _RESETS | {"connect-failure", "reset-before-request"}
_STATUSES: Final = {
    "gateway-error": frozenset({502, 503, 504}),
    "5xx": frozenset(range(500, 600)),
    "retriable-4xx": frozenset({409}),
}


def retry_plan(
    policy: RetryPolicy, default: tuple[str, ...], path: str, errors: list[ConfigError]
) -> RetryPlan:
    """Return what `policy` means; `default` is what is tried again where it does not say."""
    on = frozenset(default if policy.on is None else policy.on)
    statuses: set[int] = set()
    for condition in on:
        statuses |= _STATUSES.get(condition, frozenset())
    for condition, name, needed in (
        ("retriable-status-codes", "status_codes", policy.status_codes),
        ("retriable-headers", "retriable_headers", policy.retriable_headers),
    ):
        if condition in on and not needed:
            errors.append(ConfigError(f"{path}.on", f"{condition} needs {name}"))
        elif needed and condition not in on:
            # What is not looked at would be believed to matter.
            errors.append(ConfigError(f"{path}.{name}", f"needs {condition} in `on`"))
    if "retriable-status-codes" in on:
        statuses |= set(policy.status_codes)
    if policy.idempotency_key and not is_field_name(policy.idempotency_key):
        text = f"no field can be called {policy.idempotency_key!r}"
        errors.append(ConfigError(f"{path}.idempotency_key", text))
    return RetryPlan(
        policy.attempts,
        on_connect=bool(on & _CONNECTS),
        on_reset=bool(on & _RESETS),
        on_status=frozenset(statuses),
        on_grpc=frozenset(STATUSES[c] for c in on if c in STATUSES),
        tests=_tests(policy.retriable_headers, f"{path}.retriable_headers", errors),
        rate_limited="envoy-ratelimited" in on,
        key=policy.idempotency_key.lower().encode(),
        backoff=policy.backoff,
        backoff_max=policy.backoff_max,
        longest_wait=policy.retry_after_max,
        counts=policy.attempt_count,
    )


def retry_filters(policy: RetryPolicy) -> list[HttpFilter]:
    """Return the filters of `policy`, to be asked after all others."""
    return [AttemptCount()] if policy.attempt_count else []


def hedge_filters(
    route: Route, shares: tuple[tuple[int, ClusterPlan], ...], path: str, errors: list[ConfigError]
) -> list[HttpFilter]:
    """Return the filter that sends requests of `route` a second time, to be asked last."""
    hedge = route.hedge
    if hedge is None:
        return []
    if not shares:
        errors.append(ConfigError(f"{path}.hedge", "nothing is sent on by this route"))
        return []
    if (hedge.delay is None) == (hedge.percentile is None):
        errors.append(ConfigError(f"{path}.hedge", "expected exactly one of delay and percentile"))
    if route.retry.attempts < 2:
        text = "expected 2 or more: the second attempt of a hedge is one of them"
        errors.append(ConfigError(f"{path}.retry.attempts", text))
    for index, method in enumerate(hedge.methods):
        if not method or method != method.upper():
            text = f"expected capitals, got {method!r}"
            errors.append(ConfigError(f"{path}.hedge.methods[{index}]", text))
    clusters = tuple(cluster for _, cluster in shares)
    for cluster in clusters:
        hedges = cluster.state.hedges = cluster.state.hedges or Hedges()
        for endpoint in cluster.endpoints if hedge.percentile is not None else ():
            if hedges not in endpoint.watchers:
                endpoint.watchers = (*endpoint.watchers, hedges)
    methods = frozenset(method.encode() for method in hedge.methods)
    return [Hedging(clusters, hedge.delay or 0.0, (hedge.percentile or 0.0) / 100, methods)]


def _tests(
    matches: dict[str, StringMatch], path: str, errors: list[ConfigError]
) -> tuple[ResponseTest, ...]:
    found = []
    for name, match in matches.items():
        if not is_field_name(name):
            errors.append(ConfigError(f"{path}.{name}", f"no field can be called {name!r}"))
        found.append(_test(name.lower().encode(), match, f"{path}.{name}", errors))
    return tuple(found)


def _test(name: bytes, match: StringMatch, path: str, errors: list[ConfigError]) -> ResponseTest:
    test = text_test(match, path, errors)
    return lambda head: test(head.get(name))
