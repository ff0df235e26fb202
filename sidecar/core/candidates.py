"""Which endpoints a balancer may choose from: the available ones, not those tried already."""

from bisect import bisect_right
from collections.abc import Container, Sequence
from typing import Final, final

from sidecar.core.book import Endpoint

PANIC_SHARE: Final = 0.5  # with fewer available than this, all are used (Envoy's panic threshold)


def usable(
    endpoints: Sequence[Endpoint], tried: Container[Endpoint], panic: float = PANIC_SHARE
) -> Sequence[Endpoint]:
    """Return the endpoints to choose from; the untried first, the tried if there are no others.

    While a share of them below `panic` is available, all are; with 0, there may be none.
    """
    available = [e for e in endpoints if e.available]
    if len(available) < len(endpoints) * panic:
        available = list(endpoints)
    return [e for e in available if e not in tried] or available


@final
class Weighted:
    """Draws an endpoint in proportion to its weight."""

    __slots__ = ("_edges", "_endpoints", "_equal", "_total")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints: Final = tuple(endpoints)
        edges = []
        total = 0
        for endpoint in endpoints:
            total += endpoint.weight
            edges.append(total)
        self._edges: Final = edges
        self._total: Final = total
        self._equal: Final = len({e.weight for e in endpoints}) <= 1

    def draw(self, chance: float) -> Endpoint:
        """Return the endpoint at `chance`, in [0, 1), of the summed weights."""
        if self._equal:
            return self._endpoints[int(chance * len(self._endpoints))]
        return self._endpoints[bisect_right(self._edges, chance * self._total)]
