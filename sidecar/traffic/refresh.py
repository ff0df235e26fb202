"""When something that is looked up again and again is looked up next, and when its absence is believed."""

from typing import Final, final

JITTER: Final = 0.1  # share of a wait that chance adds, so that many sidecars do not ask in step
FIRST_FAILURE: Final = 0.5  # seconds until the second try; then twice as long each time
LONGEST_DENIAL: Final = (
    30.0  # seconds that `there is none` is taken for true: it may exist any time
)
DENIALS: Final = 3  # in a row, until what was known before is let go


@final
class Refresh:
    """The pace of one look-up; `draw` arguments are uniform in [0, 1).

    `interval` holds where nothing says how long an answer is good, `shortest` and `longest` bound
    what does.
    """

    __slots__ = ("_denials", "_failures", "_interval", "_longest", "_shortest")

    def __init__(self, interval: float, shortest: float, longest: float) -> None:
        self._interval: Final = max(interval, shortest)
        self._shortest: Final = shortest
        self._longest: Final = max(longest, shortest)
        self._denials = 0
        self._failures = 0

    def succeeded(self, ttl: float | None, draw: float) -> float:
        """Return the wait after an answer that is good for `ttl` seconds; None: it does not say."""
        self._denials = self._failures = 0
        wait = self._interval if ttl is None else self._within(ttl, self._longest)
        return wait * (1 + JITTER * draw)  # later, never sooner: a cache would say the same again

    def denied(self, ttl: float | None, draw: float) -> float:
        """Return the wait after the answer that there is none, good for `ttl` seconds."""
        self._denials += 1
        self._failures = 0
        wait = self._within(self._interval if ttl is None else ttl, LONGEST_DENIAL)
        return wait * (1 + JITTER * draw)

    def failed(self, draw: float) -> float:
        """Return the wait after no answer: between half and all of a time that doubles."""
        self._failures = min(self._failures + 1, 16)  # 2**16 is beyond any interval
        wait = min(self._interval, FIRST_FAILURE * (1 << self._failures - 1))
        return max(self._shortest * 0.1, wait * (0.5 + 0.5 * draw))

    @property
    def is_gone(self) -> bool:
        """It was denied so often in a row that it is true."""
        return self._denials >= DENIALS

    def _within(self, seconds: float, longest: float) -> float:
        return max(self._shortest, min(seconds, longest))
