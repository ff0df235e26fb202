"""Numbers of several workers, and of those that are gone, as one."""

from collections.abc import Iterable
from typing import Final, final

from sidecar.runtime.messages import EndpointStatus, Sample

Key = tuple[str, tuple[tuple[str, str], ...]]


def is_cumulative(sample: Sample) -> bool:
    """Say whether the series only grows: a counter or a histogram."""
    return len(sample.values) > 1 or sample.name.endswith("_total")


def add(totals: dict[Key, list[float]], samples: Iterable[Sample]) -> None:
    """Add `samples` to `totals`."""
    for sample in samples:
        key = (sample.name, sample.labels)
        row = totals.get(key)
        if row is None or len(row) != len(sample.values):
            totals[key] = list(sample.values)
        else:
            for index, value in enumerate(sample.values):
                row[index] += value


@final
class Retired:
    """What workers had counted when they ended: totals never go back."""

    def __init__(self) -> None:
        self._totals: Final[dict[Key, list[float]]] = {}

    def fold(self, samples: Iterable[Sample]) -> None:
        """Keep the counters and histograms of a worker that is gone."""
        add(self._totals, (s for s in samples if is_cumulative(s)))

    def sum(self, workers: Iterable[Iterable[Sample]]) -> list[Sample]:
        """Return one sample per series: those of `workers`, and what was kept."""
        totals = {key: list(row) for key, row in self._totals.items()}
        for samples in workers:
            add(totals, samples)
        return [Sample(name, labels, tuple(row)) for (name, labels), row in totals.items()]


def sum_endpoints(workers: Iterable[Iterable[EndpointStatus]]) -> list[EndpointStatus]:
    """Return one status per endpoint, summed over workers."""
    found: dict[tuple[str, str], EndpointStatus] = {}
    for statuses in workers:
        for status in statuses:
            key = (status.cluster, status.address)
            old = found.get(key)
            found[key] = (
                status
                if old is None
                else EndpointStatus(
                    status.cluster,
                    status.address,
                    status.weight,
                    status.active + old.active,
                    status.connections + old.connections,
                    status.idle + old.idle,
                    status.requests + old.requests,
                    status.failures + old.failures,
                    status.available and old.available,
                    ejected=status.ejected or old.ejected,
                )
            )
    return list(found.values())
