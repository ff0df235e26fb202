"""When configuration is loaded again, and that nothing ends the watching."""

import asyncio
import os
from pathlib import Path

import pytest

from sidecar.agent.watch import INTERVAL, Watcher
from tests.agent.bench import in_no_time


class Diary:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.loads: list[float] = []
        self.error: Exception | None = None

    def watched(self) -> tuple[str, ...]:
        if isinstance(self.error, LookupError):
            raise self.error
        return (str(self.path), "\0")

    async def reload(self) -> None:
        self.loads.append(asyncio.get_running_loop().time())
        if self.error is not None:
            raise self.error

    def change(self) -> None:
        spare = self.path.with_suffix(".new")
        spare.write_text("x" * (len(self.loads) + 1))
        os.rename(spare, self.path)


async def watching(diary: Diary) -> tuple[Watcher, "asyncio.Task[None]"]:
    watcher = Watcher(diary.watched, diary.reload)
    watcher.look()
    return watcher, asyncio.ensure_future(watcher.run())  # noqa: TID251 - awaited by the test


@in_no_time
async def test_a_change_is_loaded_once_and_a_wish_at_once(tmp_path: Path) -> None:
    diary = Diary(tmp_path / "a")
    watcher, task = await watching(diary)
    await asyncio.sleep(2.5 * INTERVAL)
    assert diary.loads == []
    diary.change()
    await asyncio.sleep(2 * INTERVAL)
    assert diary.loads == pytest.approx([3 * INTERVAL])
    watcher.ask()
    await asyncio.sleep(INTERVAL / 4)
    assert diary.loads[1:] == pytest.approx([4.5 * INTERVAL])
    task.cancel()


@in_no_time
@pytest.mark.parametrize("error", [KeyError("watched fails"), ValueError("reload fails")])
async def test_no_error_ends_the_watching(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    diary = Diary(tmp_path / "a")
    _, task = await watching(diary)
    diary.error = error
    for _ in range(3):
        diary.change()
        await asyncio.sleep(INTERVAL)
    assert [r.getMessage() for r in caplog.records] == ["bug in watch"]  # said once

    diary.error = None
    before = len(diary.loads)
    diary.change()
    await asyncio.sleep(2 * INTERVAL)
    assert len(diary.loads) == before + 1
    task.cancel()
