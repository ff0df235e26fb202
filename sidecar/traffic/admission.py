"""Whether one more request is worth sending to a server that fails most: client-side throttling.

Of a server that answers well nothing is kept back.  The further its rate of success is below the
threshold, the more requests are refused here, by chance, up to a part that keeps asking: so a server
that is overloaded is spared, and one that recovers is found out (Google SRE book, "Handling
Overload"; Envoy: admission control).  As in Envoy what was refused here does not count: else a server
that has recovered would get little more than before, since most still had no success.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, final

SLICES: Final = 30  # of a window: it forgets a thirtieth at a time


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Names as in Envoy's AdmissionControl."""

    sampling_window: float = 30.0
    """Seconds that are looked back."""

    success_rate_threshold: float = 0.95
    """The rate of success below which requests are refused."""

    aggression: float = 1.0
    """1: in proportion to what is missing; more: sooner."""

    rps_threshold: float = 0.0
    """Requests a second in the window below which none is refused."""

    max_rejection: float = 0.8
    """Part of the requests that is refused at most."""


@final
class Admission:
    """What became of the requests of the last window."""

    __slots__ = ("_good", "_policy", "_slices", "_total")

    def __init__(self, policy: Policy) -> None:
        self._policy: Final = policy
        self._slices: Final[deque[list[float]]] = deque()  # begin, requests, successes
        self._total = 0.0
        self._good = 0.0

    def record(self, now: float, *, well: bool) -> None:
        """Count one that was sent."""
        self._forget(now)
        slices = self._slices
        if not slices or now >= slices[-1][0] + self._policy.sampling_window / SLICES:
            slices.append([now, 0.0, 0.0])
        last = slices[-1]
        last[1] += 1
        last[2] += well
        self._total += 1
        self._good += well

    def rejection(self, now: float) -> float:
        """Return the chance with which the next one is refused."""
        self._forget(now)
        policy, total = self._policy, self._total
        if total < policy.rps_threshold * policy.sampling_window:
            return 0.0
        missing = (total - self._good / policy.success_rate_threshold) / (total + 1)
        if missing <= 0:
            return 0.0
        return min(policy.max_rejection, float(missing ** (1 / policy.aggression)))

    def _forget(self, now: float) -> None:
        slices = self._slices
        while slices and slices[0][0] <= now - self._policy.sampling_window:
            _, total, good = slices.popleft()
            self._total -= total
            self._good -= good
