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


def background(
    work: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]
) -> Callable[[], object]:
    """Run `work`; `done(result, error)` is told at its end, unless it is cancelled before.

    What is returned cancels it.
    """
    task = asyncio.get_running_loop().create_task(work, name="filter")
    _running.add(task)

    def ended(task: asyncio.Task[Any]) -> None:
        _running.discard(task)
        if not task.cancelled():
            error = task.exception()
            done(task.result() if error is None else None, error)

    task.add_done_callback(ended)
    return task.cancel
