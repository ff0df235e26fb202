"""Which endpoint does so much worse than it should that it is left out for a while, and how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Final, final

LIVE, EJECTED, DUE, PROBING = range(4)
STATE_NAMES: Final = ("LIVE", "EJECTED", "DUE", "PROBING")

# STEPS[state] has a bit for each state one step away.
STEPS: Final = (
    1 << EJECTED,  # LIVE
    1 << DUE,  # EJECTED, its time is over
    1 << PROBING,  # DUE, a request has been sent to it
    1 << LIVE | 1 << EJECTED | 1 << DUE,  # PROBING; DUE again when the probe told nothing
)

MARGIN: Final = 0.1  # worse than the others by less is chance: 100 requests at 95 % vary by 0.02
CONSECUTIVE: Final = "consecutive-5xx"
LOCAL: Final = "consecutive-local-origin-failure"
SUCCESS_RATE: Final = "success-rate"
LOCAL_SUCCESS_RATE: Final = "local-origin-success-rate"
PROBE: Final = "probe-failed"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When an endpoint is ejected; names as in Envoy's OutlierDetection."""

    consecutive_5xx: int = 5
    """Bad answers in a row; 0: they do not count."""

    consecutive_local_origin_failure: int = 5
    """Attempts without an answer in a row; 0: they do not count."""

    interval: float = 10.0
    """Seconds of a window of the success rate; ejections end at its ends."""

    base_ejection_time: float = 30.0
    """Seconds of the first ejection; each one soon after another is twice as long."""

    max_ejection_time: float = 300.0
    """Seconds of the longest ejection."""

    max_ejection_share: float | None = None
    """Part of the endpoints, at most, but always one; None: a tenth, or half of fewer than 5."""

    success_rate_minimum_hosts: int = 3
    """Endpoints with enough requests, for their rates to be compared; 0: never."""

    success_rate_request_volume: int = 100
    """Requests in a window that are enough."""

    success_rate_stdev_factor: float = 1.9
    """Standard deviations of the others' rates that an endpoint's is below theirs."""


@final
class Tally:
    """What is known of one endpoint: answers by what they said, and attempts without an answer.

    The two are kept apart: who cannot be reached and who answers badly fail for other reasons, and
    one must not hide the other.
    """

    __slots__ = (
        "bad",
        "failed",
        "failed_in_row",
        "good",
        "in_row",
        "reason",
        "state",
        "times",
        "until",
    )

    def __init__(self) -> None:
        self.state = LIVE
        self.reason = ""  # of the last ejection
        self.in_row = 0
        self.failed_in_row = 0
        self.good = 0  # in this window, as the next two
        self.bad = 0
        self.failed = 0
        self.times = 0  # ejections lately
        self.until = 0.0

    def step(self, to: int) -> None:
        """Move to state `to`; a step that STEPS does not list is a bug."""
        if not STEPS[self.state] >> to & 1:
            raise AssertionError(f"{STATE_NAMES[self.state]} -> {STATE_NAMES[to]} is no step")
        self.state = to

    def answered(self, *, well: bool) -> None:
        """Count an answer: it is reachable, whatever it said."""
        self.failed_in_row = 0
        if well:
            self.in_row = 0
            self.good += 1
        else:
            self.in_row += 1
            self.bad += 1

    def reached(self) -> None:
        """Count a connection: all that is known of one that carries opaque octets."""
        self.failed_in_row = 0
        self.good += 1

    def went_without(self) -> None:
        """Count an attempt that had no answer; it says nothing of the answers before it."""
        self.failed_in_row += 1
        self.failed += 1

    def verdict(self, policy: Policy) -> str:
        """Return why it should be ejected by what it did in a row; empty if it should not."""
        if 0 < policy.consecutive_5xx <= self.in_row:
            return CONSECUTIVE
        if 0 < policy.consecutive_local_origin_failure <= self.failed_in_row:
            return LOCAL
        return ""

    def eject(self, reason: str, now: float, policy: Policy) -> None:
        """Leave it out, for twice as long as the last time if that was lately."""
        self.step(EJECTED)
        self.reason = reason
        self.until = now + ejection_time(self.times, policy)
        self.times += 1
        self.in_row = self.failed_in_row = 0

    def close_window(self) -> None:
        """Begin a window; one spent well makes up for one ejection."""
        if self.state == LIVE and self.times and not (self.bad or self.failed):
            self.times -= 1
        self.good = self.bad = self.failed = 0


def ejection_time(times: int, policy: Policy) -> float:
    """Return the seconds of an ejection after `times` others."""
    return min(policy.max_ejection_time, policy.base_ejection_time * (1 << min(times, 30)))


def may_eject(out: int, available: int, size: int, panic: float, policy: Policy) -> bool:
    """Say whether one more may be ejected of `size` endpoints, `out` of which are ejected.

    Never the last, nor so many that a share below `panic` is available: then all would be used.
    """
    if available - 1 < max(1, size * panic):
        return False
    share = policy.max_ejection_share
    if share is None:
        share = 0.5 if size < 5 else 0.1
    return out < max(1, int(size * share))


def outliers(tallies: Sequence[Tally], policy: Policy) -> list[tuple[int, str]]:
    """Return which of `tallies` had too low a rate of success in the window, and in what.

    Each is compared with the others, itself left out (in Envoy it is among them): else one of three
    could never be far enough from the mean, however bad.
    """
    found = []
    for reason, counts in (
        (SUCCESS_RATE, [(t.good, t.good + t.bad) for t in tallies]),
        (LOCAL_SUCCESS_RATE, [(t.good + t.bad, t.good + t.bad + t.failed) for t in tallies]),
    ):
        found += [(index, reason) for index in _too_low(counts, policy)]
    return found


def _too_low(counts: list[tuple[int, int]], policy: Policy) -> list[int]:
    volume = max(1, policy.success_rate_request_volume)
    rates = {index: good / of for index, (good, of) in enumerate(counts) if of >= volume}
    if not 0 < policy.success_rate_minimum_hosts <= len(rates) or len(rates) < 2:
        return []
    found = []
    for index, rate in rates.items():
        others = [other for at, other in rates.items() if at != index]
        mean = fsum(others) / len(others)
        deviation = sqrt(fsum((other - mean) ** 2 for other in others) / len(others))
        if rate < mean - max(MARGIN, policy.success_rate_stdev_factor * deviation):
            found.append(index)
    return found
