"""Faults and quota of a route, as its filters."""

from __future__ import annotations

from typing import Final

from sidecar.compiler.context import Context
from sidecar.compiler.rate_service import service_filter
from sidecar.compiler.rules import part_of, rule_conditions
from sidecar.compiler.stores import store_named
from sidecar.core.api import HttpFilter
from sidecar.core.quota import Share
from sidecar.errors import ConfigError
from sidecar.filters import fault, local_rate_limit, shared_rate_limit
from sidecar.model.fault import Fault, FaultAbort, FaultDelay
from sidecar.model.match import RouteMatch
from sidecar.model.quota import RateLimit, Shared
from sidecar.traffic.rate import Buckets, Rate

_ANY: Final = RouteMatch()
_OF_REQUESTS: Final = frozenset(RouteMatch.__struct_fields__) - {"peer", "ports", "percent"}


def fault_filter(
    model: Fault, place: tuple[str, str], path: str, context: Context, *, is_tcp: bool = False
) -> fault.Fault:
    """Return the filter of one fault; `place` tells it from all others."""
    errors = context.errors
    if is_tcp:
        _check_tcp_fault(model, path, errors)
    kinds = (model.delay, model.abort, model.throughput, model.by_header)
    if all(kind is None for kind in kinds):
        detail = "does nothing: expected delay, abort, throughput or by_header"
        errors.append(ConfigError(path, detail))
    by_header, slow = model.by_header, model.throughput
    if slow is not None and not slow.rate:
        errors.append(ConfigError(f"{path}.throughput.rate", "expected 1 or more, got 0"))
    settings = fault.Settings(
        model.name or place[1],
        rule_conditions(model.match, f"{path}.match", context),
        None if model.delay is None else _delay(model.delay, f"{path}.delay", errors),
        None if model.abort is None else _abort(model.abort, f"{path}.abort", errors),
        None if slow is None else fault.Throughput(slow.percent / 100, slow.rate),
        None if by_header is None else fault.ByHeader(by_header.percent / 100, by_header.max_delay),
        model.max_active,
        model.lifetime,
        context.keep(("fault", place, repr(model)), fault.State),
    )
    return fault.Fault(settings)


def rate_limit_filter(
    model: RateLimit, place: tuple[str, str], path: str, context: Context
) -> HttpFilter:
    """Return the filter of one rule; `place` tells it from all others."""
    errors, workers = context.errors, context.workers
    if model.service is not None:
        return service_filter(model, model.service, place[1], path, context)
    if not model.requests:
        errors.append(ConfigError(f"{path}.requests", "expected 1 or more"))
        return HttpFilter()
    if not model.per:
        errors.append(ConfigError(f"{path}.per", "expected more than 0"))
    parts = [part_of(word, f"{path}.by[{i}]", errors) for i, word in enumerate(model.by)]
    tests = rule_conditions(model.match, f"{path}.match", context)
    name, burst = model.name or place[1], model.burst or model.requests
    key = ("rate", place, workers, repr(model))
    buckets = context.keep(key, lambda: Buckets(model.max_keys))
    if model.shared is None:
        rate = _part_of(model.requests, model.per, burst, workers)
        return local_rate_limit.LocalRateLimit(
            local_rate_limit.Settings(
                name, tests, tuple(parts), rate, model.requests, model.per, model.shadow, buckets
            )
        )
    shared = model.shared
    count = shared.local_requests or model.requests
    at_once = shared.local_requests or burst
    local = shared_rate_limit.Local(_part_of(count, model.per, at_once, workers), count, buckets)
    settings = shared_rate_limit.Settings(
        name,
        tests,
        tuple(parts),
        _share(model, shared, place, f"{path}.shared", context),
        model.requests,
        model.per,
        model.shadow,
        shared.on_failure == "open",
        local if shared.on_failure == "local" else None,
    )
    return shared_rate_limit.SharedRateLimit(settings)


def _share(
    model: RateLimit, shared: Shared, place: tuple[str, str], path: str, context: Context
) -> Share:
    """Return what this worker holds of a rule that is `shared`."""
    errors = context.errors
    if shared.store:
        store_named(shared.store, f"{path}.store", context.stores, errors)
        if not shared.key and not model.name:
            detail = "expected a name, here or as `name` of the rule: sidecars share it by that"
            errors.append(ConfigError(f"{path}.key", detail))
    if not shared.timeout:
        errors.append(ConfigError(f"{path}.timeout", "expected more than 0"))
    if shared.local_requests and shared.on_failure != "local":
        errors.append(ConfigError(f"{path}.local_requests", "needs `on_failure: local`"))
    # What all workers of this sidecar call it, or all sidecars.
    rule = (shared.key or model.name) if shared.store else "|".join(place)
    rate = Rate(model.requests, model.per, model.burst or model.requests)

    def begin() -> Share:
        name = model.name or place[1]
        return Share(name, shared.store, rule, rate, limit=model.max_keys, patience=shared.timeout)

    found: Share = context.keep(("share", place, repr(model)), begin)
    return found


def _part_of(requests: int, per: float, burst: int, workers: int) -> Rate:
    """Return one worker's part of a rate that all `workers` keep together."""
    return Rate(requests / workers, per, max(1, burst // workers))


def _check_tcp_fault(model: Fault, path: str, errors: list[ConfigError]) -> None:
    """Refuse what only requests have."""
    errors += [
        ConfigError(f"{path}.{name}", "a tcp listener sees no requests")
        for name in ("throughput", "by_header")
        if getattr(model, name) is not None
    ]
    if any(getattr(model.match, name) != getattr(_ANY, name) for name in _OF_REQUESTS):
        expected = "a tcp listener can match `peer`, `ports` and `percent` only"
        errors.append(ConfigError(f"{path}.match", expected))
    if model.abort is not None and not (model.abort.reset or model.abort.black_hole):
        expected = "a tcp listener answers nothing: expected reset or black_hole"
        errors.append(ConfigError(f"{path}.abort", expected))


def _delay(model: FaultDelay, path: str, errors: list[ConfigError]) -> fault.Delay:
    if (model.fixed is None) == (model.mean is None):
        errors.append(ConfigError(path, "expected exactly one of fixed and mean"))
    if model.mean is not None:
        return fault.Delay(model.percent / 100, model.mean, exponential=True, longest=model.max)
    return fault.Delay(model.percent / 100, model.fixed or 0.0)


def _abort(model: FaultAbort, path: str, errors: list[ConfigError]) -> fault.Abort:
    if model.reset and model.black_hole:
        errors.append(ConfigError(path, "expected at most one of reset and black_hole"))
    if model.black_hole:
        return fault.Abort(model.percent / 100, fault.BLACK_HOLE)
    grpc_status = -1 if model.grpc_status is None else model.grpc_status
    answer = fault.aborted(model.status, grpc_status, cut=model.reset)
    return fault.Abort(model.percent / 100, answer)
