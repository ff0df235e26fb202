"""A request's body held to so many octets a second: the caller's side of an exchange, read in turns.

What has come is passed on at once and paid for by not reading on until the buckets allow it, so that
a body may be ahead of its rate by one read, and never for long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sidecar.core.timers import Timer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.core.exchange import Exchange
    from sidecar.core.replies import Reply
    from sidecar.traffic.pace import Bucket
    from sidecar.wire.fields import Field, Fields, ResponseHead


@final
class Meter:
    """A downstream side before the real one, paused for two reasons, and a tap; made by `meter`."""

    __slots__ = ("_buckets", "_exchange", "_is_full", "_is_owing", "_timer", "below")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange: Final = exchange
        self.below: Final = exchange.downstream
        self._buckets: Final[list[Bucket]] = []
        self._is_owing = False  # the rate does not allow more yet
        self._is_full = False  # nor does the endpoint
        self._timer: Final = Timer(self._due)

    def add(self, bucket: Bucket, size: int) -> None:
        """Keep `bucket`'s rate, besides that of any other; `size` octets have come already."""
        self._buckets.append(bucket)
        if size:
            self._spend([bucket], size)
        self._exchange.stalled(is_stalled=self._is_owing or self._is_full)

    # The tap:

    def data(self, exchange: Exchange, data: bytes) -> None:
        """Count octets that have come."""
        self._spend(self._buckets, len(data))

    def end(self, exchange: Exchange) -> None:
        """The body is whole: nothing is left to be read, whatever is owed."""

    # The side:

    @property
    def timer(self) -> Timer:
        """The real side's."""
        return self.below.timer

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """See Downstream."""
        self.below.respond(head, body, end=end)

    def inform(self, head: ResponseHead) -> None:
        """See Downstream."""
        self.below.inform(head)

    def write(self, data: bytes) -> None:
        """See Downstream."""
        self.below.write(data)

    def finish(self, trailers: Fields | None) -> None:
        """See Downstream."""
        self.below.finish(trailers)

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        """See Downstream."""
        self.below.reply(reply, text, fields)

    def cut(self) -> None:
        """See Downstream."""
        self._part()
        self.below.cut()

    def closed(self) -> None:
        """See Downstream."""
        self._part()
        self.below.closed()

    def pause(self) -> None:
        """The endpoint wants no more of the body."""
        self._is_full = True
        self.below.pause()

    def resume(self) -> None:
        """It has caught up."""
        self._is_full = False
        if self._is_owing:
            self._exchange.stalled(is_stalled=True)
        else:
            self.below.resume()

    # Inside:

    def _spend(self, buckets: Sequence[Bucket], size: int) -> None:
        now = self._exchange.engine.now()
        for bucket in buckets:
            bucket.room(now)  # as it is by now
            bucket.spend(size)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Read on if the rates allow it, else come back when they may."""
        wait = max([bucket.wait(1) for bucket in self._buckets])
        if wait:
            if not self._is_owing:
                self._is_owing = True
                self.below.pause()
                self._exchange.stalled(is_stalled=True)
            self._exchange.engine.wheel.arm(self._timer, now + wait)
        elif self._is_owing:
            self._is_owing = False
            self._exchange.stalled(is_stalled=self._is_full)
            if not self._is_full:
                self.below.resume()

    def _due(self, now: float) -> None:
        self._exchange.moved = now  # it is we who are slow, not the caller
        for bucket in self._buckets:
            bucket.room(now)
        self._settle(now)

    def _part(self) -> None:
        """Let go of the exchange: a cycle would be left to the collector."""
        self._timer.retire()
        exchange = self._exchange
        exchange.taps = tuple([tap for tap in exchange.taps if tap is not self])
        exchange.downstream = self.below


def meter(exchange: Exchange) -> Meter:
    """Return the meter of `exchange`, put there if there is none yet."""
    for tap in exchange.taps:
        if isinstance(tap, Meter):
            return tap
    found = Meter(exchange)
    exchange.downstream = found
    exchange.taps = (*exchange.taps, found)
    return found
