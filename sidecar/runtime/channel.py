"""How messages and descriptors travel between agent and worker: frames on a unix socket."""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

MAX_FRAME: Final = 64 * 1024 * 1024  # octets; 10,000 endpoints are about one MiB
MAX_DESCRIPTORS: Final = 250  # in one sendmsg; Linux takes 253
HEAD: Final = 6  # octets: length of the body in four, count of descriptors in two

Received = TypeVar("Received")


class Channel(Generic[Received]):
    """One end; `on_message(message, descriptors)` and `on_lost()` are called from the loop.

    A frame is its head (big-endian) and msgpack.  `send` never waits: what the socket does not take
    is kept until it does.  Descriptors come with the frame that speaks of them, all or none: none
    when the limit of open files stopped some of them.
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
        # One list for each sendmsg of the other end that carried any: the kernel keeps them apart.
        self._arrived: Final[deque[list[int]]] = deque()
        self._waiting: Final[deque[tuple[memoryview, tuple[int, ...]]]] = deque()
        self._open = True
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._read)

    @property
    def is_behind(self) -> bool:
        """Say whether the other end has still to take what was sent."""
        return bool(self._waiting)

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send `message`; `fds` are duplicated for the other end, the caller keeps its own.

        Raises:
            OSError: the limit of open files does not allow it; nothing was sent.
        """
        if not self._open:
            return
        body = self._encoder.encode(message)
        copied = _duplicate(fds)
        frame = memoryview(len(body).to_bytes(4) + len(fds).to_bytes(2) + body)
        idle = not self._waiting
        while len(copied) > MAX_DESCRIPTORS:  # an octet for each lot: they do not travel alone
            self._waiting.append((frame[:1], copied[:MAX_DESCRIPTORS]))
            frame, copied = frame[1:], copied[MAX_DESCRIPTORS:]
        self._waiting.append((frame, copied))
        if idle:
            self._write()

    def finish(self) -> None:
        """Hear what is left of a process that has ended, and close; `on_lost` may be called."""
        while self._open and self._read():
            pass
        self.close()

    def close(self) -> None:
        """Close this end; nobody is told."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for _, copies in self._waiting:
            _close(copies)
        for arrived in self._arrived:
            _close(arrived)
        self._waiting.clear()
        self._arrived.clear()
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
            _close(copies)
            if sent < len(frame):
                self._waiting[0] = (frame[sent:], ())
            else:
                self._waiting.popleft()
        if self._open:
            self._loop.remove_writer(self._sock.fileno())

    def _read(self) -> bool:
        """Take in what there is now; say whether there may be more."""
        try:
            data, extra, flags, _ = self._sock.recvmsg(
                1 << 18, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data, extra, flags = b"", [], 0
        found = array.array("i")
        for level, kind, value in extra:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found.frombytes(value[: len(value) - len(value) % found.itemsize])
        if found or flags & socket.MSG_CTRUNC:
            self._arrived.append(found.tolist())
        if not data:
            self._lost()
            return False
        self._buffer += data
        while self._open and len(self._buffer) >= HEAD:
            size = int.from_bytes(self._buffer[:4])
            if size > MAX_FRAME:
                self._lost()
                return False
            if len(self._buffer) < HEAD + size:
                break
            count = int.from_bytes(self._buffer[4:HEAD])
            body = bytes(self._buffer[HEAD : HEAD + size])
            del self._buffer[: HEAD + size]
            self._hand_over(body, count)
        return True

    def _hand_over(self, body: bytes, count: int) -> None:
        fds = []
        for _ in range(0, count, MAX_DESCRIPTORS):
            fds += self._arrived.popleft() if self._arrived else []
        if len(fds) != count:
            _close(fds)
            fds = []
        try:
            message = self._decoder.decode(body)
        except msgspec.MsgspecError:
            _close(fds)
            self._lost()
            return
        try:
            self._on_message(message, fds)
        except Exception as error:  # noqa: BLE001 - the frames behind it are still to be read
            self._loop.call_exception_handler({"message": "bad message", "exception": error})

    def _lost(self) -> None:
        """Close, and tell so in a turn of its own: `send` calls nobody back."""
        if self._open:
            self.close()
            self._loop.call_soon(self._on_lost)


def _duplicate(fds: Sequence[int]) -> tuple[int, ...]:
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))  # noqa: PERF401 - those made are closed if one cannot be
    except OSError:
        _close(copies)
        raise
    return tuple(copies)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
