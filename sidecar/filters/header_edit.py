"""Set, add and remove fields of requests and responses, with values of the exchange in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sidecar.core.api import HttpFilter
from sidecar.core.format import Value
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Fields, ResponseHead


class Edits(NamedTuple):
    """What is done to one head, in this order; names are lower case."""

    remove: tuple[bytes, ...] = ()
    set: tuple[tuple[bytes, Value], ...] = ()
    add: tuple[tuple[bytes, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What is done to both heads."""

    request: Edits
    """To the request, after whatever else has changed it."""

    response: Edits
    """To the response, the endpoint's or our own."""


@final
class HeaderEdit(HttpFilter):
    """See the module."""

    __slots__ = ("_request", "_response")

    def __init__(self, settings: Settings) -> None:
        self._request: Final = settings.request
        self._response: Final = settings.response

    def on_request(self, exchange: Exchange) -> None:
        """Edit the request's fields, those among them that are ours too."""
        edits = self._request
        # The values are worked out before the fields change: %REQ(x)% is as it came.
        set_to = [(name, value(exchange, None)) for name, value in edits.set]
        added = [(name, value(exchange, None)) for name, value in edits.add]
        gone = {*edits.remove, *(name for name, _ in edits.set)}
        if gone:
            exchange.extra = [field for field in exchange.extra if field[0] not in gone]
        _apply(exchange.head, edits.remove, set_to, added)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """Edit the response's fields."""
        edits = self._response
        set_to = [(name, value(exchange, head)) for name, value in edits.set]
        added = [(name, value(exchange, head)) for name, value in edits.add]
        _apply(head, edits.remove, set_to, added)

    on_reply = on_response


def _apply(
    head: Fields,
    remove: tuple[bytes, ...],
    set_to: list[tuple[bytes, bytes]],
    added: list[tuple[bytes, bytes]],
) -> None:
    for name in remove:
        head.remove(name)
    for name, value in set_to:
        head.set(name, value)
    for name, value in added:
        head.add(name, value)


PLUGIN = Plugin("header_edit", Settings, HeaderEdit)
