"""One app, over HTTP/1.1 (on h11) and over HTTP/2 (on h2): `python -m tests.interop.origin`.

Its first line says where: `http1=PORT http2=PORT either=PORT`, the last for what the caller likes.

    /echo             what the request was, as JSON, once it has come whole
    /bytes/N          N octets; their SHA-256 in the trailer x-sha256
    /duplex           every octet sent back as it comes; SHA-256 of all in the trailer
    /status/N         that status, without a body
    /early            103, then 200
    /together/N       no answer until N requests are held; then 200 to all
    /stall/NAME       a body that nobody reads until /go/NAME; then its length
    WebSocket         octets sent back as they come, up to GOODBYE (no frames are looked at)
"""

import asyncio
import collections
import contextlib
import hashlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Final, Protocol

import h11
from h2.settings import SettingCodes

from tests.interop.h2_end import End, Fields, Stream, find

PIECE: Final = 16384
_BLOCK: Final = bytes(index * index % 251 for index in range(PIECE))
GOODBYE: Final = b"goodbye\n"
PREFACE: Final = b"PRI * HT"  # as much of it as tells (RFC 9113 §3.4)
BACKLOG: Final = 1000
SETTINGS: Final = {
    SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
    SettingCodes.MAX_CONCURRENT_STREAMS: 1000,
    SettingCodes.INITIAL_WINDOW_SIZE: 262_144,
}


def pattern(size: int) -> Iterator[bytes]:
    """Yield the content of /bytes/`size` in pieces."""
    for begin in range(0, size, PIECE):
        yield _BLOCK[: min(PIECE, size - begin)]


def digest(size: int) -> str:
    found = hashlib.sha256()
    for piece in pattern(size):
        found.update(piece)
    return found.hexdigest()


class Request(Protocol):
    """What either protocol gives the app."""

    version: str
    method: str
    path: str
    protocol: str
    """Empty, or what the caller asks to switch to."""

    authority: str
    fields: list[tuple[str, str]]

    @property
    def trailers(self) -> list[tuple[str, str]]: ...
    def body(self) -> AsyncIterator[bytes]: ...
    def head(self, status: int, *fields: tuple[str, str], interim: bool = False) -> None: ...
    async def send(self, data: bytes) -> None: ...
    async def finish(self, *trailers: tuple[str, str]) -> None: ...


class App:
    """See the module."""

    def __init__(self) -> None:
        self.held = 0
        self.full = asyncio.Event()
        self.gates: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)

    async def __call__(self, request: Request) -> None:
        name, _, argument = request.path.lstrip("/").partition("?")[0].partition("/")
        if request.protocol:
            name = "websocket"
        await getattr(self, f"_{name}")(request, argument)

    async def _echo(self, request: Request, argument: str) -> None:
        length, found = 0, hashlib.sha256()
        async for piece in request.body():
            length += len(piece)
            found.update(piece)
        told = {
            "version": request.version,
            "method": request.method,
            "path": request.path,
            "authority": request.authority,
            "fields": request.fields,
            "length": length,
            "sha256": found.hexdigest(),
            "trailers": request.trailers,
        }
        await self._text(request, json.dumps(told))

    async def _text(self, request: Request, text: str) -> None:
        data = text.encode()
        request.head(200, ("content-type", "text/plain"), ("content-length", str(len(data))))
        await request.send(data)
        await request.finish()

    async def _bytes(self, request: Request, argument: str) -> None:
        request.head(200, ("content-type", "application/octet-stream"), ("trailer", "x-sha256"))
        for piece in pattern(int(argument)):
            await request.send(piece)
        await request.finish(("x-sha256", digest(int(argument))))

    async def _duplex(self, request: Request, argument: str) -> None:
        found = hashlib.sha256()
        request.head(200, ("content-type", "application/octet-stream"), ("trailer", "x-sha256"))
        async for piece in request.body():
            found.update(piece)
            await request.send(piece)
        await request.finish(("x-sha256", found.hexdigest()))

    async def _status(self, request: Request, argument: str) -> None:
        bodiless = argument in {"204", "304"}
        request.head(int(argument), *(() if bodiless else (("content-length", "0"),)))
        await request.finish()

    async def _early(self, request: Request, argument: str) -> None:
        request.head(103, ("link", "</style.css>; rel=preload"), interim=True)
        await self._text(request, "late")

    async def _together(self, request: Request, argument: str) -> None:
        self.held += 1
        if self.held == int(argument):
            self.full.set()
        await self.full.wait()
        await self._text(request, "all")

    async def _stall(self, request: Request, argument: str) -> None:
        await self.gates[argument].wait()
        length = 0
        async for piece in request.body():
            length += len(piece)
        await self._text(request, str(length))

    async def _go(self, request: Request, argument: str) -> None:
        self.gates[argument].set()
        await self._text(request, "gone")

    async def _websocket(self, request: Request, argument: str) -> None:
        request.head(101)
        async for piece in request.body():
            await request.send(piece)
            if piece.endswith(GOODBYE):
                break
        await request.finish()


# --- HTTP/2 ------------------------------------------------------------------------------------


def _text(fields: Fields) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


