"""Something that another service has: fetched by a call, kept, and fetched anew behind the requests.

Nothing runs on a timer: whoever looks at the value asks whether it is due.  So what nobody uses is
not fetched, and what is used is renewed while the old value serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, final

from sidecar.core.api import Wait
from sidecar.core.call import CallPlan, CallResult, call_head

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.exchange import Exchange
    from sidecar.core.types import Engine

Kind = TypeVar("Kind")

PAUSE: Final = 10.0  # seconds between fetches: who asks for what is not there must not cause many
RETRY: Final = 1.0  # the same while there is no value at all
SLACK: Final = 1.0  # seconds beyond the call's own timeout, which always comes first


class Place(NamedTuple, Generic[Kind]):
    """Where it is, by the plan of the moment."""

    call: CallPlan
    target: bytes
    authority: bytes
    read: Callable[[bytes], Kind]
    """Turns the body into the value; raises ValueError if it is none."""

    refresh: float
    """Seconds after which it is fetched again."""


@final
class Fetched(Generic[Kind]):
    """A value and how old it is; outlives config pushes."""

    __slots__ = ("_body", "_is_fetching", "_next", "_waiting", "due", "trouble", "value")

    def __init__(self, value: Kind | None = None) -> None:
        """Begin with nothing; or with a value that is never fetched."""
        self.value = value
        self.due = -math.inf if value is None else math.inf
        self.trouble = ""  # why the last fetch brought nothing
        self._body: bytes | None = None
        self._is_fetching = False
        self._next = -math.inf  # not before then
        self._waiting: list[Exchange] = []

    def fetch(self, engine: Engine, place: Place[Kind]) -> bool:
        """Begin to fetch, unless that was done a moment ago; say whether it is under way."""
        if self._is_fetching:
            return True
        now = engine.now()
        if now < self._next:
            return False
        self._is_fetching = True
        head = call_head(b"GET", place.target, place.authority, _FIELDS, 0)
        place.call.start(engine, head, b"", lambda result: self._done(engine, place, result))
        return True

    def wait(
        self, exchange: Exchange, place: Place[Kind], then: Callable[[Exchange], Verdict]
    ) -> Wait | None:
        """Return the wait for a fetch, after which `then` is asked; None if there is none now."""
        if not self.fetch(exchange.engine, place):
            return None
        self._waiting.append(exchange)
        return Wait(place.call.timeout + SLACK, then)

    def _done(self, engine: Engine, place: Place[Kind], result: CallResult) -> None:
        now = engine.now()
        self._is_fetching = False
        if result.status == 200:
            self._take(result.body, place)
        else:
            self.trouble = result.code or f"status {result.status}"
        pause = RETRY if self.value is None else PAUSE
        self._next = now + pause
        self.due = now + (pause if self.trouble else max(place.refresh, pause))
        waiting, self._waiting = self._waiting, []
        for exchange in waiting:
            exchange.go_on()

    def _take(self, body: bytes, place: Place[Kind]) -> None:
        """Take the new value; the same octets leave the old one, so that it can be told by identity."""
        self.trouble = ""
        if body == self._body:
            return
        try:
            self.value = place.read(body)
        except ValueError as error:
            self.trouble = str(error)
        else:
            self._body = body


_FIELDS: Final = ((b"accept", b"application/json, */*;q=0.5"),)
