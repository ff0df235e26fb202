"""When something is due: one coarse wheel for all timers of a worker.

Arming is two stores in the common case.  A timer sits in the bucket of some moment (`slot`); moving
its deadline later only changes `deadline`, and when the bucket comes up the timer is put into a
later one.  Only a deadline before the slot costs an insertion.

A timer that is due never stays in its bucket for as long as it was armed for: an hour, with the idle
timeout of listeners.  So what comes and goes (connections, streams) takes a timer of the wheel and
gives it back: whose it was is let go of at once, and there are only ever as many as are in use.
"""

import heapq
from collections.abc import Callable
from typing import Final, final

TICK: Final = 0.01  # seconds; no deadline of a proxy needs more, and buckets stay few
NEVER: Final = float("inf")


@final
class Timer:
    """One deadline that moves; `callback(now)` is called once it has passed."""

    __slots__ = ("callback", "deadline", "slot")

    def __init__(self, callback: Callable[[float], None]) -> None:
        self.callback = callback
        self.deadline = NEVER
        self.slot = NEVER

    def stop(self) -> None:
        """Be due never."""
        self.deadline = NEVER

    def retire(self) -> None:
        """Be due never, and hold on to nobody while the bucket still holds it."""
        self.deadline = NEVER
        self.callback = _nobody


def _nobody(now: float) -> None:
    """Is called by no timer: a retired one is due never."""


NONE: Final = Timer(_nobody)  # what is still said to who has given its timer back


@final
class Wheel:
    """Buckets of timers by the tick in which they are due.

    `wake(when)` asks the runtime to call `advance` at that moment (of the same clock as `now`); `bug`
    is told of a callback that raises, whose fault must not keep the others of its tick waiting.
    """

    __slots__ = ("_buckets", "_heap", "_spare", "_wake", "bug")

    def __init__(self, wake: Callable[[float], None]) -> None:
        self._buckets: Final[dict[int, list[Timer]]] = {}
        self._heap: Final[list[int]] = []
        self._spare: Final[list[Timer]] = []
        self._wake: Final = wake
        self.bug: Callable[[str, BaseException], None] = lambda where, error: None

    def timer(self, callback: Callable[[float], None]) -> Timer:
        """Return a timer that `give_back` is told of when it is used no more."""
        if not self._spare:
            return Timer(callback)
        timer = self._spare.pop()
        timer.callback = callback
        return timer

    def give_back(self, timer: Timer) -> Timer:
        """Take `timer` for others; return what stands in its place."""
        if timer is not NONE:
            timer.retire()
            self._spare.append(timer)
        return NONE

    def arm(self, timer: Timer, deadline: float) -> None:
        """Make `timer` due at `deadline`, in place of what it was due at."""
        timer.deadline = deadline
        if deadline < timer.slot:
            self._insert(timer, deadline)

    def _insert(self, timer: Timer, deadline: float) -> None:
        tick = int(deadline / TICK) + 1
        timer.slot = tick * TICK
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.append(timer)
            return
        self._buckets[tick] = [timer]
        heap = self._heap
        heapq.heappush(heap, tick)
        if heap[0] == tick:
            self._wake(tick * TICK)

    def advance(self, now: float) -> None:
        """Call what is due at `now`, and ask to be woken for the next bucket."""
        heap = self._heap
        while heap and heap[0] * TICK <= now:
            tick = heapq.heappop(heap)
            slot = tick * TICK
            for timer in self._buckets.pop(tick):
                if timer.slot != slot:
                    continue  # it was moved to an earlier bucket since
                timer.slot = NEVER
                if timer.deadline <= now:
                    timer.deadline = NEVER
                    try:
                        timer.callback(now)
                    except Exception as error:  # noqa: BLE001 - see the class
                        self.bug("timer", error)
                elif timer.deadline != NEVER:
                    self._insert(timer, timer.deadline)
        if heap:
            self._wake(heap[0] * TICK)