class Http2:
    """A request on a stream."""

    version = "2"

    def __init__(self, stream: Stream, head: Fields) -> None:
        self._stream = stream
        self.method = find(head, b":method").decode()
        self.path = find(head, b":path").decode()
        self.protocol = find(head, b":protocol").decode()
        self.authority = find(head, b":authority").decode()
        self.fields = [field for field in _text(head) if not field[0].startswith(":")]

    @property
    def trailers(self) -> list[tuple[str, str]]:
        return _text(self._stream.trailers)

    def body(self) -> AsyncIterator[bytes]:
        if ("expect", "100-continue") in self.fields:
            self.head(100, interim=True)
        return self._stream.body()

    def head(self, status: int, *fields: tuple[str, str], interim: bool = False) -> None:
        # RFC 8441 §5: what 101 says in HTTP/1.1, 200 says here.
        head = [(":status", str(200 if status == 101 else status)), *fields]
        self._stream.send_head([(name.encode(), value.encode()) for name, value in head])

    async def send(self, data: bytes) -> None:
        if self.method != "HEAD":
            await self._stream.send(data)

    async def finish(self, *trailers: tuple[str, str]) -> None:
        if trailers and self.method != "HEAD":
            fields = [(name.encode(), value.encode()) for name, value in trailers]
            self._stream.send_head(fields, end=True)
        else:
            await self._stream.send(end=True)


# --- HTTP/1.1 ----------------------------------------------------------------------------------


class Http1:
    """A request on an HTTP/1.1 connection."""

    version = "1.1"

    def __init__(self, line: "Http1Connection", head: h11.Request) -> None:
        self._line = line
        self.method = head.method.decode()
        self.path = head.target.decode()
        self.fields = _text([*head.headers])
        known = dict(self.fields)
        self.protocol = known.get("upgrade", "")
        self.authority = known.get("host", "")
        self.trailers: list[tuple[str, str]] = []
        """Known once the body has been read."""

    async def body(self) -> AsyncIterator[bytes]:
        if self.protocol:
            async for data in self._line.raw():
                yield data
            return
        await self._line.invite()
        while not isinstance(event := await self._line.event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise ConnectionResetError("the caller left in the middle of a body")
            yield bytes(event.data)
        self.trailers = _text([*event.headers])

    def head(self, status: int, *fields: tuple[str, str], interim: bool = False) -> None:
        if status == 101:
            fields = (("upgrade", self.protocol), ("connection", "upgrade"))
        interim = interim or status == 101
        kind = h11.InformationalResponse if interim else h11.Response
        # With a reason, for h2load counts no answer without one.
        self._line.write(kind(status_code=status, headers=list(fields), reason="Said"))

    async def send(self, data: bytes) -> None:
        self._line.write(data if self.protocol else h11.Data(data=data))
        await self._line.drain()

    async def finish(self, *trailers: tuple[str, str]) -> None:
        if not self.protocol:
            self._line.write(h11.EndOfMessage(headers=list(trailers)))
        await self._line.drain()


class Http1Connection:
    """One connection, requests in turn."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: bytes = b""
    ) -> None:
        self._reader, self._writer = reader, writer
        self._h11 = h11.Connection(h11.SERVER)
        if begun:
            self._h11.receive_data(begun)

    async def run(self, app: App) -> None:
        while isinstance(head := await self.event(), h11.Request):
            request = Http1(self, head)
            await app(request)
            if request.protocol:
                return
            if self._h11.their_state is h11.SEND_BODY:
                async for _ in request.body():
                    pass
            if {self._h11.our_state, self._h11.their_state} != {h11.DONE}:
                return
            self._h11.start_next_cycle()

    async def event(self) -> object:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self._reader.read(65536))
        return event

    async def raw(self) -> AsyncIterator[bytes]:
        if rest := self._h11.trailing_data[0]:
            yield rest
        while data := await self._reader.read(65536):
            yield data

    async def invite(self) -> None:
        if self._h11.they_are_waiting_for_100_continue:
            self.write(h11.InformationalResponse(status_code=100, headers=[]))

    def write(self, what: h11.Event | bytes) -> None:
        data = what if isinstance(what, bytes) else self._h11.send(what)
        if data:
            self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()


# --- both --------------------------------------------------------------------------------------


async def main() -> None:
    app, stop = App(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def http1(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: bytes = b""
    ) -> None:
        with contextlib.suppress(OSError, h11.ProtocolError, asyncio.CancelledError):
            await Http1Connection(reader, writer, begun).run(app)
        writer.close()

    async def http2(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: bytes = b""
    ) -> None:
        async def serve(stream: Stream) -> None:
            await app(Http2(stream, await stream.head()))

        with contextlib.suppress(asyncio.CancelledError):  # told to stop in the middle
            await End(reader, writer, serve=serve, settings=SETTINGS, begun=begun).run()

    async def either(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError, asyncio.IncompleteReadError):
            begun = await reader.readexactly(len(PREFACE))
            await (http2 if begun == PREFACE else http1)(reader, writer, begun)

    ports = []
    for name, serve in (("http1", http1), ("http2", http2), ("either", either)):
        # Not a socket of socket.create_server: of those asyncio sees no TCP, and leaves Nagle on.
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=BACKLOG)
        ports.append(f"{name}={server.sockets[0].getsockname()[1]}")
    sys.stdout.write(" ".join(ports) + "\n")
    sys.stdout.flush()
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
