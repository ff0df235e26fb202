"""How long something takes lately: an average that forgets, and believes bad news at once."""

from math import exp, inf
from typing import Final, final

NEVER: Final = inf


@final
class PeakEwma:
    """A peak exponentially weighted moving average of seconds (as Finagle and Linkerd have it).

    A value above the average replaces it, one below moves it; without values it falls towards 0, so
    that what was slow once is tried again.
    """

    __slots__ = ("_at", "_decay", "_value")

    def __init__(self, decay: float, first: float) -> None:
        """Stay at `first` until a value is seen; after `decay` seconds one counts 37 % (1/e)."""
        self._decay: Final = decay
        self._value = first
        self._at = NEVER

    def observe(self, seconds: float, now: float) -> None:
        """Take in that it has taken `seconds`."""
        value = self._value
        if seconds > value or self._at == NEVER:
            self._value = seconds
        else:
            kept = exp(-max(now - self._at, 0.0) / self._decay)
            self._value = seconds + (value - seconds) * kept
        self._at = now

    def read(self, now: float) -> float:
        """Return the average, as if 0 had been observed just now."""
        return self._value * exp(-max(now - self._at, 0.0) / self._decay)
