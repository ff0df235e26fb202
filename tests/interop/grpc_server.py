"""The service of the gRPC suite on each library's server: `python -m tests.interop.grpc_server`.

One process, one server: `grpcio` (threads), `grpcio-aio` or `grpclib`. The first line it prints
is where it listens.
"""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from tests.interop.grpc_service import METHODS, SERVICE, Call, told

PAUSE = 0.01  # seconds between looks of `Seen`
CODES = {code.value[0]: code for code in grpc.StatusCode}


class RawCodec(CodecBase):
    """Messages are octets already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


def announce(port: int) -> None:
    sys.stdout.write(f"grpc={port}\n")
    sys.stdout.flush()


# --- grpcio with threads -----------------------------------------------------------------------


def _threaded(method: str) -> Callable[[Iterable[bytes], Any], Iterator[bytes]]:
    def serve(requests: Iterable[bytes], context: Any) -> Iterator[bytes]:
        over = threading.Event()
        if not context.add_callback(over.set):
            over.set()
        call = Call(method, list(context.invocation_metadata()), context.time_remaining())
        if call.initial():
            context.send_initial_metadata(call.initial())
        context.set_trailing_metadata(call.trailing())
        with call.recorded():
            for request in requests:
                yield from call.take(request)
                if call.holds():
                    over.wait()
                    return
            yield from call.finish()
            if call.wanted:
                while (data := told(call.wanted)) is None and not over.wait(PAUSE):
                    pass
                yield data or b""
            call.done()
        if call.code:
            context.abort(CODES[call.code], call.text)

    return serve


def grpcio() -> None:
    server = grpc.server(ThreadPoolExecutor(64))
    handlers = {}
    for method, (callers, servers) in METHODS.items():
        serve = _threaded(method)

        def one(request: Any, context: Any, serve: Any = serve, callers: bool = callers) -> bytes:
            replies: list[bytes] = list(serve(request if callers else [request], context))
            return replies[-1] if replies else b""

        def many(request: Any, context: Any, serve: Any = serve, callers: bool = callers) -> Any:
            return serve(request if callers else [request], context)

        handlers[method] = _handler(callers, servers, many if servers else one)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    announce(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop(0)


def _handler(callers: bool, servers: bool, behaviour: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    kind = f"{'stream' if callers else 'unary'}_{'stream' if servers else 'unary'}"
    made: grpc.RpcMethodHandler[Any, Any] = getattr(grpc, f"{kind}_rpc_method_handler")(behaviour)
    return made


# --- the two that run on a loop ----------------------------------------------------------------


async def _converse(
    call: Call, requests: AsyncIterator[bytes], send: Callable[[bytes], Awaitable[None]]
) -> None:
    """Serve one call; `send` takes each reply."""
    with call.recorded():
        async for request in requests:
            for reply in call.take(request):
                await send(reply)
            if call.holds():
                await asyncio.Event().wait()
        for reply in call.finish():
            await send(reply)
        if call.wanted:
            while (data := told(call.wanted)) is None:  # noqa: ASYNC110 - any call's, by its id
                await asyncio.sleep(PAUSE)
            await send(data)
        call.done()


async def _one(request: bytes) -> AsyncIterator[bytes]:
    yield request


def _looped(method: str, callers: bool, servers: bool) -> Callable[[Any, Any], Any]:
    async def serve(request: Any, context: Any) -> bytes:
        call = Call(method, list(context.invocation_metadata()), context.time_remaining())
        if call.initial():
            await context.send_initial_metadata(call.initial())
        context.set_trailing_metadata(call.trailing())
        replies = []

        async def keep(reply: bytes) -> None:
            replies.append(reply)

        send = context.write if servers else keep
        await _converse(call, request if callers else _one(request), send)
        if call.code:
            await context.abort(CODES[call.code], call.text, tuple(call.trailing()))
        return replies[-1] if replies else b""

    async def many(request: Any, context: Any) -> None:
        await serve(request, context)

    return many if servers else serve


async def grpcio_aio() -> None:
    server = grpc.aio.server()
    handlers = {
        method: _handler(callers, servers, _looped(method, callers, servers))
        for method, (callers, servers) in METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    announce(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await _told_to_stop()
    await server.stop(0)


class Service:
    """The methods as grpclib wants them."""

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/{SERVICE}/{method}": Handler(
                _streamed(method), Cardinality[_name(*kind)], bytes, bytes
            )
            for method, kind in METHODS.items()
        }


def _name(callers: bool, servers: bool) -> str:
    return f"{'STREAM' if callers else 'UNARY'}_{'STREAM' if servers else 'UNARY'}"


def _streamed(method: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
    async def serve(stream: Stream[Any, Any]) -> None:
        metadata = list((stream.metadata or {}).items())
        remaining = stream.deadline.time_remaining() if stream.deadline else None
        call = Call(method, metadata, remaining)
        if call.initial():
            await stream.send_initial_metadata(metadata=list(call.initial()))
        await _converse(call, aiter(stream), stream.send_message)
        if call.code:
            await stream.send_trailing_metadata(
                status=Status(call.code), status_message=call.text, metadata=list(call.trailing())
            )
        elif call.trailing():
            await stream.send_trailing_metadata(metadata=list(call.trailing()))

    return serve


async def grpclib() -> None:
    server = Server([Service()], codec=RawCodec())
    # The protocol is named, or asyncio sees no TCP and leaves Nagle on.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    await server.start(sock=listener)
    announce(listener.getsockname()[1])
    await _told_to_stop()
    server.close()
    await server.wait_closed()


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    if sys.argv[1] == "grpcio":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        grpcio()
    else:
        asyncio.run({"grpcio-aio": grpcio_aio, "grpclib": grpclib}[sys.argv[1]]())
