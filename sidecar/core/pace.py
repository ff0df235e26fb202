"""A connection held to so many octets a second: a layer between the socket and who is served there.

Theory of operation.  Each direction is a lane: octets pass at once while the buckets have room, what
is beyond waits, and while anything waits the side it comes from is held: the peer is not read (up),
or who serves it is told to pause (down).  So no more waits than one read brings.  Above the layer
are the engine's protocols, which take it for the transport; below is the transport, which takes it
for the protocol, as it would a TLS layer.  A connection that is closed while something waits is so
behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast, final

from sidecar.core.timers import Timer

if TYPE_CHECKING:
    from sidecar.core.types import Connection, Engine, ListenerState
    from sidecar.traffic.pace import Bucket

PORTION: Final = 0.05  # seconds between two portions: few wakes, and nobody sees the steps


@final
class Lane:
    """One direction: `push` takes what may pass, `hold` and `free` stop its source and let it go on.

    The source is held while something waits or whoever takes it is shut.  `then` is called once
    nothing waits any more.
    """

    __slots__ = (
        "_at",
        "_buckets",
        "_engine",
        "_free",
        "_hold",
        "_is_held",
        "_is_shut",
        "_push",
        "_timer",
        "_waiting",
        "size",
        "then",
    )

    def __init__(
        self,
        engine: Engine,
        buckets: tuple[Bucket, ...],
        push: Callable[[bytes], object],
        hold: Callable[[], object],
        free: Callable[[], object],
    ) -> None:
        self._engine: Final = engine
        self._buckets: Final = buckets
        self._push = push
        self._hold = hold
        self._free = free
        self._waiting: Final[deque[bytes]] = deque()
        self._at = 0  # octets of the first piece that are gone
        self._timer: Final = Timer(self._due)
        self._is_held = False
        self._is_shut = False
        self.size = 0  # octets that wait
        self.then: Callable[[], object] | None = None

    def feed(self, data: bytes) -> None:
        """Pass on `data`, as much of it as may go now."""
        room = 0 if self.size or self._is_shut else self._room(len(data))
        if room < len(data):
            if not self.size:
                self._arm()
            self._waiting.append(data[room:])
            self.size += len(data) - room
            self._settle()
        if room:
            self._push(data[:room])

    def shut(self) -> None:
        """Whoever takes the octets wants no more."""
        self._is_shut = True
        self._settle()

    def open(self) -> None:
        """It has caught up; like a transport's, what waits comes not before it has returned."""
        self._is_shut = False
        if self.size:
            self._engine.later(self._go_on)
        else:
            self._settle()

    def clear(self) -> None:
        """Forget what waits; nobody is called any more."""
        self._waiting.clear()
        self.size = self._at = 0
        self._is_shut = self._is_held = False
        self.then = None
        self._timer.retire()
        self._push = _nobody  # a cycle would be left to the collector
        self._hold = self._free = _nobody

    # Inside:

    def _room(self, wanted: int) -> int:
        """Return how many of the `wanted` octets may go now, and count them."""
        if not self._buckets:
            return wanted
        now = self._engine.now()
        size = min([wanted, *[bucket.room(now) for bucket in self._buckets]])
        for bucket in self._buckets:
            bucket.spend(size)
        return size

    def _arm(self) -> None:
        """Come back for what waits, for the next portion, or at least for one octet."""
        waits = [max(b.wait(1), min(b.wait(self.size), PORTION)) for b in self._buckets]
        self._engine.wheel.arm(self._timer, self._engine.now() + max(waits, default=0.0))

    def _go_on(self) -> None:
        self._due(self._engine.now())

    def _due(self, now: float) -> None:
        """Pass on what may go by now."""
        if self._is_shut:
            return  # `open` goes on
        data = self._take(self._room(self.size))
        if self.size:
            self._arm()
        if data:
            self._push(data)
        self._settle()

    def _settle(self) -> None:
        """Hold the source or let it go on."""
        is_held = self.size > 0 or self._is_shut
        if is_held is not self._is_held:
            self._is_held = is_held
            (self._hold if is_held else self._free)()
        if not self.size and self.then is not None:
            then, self.then = self.then, None
            then()

    def _take(self, size: int) -> bytes:
        """Return the next `size` octets of those that wait."""
        self.size -= size
        found = []
        while size:
            piece = self._waiting[0]
            part = piece[self._at : self._at + size]
            found.append(part)
            size -= len(part)
            self._at += len(part)
            if self._at == len(piece):
                self._at = 0
                self._waiting.popleft()
        return b"".join(found)


