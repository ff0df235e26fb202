"""A transport without a socket: what uvloop's does, with the far end played by the test."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

EOF: Final = object()
OPEN, HALF, CLOSED, RESET = "open", "half", "closed", "reset"

Soon = Callable[[Callable[[], None]], None]


@final
class FakeTransport(asyncio.Transport):
    """Both ends of one connection.

    The engine holds it as a transport; the test plays the far end with `send`, `end`, `lose`,
    `stall` and `catch_up`, looks at `got` and at `fate`: `open`, `half` (our direction is closed),
    `closed` or `reset`.  As on uvloop, a callback of the protocol comes from `soon` or from the
    far end, but `pause_writing` from within `write`; and who resumes reading after the end of the
    stream is told of the end once more.
    """

    def __init__(
        self, soon: Soon, peer: tuple[str, int] | str = "", alpn: str | None = None
    ) -> None:
        super().__init__()
        self._soon: Final = soon
        self._peer: Final = peer
        self._alpn: Final = alpn  # what a handshake would have chosen
        self._protocol: asyncio.BaseProtocol | None = None
        self._incoming: Final[deque[bytes | object]] = deque()
        self._reading = True
        self._at_eof = False
        self._unsent = bytearray()
        self._high = 65536
        self._low = 16384
        self._is_stalled = False
        self._is_full = False  # the protocol was told to pause
        self._shut = False  # write_eof was called
        self._closing = False
        self.is_gone = False  # connection_lost was called
        self.faults: Final[dict[str, Exception]] = {}  # what the loop raises, by method, once
        self.got = bytearray()  # what the far end has read
        self.writes = 0  # each is a system call on uvloop
        self.fate = OPEN

    # The far end:

    def send(self, data: bytes) -> None:
        """The far end writes `data`."""
        self._incoming.append(data)
        self._soon(self._pump)

    def end(self) -> None:
        """The far end closes its direction."""
        self._incoming.append(EOF)
        self._soon(self._pump)

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone, both directions."""
        self._closing = True
        self._incoming.clear()
        self._soon(lambda: self._lost(error))

    def stall(self) -> None:
        """The far end reads no more: what is written stays in our buffer."""
        self._is_stalled = True

    def catch_up(self, size: int | None = None) -> None:
        """The far end reads `size` octets of the buffer; all of it, and what follows, without one."""
        self._soon(lambda: self._catch_up(size))

    def _catch_up(self, size: int | None) -> None:
        if size is None:
            self._is_stalled = False
            size = len(self._unsent)
        self.got += self._unsent[:size]
        del self._unsent[:size]
        if self._is_full and len(self._unsent) <= self._low and not self.is_gone:
            self._is_full = False
            assert isinstance(self._protocol, asyncio.Protocol)
            self._protocol.resume_writing()
        self._flushed()

    def overhead(self, size: int) -> None:
        """A layer below, such as TLS, has `size` octets of its own to send."""
        self._soon(lambda: self._buffer(b"." * size))

    def take(self) -> bytes:
        """Return what has come since the last time."""
        data = bytes(self.got)
        self.got.clear()
        return data

    @property
    def buffered(self) -> int:
        """Octets written that the far end has not read."""
        return len(self._unsent)

    @property
    def waiting(self) -> int:
        """Octets of the far end that our side has not taken."""
        return sum(len(item) for item in self._incoming if isinstance(item, bytes))

    def _pump(self) -> None:
        while self._incoming and self._reading and not self._closing:
            item = self._incoming.popleft()
            protocol = self._protocol
            assert isinstance(protocol, asyncio.Protocol)
            if isinstance(item, bytes):
                protocol.data_received(item)
                continue
            self._at_eof = True
            if protocol.eof_received():
                self._reading = False
            else:
                self.close()

    def _lost(self, error: Exception | None) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        if self.fate in (OPEN, HALF):
            self.fate = CLOSED if error is None else RESET
        protocol, self._protocol = self._protocol, None
        assert isinstance(protocol, asyncio.Protocol)
        protocol.connection_lost(error)

    def _flushed(self) -> None:
        if self._unsent:
            return
        if self._closing and self.fate != RESET:
            self.fate = CLOSED
            self._soon(lambda: self._lost(None))
        elif self._shut and self.fate == OPEN:
            self.fate = HALF

    # The transport:

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._break("write")
        if self.is_gone:
            raise RuntimeError("the handler is closed")
        if self._shut:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing:
            return
        self.writes += 1
        if self._is_stalled:
            self._buffer(data)
        else:
            self.got += data

    def _buffer(self, data: bytes | bytearray | memoryview) -> None:
        self._unsent += data
        if len(self._unsent) > self._high and not self._is_full:
            self._is_full = True
            assert isinstance(self._protocol, asyncio.Protocol)
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._break("write_eof")
        if self.is_gone:
            raise RuntimeError("the handler is closed")
        self._shut = True
        self._flushed()

    def _break(self, method: str) -> None:
        if method in self.faults:
            raise self.faults.pop(method)

    def close(self) -> None:
        self._break("close")
        if not self._closing:
            self._closing = True
            self._flushed()

    def abort(self) -> None:
        if self.is_gone:
            return
        if self.fate not in (CLOSED, RESET) or self._unsent:
            self.fate = RESET
        self._closing = True
        self._unsent.clear()
        self._soon(lambda: self._lost(None))

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if self._reading or self._closing:
            return
        self._reading = True
        if self._at_eof:
            self._incoming.append(EOF)
        self._soon(self._pump)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65536 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"peername": self._peer, "sockname": ("127.0.0.1", 15001), "alpn": self._alpn}
        return known.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol
