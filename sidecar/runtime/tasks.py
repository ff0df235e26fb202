"""Background tasks that are not collected while they run, and whose errors are not lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

_running: Final[set[asyncio.Task[Any]]] = set()  # the loop itself keeps weak references only


def spawn(
    work: Coroutine[Any, Any, Any],
    *,
    name: str,
    on_error: Callable[[str, BaseException], None],
) -> asyncio.Task[Any]:
    """Run `work` in the background; `on_error(name, error)` is told if it fails."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)

    def done(task: asyncio.Task[Any]) -> None:
        _running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            on_error(name, error)

    task.add_done_callback(done)
    return task
