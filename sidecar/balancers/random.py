"""Any endpoint, in proportion to its weight."""

from collections.abc import Container, Sequence
from typing import Final, final

from sidecar.core.api import Balancer, Draw
from sidecar.core.book import Endpoint
from sidecar.core.candidates import PANIC_SHARE, Weighted, usable
from sidecar.plugin import Plugin


@final
class Random(Balancer):
    """See the module."""

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
        """Draw once; again among the usable if that one is not."""
        if not self._all:
            return None
        endpoint = self._weighted.draw(self._draw())
        if endpoint.available and endpoint not in tried:
            return endpoint
        candidates = usable(self._all, tried, self._panic)
        return Weighted(candidates).draw(self._draw()) if candidates else None


PLUGIN = Plugin("random", type(None), Random)
