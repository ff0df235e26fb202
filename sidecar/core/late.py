"""What goes to the caller later than it came: a downstream side before the real one.

A response is late for one of two reasons, or both: it is paced, to so many octets a second, or shut
in until somebody who still thinks about its head says `open`.  Whatever cannot go yet waits here;
meanwhile the endpoint is not read any further, so that little more waits than had come already.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from sidecar.core.durations import limit_rest
from sidecar.core.meter import Meter
from sidecar.core.states import HELD, REPLYING
from sidecar.core.timers import NEVER, Timer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.core.api import Answer
    from sidecar.core.exchange import Exchange
    from sidecar.core.replies import Reply
    from sidecar.traffic.pace import Bucket
    from sidecar.wire.fields import Field, Fields, ResponseHead

PORTION: Final = (
    0.05  # seconds between two portions: ten wheel ticks would show, one would cost more
)


@final
class LateSide:
    """See the module; made by `late`, one for an exchange."""

    __slots__ = (
        "_at", "_buckets", "_ended", "_exchange", "_head", "_shut", "_side", "_size", "_timer", "_trailers",
        "_waiting",
    )  # fmt: skip

    def __init__(self, exchange: Exchange) -> None:
        self._exchange: Final = exchange
        self._side: Final = exchange.downstream
        self._buckets: Final[list[Bucket]] = []
        self._shut = 0  # how many think about the head
        self._head: ResponseHead | None = None  # shut in
        self._waiting: Final[deque[bytes]] = deque()
        self._at = 0  # octets of the first piece that are gone
        self._size = 0  # octets that wait
        self._ended = False  # so does the end, with its trailers
        self._trailers: Fields | None = None
        self._timer: Final = Timer(self._due)

    def pace(self, bucket: Bucket) -> None:
        """Keep `bucket`'s rate, besides that of any other."""
        self._buckets.append(bucket)

    def shut(self) -> None:
        """Let nothing of the response out until `open` was called as often."""
        self._shut += 1

    def open(self) -> None:
        """One who thought about the head is done with it: the last one lets it out."""
        self._shut -= 1
        head = self._head
        if self._shut or head is None:
            return
        body, ended, trailers = b"".join(self._waiting), self._ended, self._trailers
        self._forget()
        if ended and trailers is None:
            self.respond(head, body, end=True)
        else:
            self.respond(head, body, end=False)
            if ended:
                self.finish(trailers)
        if not self._size:
            self._delivered()

    def refuse(self, answer: Answer) -> None:
        """Say this in place of a response that is shut in."""
        self._forget()
        exchange = self._exchange
        exchange.drop_client()
        exchange.status = 0  # its head has not gone out
        exchange.answer(answer)

    # The side:

    @property
    def timer(self) -> Timer:
        """The real side's."""
        return self._side.timer

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """Send the response's head, and as much of its body as may go."""
        if self._exchange.state == REPLYING:  # it is our own, and that is never late
            self._side.respond(head, body, end=end)
            return
        if self._shut:
            self._head = head
            self._ended = end
            self._wait(body)
            return
        size = self._room(len(body))
        if size == len(body):
            self._side.respond(head, body, end=end)
            return
        self._side.respond(head, body[:size], end=False)
        self._ended = end
        self._wait(body[size:])

    def inform(self, head: ResponseHead) -> None:
        """Send an interim response."""
        self._side.inform(head)

    def write(self, data: bytes) -> None:
        """Send more of the body, as much as may go."""
        if self._shut or self._size:
            self._wait(data)
            return
        size = self._room(len(data))
        if size:
            self._side.write(data[:size])
        if size < len(data):
            self._wait(data[size:])

    def finish(self, trailers: Fields | None) -> None:
        """End the body, behind what waits."""
        if self._shut or self._size:
            self._ended = True
            self._trailers = trailers
        else:
            self._side.finish(trailers)

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        """Send a whole response of our own, which nothing makes late."""
        self._side.reply(reply, text, fields)

    def cut(self) -> None:
        """End a response that has begun and cannot be ended properly."""
        self._part()
        self._side.cut()

    def closed(self) -> None:
        """Both directions are over."""
        self._part()
        self._side.closed()

    def pause(self) -> None:
        """Stop reading the request's body."""
        self._side.pause()

    def resume(self) -> None:
        """Go on reading it."""
        self._side.resume()

    # Inside:

    def _room(self, wanted: int) -> int:
        """Return how many of the `wanted` octets may go now, and count them."""
        if not self._buckets or not wanted:
            return wanted
        now = self._exchange.engine.now()
        size = min([wanted, *[bucket.room(now) for bucket in self._buckets]])
        for bucket in self._buckets:
            bucket.spend(size)
        return size

    def _wait(self, data: bytes) -> None:
        """Keep `data`; even nothing, while the head waits."""
        if data:
            self._waiting.append(data)
            self._size += len(data)
        self._hold_back()
        if not self._shut and self._timer.deadline == NEVER:
            self._arm()

    def _hold_back(self) -> None:
        """Read no more of the response, do not end with it."""
        exchange = self._exchange
        if not exchange.owed & HELD:
            exchange.owed |= HELD
            limit_rest(exchange)
        if exchange.client is not None:
            exchange.client.pause()

    def _delivered(self) -> None:
        """Nothing waits any more."""
        exchange = self._exchange
        exchange.owed &= ~HELD
        exchange.moved = exchange.engine.now()
        if not exchange.response_done:
            if exchange.client is not None and not exchange.full:
                exchange.client.resume()
        elif exchange.client is None:  # the connection was given back when the response had come
            exchange.finish()
        elif not exchange.owed:
            exchange.complete()

    def _arm(self) -> None:
        """Come back for what waits, for the next portion, or at least for one octet."""
        engine = self._exchange.engine
        seconds = max([max(b.wait(1), min(b.wait(self._size), PORTION)) for b in self._buckets])
        engine.wheel.arm(self._timer, engine.now() + seconds)

    def _due(self, now: float) -> None:
        try:
            self._portion()
        except Exception as error:  # noqa: BLE001 - a bug may end an exchange, never the others' timers
            self._exchange.engine.bug("late", error)
            self._exchange.fail("internal-error")

    def _portion(self) -> None:
        """Send what may go by now."""
        exchange = self._exchange
        if not exchange.full:  # else the caller is slower than the rate
            size = self._room(self._size)
            if size:
                exchange.moved = exchange.engine.now()
                self._side.write(self._take(size))
        if self._size:
            self._arm()
            return
        ended, trailers = self._ended, self._trailers
        self._forget()
        if ended:
            self._side.finish(trailers)
        self._delivered()

    def _take(self, size: int) -> bytes:
        """Return the next `size` octets of those that wait."""
        self._size -= size
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

    def _forget(self) -> None:
        self._head = None
        self._at = 0
        self._waiting.clear()
        self._size = 0
        self._ended = False
        self._trailers = None
        self._timer.stop()

    def _part(self) -> None:
        """Let go of the exchange: a cycle would be left to the collector."""
        self._forget()
        self._timer.retire()
        self._exchange.downstream = self._side


def late(exchange: Exchange) -> LateSide:
    """Return the late side of `exchange`, put there if there is none yet."""
    side = exchange.downstream
    if isinstance(side, Meter):
        side = side.below  # there may be one behind the meter: two would end twice
    if not isinstance(side, LateSide):
        side = exchange.downstream = LateSide(exchange)
    return side
