"""Refuse opaque sessions where the policy is about requests, which nobody could check in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from sidecar.core.api import Answer, NetworkFilter
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.tcp import Session


@dataclass(frozen=True, slots=True)
class Settings:
    """Nothing to set."""


@final
class RequestsOnly(NetworkFilter):
    """See the module.

    On a listener of `protocol: auto` a caller that stays silent for a while is served as opaque; if
    it then sent a request, no filter would see it.
    """

    __slots__ = ()

    def __init__(self, settings: Settings) -> None:
        pass

    def on_session(self, session: Session) -> Answer:
        """Refuse it."""
        return Answer("requests-only", detail="a policy of this listener is about requests")


PLUGIN = Plugin("requests_only", Settings, RequestsOnly)
