"""Allow and deny by who calls and what is asked, and say which rule it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sidecar.core.api import Answer, HttpFilter, NetworkFilter
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session
    from sidecar.core.types import Caller
    from sidecar.wire.path import Read

DENIED: Final = "authorization_denied"
"""The access log's field, and the metrics' mark, for the rule that has refused."""

SHADOW: Final = "authorization_shadow"
"""The same for what the shadow rules would have done: `deny RULE` or `allow RULE`."""

NO_RULE: Final = "no-allow-rule"
"""What stands for the rule where there are allow rules and none matched."""

_AMBIGUOUS: Final = Answer("ambiguous-path", detail="rules look at paths here")

OfCaller = Callable[["Caller"], bool]
OfRequest = Callable[["Exchange", bytes], bool]
"""Tests an exchange and its path in normal form."""


class Decision(NamedTuple):
    """What is decided, and by which rule."""

    allowed: bool
    rule: str


_PASSED: Final = Decision(allowed=True, rule="")
_UNMATCHED: Final = Decision(allowed=False, rule=NO_RULE)


class Clause(NamedTuple):
    """Tests that must all hold, the cheap ones first."""

    caller: tuple[OfCaller, ...] = ()
    request: tuple[OfRequest, ...] = ()

    def holds(self, caller: Caller, exchange: Exchange | None, path: bytes) -> bool:
        """Say whether all do; without an exchange there are none on requests."""
        of_callers, of_requests = self
        for of_caller in of_callers:
            if not of_caller(caller):
                return False
        for of_request in of_requests:
            assert exchange is not None
            if not of_request(exchange, path):
                return False
        return True


class Rule(NamedTuple):
    """One rule that the table of identities cannot say."""

    decision: Decision
    match: Clause
    unless: Clause | None = None


def _holds(rule: Rule, caller: Caller, exchange: Exchange | None, path: bytes) -> bool:
    _, match, unless = rule
    return match.holds(caller, exchange, path) and (
        unless is None or not unless.holds(caller, exchange, path)
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules as they are looked at: tables of whole identities, then one by one."""

    denied: Mapping[str, Decision]
    """By identity: deny rules that say nothing else."""

    deny: tuple[Rule, ...]
    """The other ones."""

    allowed: Mapping[str, Decision]
    """By identity: allow rules that say nothing else."""

    allow: tuple[Rule, ...]
    """The other ones."""

    default: bool
    """What holds if no rule matches: True unless there are allow rules."""

    def decide(self, caller: Caller, exchange: Exchange | None, path: bytes) -> Decision:
        """Return the decision, and what decided; deny rules win."""
        identity = caller.identity
        found = self.denied.get(identity)
        if found is not None:
            return found
        for rule in self.deny:
            if _holds(rule, caller, exchange, path):
                return rule.decision
        if self.default:
            return _PASSED
        found = self.allowed.get(identity)
        if found is not None:
            return found
        for rule in self.allow:
            if _holds(rule, caller, exchange, path):
                return rule.decision
        return _UNMATCHED


@dataclass(frozen=True, slots=True)
class Settings:
    """All rules of one listener or route."""

    requests: Policy
    """For requests."""

    sessions: Policy
    """For opaque sessions: nothing in it looks at requests."""

    read: Read | None
    """How a path is read; None: no rule looks at paths."""

    shadow: Policy | None
    """For requests, with the shadow rules among them; None: there are none."""

    shadow_sessions: Policy | None
    """The same for sessions."""

    shadow_read: Read | None
    """How a path is read for shadow rules, where they alone look at it."""


@final
class Authorization(HttpFilter, NetworkFilter):
    """See the module; for requests and for opaque sessions alike."""

    __slots__ = ("_read", "_settings", "_shadow")

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._read: Final = settings.read
        self._shadow: Final = settings.shadow

    def on_request(self, exchange: Exchange) -> Answer | None:
        """Refuse what no rule allows, or one denies."""
        path = b""
        if self._read is not None:
            form = self._read(exchange.head.path)
            if form is None:
                return _AMBIGUOUS
            path = form
        decision = self._settings.requests.decide(exchange.caller, exchange, path)
        if self._shadow is not None:
            note = self._shadowed(exchange, self._shadow, path, decision)
            if note:
                exchange.fields = {**(exchange.fields or {}), SHADOW: note}
        if decision.allowed:
            return None
        exchange.fields = {**(exchange.fields or {}), DENIED: decision.rule}
        return Answer("access-denied", detail=_why(decision, exchange.caller))

    def on_session(self, session: Session) -> Answer | None:
        """Refuse the session of a caller that may not have one."""
        settings, caller = self._settings, session.caller
        decision = settings.sessions.decide(caller, None, b"")
        if settings.shadow_sessions is not None:
            note = _differs(settings.shadow_sessions.decide(caller, None, b""), decision)
            if note:
                session.fields = {**(session.fields or {}), SHADOW: note}
        if decision.allowed:
            return None
        session.fields = {**(session.fields or {}), DENIED: decision.rule}
        return Answer("access-denied", detail=_why(decision, caller))

    def _shadowed(self, exchange: Exchange, shadow: Policy, path: bytes, real: Decision) -> str:
        """Return what the shadow rules would have made of it, empty if the same."""
        read = self._settings.shadow_read
        if read is not None:
            seen = read(exchange.head.path)
            if seen is None:
                return "deny ambiguous-path" if real.allowed else ""
            path = seen
        return _differs(shadow.decide(exchange.caller, exchange, path), real)


def _differs(shadow: Decision, real: Decision) -> str:
    if shadow.allowed == real.allowed:
        return ""
    return f"{'allow' if shadow.allowed else 'deny'} {shadow.rule}".rstrip()


def _why(decision: Decision, caller: Caller) -> str:
    return f"rule {decision.rule}, peer {caller.identity or 'without identity'}"


PLUGIN = Plugin("authorization", Settings, Authorization)
