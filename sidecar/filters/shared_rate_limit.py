"""Refuse requests over a rate that several workers or sidecars keep together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter, Verdict, Wait
from sidecar.core.limit import SHADOW, Part, key_of, refusal, spell
from sidecar.core.plan import Condition
from sidecar.core.quota import SPENT, TAKEN, Held, Share
from sidecar.plugin import Plugin
from sidecar.traffic.rate import Buckets, Rate

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange

UNASKED: Final = "rate_limit_unasked"
"""The access log's field for the rule of a request that was decided while nobody could be asked."""


@dataclass(frozen=True, slots=True)
class Local:
    """What this worker keeps by itself while nobody can be asked."""

    rate: Rate
    """Its share."""

    limit: int
    """What all workers of this sidecar take together in the window."""

    buckets: Buckets
    """What is left; outlives a config push."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One rule."""

    name: str
    """For log, metrics and reply."""

    conditions: tuple[Condition, ...]
    """Tests on the request: all must hold for the rule to look at it."""

    parts: tuple[Part, ...]
    """What has a bucket of its own; none: all requests share one."""

    share: Share
    """What this worker holds; outlives a config push."""

    limit: int
    """The quota as it is told to callers: requests in a window."""

    window: float
    """Seconds of the window."""

    shadow: bool
    """Count only."""

    is_open: bool
    """Without `local`: whether requests are let through or refused while nobody can be asked."""

    local: Local | None
    """Or by what rate they are."""


@final
class SharedRateLimit(HttpFilter):
    """See the module."""

    __slots__ = ("settings",)

    def __init__(self, settings: Settings) -> None:
        self.settings: Final = settings

    def on_request(self, exchange: Exchange) -> Verdict:
        """Let it through if there is room; wait if that must be asked first."""
        settings = self.settings
        for condition in settings.conditions:
            if not condition(exchange.head, exchange.caller):
                return None
        held = self._held(exchange)
        desk = exchange.engine.desk
        assert desk is not None  # who runs a plan with shared rules has one
        found = desk.take(held, exchange, self._decide)
        if isinstance(found, int):
            return None if found == TAKEN else self._decide(exchange, found)
        return Wait(settings.share.patience, found)

    def _held(self, exchange: Exchange) -> Held:
        key = key_of(self.settings.parts, exchange)
        return self.settings.share.held(key, spell, exchange.engine.now())

    def _decide(self, exchange: Exchange, found: int) -> Verdict:
        settings = self.settings
        if found == TAKEN:
            return None
        answer = self._spent(exchange) if found == SPENT else self._unasked(exchange)
        if answer is None or not settings.shadow:
            return answer
        exchange.fields = {**(exchange.fields or {}), SHADOW: settings.name}
        return None

    def _spent(self, exchange: Exchange) -> Answer:
        settings, now = self.settings, exchange.engine.now()
        lease = self._held(exchange).lease
        return refusal(
            settings.name, settings.limit, settings.window, lease.full_at - now, lease.ask_at - now
        )

    def _unasked(self, exchange: Exchange) -> Answer | None:
        """Decide by the policy for when nobody can be asked."""
        settings, local = self.settings, self.settings.local
        exchange.fields = {**(exchange.fields or {}), UNASKED: settings.name}
        counts = settings.share.counts
        if local is None:
            counts["open" if settings.is_open else "closed"] += 1
            detail = f"limit {settings.name}"
            return None if settings.is_open else Answer("rate-limit-unavailable", detail=detail)
        key = key_of(settings.parts, exchange)
        decision = local.buckets.take(local.rate, key, exchange.engine.now())
        if decision.allowed:
            counts["local"] += 1
            return None
        counts["refused"] += 1
        return refusal(
            settings.name, local.limit, settings.window, decision.reset, decision.retry_after
        )


PLUGIN = Plugin("shared_rate_limit", Settings, SharedRateLimit)
