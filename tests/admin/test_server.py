"""The operator's HTTP server holds no more than it should, for no longer than it should."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sidecar.admin.server import Request, Response, serve

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 8 * 1024 * 1024  # octets: more than the kernel takes for a caller that does not read


class Desk:
    """Answers at once, or, where asked, only when told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        self.asked.set()
        if request.path == "/wait":
            await self.go.wait()
        if request.path == "/bug":
            raise RuntimeError("oh")
        return Response(200, b"x" * (LARGE if request.path == "/large" else 2))


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, path: bytes) -> bytes:
        """The status line and fields, after the body was read as well."""
        self.writer.write(GET % path)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self.reader.readexactly(length)
        return head

    async def rest(self) -> int:
        """How many octets come until the connection ends."""
        count = 0
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65536):
                count += len(data)
        return count


@contextlib.asynccontextmanager
async def callers(
    desk: Desk, count: int, seconds: float = 30.0, limit: int = 128
) -> AsyncIterator[list[Caller]]:
    server = await serve(desk.answer, "127.0.0.1", 0, seconds=seconds, limit=limit)
    port = server.sockets[0].getsockname()[1]
    async with server:
        # 1 KiB: what is not read stays with the server, not in buffers on the way.
        found = [
            Caller(*await asyncio.open_connection("127.0.0.1", port, limit=1024))
            for _ in range(count)
        ]
        yield found
        for caller in found:
            caller.writer.transport.abort()


async def test_a_caller_that_stops_reading_is_cut_off() -> None:
    desk = Desk()
    async with callers(desk, 1, seconds=0.2) as (caller,):
        caller.writer.write(GET % b"large")
        await desk.asked.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        _, held = await asyncio.wait(tasks, timeout=10)  # the server's side of it comes to an end

        assert held == set()
        assert await caller.rest() < LARGE


async def test_a_caller_that_asks_nothing_is_cut_off() -> None:
    async with callers(Desk(), 1, seconds=0.2) as (caller,):
        caller.writer.write(b"GET / HT")

        assert await caller.rest() == 0


async def test_the_one_that_idles_the_longest_makes_room() -> None:
    async with callers(Desk(), 3, limit=2) as (first, second, third):
        assert (await third.ask(b"")).startswith(b"HTTP/1.1 200 ")

        assert await first.rest() == 0
        assert (await second.ask(b"")).startswith(b"HTTP/1.1 200 ")


async def test_when_all_are_being_answered_the_next_is_turned_away() -> None:
    desk = Desk()
    async with callers(desk, 1, limit=1) as (busy,):
        busy.writer.write(GET % b"wait")
        await desk.asked.wait()
        port = busy.writer.get_extra_info("peername")[1]
        late = Caller(*await asyncio.open_connection("127.0.0.1", port))

        assert await late.rest() == 0
        desk.go.set()
        assert (await busy.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        late.writer.close()


async def test_a_bug_in_an_answer_is_told_and_outlived() -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: told.append(c["message"]))
    async with callers(Desk(), 1) as (caller,):
        assert (await caller.ask(b"bug")).startswith(b"HTTP/1.1 500 ")
        assert (await caller.ask(b"")).startswith(b"HTTP/1.1 200 ")
    assert told == ["bug in the answer to /bug"]
