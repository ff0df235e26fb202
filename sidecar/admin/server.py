"""A small HTTP/1.1 server for slow paths: the operator's interface, and the demo's apps."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, final
from urllib.parse import parse_qsl, unquote

import h11

MAX_HEAD: Final = 16384  # octets
MAX_BODY: Final = 65536  # octets
TIMEOUT: Final = 10.0  # seconds for a request, from the end of the one before, and for its answer
MAX_CONNECTIONS: Final = 64  # operators, probes and scrapers; whoever else comes is told to wait

_log: Final = logging.getLogger("sidecar.admin")


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


async def serve(handler: Handler, address: str, *, timeout: float = TIMEOUT) -> asyncio.Server:  # noqa: ASYNC109 - of its requests, not of this call
    """Return a server on `address` that answers with `handler`.

    `address` is `host:port`, `[v6]:port` or `unix:/path`; the kernel picks for port 0.

    Raises:
        OSError: it cannot be bound.
    """
    open_now: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        full = len(open_now) >= MAX_CONNECTIONS
        open_now.add(writer)
        try:
            with contextlib.suppress(OSError, TimeoutError):
                await _Connection(reader, writer, timeout).serve(_busy if full else handler)
        finally:
            open_now.discard(writer)
            writer.close()

    if address.startswith("unix:"):
        return await asyncio.start_unix_server(connected, sock=_bind_unix(address[5:]))
    host, _, port = address.rpartition(":")
    return await asyncio.start_server(connected, host.strip("[]"), int(port))


class _RefusedError(Exception):
    """The request is not one that we answer; `status` says why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status: Final = status


@final
class _Connection:
    """One caller's connection: request, answer, request, ..."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
    ) -> None:
        self._reader: Final = reader
        self._writer: Final = writer
        self._seconds: Final = seconds
        self._h11: Final = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def serve(self, handler: Handler) -> None:
        """Answer requests until one side has enough.

        Raises:
            OSError: the caller is gone.
            TimeoutError: it takes too long over its request, or over our answer.
        """
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    request = await self._request()
            except (_RefusedError, h11.RemoteProtocolError) as error:
                await self._refuse(error)
                return
            if request is None:
                return
            response = await _answer(handler, request)
            await self._send(response, has_body=request.method != "HEAD")
            if handler is _busy or not self._is_done():
                return
            self._h11.start_next_cycle()

    async def _request(self) -> Request | None:
        """Return the next request whole; None if there is none."""
        head: h11.Request | None = None
        body = b""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                self._h11.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise _RefusedError(413, f"a body may have {MAX_BODY} octets")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _whole(head, body)
            else:
                return None

    async def _refuse(self, error: _RefusedError | h11.RemoteProtocolError) -> None:
        """Answer what is no request of ours, as far as that is possible, for the last time."""
        status = (
            error.status if isinstance(error, _RefusedError) else error.error_status_hint or 400
        )
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = f"{error}\n".encode()
            await self._send(Response(status, text, headers=(("Connection", "close"),)))

    async def _send(self, response: Response, *, has_body: bool = True) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        self._write(h11.Response(status_code=response.status, headers=headers))
        if has_body:
            self._write(h11.Data(data=response.body))
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(self._seconds):
            await self._writer.drain()

    def _write(self, event: h11.Event) -> None:
        self._writer.write(self._h11.send(event) or b"")

    def _is_done(self) -> bool:
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE


async def _answer(handler: Handler, request: Request) -> Response:
    """Return the handler's answer; a bug of ours ends one request, never the server."""
    try:
        return await handler(request)
    except Exception:
        _log.exception("bug: %s %s was not answered", request.method, ascii(request.path))
        return Response(500, b"a bug of ours: see the log\n")


async def _busy(request: Request) -> Response:
    text = f"{MAX_CONNECTIONS} connections are open already\n".encode()
    return Response(503, text, headers=(("Connection", "close"), ("Retry-After", "1")))


def _whole(head: h11.Request, body: bytes) -> Request:
    """Return one request in our words."""
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in head.headers}
    # Not urlsplit, which takes the path //a/b for a host and raises for //[.
    path, _, query = head.target.decode("latin-1").partition("?")
    if not path.startswith("/") and "://" in path:
        # The target's authority counts, not the Host field (RFC 9112 §3.2.2).
        headers["host"], slash, path = path.partition("://")[2].partition("/")
        path = slash + path or "/"
    return Request(
        head.method.decode("ascii"), unquote(path), dict(parse_qsl(query)), headers, body
    )


def _bind_unix(path: str) -> socket.socket:
    """Return a socket bound to `path`, for its owner only.

    Raises:
        OSError: another process answers there, or the path is not ours to make.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)  # left behind by a process that was killed
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)  # before listen(), so that nobody else ever gets in
    except OSError:
        sock.close()
        raise
    return sock
