"""How messages and descriptors travel between agent and worker: frames on a unix socket."""

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

MAX_FRAME: Final = 64 * 1024 * 1024  # octets; 10,000 endpoints are about one MiB
MAX_DESCRIPTORS: Final = 250  # Linux takes 253 in one message

Received = TypeVar("Received")


class Channel(Generic[Received]):
    """One end; `on_message(message, descriptors)` and `on_lost()` are called from the loop.

    A frame is its length in four octets (big-endian) and msgpack.  `send` never waits: what the
    socket does not take is kept until it does.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        decode: Any,  # the union of messages to receive
        on_message: Callable[[Received, list[int]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop: Final = loop
        self._sock: Final = sock
        self._decoder: Final = msgspec.msgpack.Decoder(decode)
        self._encoder: Final = msgspec.msgpack.Encoder()
        self._on_message: Final = on_message
        self._on_lost: Final = on_lost
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._waiting: Final[deque[tuple[bytes, tuple[int, ...]]]] = deque()
        self._open = True
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._read)

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send `message`; `fds` are duplicated for the other end, the caller keeps its own."""
        if not self._open:
            return
        body = self._encoder.encode(message)
        # A count of descriptors goes with each frame, so that the other end knows whose they are.
        frame = len(body).to_bytes(4) + len(fds).to_bytes(1) + body
        copies = tuple(os.dup(fd) for fd in fds)
        self._waiting.append((frame, copies))
        if len(self._waiting) == 1:
            self._write()

    def close(self) -> None:
        """Close this end; nobody is told."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for _, copies in self._waiting:
            for fd in copies:
                os.close(fd)
        for fd in self._descriptors:
            os.close(fd)
        self._waiting.clear()
        self._descriptors.clear()
        self._sock.close()

    def _write(self) -> None:
        while self._waiting and self._open:
            frame, copies = self._waiting[0]
            extra = (
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", copies))] if copies else []
            )
            try:
                sent = self._sock.sendmsg([frame], extra)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._write)
                return
            except OSError:
                self._lost()
                return
            for fd in copies:
                os.close(fd)
            if sent < len(frame):
                self._waiting[0] = (frame[sent:], ())
            else:
                self._waiting.popleft()
        if self._open:
            self._loop.remove_writer(self._sock.fileno())

    def _read(self) -> None:
        try:
            data, extra, _, _ = self._sock.recvmsg(
                1 << 18, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, extra = b"", []
        for level, kind, value in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(value[: len(value) - len(value) % found.itemsize])
                self._descriptors.extend(found)
        if not data:
            self._lost()
            return
        self._buffer += data
        while self._open and len(self._buffer) >= 5:
            size = int.from_bytes(self._buffer[:4])
            if size > MAX_FRAME:
                self._lost()
                return
            if len(self._buffer) < 5 + size:
                return
            count = self._buffer[4]
            body = bytes(self._buffer[5 : 5 + size])
            del self._buffer[: 5 + size]
            fds, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            try:
                message = self._decoder.decode(body)
            except msgspec.MsgspecError:
                self._lost()
                return
            self._on_message(message, fds)

    def _lost(self) -> None:
        if self._open:
            self.close()
            with contextlib.suppress(RuntimeError):
                self._on_lost()
