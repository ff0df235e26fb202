"""Let requests through that bring a known API key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.core.credential import Location, accept_user, strip
from sidecar.identity.hashed import key_mark
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange

# No scheme is registered for keys, and a 401 must have a challenge (RFC 9110 §15.5.2).
_CHALLENGE: Final = ((b"WWW-Authenticate", b'ApiKey realm="sidecar"'),)
_MISSING: Final = Answer("key-missing", fields=_CHALLENGE)
_UNKNOWN: Final = Answer("key-unknown", fields=_CHALLENGE)


@dataclass(frozen=True, slots=True)
class Settings:
    """Which keys, and where they stand."""

    names: Mapping[bytes, str]
    """By mark."""

    locations: tuple[Location, ...]
    """Where a key may stand; the first that has one counts."""

    required: bool
    """Whether a request without one is refused."""

    forward: bool
    """Whether the key is passed on."""

    header: bytes
    """Field for the name; empty: none."""

    spoofed: re.Pattern[bytes] | None
    """Finds fields that callers may not send."""


@final
class ApiKeys(HttpFilter):
    """See the module."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings

    def on_request(self, exchange: Exchange) -> Answer | None:
        """Look the key up."""
        settings, head = self._settings, exchange.head
        if settings.spoofed is not None:
            strip(head, settings.spoofed)
        for location in settings.locations:
            key = location.take(head)
            if key is not None:
                break
        else:
            return _MISSING if settings.required else None
        name = settings.names.get(key_mark(key))
        if name is None:
            return _UNKNOWN
        accept_user(exchange, name, settings.header)
        for other in settings.locations:
            # One that nobody has looked up must not reach the app as if somebody had.
            if other is location:
                if not settings.forward:
                    other.strip(head)
            elif other.take(head) is not None:
                other.strip(head)
        return None


PLUGIN = Plugin("api_keys", Settings, ApiKeys)
