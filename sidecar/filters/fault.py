"""Make a share of the requests late, slow, fail or be cut off, to see what becomes of who asked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, final

from sidecar.core.api import Answer, HttpFilter, NetworkFilter, Pause, Verdict, Wait
from sidecar.core.grpc import is_grpc
from sidecar.core.late import late
from sidecar.core.plan import Condition
from sidecar.plugin import Plugin
from sidecar.traffic.pace import Bucket
from sidecar.wire.fields import RequestHead

if TYPE_CHECKING:
    from sidecar.core.api import Draw
    from sidecar.core.exchange import Exchange
    from sidecar.core.tcp import Session
    from sidecar.core.types import Caller

_DELAY: Final = b"x-envoy-fault-delay-request"
_ABORT: Final = b"x-envoy-fault-abort-request"
_ABORT_GRPC: Final = b"x-envoy-fault-abort-grpc-request"
_THROUGHPUT: Final = b"x-envoy-fault-throughput-response"
_PERCENTAGE: Final = b"-percentage"
_NUMBER: Final = re.compile(rb"[0-9]{1,9}")
_PERCENT: Final = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,6})?")


class Delay(NamedTuple):
    """How late; shares are fractions of 1."""

    share: float
    seconds: float
    """All of it, or the mean."""

    exponential: bool = False
    """Whether it is drawn anew for each request, around the mean."""

    longest: float = math.inf
    """What a drawn one is cut to."""


class Abort(NamedTuple):
    """What is answered in place of the endpoint's answer."""

    share: float
    answer: Answer | Wait
    """A wait without end is a black hole."""


class Throughput(NamedTuple):
    """How slowly a response comes."""

    share: float
    rate: float
    """Octets a second."""


class ByHeader(NamedTuple):
    """What callers may ask for."""

    share: float
    """Of those that ask, how many may get what they ask for at most."""

    longest: float
    """Seconds of delay, at most."""


_NO_HEAD: Final = RequestHead(b"", b"", 11, b"", {})  # for conditions, of which none looks at it
BLACK_HOLE: Final = Wait(math.inf)


@final
class State:
    """What one fault remembers across config pushes."""

    __slots__ = ("active", "since")

    def __init__(self) -> None:
        self.active: Final[set[Exchange | Session]] = set()
        self.since: float | None = None  # when it met its first request


@dataclass(frozen=True, slots=True)
class Settings:
    """One fault."""

    name: str
    """For the log."""

    conditions: tuple[Condition, ...]
    """Tests on the request: all must hold."""

    delay: Delay | None
    """Or it is not delayed."""

    abort: Abort | None
    """Or it is not aborted."""

    throughput: Throughput | None
    """Or it comes as it comes."""

    by_header: ByHeader | None
    """Or callers may ask for nothing."""

    max_active: int
    """Requests under way that it has befallen, at most."""

    lifetime: float
    """Seconds from its first request on after which it does nothing any more; 0: no end."""

    state: State = field(default_factory=State)
    """Outlives a config push."""


