"""What keeps buckets that are shared, and the one that keeps them in the agent's own memory."""

from collections.abc import Callable, Hashable
from typing import Final, Protocol, final

from sidecar.runtime.messages import Sample
from sidecar.traffic.lease import Ask, Granted
from sidecar.traffic.rate import SWEEP, Buckets, Grant, Rate

MOST_KEYS: Final = 100_000  # of one rule, whose buckets the agent keeps at once

Answer = Callable[[list[Granted]], None]


class Keeper(Protocol):
    """Keeps buckets; `answer` is called once for each call of `ask`, now or later."""

    def ask(self, asks: list[Ask], answer: Answer) -> None:
        """Grant what there is of what is asked for."""

    def samples(self) -> list[Sample]:
        """Return numbers."""

    def stop(self) -> None:
        """Keep nothing any more."""


@final
class Own:
    """Buckets in the agent's memory: one sidecar's workers keep a rate together."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._tables: Final[dict[Hashable, tuple[Rate, Buckets]]] = {}
        self._swept = clock()

    def ask(self, asks: list[Ask], answer: Answer) -> None:
        """See Keeper."""
        now = self._clock()
        self._sweep(now)
        answer([Granted(ask.number, self._grant(ask, now)) for ask in asks])

    def samples(self) -> list[Sample]:
        """See Keeper."""
        return []

    def stop(self) -> None:
        """See Keeper."""

    def _grant(self, ask: Ask, now: float) -> Grant:
        # A rule whose rate is another one now begins with full buckets, as any does at a push.
        key = (ask.rule, ask.interval, ask.burst)
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = Rate(1, ask.interval, ask.burst), Buckets(MOST_KEYS)
        rate, buckets = found
        return buckets.grant(rate, ask.key, now, ask.wanted)

    def _sweep(self, now: float) -> None:
        """Forget rules of which nobody has taken anything for long."""
        if now < self._swept + SWEEP:
            return
        self._swept = now
        for key, (_, buckets) in tuple(self._tables.items()):
            buckets.sweep(now)
            if not len(buckets):
                del self._tables[key]
