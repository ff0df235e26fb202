"""A gRPC call from each library's client, told in one form: what came back, and how it ended."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError

from tests.interop.grpc_server import RawCodec
from tests.interop.grpc_service import Metadata

CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4

# No proxy that the environment names; a connection of its own for each channel.
_OPTIONS: Final = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
]


@dataclass(frozen=True)
class Wish:
    """One call to make."""

    path: str
    kind: tuple[bool, bool]
    """The caller streams, the server streams."""

    requests: Sequence[bytes] = ()
    metadata: Metadata = ()
    timeout: float | None = None
    """Seconds until the deadline."""

    in_turn: bool = False
    """Send the next request when the last one is answered."""

    cancel_after: int | None = None
    """Replies after which the caller cancels, having kept its own side open."""

    before_cancel: Callable[[], object] = bool
    """Called before that, and waited for."""


@dataclass
class Told:
    """What came back."""

    messages: list[bytes] = field(default_factory=list)
    code: int = 0
    text: str = ""
    initial: list[tuple[str, str | bytes]] = field(default_factory=list)
    trailing: list[tuple[str, str | bytes]] = field(default_factory=list)

    def end(self, code: grpc.StatusCode, text: str | None, initial: Any, trailing: Any) -> None:
        """Take grpcio's word for how it ended."""
        self.code, self.text = code.value[0], text or ""
        self.initial, self.trailing = _pairs(initial), _pairs(trailing)


def _kind(wish: Wish) -> str:
    return "_".join("stream" if streams else "unary" for streams in wish.kind)


def _pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(key, value) for key, value in metadata or ()]


# --- grpcio with threads -----------------------------------------------------------------------


def grpcio(port: int, wish: Wish) -> Told:
    """Call with grpcio's blocking client."""
    told, gate, over = Told(), threading.Semaphore(0), threading.Event()

    def requests() -> Iterator[bytes]:
        for number, request in enumerate(wish.requests):
            if wish.in_turn and number:
                gate.acquire()
            yield request
        if wish.cancel_after is not None:
            over.wait()

    def cancel_when(due: int) -> None:
        if wish.cancel_after == due:
            wish.before_cancel()
            call.cancel()

    with grpc.insecure_channel(f"127.0.0.1:{port}", _OPTIONS) as channel:
        method = getattr(channel, _kind(wish))(wish.path)
        begin = method if wish.kind[1] else method.future
        sent = requests() if wish.kind[0] else wish.requests[0]
        call = begin(sent, timeout=wish.timeout, metadata=wish.metadata)
        with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
            cancel_when(0)
            for message in call if wish.kind[1] else [call.result()]:
                told.messages.append(message)
                gate.release()
                cancel_when(len(told.messages))
        over.set()
        gate.release()
        told.end(call.code(), call.details(), call.initial_metadata(), call.trailing_metadata())
    return told


# --- the two that run on a loop ----------------------------------------------------------------


def grpcio_aio(port: int, wish: Wish) -> Told:
    """Call with grpcio's asyncio client."""
    return asyncio.run(_grpcio_aio(port, wish))


async def _grpcio_aio(port: int, wish: Wish) -> Told:
    told, gate = Told(), asyncio.Semaphore(0)

    async def requests() -> AsyncIterator[bytes]:
        for number, request in enumerate(wish.requests):
            if wish.in_turn and number:
                await gate.acquire()
            yield request
        if wish.cancel_after is not None:
            await asyncio.Event().wait()

    async def cancel_when(due: int) -> None:
        if wish.cancel_after == due:
            await asyncio.to_thread(wish.before_cancel)
            call.cancel()

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", _OPTIONS) as channel:
        method = getattr(channel, _kind(wish))(wish.path)
        sent = requests() if wish.kind[0] else wish.requests[0]
        call = method(sent, timeout=wish.timeout, metadata=wish.metadata)
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            await cancel_when(0)
            if not wish.kind[1]:
                told.messages.append(await call)
            else:
                async for message in call:
                    told.messages.append(message)
                    gate.release()
                    await cancel_when(len(told.messages))
        code, text = await call.code(), await call.details()
        told.end(code, text, await call.initial_metadata(), await call.trailing_metadata())
    return told


def grpclib(port: int, wish: Wish) -> Told:
    """Call with grpclib."""
    return asyncio.run(_grpclib(port, wish))


async def _grpclib(port: int, wish: Wish) -> Told:
    told = Told()
    kind = Cardinality[_kind(wish).upper()]
    metadata = list(wish.metadata)
    async with Channel("127.0.0.1", port, codec=RawCodec()) as channel:
        stream = channel.request(
            wish.path, kind, bytes, bytes, timeout=wish.timeout, metadata=metadata
        )
        try:
            async with stream:
                await _talk(stream, wish, told)
        except GRPCError as error:
            told.code, told.text = error.status.value, error.message or ""
        except TimeoutError:
            told.code = DEADLINE_EXCEEDED
        except (StreamTerminatedError, asyncio.CancelledError):
            told.code = CANCELLED
        told.initial = _items(stream.initial_metadata)
        told.trailing = _items(stream.trailing_metadata)
    return told


async def _talk(stream: Stream[bytes, bytes], wish: Wish, told: Told) -> None:
    await stream.send_request()
    last = len(wish.requests) - 1
    for number, request in enumerate(wish.requests):
        if wish.in_turn and number:
            told.messages.append(_some(await stream.recv_message()))
        await stream.send_message(request, end=number == last and wish.cancel_after is None)
    if not wish.requests and wish.cancel_after is None:
        await stream.end()
    while wish.cancel_after is None or len(told.messages) < wish.cancel_after:
        message = await stream.recv_message()
        if message is None:
            return
        told.messages.append(message)
    await asyncio.to_thread(wish.before_cancel)
    await stream.cancel()
    told.code = CANCELLED


def _items(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [*metadata.items()] if metadata else []


def _some(message: bytes | None) -> bytes:
    assert message is not None, "the stream ended before its turn"
    return message


CALLERS: Final[dict[str, Callable[[int, Wish], Told]]] = {
    "grpcio": grpcio,
    "grpcio-aio": grpcio_aio,
    "grpclib": grpclib,
}
