"""The less busy of two endpoints drawn by weight (power of two choices): the default."""

from collections.abc import Container, Sequence
from typing import Final, final

from sidecar.core.api import Balancer, Draw
from sidecar.core.book import Endpoint
from sidecar.core.candidates import Weighted, usable
from sidecar.plugin import Plugin


@final
class LeastRequest(Balancer):
    """See the module; a request under way counts less on a heavier endpoint."""

    __slots__ = ("_all", "_draw", "_weighted")

    def __init__(self, endpoints: Sequence[Endpoint], draw: Draw) -> None:
        self._all: Final = tuple(endpoints)
        self._weighted: Final = Weighted(endpoints)
        self._draw: Final = draw

    def pick(self, exchange: object, tried: Container[Endpoint]) -> Endpoint | None:
        """Draw twice; take the one with fewer requests under way for its weight."""
        count = len(self._all)
        if count == 0:
            return None
        if count == 1:
            return self._all[0]
        draw = self._draw
        first, second = self._weighted.draw(draw()), self._weighted.draw(draw())
        if not (first.available and second.available) or first in tried or second in tried:
            candidates = Weighted(usable(self._all, tried))
            first, second = candidates.draw(draw()), candidates.draw(draw())
        return second if second.active * first.weight < first.active * second.weight else first


PLUGIN = Plugin("least_request", type(None), LeastRequest)
