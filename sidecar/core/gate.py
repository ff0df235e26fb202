"""What a listener asks of a connection before it is served: whether there may be one more, and how fast it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sidecar.core.pace import Paced

if TYPE_CHECKING:
    from sidecar.core.types import Caller, ListenerState
    from sidecar.traffic.pace import Bucket, Table

Naming = Callable[["Caller"], Hashable]
"""Who counts as the same caller."""


class Most(NamedTuple):
    """So many connections at once."""

    name: str
    """The rule's."""

    naming: Naming
    """Whose."""

    limit: int
    """How many, in this worker."""

    counts: dict[Hashable, int]
    """How many there are; outlives a config push."""


class Pace(NamedTuple):
    """So many octets a second."""

    naming: Naming
    """Whose."""

    up: Table | None
    """What comes from the caller; None: as fast as it comes. Outlives a config push."""

    down: Table | None
    """What goes to it."""


@final
class Gate:
    """The rules of one listener."""

    __slots__ = ("_mosts", "_paces")

    def __init__(self, mosts: tuple[Most, ...], paces: tuple[Pace, ...]) -> None:
        self._mosts: Final = mosts
        self._paces: Final = paces

    def refuses(self, caller: Caller) -> str:
        """Return the name of the rule that allows no further connection of `caller`; empty: none does."""
        for most in self._mosts:
            if most.counts.get(most.naming(caller), 0) >= most.limit:
                return most.name
        return ""

    def enter(self, listener: ListenerState, caller: Caller, transport: asyncio.Transport) -> Paced:
        """Count one more, and return the layer that it goes through."""
        leave: list[Callable[[], object]] = []
        for most in self._mosts:
            key, counts = most.naming(caller), most.counts
            counts[key] = counts.get(key, 0) + 1
            leave.append(_less(counts, key))
        now = listener.engine.now()
        up: list[Bucket] = []
        down: list[Bucket] = []
        for pace in self._paces:
            key = pace.naming(caller)
            for table, lane in ((pace.up, up), (pace.down, down)):
                if table is not None:
                    bucket = table.take(key, now)
                    lane.append(bucket)
                    leave.append(_gone(table, bucket))

        def parted() -> None:
            for call in leave:
                call()

        return Paced(listener, transport, (tuple(up), tuple(down)), parted)


def _less(counts: dict[Hashable, int], key: Hashable) -> Callable[[], object]:
    def less() -> None:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]

    return less


def _gone(table: Table, bucket: Bucket) -> Callable[[], object]:
    return lambda: table.leave(bucket)
