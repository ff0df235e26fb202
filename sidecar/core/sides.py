"""The two sides of an exchange, as it sees them: every protocol is one more pair of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.replies import Reply
    from sidecar.core.timers import Timer
    from sidecar.wire.fields import Field, Fields, ResponseHead


class Downstream(Protocol):
    """The caller's side of one exchange."""

    @property
    def timer(self) -> Timer:
        """Free for the exchange's use while it lasts; its callback calls `Exchange.due`."""

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """Send the response's head, and the first of its body."""

    def inform(self, head: ResponseHead) -> None:
        """Send an interim response (1xx, not 101)."""

    def write(self, data: bytes) -> None:
        """Send more of the body."""

    def finish(self, trailers: Fields | None) -> None:
        """End the body."""

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        """Send a whole response of our own: `fields` beside its length."""

    def cut(self) -> None:
        """End a response that has begun and cannot be ended properly."""

    def closed(self) -> None:
        """Both directions are over: go on to the next request."""

    def pause(self) -> None:
        """Stop reading the request's body."""

    def resume(self) -> None:
        """Go on reading it."""


class Upstream(Protocol):
    """The endpoint's side of one attempt."""

    def request(self, exchange: Exchange, body: bytes, *, end: bool) -> None:
        """Send the request's head, with what there is of its body."""

    def write(self, data: bytes) -> None:
        """Send more of the body."""

    def finish(self, trailers: Fields | None) -> None:
        """End the body."""

    def pause(self) -> None:
        """Stop reading the response."""

    def resume(self) -> None:
        """Go on reading it."""

    def release(self) -> None:
        """The exchange is over and has no more use for it."""

    def close(self) -> None:
        """End the attempt at once; nobody is told."""
