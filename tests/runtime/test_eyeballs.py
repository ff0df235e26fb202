"""Which address of a name wins, and what becomes of the others: in the loop's own time, and for real."""

import asyncio
import socket
from collections.abc import Sequence

import pytest
import uvloop

from sidecar.runtime.eyeballs import ATTEMPT_DELAY, GOOD_FOR, Names, Place, interleaved, race
from tests.agent.bench import in_no_time, settle


def v4(number: int) -> Place:
    return Place(socket.AF_INET, (f"10.0.0.{number}", 80))


def v6(number: int) -> Place:
    return Place(socket.AF_INET6, (f"fd00::{number}", 80, 0, 0))


class Track:
    """Attempts by name: seconds until each succeeds, negative until it fails."""

    def __init__(self, **takes: float) -> None:
        self.takes = takes
        self.begun: list[tuple[float, str]] = []
        self.cancelled: list[str] = []
        self.discarded: list[str] = []

    async def attempt(self, name: str) -> str:
        self.begun.append((asyncio.get_running_loop().time(), name))
        takes = self.takes[name]
        try:
            await asyncio.sleep(abs(takes))
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if takes < 0:
            raise ConnectionRefusedError(111, f"{name} is refused")
        return name

    async def run(self) -> str:
        return await race(list(self.takes), self.attempt, self.discarded.append)


@in_no_time
async def test_a_quick_first_address_is_the_only_one_tried() -> None:
    track = Track(a=0.1, b=0.0)
    assert await track.run() == "a"
    assert track.begun == [(0.0, "a")]


@in_no_time
async def test_the_next_one_is_tried_after_a_quarter_of_a_second() -> None:
    track = Track(a=9.0, b=9.0, c=0.1, d=0.0)
    assert await track.run() == "c"
    assert ATTEMPT_DELAY == 0.25
    assert track.begun == [(0.0, "a"), (0.25, "b"), (0.5, "c")]
    await settle()
    assert sorted(track.cancelled) == ["a", "b"]


@in_no_time
async def test_an_earlier_one_may_still_win() -> None:
    track = Track(a=0.3, b=9.0)
    assert await track.run() == "a"
    await settle()
    assert track.cancelled == ["b"]


@in_no_time
async def test_after_a_failure_the_next_one_is_tried_at_once() -> None:
    track = Track(a=-0.1, b=-0.1, c=0.1)
    assert await track.run() == "c"
    assert [when for when, _ in track.begun] == pytest.approx([0.0, 0.1, 0.2])


@in_no_time
async def test_when_all_fail_it_is_for_the_reason_of_the_first() -> None:
    with pytest.raises(ConnectionRefusedError, match="b is refused"):
        await Track(a=-1.0, b=-0.1).run()  # the first that failed
    with pytest.raises(OSError, match="no address"):
        await Track().run()


@in_no_time
async def test_who_gives_up_gives_up_every_attempt() -> None:
    track = Track(a=9.0, b=9.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await track.run()
    await settle()
    assert sorted(track.cancelled) == ["a", "b"]


@in_no_time
async def test_of_two_that_succeed_together_one_is_discarded() -> None:
    track = Track(a=0.5, b=0.25)
    won = await track.run()
    await settle()
    assert track.discarded == [name for name in ("a", "b") if name != won]


@in_no_time
async def test_what_is_no_error_of_the_network_is_not_swallowed() -> None:
    async def broken(name: str) -> str:
        raise ValueError(name)

    with pytest.raises(ValueError, match="a"):
        await race(["a", "b"], broken, lambda won: None)


def test_the_families_take_turns() -> None:
    assert interleaved([v6(1), v6(2), v6(3), v4(1)]) == [v6(1), v4(1), v6(2), v6(3)]
    assert interleaved([v4(1), v4(2), v6(1)]) == [v4(1), v6(1), v4(2)]
    assert interleaved([]) == []


class Book:
    """What a name resolves to, and how often that was asked."""

    def __init__(self, *places: Place) -> None:
        self.places: Sequence[Place] = places
        self.error: OSError | None = None
        self.asked = 0

    async def ask(self, host: str, port: int) -> Sequence[Place]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.places


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def place_of(server: socket.socket) -> Place:
    return Place(socket.AF_INET, server.getsockname())


@in_no_time
async def test_addresses_are_kept_for_a_while_and_asked_for_once_at_a_time() -> None:
    with listening() as server:
        book = Book(place_of(server))
        names = Names(asyncio.get_running_loop(), book.ask)
        for sock in await asyncio.gather(*(names.connect("a.test", 80) for _ in range(5))):
            sock.close()
        (await names.connect("a.test", 80)).close()
        assert book.asked == 1
        await asyncio.sleep(GOOD_FOR)
        (await names.connect("a.test", 80)).close()
        assert book.asked == 2


@in_no_time
async def test_the_last_good_addresses_are_used_while_the_name_cannot_be_looked_up() -> None:
    with listening() as server:
        book = Book()
        names = Names(asyncio.get_running_loop(), book.ask)
        with pytest.raises(OSError, match=r"a\.test has no address"):
            await names.connect("a.test", 80)
        book.places = [place_of(server)]
        (await names.connect("a.test", 80)).close()
        book.error = socket.gaierror(-3, "Temporary failure in name resolution")
        await asyncio.sleep(GOOD_FOR)
        (await names.connect("a.test", 80)).close()
        assert book.asked == 3


def test_on_uvloop_a_name_whose_first_address_is_silent_costs_a_quarter_of_a_second() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as silent, listening() as good:
            silent.bind(("127.0.0.1", 0))
            silent.listen(0)
            fill = [socket.socket() for _ in range(3)]  # its queue is full: no more is answered
            for sock in fill:
                sock.setblocking(False)
                sock.connect_ex(silent.getsockname())
            names = Names(loop, Book(place_of(silent), place_of(good)).ask)
            begun = loop.time()
            won = await names.connect("a.test", 80)
            took = loop.time() - begun
            assert won.getpeername() == good.getsockname()
            for sock in (won, *fill):
                sock.close()
            assert 0.2 < took < 5.0

    uvloop.run(run())


def test_on_uvloop_a_name_that_this_machine_knows_is_connected_to() -> None:
    async def run() -> None:
        with listening() as server:
            names = Names(asyncio.get_running_loop())
            (await names.connect("localhost", server.getsockname()[1])).close()
            with pytest.raises(OSError, match=r"."):
                await names.connect(f"{'a' * 64}.test", 80)

    uvloop.run(run())
