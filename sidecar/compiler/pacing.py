"""Limits of connections and octets, to what keeps them."""

from collections.abc import Callable
from typing import Final

from sidecar.compiler.context import Context
from sidecar.core.api import HttpFilter
from sidecar.core.gate import Gate, Most, Naming, Pace
from sidecar.errors import ConfigError
from sidecar.filters import bandwidth_limit
from sidecar.model.listener import Listener
from sidecar.model.quota import BandwidthLimit
from sidecar.traffic.pace import Table

SLOWEST: Final = 1024  # octets a second of each worker; below it, what waits looks like idleness

_NAMINGS: Final[dict[tuple[str, ...], Naming]] = {
    (): lambda caller: "",
    ("peer",): lambda caller: caller.identity,
    ("source",): lambda caller: caller.host,
    ("peer", "source"): lambda caller: (caller.identity, caller.host),
}


def gate_of(listener: Listener, address: str, path: str, context: Context) -> Gate | None:
    """Return what a listener asks of connections, or None if it asks nothing."""
    errors = context.errors
    mosts: list[Most] = []
    seen: set[tuple[str, ...]] = set()
    for index, limit in enumerate(listener.connection_limits):
        by = _sorted(limit.by)
        where = f"{path}.connection_limits[{index}].by"
        if not by:
            errors.append(ConfigError(where, "expected peer, source or both; for all there is `max_connections`"))  # fmt: skip
        if by in seen:
            errors.append(ConfigError(where, "there is a limit by the same already"))
        seen.add(by)
        counts = context.keep(("connections", address, by), dict[object, int])
        name = limit.name or f"connections by {' and '.join(by)}"
        most = max(1, limit.connections // context.workers)
        mosts.append(Most(name, _NAMINGS[by], most, counts))
    paces = [
        _pace(model, ("bandwidth", address, index), f"{path}.bandwidth_limits[{index}]", context)
        for index, model in enumerate(listener.bandwidth_limits)
    ]
    for index, model in enumerate(listener.bandwidth_limits):
        if 0 < model.up < listener.min_request_rate * context.workers:
            detail = (
                f"is slower than the listener's min_request_rate of {listener.min_request_rate}"
            )
            errors.append(ConfigError(f"{path}.bandwidth_limits[{index}].up", detail))
    return Gate(tuple(mosts), tuple(paces)) if mosts or paces else None


def bandwidth_filter(
    model: BandwidthLimit, place: tuple[str, str], path: str, context: Context
) -> HttpFilter:
    """Return the filter of one rule of a route; `place` tells it from all others."""
    pace = _pace(model, ("bandwidth", place), path, context)
    return bandwidth_limit.BandwidthLimit(bandwidth_limit.Settings(pace))


def _pace(model: BandwidthLimit, place: tuple[object, ...], path: str, context: Context) -> Pace:
    workers = context.workers
    if not model.up and not model.down:
        context.errors.append(ConfigError(path, "does nothing: expected up or down"))
    tables: list[Table | None] = []
    for way in ("up", "down"):
        rate = getattr(model, way) / workers
        if not rate:
            tables.append(None)
            continue
        if rate < SLOWEST:
            detail = f"expected at least {SLOWEST} octets a second for each worker"
            context.errors.append(ConfigError(f"{path}.{way}", detail))
        key = (*place, way, workers, repr(model))
        tables.append(context.keep(key, _begin(rate, model.burst / workers, model.max_keys)))
    return Pace(_NAMINGS[_sorted(model.by)], tables[0], tables[1])


def _sorted(by: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(by)))


def _begin(rate: float, burst: float, limit: int) -> Callable[[], Table]:
    return lambda: Table(rate, burst, limit)
