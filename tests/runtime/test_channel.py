"""Messages and descriptors arrive whole, in order, and with each other."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from sidecar.runtime.channel import MAX_DESCRIPTORS, Channel
from sidecar.runtime.messages import Down, Endpoints, Report, Stats


class Pair:
    """Two ends; what the second one heard."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.raw = two
        self.heard: list[tuple[str, list[int]]] = []
        self.lost: list[str] = []
        self.bad = ""  # a name that the receiver chokes on
        self._news = asyncio.Event()
        self.sender: Channel[Down] = Channel(
            loop, one, Down, lambda m, fds: None, lambda: self._lose("sender")
        )
        self.receiver: Channel[Down] = Channel(
            loop, two, Down, self._hear, lambda: self._lose("receiver")
        )

    def _lose(self, who: str) -> None:
        self.lost.append(who)
        self._news.set()

    def _hear(self, message: Down, fds: list[int]) -> None:
        name = message.cluster if isinstance(message, Endpoints) else type(message).__name__
        self.heard.append((name, fds))
        self._news.set()
        if name == self.bad:
            raise ValueError(name)

    async def until_heard(self, count: int) -> list[tuple[str, list[int]]]:
        while len(self.heard) < count:
            self._news.clear()
            await self._news.wait()
        return self.heard

    async def until_lost(self) -> list[str]:
        while not self.lost:
            self._news.clear()
            await self._news.wait()
        return self.lost

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        for _, fds in self.heard:
            for fd in fds:
                os.close(fd)


@pytest.fixture
async def pair() -> "Iterator[Pair]":  # type: ignore[misc]
    made = Pair()
    yield made
    made.close()


@pytest.fixture
def files() -> Iterator[list[int]]:
    """Descriptors of 600 pipes' reading ends would be many: one file, opened often."""
    made = [os.open("/dev/null", os.O_RDONLY) for _ in range(2 * MAX_DESCRIPTORS + 7)]
    yield made
    for fd in made:
        os.close(fd)


def named(name: str, size: int = 0) -> Endpoints:
    return Endpoints(name, "dns", "x" * size, ())


async def test_large_and_small_messages_keep_their_order(pair: Pair) -> None:
    for name, size in (("a", 3_000_000), ("b", 0), ("c", 1_000_000)):
        pair.sender.send(named(name, size))
    assert pair.sender.is_behind
    assert [name for name, _ in await pair.until_heard(3)] == ["a", "b", "c"]
    assert not pair.sender.is_behind


@pytest.mark.parametrize(
    "counts",
    [(1, 0, 2), (MAX_DESCRIPTORS, 1), (2 * MAX_DESCRIPTORS + 7, 3, 0, MAX_DESCRIPTORS + 1)],
)
async def test_descriptors_come_with_their_message(
    pair: Pair, files: list[int], counts: tuple[int, ...]
) -> None:
    for number, count in enumerate(counts):
        pair.sender.send(named(str(number), 300_000), files[:count])
    heard = await pair.until_heard(len(counts))

    assert [(name, len(fds)) for name, fds in heard] == [
        (str(number), count) for number, count in enumerate(counts)
    ]


@pytest.mark.parametrize("room", [0, 3])
async def test_without_room_for_all_descriptors_none_come_and_the_next_are_not_mixed_up(
    pair: Pair, files: list[int], room: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pair.sender.send(named("many", 2_000_000), files[:5])  # more than one read takes
    pair.sender.send(named("one"), files[:1])
    # Gaps among the descriptors that are open are room as well.
    here = {int(name) for name in os.listdir("/proc/self/fd")}
    gaps = [n for n in range(max(here) + 5) if n not in here]
    resource.setrlimit(resource.RLIMIT_NOFILE, (gaps[room], hard))
    try:
        for _ in range(3):
            await asyncio.sleep(0)  # the first octets are read, and what should come with them
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    heard = await pair.until_heard(2)

    assert [(name, len(fds)) for name, fds in heard] == [("many", 0), ("one", 1)]


async def test_an_error_over_one_message_does_not_hold_up_the_next(pair: Pair) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: told.append(c["exception"]))
    pair.bad = "a"
    for name in "ab":
        pair.sender.send(named(name))

    assert [name for name, _ in await pair.until_heard(2)] == ["a", "b"]
    assert [repr(error) for error in told] == ["ValueError('a')"]


async def test_a_send_to_an_end_that_is_gone_calls_nobody_back_before_it_returns(
    pair: Pair,
) -> None:
    pair.receiver.close()
    pair.sender.send(Report())
    assert pair.lost == []
    assert await pair.until_lost() == ["sender"]
    pair.sender.send(Report())  # and then it is nothing
    assert not pair.sender.is_behind


async def test_what_was_said_before_the_end_is_heard_in_finish(pair: Pair) -> None:
    for name in "abc":
        pair.sender.send(named(name))
    pair.sender.close()
    pair.receiver.finish()

    assert [name for name, _ in pair.heard] == ["a", "b", "c"]


async def test_what_is_no_message_ends_the_channel(pair: Pair) -> None:
    pair.sender.send(Stats((), ()))  # of the other direction

    assert await pair.until_lost() == ["receiver"]
    assert pair.heard == []
