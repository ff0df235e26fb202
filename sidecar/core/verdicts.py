"""What becomes of an exchange when a filter has said something else than nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.api import Answer, Wait
from sidecar.core.states import REPLYING, WAITING
from sidecar.core.timers import NEVER

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.exchange import Exchange


def follow(exchange: Exchange, verdict: Verdict) -> None:
    """Do what the last filter said, and ask those that come after it."""
    route = exchange.route
    assert route is not None
    stops = route.on_request
    while verdict is None:
        if exchange.asked == len(stops):
            exchange.forward(exchange.engine.now())
            return
        exchange.asked += 1
        verdict = stops[exchange.asked - 1].on_request(exchange)
    if isinstance(verdict, Wait):
        exchange.step(WAITING)
        exchange.then = verdict.then
        exchange.wait_until = exchange.engine.now() + verdict.seconds
        exchange.arm()
    elif isinstance(verdict, Answer):
        exchange.answer(verdict)
    else:
        exchange.fail(verdict)


def go_on(exchange: Exchange, verdict: Verdict) -> None:
    """The wait that a filter asked for is over; what it says now goes before its `then`."""
    if exchange.state != WAITING:
        return  # the exchange has ended meanwhile
    then, exchange.then = exchange.then, None
    exchange.wait_until = NEVER
    exchange.moved = exchange.engine.now()
    try:
        if verdict is None and then is not None:
            verdict = then(exchange)
        follow(exchange, verdict)
    except Exception as error:  # noqa: BLE001 - whoever calls is not the one to clean up
        exchange.engine.bug("go_on", error)
        if exchange.state < REPLYING:
            exchange.drop_client()
            exchange.fail("internal-error")


def replace(exchange: Exchange, verdict: str | Answer, *, end: bool) -> None:
    """A filter answers in the endpoint's place; `end`: whose response is whole."""
    if end and exchange.client is not None:
        exchange.client.release()
        exchange.client = None
    exchange.drop_client()
    exchange.answer(Answer(verdict) if isinstance(verdict, str) else verdict)
