"""Connections that end when they have lasted long enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from sidecar.core.timers import Timer

if TYPE_CHECKING:
    from sidecar.core.types import Engine

SWEEP: Final = 1.0  # seconds between looks: one timer for all, and none for each connection

Kind = TypeVar("Kind")


@final
class Lifetimes(Generic[Kind]):
    """Has `end(connection)` called when its time is over, unless `is_there(connection)` is false by then.

    What is no longer there is forgotten at the next look, so nothing is to be told when a connection
    is lost.
    """

    __slots__ = ("_end", "_ends", "_engine", "_is_there", "_timer")

    def __init__(
        self, engine: Engine, is_there: Callable[[Kind], bool], end: Callable[[Kind], None]
    ) -> None:
        self._engine: Final = engine
        self._is_there: Final = is_there
        self._end: Final = end
        self._ends: Final[dict[Kind, float]] = {}
        self._timer: Final = Timer(self._look)

    def add(self, connection: Kind, seconds: float) -> None:
        """End `connection` after `seconds`."""
        now = self._engine.now()
        if not self._ends:
            self._engine.wheel.arm(self._timer, now + min(SWEEP, seconds))
        self._ends[connection] = now + seconds

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._ends)

    def _look(self, now: float) -> None:
        for connection, end in tuple(self._ends.items()):
            if not self._is_there(connection):
                del self._ends[connection]
            elif now >= end:
                del self._ends[connection]
                self._end(connection)
        if self._ends:
            self._engine.wheel.arm(self._timer, now + SWEEP)
