"""Answer without asking any endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange


@dataclass(frozen=True, slots=True)
class Settings:
    """The answer."""

    status: int
    """Its status."""

    fields: tuple[tuple[bytes, bytes], ...]
    """Its fields."""

    body: bytes
    """Its body."""


@final
class Respond(HttpFilter):
    """See the module."""

    __slots__ = ("_answer",)

    def __init__(self, settings: Settings) -> None:
        self._answer: Final = Answer(
            "direct-response", settings.status, settings.fields, settings.body
        )

    def on_request(self, exchange: Exchange) -> Answer:
        """Answer."""
        return self._answer


PLUGIN = Plugin("respond", Settings, Respond)
