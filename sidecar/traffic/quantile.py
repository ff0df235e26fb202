"""How long it takes for a given part of what is answered lately: a quantile of two windows of counts."""

from __future__ import annotations

from math import log
from typing import Final, final

LEAST: Final = 1e-4  # seconds; what is quicker is as quick
STEP: Final = 1.05  # from one bucket to the next: a quantile is at most 5 % too high
BUCKETS: Final = 285  # up to about 100 seconds
WINDOW: Final = 10.0  # seconds; two of them are looked at
ENOUGH: Final = 100  # answers in them for a quantile to mean something
FRESH: Final = 0.5  # seconds that a quantile is used before it is worked out anew

_LOG: Final = log(STEP)


@final
class Recent:
    """Durations of the last ten to twenty seconds, counted in buckets that grow by a twentieth."""

    __slots__ = ("_before", "_counts", "_found", "_total", "_total_before", "_window_at")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._before = [0] * BUCKETS  # of the window before
        self._total = 0
        self._total_before = 0
        self._window_at = 0.0  # when this window is over
        self._found: Final[dict[float, tuple[float, float]]] = {}  # by share: when, what

    def observe(self, seconds: float, now: float) -> None:
        """Count one that has taken `seconds`."""
        if now >= self._window_at:
            self._turn(now)
        bucket = int(log(seconds / LEAST) / _LOG) + 1 if seconds > LEAST else 0
        self._counts[min(bucket, BUCKETS - 1)] += 1
        self._total += 1

    def read(self, share: float, now: float) -> float | None:
        """Return the seconds that `share` of them (0.95 is 95 %) have not exceeded; None: too few."""
        if now >= self._window_at:
            self._turn(now)
        if self._total + self._total_before < ENOUGH:
            return None
        found = self._found.get(share)
        if found is None or now >= found[0] + FRESH:
            found = self._found[share] = (now, self._work_out(share))
        return found[1]

    def _work_out(self, share: float) -> float:
        left = (self._total + self._total_before) * share
        bucket = 0
        while True:
            left -= self._counts[bucket] + self._before[bucket]
            if left <= 0 or bucket == BUCKETS - 1:
                return float(LEAST * STEP**bucket)
            bucket += 1

    def _turn(self, now: float) -> None:
        is_old = now >= self._window_at + WINDOW  # nothing came for a whole window
        self._before = [0] * BUCKETS if is_old else self._counts
        self._total_before = 0 if is_old else self._total
        self._counts = [0] * BUCKETS
        self._total = 0
        self._window_at = now + WINDOW
