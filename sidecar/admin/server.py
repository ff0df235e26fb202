"""A small HTTP/1.1 server for slow paths: the operator's interface, and the demo's apps."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

MAX_HEAD: Final = 16384  # octets
MAX_BODY: Final = 65536  # octets
TIMEOUT: Final = 30.0  # seconds for a request, and between two
MAX_CONNECTIONS: Final = 128


class Request(NamedTuple):
    """What was asked; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Response(NamedTuple):
    """What is answered."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


async def serve(handler: Handler, host: str, port: int) -> asyncio.Server:
    """Return a server that answers with `handler`; port 0 lets the kernel pick."""
    open_now: set[object] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_now) >= MAX_CONNECTIONS:
            writer.close()
            return
        open_now.add(writer)
        try:
            with contextlib.suppress(
                OSError, TimeoutError, h11.RemoteProtocolError, h11.LocalProtocolError
            ):
                await _connection(handler, reader, writer)
        finally:
            open_now.discard(writer)
            writer.close()

    return await asyncio.start_server(connected, host, port)


async def _connection(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    while True:
        async with asyncio.timeout(TIMEOUT):
            request = await _request(connection, reader)
        if request is None:
            return
        response = await handler(request)
        head = h11.Response(
            status_code=response.status,
            headers=[
                ("Content-Type", response.content_type),
                ("Content-Length", str(len(response.body))),
                ("Cache-Control", "no-store"),
                *response.headers,
            ],
        )
        body = b"" if request.method == "HEAD" else response.body
        data = connection.send(head) or b""
        data += connection.send(h11.Data(data=body)) or b""
        data += connection.send(h11.EndOfMessage()) or b""
        writer.write(data)
        await writer.drain()
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            parts = urlsplit(head.target.decode("latin-1"))
            return Request(
                head.method.decode("ascii"),
                unquote(parts.path),
                dict(parse_qsl(parts.query)),
                {k.decode("latin-1"): v.decode("latin-1") for k, v in head.headers},
                body,
            )
        else:
            return None
