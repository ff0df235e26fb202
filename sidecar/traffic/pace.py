"""How many octets may go now: a token bucket that gives part of what is asked for."""

from collections.abc import Hashable
from typing import Final, final

SPREAD: Final = (
    0.1  # seconds of the rate that may go at once, at least: fewer would need more wakes
)


@final
class Bucket:
    """`rate` octets a second, up to `burst` of them at once; it begins full.

    Several streams may share one: then all together keep the rate.
    """

    __slots__ = ("_burst", "_left", "_rate", "_since", "users")

    def __init__(self, rate: float, burst: float = 0.0) -> None:
        self._rate: Final = rate
        self._burst: Final = max(burst, rate * SPREAD, 1.0)
        self._left = self._burst
        self._since = float("-inf")
        self.users = 0  # streams that go by it, where somebody counts them

    def room(self, now: float) -> int:
        """Return how many octets may go at `now`."""
        if now > self._since:
            self._left = min(self._burst, self._left + (now - self._since) * self._rate)
            self._since = now
        return max(0, int(self._left))

    def spend(self, size: int) -> None:
        """Take `size` octets out; more than there was room for is a debt, and waited for first."""
        self._left -= size

    def is_full(self, now: float) -> bool:
        """Say whether a new one would be the same."""
        self.room(now)
        return self._left >= self._burst

    def wait(self, size: int) -> float:
        """Return the seconds from the last look until there is room for `size`, or for a burst."""
        return max(min(size, self._burst) - self._left, 0.0) / self._rate


SWEEP: Final = 1.0  # seconds between two searches of a full table for buckets that can go


@final
class Table:
    """Buckets of one rate by key, at most `limit` of them besides those in use.

    When all are taken, new keys share one more: who invents keys gains nothing by it.
    """

    __slots__ = ("_buckets", "_burst", "_limit", "_rate", "_rest", "_swept")

    def __init__(self, rate: float, burst: float, limit: int) -> None:
        self._rate: Final = rate
        self._burst: Final = burst
        self._limit: Final = limit
        self._buckets: Final[dict[Hashable, Bucket]] = {}
        self._rest: Final = Bucket(rate, burst)
        self._swept = float("-inf")

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Hashable, now: float) -> Bucket:
        """Return the bucket of `key`; who takes it says `Table.leave` in the end."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) < self._limit or self._has_swept(now):
                bucket = self._buckets[key] = Bucket(self._rate, self._burst)
            else:
                bucket = self._rest
        bucket.users += 1
        return bucket

    @staticmethod
    def leave(bucket: Bucket) -> None:
        """Say that a stream goes by `bucket` no more; what it has used stays used."""
        bucket.users -= 1

    def _has_swept(self, now: float) -> bool:
        """Forget what nobody uses and is full again; say whether there is room now."""
        if now < self._swept + SWEEP:
            return False
        self._swept = now
        for key in [k for k, b in self._buckets.items() if not b.users and b.is_full(now)]:
            del self._buckets[key]
        return len(self._buckets) < self._limit
