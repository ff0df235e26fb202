"""What filters in Python do, for the operator: from the configuration and the numbers."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from sidecar.model.python import PythonFilter
from sidecar.model.snapshot import Snapshot
from sidecar.runtime.messages import Sample

_PREFIX: Final = "sidecar_filter_"
OFF: Final = f"{_PREFIX}off"


def filter_rows(snapshot: Snapshot, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Return one row for each place that names a filter; numbers are of all places of its name."""
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    off: dict[str, int] = {}
    for sample in samples:
        labels = dict(sample.labels)
        if sample.name == OFF:
            off[labels["filter"]] = int(sample.values[0])
        elif sample.name.startswith(_PREFIX):
            kind = sample.name.removeprefix(_PREFIX).removesuffix("_total")
            hooks = numbers.setdefault(labels["filter"], {})
            hooks.setdefault(labels["hook"], {})[kind] = sample.values[0]
    return [
        {
            "name": model.called,
            "place": place,
            "file": model.file or None,
            "on_error": model.on_error,
            "workers_off": off.get(model.called, 0),
            "hooks": {h: _row(n) for h, n in numbers.get(model.called, {}).items()},
        }
        for place, model in _filters(snapshot)
    ]


def _row(numbers: dict[str, float]) -> dict[str, float]:
    calls = numbers.get("calls", 0.0)
    mean = numbers.get("seconds", 0.0) / calls * 1e6 if calls else 0.0
    counts = {
        kind: int(numbers.get(kind, 0)) for kind in ("calls", "errors", "overruns", "timeouts")
    }
    return {**counts, "mean_microseconds": round(mean, 1)}


def _filters(snapshot: Snapshot) -> Iterator[tuple[str, PythonFilter]]:
    listeners = [(x, x.name or x.address) for x in snapshot.inbound]
    for listener, place in [*listeners, *[(x, x.name or x.address) for x in snapshot.outbound]]:
        for model in listener.filters:
            yield place, model
        for index, route in enumerate(listener.routes):
            for model in route.filters:
                yield f"{place} {route.name or f'routes[{index}]'}", model
