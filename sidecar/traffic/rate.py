"""Whether one more request fits a rate: GCRA, a token bucket of one number (ITU-T I.371, annex A)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, NamedTuple, final

SWEEP: Final = 1.0  # seconds between two searches of a full table for buckets that can go
SLACK: Final = 1e-3  # of one request: after months of uptime a sum of floats misses by less


class Decision(NamedTuple):
    """What became of one request; times in seconds from now."""

    allowed: bool
    remaining: int
    """Requests that would be allowed at once after this one."""

    reset: float
    """When the bucket will be full again."""

    retry_after: float
    """When the next request will be allowed; 0: at once."""


class Grant(NamedTuple):
    """What a bucket gave of what was wanted of it; times in seconds from now."""

    granted: int
    """How many; negative: so many were given back."""

    reset: float
    """When the bucket will be full again."""

    retry_after: float
    """When it will have one more; 0: it has one now."""


@final
class Rate:
    """`count` requests in `period` seconds, up to `burst` of them at once.

    A bucket's whole state is the moment at which it will be full again; one that is full is not
    worth remembering.
    """

    __slots__ = ("burst", "depth", "interval")

    def __init__(self, count: float, period: float, burst: int) -> None:
        self.interval: Final = period / count  # seconds in which one more may come
        self.burst: Final = burst
        self.depth: Final = burst * self.interval

    def take(self, full_at: float, now: float) -> tuple[Decision, float]:
        """Take one request out of a bucket; return what became of it, and the bucket's new moment."""
        interval, depth = self.interval, self.depth
        after = max(full_at, now) + interval
        room = now + depth - after
        if room < -SLACK * interval:
            # One that is refused takes nothing.
            return Decision(False, 0, max(full_at - now, 0.0), -room), full_at
        return Decision(
            True, int(room / interval + SLACK), after - now, max(interval - room, 0.0)
        ), after

    def grant(self, full_at: float, now: float, wanted: int) -> tuple[Grant, float]:
        """Take up to `wanted` requests out of a bucket at once, or give back `-wanted` of them.

        Returns what became of it and the bucket's new moment. What is given back to a bucket that
        is full by then is lost: it never holds more than the burst.
        """
        interval, depth = self.interval, self.depth
        full_at = max(full_at, now)
        count = wanted
        if wanted > 0:
            count = max(0, min(wanted, int((now + depth - full_at) / interval + SLACK)))
        after = full_at + count * interval
        lack = after + interval - now - depth
        wait = lack if lack > SLACK * interval else 0.0
        return Grant(count, max(after - now, 0.0), wait), after


@final
class Buckets:
    """Buckets of one rate by key, at most `limit` of them.

    When all are in use, new keys share one more bucket: who invents keys gains nothing by it.
    """

    __slots__ = ("_full_at", "_limit", "_rest", "_swept")

    def __init__(self, limit: int) -> None:
        self._full_at: Final[dict[Hashable, float]] = {}
        self._limit: Final = limit
        self._rest = 0.0  # of the shared bucket
        self._swept = float("-inf")

    def __len__(self) -> int:
        return len(self._full_at)

    def fits(self, rate: Rate, key: Hashable, now: float) -> bool:
        """Take one request, as `take` does, if it is allowed and the key is known: it nearly always is."""
        full_at = self._full_at.get(key)
        if full_at is None:
            return False
        after = (full_at if full_at > now else now) + rate.interval
        if after > now + rate.depth:
            return False
        self._full_at[key] = after
        return True

    def take(self, rate: Rate, key: Hashable, now: float) -> Decision:
        """Take one request out of the bucket of `key`."""
        full_at = self._full_at.get(key)
        if full_at is None and len(self._full_at) >= self._limit and not self._has_swept(now):
            decision, self._rest = rate.take(self._rest, now)
            return decision
        decision, self._full_at[key] = rate.take(full_at or 0.0, now)
        return decision

    def grant(self, rate: Rate, key: Hashable, now: float, wanted: int) -> Grant:
        """Take up to `wanted` out of the bucket of `key` at once, or give back; see `Rate.grant`."""
        full_at = self._full_at.get(key)
        if full_at is None and len(self._full_at) >= self._limit and not self._has_swept(now):
            grant, self._rest = rate.grant(self._rest, now, wanted)
            return grant
        grant, self._full_at[key] = rate.grant(full_at or 0.0, now, wanted)
        return grant

    def _has_swept(self, now: float) -> bool:
        """Forget what is full again, at most once in `SWEEP`; say whether there is room now."""
        if now < self._swept + SWEEP:
            return False
        self.sweep(now)
        return len(self._full_at) < self._limit

    def sweep(self, now: float) -> None:
        """Forget what is full again."""
        self._swept = now
        for key in [k for k, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]
