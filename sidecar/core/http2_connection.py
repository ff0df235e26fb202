"""What both ends of HTTP/2 share: octets between a transport and a `Http2Link`, and when they are sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from sidecar.wire.http2_frames import INTERNAL_ERROR

if TYPE_CHECKING:
    from sidecar.core.plan import Http2Plan
    from sidecar.core.types import Engine
    from sidecar.wire.http2_stream import Http2Link

UNREAD_LIMIT: Final = 1048576  # octets of ours that a peer may leave unread before we read no more


class Http2Connection(asyncio.Protocol):
    """One HTTP/2 connection; what is written in one turn of the loop goes out in one write."""

    __slots__ = (
        "begun",
        "dirty",
        "engine",
        "heard",
        "is_open",
        "link",
        "paused",
        "timer",
        "transport",
    )

    where = "http2"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.link: Http2Link
        self.transport: asyncio.Transport  # from connection_made on, as is the link
        self.timer = engine.wheel.timer(self.due)
        self.dirty = False  # among those that are flushed at the end of this turn
        self.begun: Final[list[Any]] = []  # halves of exchanges whose head has come in this turn
        self.is_open = False
        self.paused = False
        self.heard = engine.now()  # when the peer last sent anything

    def make_link(
        self, plan: Http2Plan, *, client: bool, max_list: int, max_fields: int
    ) -> Http2Link:
        """Return the sans-IO end that `plan` asks for."""
        return plan.codec(
            self,
            self.engine.now,
            client=client,
            max_streams=plan.max_streams,
            stream_window=plan.window,
            max_list=max_list,
            max_fields=max_fields,
            huffman=plan.huffman,
        )

    # The transport says:

    def data_received(self, data: bytes) -> None:
        """Octets from the peer."""
        self.heard = self.engine.now()
        link = self.link
        try:
            link.receive(data)
            self.received()
        except Exception as error:  # noqa: BLE001 - a bug may end a connection, never the process
            self.engine.bug(self.where, error)
            link.go_away(INTERNAL_ERROR)
            self.broken(INTERNAL_ERROR, "internal-error")
        if link.out and not self.dirty:
            self.flush()

    def received(self) -> None:
        """All that came together has been looked at: pass on the heads whose body did not."""
        if self.begun:
            begun = self.begun.copy()
            self.begun.clear()
            for half in begun:
                self.begin(half, b"", end=False)

    def eof_received(self) -> bool:
        """The peer will send nothing more: neither can it be answered in full (RFC 9113 §5.4.1)."""
        return False

    def pause_writing(self) -> None:
        """The peer reads slowly."""
        self.link.blocked = True

    def resume_writing(self) -> None:
        """It has caught up."""
        if self.paused:
            self.paused = False
            self.transport.resume_reading()
        self.link.unblock()
        self.mark()

    # Sending:

    def mark(self) -> None:
        """There is something to send: it goes out at the end of this turn of the loop."""
        if not self.dirty and self.link.out:
            self.dirty = True
            self.engine.later(self._flush_marked)

    def _flush_marked(self) -> None:
        self.dirty = False
        if self.link.out:
            self.flush()

    def flush(self) -> None:
        """Hand what is to be sent to the transport."""
        transport = self.transport
        octets = self.link.take()
        if transport.is_closing():
            return
        transport.write(octets)
        # Answers that need no window (heads, acknowledgements) must not pile up (CVE-2019-9517).
        if (
            self.link.blocked
            and not self.paused
            and transport.get_write_buffer_size() > UNREAD_LIMIT
        ):
            self.paused = True
            transport.pause_reading()

    def shut(self) -> None:
        """Send what is left, and close."""
        self.is_open = False
        self.flush()
        self.transport.close()
        self.timer.stop()
        if self.transport.get_write_buffer_size():  # it may never be read
            self.arm(self.patience)

    def abort(self) -> None:
        """Close at once."""
        self.is_open = False
        self.transport.abort()

    def arm(self, seconds: float) -> None:
        """Be due in `seconds`; never, with 0."""
        if seconds:
            self.engine.wheel.arm(self.timer, self.engine.now() + seconds)
        else:
            self.timer.stop()

    # For the two kinds:

    def begin(self, half: Any, body: bytes, *, end: bool) -> None:
        """Pass on a head that was held back, if that has not been done, with the first of its body."""
        raise NotImplementedError

    @property
    def patience(self) -> float:
        """Seconds in which a peer must have read what was sent before the end."""
        raise NotImplementedError

    def broken(self, code: int, detail: str) -> None:
        """The connection is over, for what the peer did."""
        raise NotImplementedError

    def due(self, now: float) -> None:
        """The timer has come up."""
        raise NotImplementedError

    def attach(self, transport: asyncio.BaseTransport) -> asyncio.Transport:
        """Remember the transport."""
        found = cast("asyncio.Transport", transport)  # uvloop does not inherit it
        self.transport = found
        self.is_open = True
        return found
