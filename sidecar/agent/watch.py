"""When to load again: a watched file has changed, or somebody asked."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Final, final

from sidecar.agent.logs import bug

INTERVAL: Final = 1.0  # seconds between looks at the watched files

Stamp = tuple[int, int, int]


@final
class Watcher:
    """Calls `reload` when one of the files that `watched()` names has changed, or when asked."""

    def __init__(
        self,
        watched: Callable[[], tuple[str, ...]],
        reload: Callable[[], Awaitable[None]],
        interval: float = INTERVAL,
    ) -> None:
        self._watched: Final = watched
        self._reload: Final = reload
        self._interval: Final = interval
        self._seen: dict[str, Stamp] = {}
        self._asked: Final = asyncio.Event()
        self._trouble = ""

    def look(self) -> bool:
        """Note what the files are now; say whether they were something else before."""
        seen: dict[str, Stamp] = {}
        for path in self._watched():
            with contextlib.suppress(OSError, ValueError):  # ValueError: NUL in a path
                status = os.stat(path)
                seen[path] = (status.st_mtime_ns, status.st_ino, status.st_size)
        changed = seen != self._seen
        self._seen = seen
        return changed

    def ask(self) -> None:
        """Have it loaded again at once."""
        self._asked.set()

    async def run(self) -> None:
        """Watch until cancelled; what goes wrong is told once, and watching goes on."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._interval)
            is_asked = self._asked.is_set()
            self._asked.clear()
            try:
                if self.look() or is_asked:
                    await self._reload()
                self._trouble = ""
            except Exception as error:  # noqa: BLE001 - a bug, and no reason to stop watching
                if repr(error) != self._trouble:
                    bug("watch", error)
                self._trouble = repr(error)
