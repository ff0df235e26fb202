"""How does a filter have the body of a request that is still coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Wait
from sidecar.core.states import REQUEST, STREAMING
from sidecar.core.timers import NEVER
from sidecar.wire.fields import ResponseHead

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.exchange import Exchange

Gathered = Callable[["Exchange", bytes, bool], None]
"""Is told what there is of the body, and whether that is all of it."""

WithBody = Callable[["Exchange", bytes, bool], "Verdict"]


@final
class Tap:
    """Keeps the body as it comes by, until it is whole or longer than `limit`."""

    __slots__ = ("_done", "_limit", "_pieces", "_size")

    def __init__(self, pieces: list[bytes], size: int, limit: int, done: Gathered) -> None:
        self._pieces: Final = pieces
        self._size = size
        self._limit: Final = limit
        self._done: Final = done

    def data(self, exchange: Exchange, data: bytes) -> None:
        """More of it."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._over(exchange, whole=False)
        elif self._size == exchange.head.length:
            # Over HTTP/2 the end may come behind, and the endpoint's answer before it.
            self._over(exchange, whole=True)
        elif exchange.state != STREAMING:
            exchange.downstream.resume()  # what is held is within what was asked for

    def end(self, exchange: Exchange) -> None:
        """It is whole."""
        self._over(exchange, whole=True)

    def _over(self, exchange: Exchange, *, whole: bool) -> None:
        exchange.taps = tuple([tap for tap in exchange.taps if tap is not self])
        self._done(exchange, b"".join(self._pieces), whole)


def gather(exchange: Exchange, limit: int, done: Gathered) -> None:
    """Have `done` told of the body once it is whole or longer than `limit`; that may be now.

    For filters on a request.  If the exchange ends before, nobody is told.
    """
    held, size = exchange.held, exchange.held_size
    assert held is not None  # no attempt was made yet
    # What follows the head of an upgrade is not its body.
    head = exchange.head
    is_whole = not exchange.owed & REQUEST or head.upgrade is not None or size == head.length
    if is_whole or size > limit:
        done(exchange, b"".join(held), is_whole and size <= limit)
        return
    exchange.taps = (*exchange.taps, Tap(list(held), size, limit, done))


def invite(exchange: Exchange) -> None:
    """Tell a caller that waits with its body to send it: no endpoint is there yet to do so."""
    head = exchange.head
    if head.expect and exchange.owed & REQUEST:
        exchange.downstream.inform(ResponseHead(100, b"Continue", 11, b"", {}))
        head.expect = False


def with_body(exchange: Exchange, limit: int, ask: WithBody) -> Verdict:
    """Return what `ask` says, with the body of a request that waits until it is whole or too long.

    A caller that does not send all of it is answered when the route's idle timeout is over.
    """
    found: list[Verdict] = []
    is_waiting = False

    def gathered(exchange: Exchange, body: bytes, whole: bool) -> None:
        verdict = ask(exchange, body, whole)
        if is_waiting:
            exchange.then = None
            exchange.go_on(verdict)
        else:
            found.append(verdict)

    invite(exchange)
    gather(exchange, limit, gathered)
    if found:
        return found[0]
    is_waiting = True
    assert exchange.route is not None
    idle = exchange.route.stream_idle_timeout or NEVER
    return Wait(idle, lambda exchange: "stream-idle")
