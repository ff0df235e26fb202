"""Have a service of Envoy's rate limit protocol say whether there is room for a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from sidecar.core.api import Answer, HttpFilter, Verdict
from sidecar.core.call import CallPlan, CallResult, ids_of
from sidecar.core.limit import SHADOW, Part, refusal
from sidecar.core.plan import Condition
from sidecar.core.unary import unary_head, unary_result
from sidecar.plugin import Plugin
from sidecar.wire import rate_limit_service
from sidecar.wire.edits import settable
from sidecar.wire.grpc import pack
from sidecar.wire.protobuf import MalformedError

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Field, ResponseHead

COUNTER: Final = "sidecar_rate_limit_service_total"

_LIMITED: Final = (b"x-envoy-ratelimited", b"true")  # whoever tries again looks for it


@dataclass(frozen=True, slots=True)
class Settings:
    """One rule."""

    name: str
    """For log, metrics and reply."""

    conditions: tuple[Condition, ...]
    """Tests on the request: all must hold for the rule to look at it."""

    call: CallPlan
    """How the service is reached."""

    authority: bytes
    """What it is called there."""

    domain: bytes
    """Whose limits these are."""

    entries: tuple[tuple[bytes, Part], ...]
    """The descriptor: keys, and what makes their values."""

    is_open: bool
    """Requests pass if it does not decide."""

    shadow: bool
    """Count only."""


@final
class GlobalRateLimit(HttpFilter):
    """See the module."""

    __slots__ = ("_settings", "_told")

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._told: Final[dict[Exchange, list[Field]]] = {}  # for responses still to come

    def on_request(self, exchange: Exchange) -> Verdict:
        """Have the request wait for the service's word."""
        settings = self._settings
        for condition in settings.conditions:
            if not condition(exchange.head, exchange.caller):
                return None
        entries = [(key, part(exchange)) for key, part in settings.entries]
        if not all(value for _, value in entries):
            return None  # as with Envoy, there is no descriptor then
        body = pack(rate_limit_service.encode_request(settings.domain, entries))
        head = unary_head(
            rate_limit_service.PATH,
            settings.authority,
            settings.call.timeout,
            len(body),
            ids_of(exchange),
        )
        return settings.call.ask(exchange, head, body, self._decide)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """Tell the caller what the service has told us to."""
        for name, value in self._told.pop(exchange, ()):
            head.add(name, value)

    def on_finish(self, exchange: Exchange) -> None:
        """Forget it."""
        self._settings.call.forget(exchange)
        self._told.pop(exchange, None)

    def _decide(self, exchange: Exchange, result: CallResult) -> Verdict:
        result = unary_result(result)
        if result.code:
            return self._undecided(exchange, f"{result.code} {result.detail}".rstrip())
        try:
            said = rate_limit_service.decode_response(result.body)
            to_caller = settable(said.response_fields)
            to_endpoint = settable(said.request_fields)
        except MalformedError as error:
            return self._undecided(exchange, f"bad answer: {error}")
        if said.code == rate_limit_service.OVER_LIMIT:
            self._count(exchange, "over_limit")
            if not self._settings.shadow:
                return self._refusal(said, to_caller)
            exchange.fields = {**(exchange.fields or {}), SHADOW: self._settings.name}
            return None
        self._count(exchange, "ok")
        for name, value in to_endpoint:
            exchange.head.add(name, value)
        if to_caller:
            self._told[exchange] = to_caller
        return None

    def _refusal(self, said: rate_limit_service.Verdict, fields: list[Field]) -> Answer:
        name = self._settings.name
        told = [_LIMITED, *fields]
        least = min(said.limits, key=lambda limit: limit.remaining, default=None)
        if least is not None and least.window:
            ours = refusal(name, least.requests, least.window, least.reset, least.reset)
            told += [field for field in ours.fields if field[0].lower() not in dict(fields)]
        return Answer(
            "rate-limited", fields=tuple(told), body=said.body or None, detail=f"limit {name}"
        )

    def _undecided(self, exchange: Exchange, detail: str) -> Verdict:
        settings = self._settings
        if settings.is_open or settings.shadow:
            self._count(exchange, "failure_mode_allowed")
            exchange.fields = {**(exchange.fields or {}), "rate_limit_unasked": settings.name}
            return None
        self._count(exchange, "error")
        return Answer("rate-limit-unavailable", detail=f"limit {settings.name}, {detail}")

    def _count(self, exchange: Exchange, result: str) -> None:
        labels = (("limit", self._settings.name), ("result", result))
        exchange.engine.counts.tally(COUNTER, labels).value += 1


PLUGIN = Plugin("global_rate_limit", Settings, GlobalRateLimit)
