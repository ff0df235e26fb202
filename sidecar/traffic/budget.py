"""Whether one more retry fits the budget: a share of the requests, with a small floor."""

from __future__ import annotations

from collections import deque
from typing import Final, final

WINDOW: Final = 10.0  # seconds that a ledger looks back (Finagle: RetryBudget)
SLICE: Final = 1.0  # seconds that it forgets at a time
FREE: Final = 10  # retries in a window whatever the requests: at first it has seen few of them


def may_retry(retries: int, requests: int, floor: int, share: float) -> bool:
    """Return True if a retry may begin while `retries` of `requests` under way are retries.

    `floor` retries are always allowed; beyond it at most `share` (0.2 is 20 %) of the requests
    under way (Envoy: RetryBudget).
    """
    return retries < floor or retries < requests * share


@final
class Ledger:
    """Retries of the last seconds against requests.

    What is under way at once says little where few requests are, or where a retry waits for a slow
    endpoint: a tenth that fails can be half of what is under way.  Nothing is noted but when a
    retry is asked for, so that a cluster without failures pays nothing.
    """

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        # When it began, attempts ever by then, retries in it.
        self._slices: Final[deque[tuple[float, int, list[int]]]] = deque()

    def allows(self, now: float, attempts: int, share: float) -> bool:
        """Return True if one more retry is free, or leaves retries below `share` of the requests.

        `attempts` is how many there ever were, retries included.
        """
        self._turn(now, attempts)
        retries = sum(counted[0] for _, _, counted in self._slices)
        return retries < FREE + (attempts - self._slices[0][1] - retries) * share

    def retried(self, now: float, attempts: int) -> None:
        """Note one retry."""
        self._turn(now, attempts)
        self._slices[-1][2][0] += 1

    def _turn(self, now: float, attempts: int) -> None:
        slices = self._slices
        while slices and slices[0][0] < now - WINDOW:
            slices.popleft()
        if not slices or now >= slices[-1][0] + SLICE:
            slices.append((now, attempts, [0]))
