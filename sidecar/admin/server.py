"""A small HTTP/1.1 server for slow paths: the operator's interface, and the demo's apps."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol
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


async def serve(
    handler: Handler,
    host: str,
    port: int,
    *,
    seconds: float = TIMEOUT,
    limit: int = MAX_CONNECTIONS,
) -> asyncio.Server:
    """Return a server that answers with `handler`; port 0 lets the kernel pick.

    A caller has `seconds` for a request, and as many to take the answer; then it is cut off.
    At most `limit` callers are connected: the one that has been idle the longest makes room for the
    next, and if all are being answered, the next is turned away.
    """
    connections: dict[
        asyncio.WriteTransport, bool
    ] = {}  # to: is it idle?  Idle the longest comes first

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        if len(connections) >= limit:
            oldest = next((t for t, is_idle in connections.items() if is_idle), None)
            if oldest is None:
                transport.abort()
                return
            del connections[oldest]
            oldest.abort()
        # Drained then means: the kernel has it all.  What it has not when time is up is dropped.
        transport.set_write_buffer_limits(0)

        def mark(*, is_idle: bool) -> None:
            if connections.pop(transport, None) is not None or is_idle:
                connections[transport] = is_idle

        mark(is_idle=True)
        try:
            await _connection(handler, reader, writer, seconds, mark)
        except (OSError, TimeoutError, h11.RemoteProtocolError, h11.LocalProtocolError):
            transport.abort()
        finally:
            connections.pop(transport, None)
            writer.close()

    return await asyncio.start_server(connected, host, port)


class Mark(Protocol):
    """Notes whether a connection is idle."""

    def __call__(self, *, is_idle: bool) -> None: ...


async def _connection(
    handler: Handler,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    seconds: float,
    mark: Mark,
) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    while True:
        async with asyncio.timeout(seconds):
            request = await _request(connection, reader)
        if request is None:
            return
        mark(is_idle=False)
        async with asyncio.timeout(seconds):
            response = await _answer(handler, request)
            writer.write(_encode(connection, request, response))
            await writer.drain()
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return
        connection.start_next_cycle()
        mark(is_idle=True)


async def _answer(handler: Handler, request: Request) -> Response:
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - a bug of ours: told here and there, and outlived
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"bug in the answer to {request.path}", "exception": error}
        )
        return Response(500, b"a bug of the sidecar; its log has more\n")


def _encode(connection: h11.Connection, request: Request, response: Response) -> bytes:
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
    return data + (connection.send(h11.EndOfMessage()) or b"")


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
