"""One stream of HTTP/2, and who is told what happens on it."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, final

from sidecar.wire.fields import Field, Pairs
from sidecar.wire.http2_frames import ENHANCE_YOUR_CALM

REMOTE_DONE: Final = 1  # the peer has ended its direction
LOCAL_DONE: Final = 2  # we have ended ours
CLOSED: Final = 3


class Events(Protocol):
    """Who is told; a call may send, reset and pause at once."""

    def opened(self, stream: "Stream", fields: list[Field], *, end: bool) -> None:
        """The caller has begun a stream (servers only)."""

    def headers(self, stream: "Stream", fields: list[Field], *, end: bool) -> None:
        """More fields on an open stream: a response's head, or trailers."""

    def data(self, stream: "Stream", data: bytes, *, end: bool) -> None:
        """Octets of a body."""

    def ended_early(self, stream: "Stream", code: int, detail: str) -> None:
        """The stream was reset, by the peer or by us for what the peer did; it is gone."""

    def too_large(self, stream: "Stream") -> None:
        """The stream's field list passes the limits (servers only); it may be answered."""

    def writable(self, stream: "Stream") -> None:
        """What `send_data` called full has gone out."""

    def settled(self) -> None:
        """The peer's SETTINGS are there, the first or new ones."""

    def going_away(self, last: int, code: int, text: bytes) -> None:
        """The peer takes no new streams; those over `last` it has not looked at."""

    def pong(self) -> None:
        """The answer to our PING."""

    def broken(self, code: int, detail: str) -> None:
        """The connection is over: GOAWAY is in `out`, nothing else will follow."""

    def flush(self) -> None:
        """`out` is long: hand it to the transport, which may block."""


class Http2Link(Protocol):
    """One end of a connection as the engine sees it, whatever codec reads and writes the frames.

    `streams` holds those that are not closed, by number; `out` what is to be sent.
    """

    blocked: bool
    """The transport takes no more for now: DATA waits until `unblock`."""

    @property
    def streams(self) -> dict[int, "Stream"]: ...

    @property
    def out(self) -> list[bytes | memoryview]: ...

    @property
    def closed(self) -> bool:
        """`Events.broken` was called: nothing more is read."""

    @property
    def connect_protocol(self) -> bool:
        """The peer takes extended CONNECT (RFC 8441)."""

    @property
    def room(self) -> int:
        """How many more streams we may open now."""

    def receive(self, data: bytes) -> None:
        """Take octets from the peer and tell `Events` what they say."""

    def take(self) -> bytes:
        """Return what is to be sent, once."""

    def open(self) -> "Stream":
        """Begin a stream; its HEADERS must follow before another is begun."""

    def send_headers(
        self,
        stream: "Stream",
        first: Iterable[Field],
        pairs: Pairs = (),
        last: Iterable[Field] = (),
        *,
        end: bool,
    ) -> None:
        """Send a head, or, after the body, trailers (`end`); they wait for DATA that waits.

        The fields are those of all three, in order.
        """

    def send_data(self, stream: "Stream", data: bytes, *, end: bool) -> bool:
        """Send octets of a body, now or when windows allow; True: the source had better stop."""

    def end(self, stream: "Stream", trailers: Pairs = ()) -> None:
        """End our direction."""

    def reset(self, stream: "Stream", code: int) -> None:
        """End both directions at once; nobody is told here."""

    def fault(self, stream: "Stream", code: int, detail: str) -> None:
        """Reset a stream on which the peer broke a rule; only while `receive` runs."""

    def dismiss(self, stream: "Stream") -> None:
        """Want no more of the peer's direction once ours is done."""

    def pause(self, stream: "Stream") -> None:
        """Give the stream's window back no more: its reader is full."""

    def resume(self, stream: "Stream") -> None:
        """Go on giving it back."""

    def unblock(self) -> None:
        """The transport takes more again."""

    def ping(self) -> None:
        """Ask for a sign of life."""

    def go_away(self, code: int = 0, *, soon: bool = False) -> None:
        """Take no new streams; `soon` announces it first, for those that are on their way."""


class BrokenError(Exception):
    """An error of the connection, on its way to `receive`."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code: Final = code
        self.detail: Final = detail


@final
class Allowance:
    """How often a peer may do what costs us and carries nothing.

    What is useful adds to `left`; time refills it, at `rate` a second and up to `cap`, but is looked
    at only when nothing is left.
    """

    __slots__ = ("_at", "_cap", "_now", "_rate", "left")

    def __init__(self, cap: int, rate: float, now: Callable[[], float]) -> None:
        self._cap: Final = cap
        self._rate: Final = rate
        self._now: Final = now
        self._at = now()
        self.left = cap

    def draw(self, what: str) -> None:
        """Take one.

        Raises:
            BrokenError: ENHANCE_YOUR_CALM, nothing is left.
        """
        self.left -= 1
        if self.left < 0:
            now = self._now()
            self.left = min(self._cap, int((now - self._at) * self._rate)) - 1
            self._at = now
            if self.left < 0:
                raise BrokenError(ENHANCE_YOUR_CALM, f"too many {what}")


@final
class Stream:
    """One stream; `user` is the owner's."""

    __slots__ = (
        "credit",
        "dismissed",
        "expected",
        "full",
        "id",
        "paused",
        "pending",
        "pending_size",
        "received",
        "send_window",
        "state",
        "tail",
        "user",
        "window",
    )

    def __init__(self, number: int, window: int, send_window: int) -> None:
        self.id: Final = number
        self.state = 0
        self.user: Any = None
        self.window = window  # octets the peer may still send
        self.credit = 0  # octets taken and not yet given back
        self.paused = False
        self.send_window = send_window
        self.pending: deque[bytes | memoryview] | None = None  # made when something must wait
        self.pending_size = 0
        self.tail: Iterable[Field] | None = None  # trailers, maybe none, that end our direction
        self.dismissed = False  # nobody wants more of the peer's direction
        self.full = False  # the source was told to stop
        self.expected = -1  # octets that content-length announces; -1: not said
        self.received = 0
