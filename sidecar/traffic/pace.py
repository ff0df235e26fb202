"""How many octets may go now: a token bucket that gives part of what is asked for."""

from typing import Final, final

SPREAD: Final = (
    0.1  # seconds of the rate that may go at once, at least: fewer would need more wakes
)


@final
class Bucket:
    """`rate` octets a second, up to `burst` of them at once; it begins full.

    Several streams may share one: then all together keep the rate.
    """

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, rate: float, burst: float = 0.0) -> None:
        self._rate: Final = rate
        self._burst: Final = max(burst, rate * SPREAD, 1.0)
        self._left = self._burst
        self._since = float("-inf")

    def room(self, now: float) -> int:
        """Return how many octets may go at `now`."""
        if now > self._since:
            self._left = min(self._burst, self._left + (now - self._since) * self._rate)
            self._since = now
        return int(self._left)

    def spend(self, size: int) -> None:
        """Take `size` octets out: no more than there was room for."""
        self._left -= size

    def wait(self, size: int) -> float:
        """Return the seconds from the last look until there is room for `size`, or for a burst."""
        return max(min(size, self._burst) - self._left, 0.0) / self._rate
