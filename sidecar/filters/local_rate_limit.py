"""Refuse requests over a rate that this worker keeps by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter
from sidecar.core.limit import SHADOW, Part, key_of, refusal
from sidecar.core.plan import Condition
from sidecar.plugin import Plugin
from sidecar.traffic.rate import Buckets, Rate

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange


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
        parts, now = settings.parts, exchange.engine.now()
        key = key_of(parts, exchange) if parts else ()
        if settings.buckets.fits(settings.rate, key, now):
            return None
        decision = settings.buckets.take(settings.rate, key, now)
        if decision.allowed:
            return None
        if settings.shadow:
            exchange.fields = {**(exchange.fields or {}), SHADOW: settings.name}
            return None
        return refusal(
            settings.name, settings.limit, settings.window, decision.reset, decision.retry_after
        )


PLUGIN = Plugin("local_rate_limit", Settings, LocalRateLimit)
