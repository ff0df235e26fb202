"""Refuse requests over a rate that this worker keeps by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.core.plan import Condition
from sidecar.plugin import Plugin
from sidecar.traffic.rate import Buckets, Decision, Rate

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange

SHADOW: Final = "rate_limit_shadow"
"""The access log's field, and the metrics' mark, for what a shadow rule would have refused."""

Part = Callable[["Exchange"], bytes]
"""One part of a bucket's key."""

_LONGEST: Final = 64  # octets of a key's part that are kept; a caller chooses most of them


@dataclass(frozen=True, slots=True)
class Settings:
    """One rule."""

    name: str
    """For log, metrics and reply."""

    conditions: tuple[Condition, ...]
    """Tests on the request: all must hold for the rule to look at it."""

    parts: tuple[Part, ...]
    """What has a bucket of its own; none: all requests share one."""

    rate: Rate
    """This worker's share."""

    limit: int
    """The quota as it is told to callers: requests in a window."""

    window: float
    """Seconds of the window."""

    shadow: bool
    """Count only."""

    buckets: Buckets
    """What is left; outlives a config push."""


@final
class LocalRateLimit(HttpFilter):
    """See the module."""

    __slots__ = ("settings",)

    def __init__(self, settings: Settings) -> None:
        self.settings: Final = settings

    def on_request(self, exchange: Exchange) -> Answer | None:
        """Let it through if there is room."""
        settings = self.settings
        for condition in settings.conditions:
            if not condition(exchange.head, exchange.caller):
                return None
        key = tuple([_short(part(exchange)) for part in settings.parts])
        decision = settings.buckets.take(settings.rate, key, exchange.engine.now())
        if decision.allowed:
            return None
        if settings.shadow:
            exchange.fields = {**(exchange.fields or {}), SHADOW: settings.name}
            return None
        return self._refusal(decision)

    def _refusal(self, decision: Decision) -> Answer:
        settings = self.settings
        # draft-ietf-httpapi-ratelimit-headers-03, the one that Envoy speaks too.
        fields = (
            (b"RateLimit-Limit", b"%d" % settings.limit),
            (b"RateLimit-Remaining", b"0"),
            (b"RateLimit-Reset", b"%d" % math.ceil(decision.reset)),
            (b"RateLimit-Policy", b"%d;w=%d" % (settings.limit, math.ceil(settings.window))),
            (b"Retry-After", b"%d" % math.ceil(decision.retry_after)),
        )
        return Answer("rate-limited", fields=fields, detail=f"limit {settings.name}")


def _short(value: bytes) -> bytes:
    return value if len(value) <= _LONGEST else blake2b(value, digest_size=16).digest()


PLUGIN = Plugin("local_rate_limit", Settings, LocalRateLimit)