def _nobody(data: bytes = b"") -> None:
    """Is who takes octets, or gives them, once a lane is cleared."""


@final
class Paced(asyncio.Transport, asyncio.Protocol):
    """The layer; `buckets` are those of what comes from the peer, and of what goes to it.

    `parted` is called when the connection is over.
    """

    def __init__(
        self,
        listener: ListenerState,
        transport: asyncio.Transport,
        buckets: tuple[tuple[Bucket, ...], tuple[Bucket, ...]],
        parted: Callable[[], object],
    ) -> None:
        super().__init__()
        self._listener: Final = listener
        self._raw: Final = transport
        self._parted: Final = parted
        self._protocol: asyncio.Protocol  # from set_protocol on
        self._closing = False
        up, down = buckets
        engine = listener.engine
        self._up: Final = Lane(
            engine,
            up,
            lambda data: self._protocol.data_received(data),
            transport.pause_reading,
            self._read_on,
        )
        self._down: Final = Lane(
            engine,
            down,
            transport.write,
            lambda: self._protocol.pause_writing(),
            lambda: self._protocol.resume_writing(),
        )

    # The transport below says:

    def data_received(self, data: bytes) -> None:
        """Octets of the peer."""
        if not self._closing:
            self._up.feed(data)

    def eof_received(self) -> bool:
        """The peer has said all; who serves it is told behind what waits."""
        if self._closing:
            return self._down.size > 0
        if self._up.size:
            self._up.then = self._end
            return True
        return bool(self._protocol.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._closing = True
        self._up.clear()
        self._down.clear()
        self._listener.connections.discard(self)
        self._parted()
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer reads more slowly than it may."""
        self._down.shut()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._down.open()

    # Who serves it says:

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, as soon as it may go."""
        if not self._closing and data:
            self._down.feed(bytes(data))

    def can_write_eof(self) -> bool:
        """Say whether the own direction can be closed alone."""
        return self._raw.can_write_eof()

    def write_eof(self) -> None:
        """Close the own direction, behind what waits."""
        self._behind(self._raw.write_eof)

    def close(self) -> None:
        """Close, behind what waits."""
        if self._closing:
            return
        self._closing = True
        self._up.clear()
        if self._down.size:
            self._listener.connections.add(self)  # a drain waits for it
        self._behind(self._raw.close)

    def abort(self) -> None:
        """Close at once; what waits is lost."""
        self._closing = True
        self._up.clear()
        self._down.clear()
        self._raw.abort()

    def drain(self) -> None:
        """Take nothing new; what waits is sent in its time."""
        if not self._closing:
            cast("Connection", self._protocol).drain()

    def is_closing(self) -> bool:
        """Say whether it closes, or has closed."""
        return self._closing or self._raw.is_closing()

    def pause_reading(self) -> None:
        """Take nothing more of the peer."""
        self._up.shut()

    def resume_reading(self) -> None:
        """Go on."""
        self._up.open()

    def is_reading(self) -> bool:
        """Say whether octets of the peer are taken."""
        return self._raw.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called for a peer that reads slowly."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return octets that have not gone yet."""
        return self._down.size + self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport below knows."""
        return self._raw.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who serves the connection."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have `protocol` serve it."""
        self._protocol = cast("asyncio.Protocol", protocol)

    # Inside:

    def _behind(self, call: Callable[[], object]) -> None:
        if self._down.size:
            self._down.then = call
        else:
            call()

    def _read_on(self) -> None:
        if not self.is_closing():
            self._raw.resume_reading()

    def _end(self) -> None:
        """Say now that the peer has said all."""
        if not self._protocol.eof_received():
            self.close()
