"""One endpoint after the other, interleaved by weight."""

from collections.abc import Container, Sequence
from typing import Final, final

from sidecar.core.api import Balancer, Draw
from sidecar.core.book import Endpoint
from sidecar.core.candidates import PANIC_SHARE, usable
from sidecar.plugin import Plugin


@final
class RoundRobin(Balancer):
    """Smooth weighted round robin: the one furthest behind its share is next."""

    __slots__ = ("_all", "_credit", "_equal", "_next", "_panic")

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        draw: Draw,
        panic: float = PANIC_SHARE,
        settings: None = None,
    ) -> None:
        self._all: Final = tuple(endpoints)
        self._panic: Final = panic
        self._credit: Final = dict.fromkeys(self._all, 0)
        self._equal: Final = len({e.weight for e in endpoints}) <= 1
        # A random start: sidecars that restart together do not all begin with the same endpoint.
        self._next = int(draw() * len(self._all)) if self._all else 0

    def pick(self, exchange: object, tried: Container[Endpoint]) -> Endpoint | None:
        """Return the next in turn that is usable."""
        if not self._all:
            return None
        candidates = usable(self._all, tried, self._panic)
        if not candidates:
            return None
        if self._equal:
            for _ in self._all:
                endpoint = self._all[self._next]
                self._next = (self._next + 1) % len(self._all)
                if endpoint in candidates:
                    return endpoint
        return self._weighted(candidates)

    def _weighted(self, candidates: Sequence[Endpoint]) -> Endpoint:
        credit = self._credit
        total = 0
        for endpoint in candidates:
            credit[endpoint] += endpoint.weight
            total += endpoint.weight
        best = max(candidates, key=credit.__getitem__)
        credit[best] -= total
        return best


PLUGIN = Plugin("round_robin", type(None), RoundRobin)
