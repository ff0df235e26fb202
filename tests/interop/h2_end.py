"""Either end of an HTTP/2 connection, on the `h2` library: for what no ready-made peer does.

Nothing is consumed that is not asked for: a stream whose body nobody reads fills its window and no
more, whatever goes on beside it.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from h2.settings import SettingCodes

Fields = list[tuple[bytes, bytes]]

WINDOW = 2**30  # of a connection: only streams are to hold anything back
SECONDS = 20.0
Serve = Callable[["Stream"], Awaitable[None]]


class ResetError(Exception):
    """The peer ended a stream, or the connection, before its time."""


@final
class Stream:
    """One stream: the peer's head, body and trailers come in; ours go out."""

    def __init__(self, end: "End", number: int) -> None:
        self.number = number
        self.trailers: Fields = []
        self.interim: list[Fields] = []
        self.head_ended = False
        """Whether the peer's head was all it had to say."""

        self._end = end
        self._head: asyncio.Future[Fields] = end.loop.create_future()
        self._data: asyncio.Queue[bytes | ResetError] = asyncio.Queue()

    async def head(self) -> Fields:
        """The peer's head, once it is there."""
        return await self._head

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the peer's octets; each piece is credited back when it is taken."""
        while data := await self._data.get():
            if isinstance(data, ResetError):
                raise data
            self._end.credit(len(data), self.number)
            yield data

    async def read(self) -> bytes:
        """Read to the end of the body."""
        return b"".join([piece async for piece in self.body()])

    def send_head(self, fields: Fields, *, end: bool = False) -> None:
        self._end.h2.send_headers(self.number, fields, end_stream=end)
        self._end.flush()

    async def send(self, data: bytes = b"", *, end: bool = False) -> None:
        """Send `data` as the windows of the peer allow."""
        connection = self._end.h2
        view = memoryview(data)
        while view:
            room = await self._end.room(self.number)
            connection.send_data(self.number, bytes(view[:room]))
            view = view[room:]
            await self._end.drain()
        if end:
            connection.end_stream(self.number)
            self._end.flush()

    def reset(self) -> None:
        self._end.h2.reset_stream(self.number, h2.errors.ErrorCodes.CANCEL)
        self._end.flush()

    def take(self, event: object) -> None:
        """Take what the connection has for this stream."""
        match event:
            case h2.events.RequestReceived() | h2.events.ResponseReceived():
                self.head_ended = event.stream_ended is not None
                self._head.set_result(
                    [(bytes(name), bytes(value)) for name, value in event.headers]
                )
            case h2.events.InformationalResponseReceived():
                self.interim.append([(bytes(name), bytes(value)) for name, value in event.headers])
            case h2.events.DataReceived():
                self._data.put_nowait(event.data)
            case h2.events.TrailersReceived():
                self.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
            case h2.events.StreamEnded():
                self._data.put_nowait(b"")
            case h2.events.StreamReset():
                self.fail(ResetError(f"stream {self.number} was reset: {event.error_code}"))
            case _:
                pass

    def fail(self, error: ResetError) -> None:
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # whoever awaits it gets it all the same
        self._data.put_nowait(error)


@final
class End:
    """One end of one connection; `serve` makes it the server's."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        serve: Serve | None = None,
        settings: dict[SettingCodes, int] | None = None,
        begun: bytes = b"",
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.streams: dict[int, Stream] = {}
        self._reader, self._writer, self._serve = reader, writer, serve
        self._wake = asyncio.Event()
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=serve is None, header_encoding=None)
        )
        self.h2.local_settings = h2.settings.Settings(
            client=serve is None, initial_values=dict(settings or {})
        )
        self.h2.initiate_connection()
        self.h2.receive_data(begun)  # the preface's beginning, if others have read it
        self.h2.increment_flow_control_window(WINDOW)
        self.flush()

    async def run(self) -> None:
        """Serve the connection until it ends."""
        async with asyncio.TaskGroup() as group:
            why = "the connection ended"
            try:
                while data := await self._reader.read(65536):
                    for event in self.h2.receive_data(data):
                        self._take(event, group)
                    await self.drain()
            except (OSError, h2.exceptions.ProtocolError) as error:
                why = repr(error)
                self.flush()
            for stream in self.streams.values():
                stream.fail(ResetError(why))
            self._wake.set()
            self._writer.close()

    def _take(self, event: object, group: asyncio.TaskGroup) -> None:
        if isinstance(event, h2.events.RequestReceived):
            stream = self.streams[event.stream_id] = Stream(self, event.stream_id)
            group.create_task(self._one(stream))
        self._wake.set()
        number = getattr(event, "stream_id", None)
        if number is not None and number in self.streams:
            self.streams[number].take(event)

    async def _one(self, stream: Stream) -> None:
        assert self._serve is not None
        with contextlib.suppress(ResetError, h2.exceptions.ProtocolError):
            await self._serve(stream)
        del self.streams[stream.number]

    def open(self, fields: Fields, *, end: bool = True) -> Stream:
        """Begin a request."""
        stream = Stream(self, self.h2.get_next_available_stream_id())
        self.streams[stream.number] = stream
        stream.send_head(fields, end=end)
        return stream

    def credit(self, octets: int, number: int) -> None:
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            self.h2.increment_flow_control_window(octets, number)
        self.h2.increment_flow_control_window(octets)
        self.flush()

    async def room(self, number: int) -> int:
        """Octets that may be sent now; at least one."""
        while True:
            self._wake.clear()
            if number not in self.streams:
                raise ResetError("the stream is gone")
            room = self.h2.local_flow_control_window(number)
            if room > 0:
                return min(room, self.h2.max_outbound_frame_size)
            await self._wake.wait()

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self._writer.write(data)

    async def drain(self) -> None:
        self.flush()
        with contextlib.suppress(OSError):
            await self._writer.drain()


@contextlib.asynccontextmanager
async def calling(
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    settings: dict[SettingCodes, int] | None = None,
) -> AsyncIterator[End]:
    """Open a connection to loopback and close it; no test may hang on it."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        end = End(reader, writer, settings=settings)
        running = end.loop.create_task(end.run())
        try:
            yield end
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def request(
    method: str, path: str, *more: tuple[str, str], authority: str = "interop.test"
) -> Fields:
    """Make a request head."""
    fields = [
        (":method", method),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
        *more,
    ]
    return [(name.encode(), value.encode()) for name, value in fields]


def find(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the first value of `name`, or nothing."""
    return next((value for key, value in fields if key == name), b"")
