"""How many requests a server takes at once before they only wait: found by what latency does.

Theory of operation.  While a server has room, more requests at once take no longer; from some number
on they queue, and latency grows with them.  `Gradient` (Envoy: gradient controller of adaptive
concurrency, after Netflix's concurrency limits) compares latency lately with the least that there
is, `min_rtt`, and moves the limit by their ratio; a headroom of its square root lets it find out
whether more goes.  The least latency is measured anew from time to time, with the limit pinned so
low that nobody queues.  There is no timer: what comes is told with its moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Final, final

ENOUGH: Final = 10  # samples for a step: of fewer, one slow answer would be half the truth
MOST: Final = 1000  # samples kept for a step; more change the percentile no more
STUCK: Final = (
    5  # steps in a row at the least limit: what is thought the least latency is not (Envoy)
)
LEAST_STEP: Final = 0.5
MOST_STEP: Final = 2.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Names as in Envoy's AdaptiveConcurrency."""

    sample_aggregate_percentile: float = 50.0
    """Which of the latencies of a step counts."""

    max_concurrency_limit: int = 1000
    """The limit, at most."""

    concurrency_update_interval: float = 0.1
    """Seconds of a step, at least."""

    min_rtt_interval: float = 60.0
    """Seconds between two measurements of the least latency."""

    min_rtt_request_count: int = 50
    """Answers for such a measurement."""

    min_rtt_jitter: float = 0.15
    """Up to this part more of the interval, by chance, so that not all callers measure at once."""

    min_concurrency: int = 3
    """The limit, at least, and while the least latency is measured."""

    min_rtt_buffer: float = 0.25
    """Part of the least latency that it may vary by without being thought a queue."""


@final
class Gradient:
    """One server's limit.

    The first measurement is taken at the greatest limit, unlike Envoy's: else every start would
    begin with refusals, and there is nothing yet that could have queued.
    """

    __slots__ = (
        "_at_least",
        "_draw",
        "_kept",
        "_measure_at",
        "_policy",
        "_samples",
        "_since",
        "_step_at",
        "_void",
        "is_measuring",
        "limit",
        "min_rtt",
    )

    def __init__(self, policy: Policy, draw: Callable[[], float]) -> None:
        self._policy: Final = policy
        self._draw: Final = draw
        self.limit = self._kept = policy.max_concurrency_limit
        self.min_rtt = 0.0  # seconds; 0: not known yet
        self.is_measuring = True
        self._samples: list[float] = []
        self._since = -inf  # samples of what began before this moment do not count
        self._step_at = 0.0
        self._measure_at = inf
        self._at_least = 0  # steps in a row
        self._void = 0  # answers during a measurement that say nothing of latency

    def observe(self, began: float, now: float) -> None:
        """Take in that what began at `began` was answered at `now`."""
        samples, policy = self._samples, self._policy
        if began >= self._since and len(samples) < MOST:
            samples.append(now - began)
        if self.is_measuring:
            if len(samples) >= policy.min_rtt_request_count:
                self._measured(now)
        elif now >= self._measure_at:
            self._measure(now)
        elif now >= self._step_at and len(samples) >= ENOUGH:
            self._step(now)

    def observe_none(self, now: float) -> None:
        """Take in an answer that says nothing of latency; nothing but such end a measurement, too."""
        if self.is_measuring and self.min_rtt:
            self._void += 1
            if self._void >= self._policy.min_rtt_request_count:
                self._samples.clear()
                self._resume(now)

    def _measure(self, now: float) -> None:
        """Begin to measure the least latency: nobody shall queue."""
        self.is_measuring = True
        self._kept = self.limit
        self.limit = self._policy.min_concurrency
        self._since = now
        self._void = 0
        self._samples.clear()

    def _measured(self, now: float) -> None:
        self.min_rtt = self._aggregate()
        self._resume(now)

    def _resume(self, now: float) -> None:
        policy = self._policy
        self.is_measuring = False
        self.limit = self._kept
        self._at_least = 0
        self._step_at = now + policy.concurrency_update_interval
        jitter = policy.min_rtt_jitter * self._draw()
        self._measure_at = now + policy.min_rtt_interval * (1 + jitter)

    def _step(self, now: float) -> None:
        policy = self._policy
        latency = max(self._aggregate(), 1e-9)
        gradient = self.min_rtt * (1 + policy.min_rtt_buffer) / latency
        limit = self.limit * min(MOST_STEP, max(LEAST_STEP, gradient))
        limit += sqrt(limit)
        self.limit = max(policy.min_concurrency, min(policy.max_concurrency_limit, int(limit)))
        # A step shows in latency only after one latency: sooner ones would swing about the goal.
        self._step_at = now + max(policy.concurrency_update_interval, latency)
        self._at_least = self._at_least + 1 if self.limit == policy.min_concurrency else 0
        if self._at_least >= STUCK:
            self._measure(now)

    def _aggregate(self) -> float:
        """Return the percentile of the samples, and forget them."""
        samples = sorted(self._samples)
        self._samples.clear()
        share = self._policy.sample_aggregate_percentile / 100
        return samples[min(len(samples) - 1, int(len(samples) * share))]
