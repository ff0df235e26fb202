"""How many requests of a shared rate one worker takes in advance, and how long it keeps them.

Theory of operation.  The bucket of a key is kept elsewhere: by the agent for all workers of one
sidecar, by a store for many sidecars.  A worker takes some of it in advance, a lease, and lets
requests through by what it holds, so that a key that many ask for costs a small part of a question
for each request.  What is asked for is what waits already and `AHEAD` seconds of what the key's own
callers did lately here, never more than `AHEAD` seconds of the rate: a rate of less than one
request in that time is asked for request by request, and exact.  What is not used within `KEPT` is
given back.

Error.  Let H be what was taken out of the bucket and not used yet at some moment: for each worker at
most `AHEAD` seconds of the rate, and what its requests wait for.  In any span of T seconds from then
on all together let through at most burst + rate * T + H requests, since whatever else they use is
taken out of the bucket within the span.  Over the long run it is the rate.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

from sidecar.traffic.rate import Grant, Rate

AHEAD: Final = 0.05  # seconds of requests that are held in advance
KEPT: Final = 0.2  # seconds until what is not used is given back
PAUSE: Final = 0.01  # seconds without a question after one that was not wholly granted


class Ask(NamedTuple):
    """A question to where the bucket is kept: up to how many may come?"""

    number: int
    """What the answer is told by; 0: none is wanted."""

    store: str
    """Who keeps the bucket; empty: the agent."""

    rule: str
    """Whose bucket."""

    key: str
    """Which of the rule's; empty: it has one only."""

    interval: float
    """Seconds in which one more may come."""

    burst: int
    """How many may come at once."""

    wanted: int
    """How many are wanted; negative: so many are given back."""


class Granted(NamedTuple):
    """The answer."""

    number: int
    """The question's."""

    grant: Grant | None
    """None: whoever keeps the bucket cannot be reached."""


@final
class Lease:
    """What one worker holds of one key; times are moments of its own clock."""

    __slots__ = ("_demand", "_pace", "_rate", "_since", "ask_at", "full_at", "held", "until")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate: Final = rate
        self._demand = 0  # requests since `_since`
        self._since = now
        self._pace = 0.0  # requests in a second, lately
        self.held = 0
        self.until = 0.0  # what is held is given back then
        self.ask_at = 0.0  # nothing is to be had before
        self.full_at = 0.0  # the bucket, as far as is known

    def take(self, now: float) -> bool:
        """Take one for a request, if one is held."""
        self._demand += 1
        if not self.held or now >= self.until:
            return False
        self.held -= 1
        return True

    def is_spent(self, now: float) -> bool:
        """Say whether the bucket is known to be empty."""
        return now < self.ask_at

    def is_low(self, now: float) -> bool:
        """Say whether more should be asked for before all is used."""
        return 0 < self._ahead() >= self.held * 2 and now >= self.ask_at

    def wish(self, now: float, waiting: int) -> int:
        """Return how many to ask for while `waiting` requests wait; 0: none."""
        span = now - self._since
        if span >= AHEAD:
            self._pace = self._demand / span
            self._demand, self._since = 0, now
        held = self.held if now < self.until else 0
        return max(0, waiting + self._ahead() - held)

    def put(self, grant: Grant, wanted: int, now: float) -> None:
        """Note what was granted of `wanted`."""
        self.held += grant.granted
        if grant.granted:
            self.until = now + KEPT
        self.full_at = now + grant.reset
        if grant.granted < wanted:
            # Not at once when one more is there: a key that is asked for more than it has would cost
            # a question for each of its requests. Nothing is lost meanwhile: a bucket that gave all
            # it had is not full again after half the time that it takes to fill.
            fill = self._rate.burst * self._rate.interval
            self.ask_at = now + max(grant.retry_after, min(PAUSE, fill / 2))

    def give_back(self, now: float) -> int:
        """Return how many are held too long, and hold them no more."""
        if now < self.until:
            return 0
        held, self.held = self.held, 0
        return held

    def is_idle(self, now: float) -> bool:
        """Say whether there is nothing worth remembering."""
        return not self.held and now >= self.ask_at and now >= self._since + 1.0

    def _ahead(self) -> int:
        return int(min(self._pace, 1 / self._rate.interval) * AHEAD)
