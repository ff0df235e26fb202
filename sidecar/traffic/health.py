"""When answers to health checks make an endpoint healthy or unhealthy."""

from typing import Final, final


@final
class Verdict:
    """What the answers to one check add up to.

    `healthy` is None until the first answer, which counts at once; so does the first one that is
    added to a verdict which began as False.  After that it takes as many in a row as the thresholds say.
    """

    __slots__ = ("_streak", "_to_healthy", "_to_unhealthy", "_untried", "healthy")

    def __init__(
        self, healthy_threshold: int, unhealthy_threshold: int, healthy: bool | None = None
    ) -> None:
        self._to_healthy: Final = healthy_threshold
        self._to_unhealthy: Final = unhealthy_threshold
        self._untried = healthy is not True
        self._streak = 0  # answers in a row that speak against `healthy`
        self.healthy = healthy

    def add(self, *, good: bool) -> None:
        """Take one more answer into account."""
        if good is self.healthy:
            self._streak = 0
        else:
            self._streak += 1
            threshold = self._to_healthy if good else self._to_unhealthy
            if self._untried or self._streak >= threshold:
                self.healthy = good
                self._streak = 0
        self._untried = False
