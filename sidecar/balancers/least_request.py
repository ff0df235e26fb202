"""The less busy of two endpoints drawn by weight (power of two choices): the default."""

from collections.abc import Container, Sequence
from typing import Final, final

from sidecar.core.api import Balancer, Draw
from sidecar.core.book import Endpoint
from sidecar.core.candidates import PANIC_SHARE, Weighted, usable
from sidecar.plugin import Plugin


@final
class LeastRequest(Balancer):
    """See the module; a request under way counts less on a heavier endpoint."""

    __slots__ = ("_all", "_draw", "_panic", "_weighted")

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        draw: Draw,
        panic: float = PANIC_SHARE,
        settings: None = None,
    ) -> None:
        self._all: Final = tuple(endpoints)
        self._panic: Final = panic
        self._weighted: Final = Weighted(endpoints)
        self._draw: Final = draw

    def pick(self, exchange: object, tried: Container[Endpoint]) -> Endpoint | None:
        """Draw twice; take the one with fewer requests under way for its weight."""
        count = len(self._all)
        if count == 0:
            return None
        if count == 1:
            only = self._all[0]
            return only if only.available or self._panic else None
        draw = self._draw
        first, second = self._weighted.draw(draw()), self._weighted.draw(draw())
        if not (first.available and second.available) or first in tried or second in tried:
            left = usable(self._all, tried, self._panic)
            if not left:
                return None
            candidates = Weighted(left)
            first, second = candidates.draw(draw()), candidates.draw(draw())
        return second if second.active * first.weight < first.active * second.weight else first


PLUGIN = Plugin("least_request", type(None), LeastRequest)