@final
class Fault(HttpFilter, NetworkFilter):
    """See the module; for requests, and for opaque sessions of tcp listeners."""

    __slots__ = ("_settings",)

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings

    def on_request(self, exchange: Exchange) -> Verdict:
        """Draw what befalls the request; the abort comes behind the delay."""
        settings, head = self._settings, exchange.head
        if not self._may_befall(head, exchange.caller, exchange.engine.now()):
            return None
        delay, abort, slow = settings.delay, settings.abort, settings.throughput
        if settings.by_header is not None:
            delay = _delay_asked(head, settings.by_header) or delay
            abort = _abort_asked(head, settings.by_header) or abort
            slow = _throughput_asked(head, settings.by_header) or slow
        draw = exchange.engine.draw
        seconds = 0.0 if delay is None or draw() >= delay.share else _length(delay, draw)
        answer = None if abort is None or draw() >= abort.share else abort.answer
        is_slow = slow is not None and draw() < slow.share
        if not seconds and answer is None and not is_slow:
            return None
        settings.state.active.add(exchange)
        exchange.fields = {**(exchange.fields or {}), "fault": settings.name}
        if slow is not None and is_slow:
            late(exchange).pace(Bucket(slow.rate))
        if not seconds:
            return answer
        exchange.flag = "DI"
        return Wait(seconds, lambda exchange: answer)

    def on_finish(self, exchange: Exchange) -> None:
        """Make room for the next one."""
        self._settings.state.active.discard(exchange)

    def on_session(self, session: Session) -> Answer | Pause | None:
        """Draw what befalls a session."""
        settings, engine = self._settings, session.engine
        if not self._may_befall(_NO_HEAD, session.caller, engine.now()):
            return None
        delay, abort, draw = settings.delay, settings.abort, engine.draw
        seconds = 0.0 if delay is None or draw() >= delay.share else _length(delay, draw)
        answer = None if abort is None or draw() >= abort.share else abort.answer
        if not seconds and answer is None:
            return None
        settings.state.active.add(session)
        session.fields = {**(session.fields or {}), "fault": settings.name}
        if isinstance(answer, Wait):
            session.flag = "FI"
            return Pause(math.inf)
        if not seconds:
            return answer
        session.flag = "DI"
        return Pause(seconds, answer)

    def on_session_end(self, session: Session) -> None:
        """Make room for the next one."""
        self._settings.state.active.discard(session)

    def _may_befall(self, head: RequestHead, caller: Caller, now: float) -> bool:
        settings, state = self._settings, self._settings.state
        for condition in settings.conditions:
            if not condition(head, caller):
                return False
        if state.since is None:
            state.since = now
        is_over = settings.lifetime and now >= state.since + settings.lifetime
        return not is_over and len(state.active) < settings.max_active


def _length(delay: Delay, draw: Draw) -> float:
    if not delay.exponential:
        return delay.seconds
    return min(-delay.seconds * math.log(1 - draw()), delay.longest)


def _delay_asked(head: RequestHead, allowed: ByHeader) -> Delay | None:
    """Return the delay that the caller asks for, in milliseconds as Envoy has it."""
    asked = _number(head, _DELAY)
    if asked is None:
        return None
    return Delay(_share(head, _DELAY, allowed), min(asked / 1000, allowed.longest))


def _abort_asked(head: RequestHead, allowed: ByHeader) -> Abort | None:
    status = _number(head, _ABORT_GRPC) if is_grpc(head) else None
    if status is not None and status <= 16:
        return Abort(_share(head, _ABORT, allowed), aborted(grpc_status=status))
    status = _number(head, _ABORT)
    if status is not None and 200 <= status <= 599:
        return Abort(_share(head, _ABORT, allowed), aborted(status))
    return None


def _throughput_asked(head: RequestHead, allowed: ByHeader) -> Throughput | None:
    """Return the rate that the caller asks for, in KiB a second as Envoy has it."""
    asked = _number(head, _THROUGHPUT)
    if not asked:  # Envoy takes no 0 either
        return None
    return Throughput(_share(head, _THROUGHPUT, allowed), asked * 1024)


def aborted(status: int = 0, grpc_status: int = -1, *, cut: bool = False) -> Answer:
    """Return the answer of an abort; 0 is the table's status."""
    return Answer("fault-abort", status, grpc_status=grpc_status, cut=cut)


def _share(head: RequestHead, name: bytes, allowed: ByHeader) -> float:
    """Return how many of the callers that ask get it: what they say, and no more than is allowed."""
    text = head.get(name + _PERCENTAGE)
    if text is None or not _PERCENT.fullmatch(text):
        return allowed.share
    return min(float(text) / 100, allowed.share)


def _number(head: RequestHead, name: bytes) -> int | None:
    text = head.get(name)
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


PLUGIN = Plugin("fault", Settings, Fault)
