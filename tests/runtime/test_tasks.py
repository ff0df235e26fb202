"""Work beside the engine: its end is told once, unless it was cancelled."""

import asyncio

from sidecar.filters.python import Steps
from sidecar.runtime.tasks import background


class Told:
    def __init__(self) -> None:
        self.ends: list[tuple[object, BaseException | None]] = []
        self.event = asyncio.Event()

    def __call__(self, result: object, error: BaseException | None) -> None:
        self.ends.append((result, error))
        self.event.set()


async def test_a_result_is_told() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    told = Told()
    background(work(), told)
    await asyncio.wait_for(told.event.wait(), 5)
    assert told.ends == [(7, None)]


async def test_an_error_is_told() -> None:
    error = ValueError()

    async def work() -> int:
        raise error

    told = Told()
    background(work(), told)
    await asyncio.wait_for(told.event.wait(), 5)
    assert told.ends == [(None, error)]


async def test_what_is_cancelled_is_not_told() -> None:
    over = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    told = Told()
    cancel = background(work(), told)
    await asyncio.sleep(0)
    cancel()
    await asyncio.wait_for(over.wait(), 5)
    await asyncio.sleep(0)
    assert told.ends == []


async def test_timed_steps_are_a_task_like_any_other() -> None:
    took: list[float] = []
    clock = iter(range(100))

    async def work(name: str) -> str:
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return f"{name} in {asyncio.current_task() is not None}"

    told = Told()
    background(Steps(work("a"), lambda: float(next(clock)), took.append), told)
    await asyncio.wait_for(told.event.wait(), 5)
    assert told.ends == [("a in True", None)]
    assert took == [1.0, 1.0]
    assert await Steps(work("b"), lambda: 0.0, took.append) == "b in True"


async def test_who_would_end_the_loop_ends_itself() -> None:
    async def work() -> None:
        raise SystemExit(3)

    told = Told()
    background(Steps(work(), lambda: 0.0, lambda seconds: None), told)
    await asyncio.wait_for(told.event.wait(), 5)
    ((_, error),) = told.ends
    assert str(error) == "SystemExit in a filter"


async def test_steps_that_are_given_up_are_closed() -> None:
    over = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            over.append(1)

    steps = Steps(work(), lambda: 0.0, lambda seconds: None)
    steps.send(None)
    steps.close()
    assert over == [1]
