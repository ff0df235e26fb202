"""What time it is, and who wakes the timers: the only file that reads a clock."""

import asyncio
import time
from typing import Final, final

from sidecar.core.timers import NEVER, Wheel


def wall() -> float:
    """Return seconds of the epoch."""
    return time.time()  # noqa: TID251 - this is runtime.clock


stopwatch: Final = time.perf_counter
"""Seconds that go on while we run, unlike the loop's, which stand still within one of its turns."""


@final
class Clock:
    """Drives a wheel from an event loop: one loop timer for all deadlines."""

    __slots__ = ("_handle", "_loop", "_when", "wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        self._when = NEVER
        self._handle: asyncio.TimerHandle | None = None
        self.wheel: Final = Wheel(self._wake)

    def _wake(self, when: float) -> None:
        if when >= self._when:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._when = when
        self._handle = self._loop.call_at(when, self._advance)

    def _advance(self) -> None:
        self._when = NEVER
        self._handle = None
        # uvloop rounds to milliseconds and may come early; a timer that fires early re-arms itself.
        self.wheel.advance(self._loop.time() + 0.001)
