"""Ask a filter that a user has written in Python, and survive whatever it does.

Theory of operation.  A plain hook is called and timed: nothing can interrupt it, so it can only be
counted when it was over its budget.  A hook that is `async def` becomes a task beside the engine:
the exchange waits, and the task is cancelled when its time is up.  Each step of it is timed like a
plain hook, since a step holds up everybody.  A filter that is over budget or time too often is
switched off for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from sidecar.core.api import Answer, HttpFilter, Verdict, Wait
from sidecar.core.late import late
from sidecar.core.timers import Timer
from sidecar.filter import Filter, Reply, Request, Response, hooks_of, outcome_of
from sidecar.plugin import Plugin
from sidecar.traffic.rate import Rate

if TYPE_CHECKING:
    from sidecar.core.counts import Tally
    from sidecar.core.exchange import Exchange
    from sidecar.core.types import Engine
    from sidecar.wire.fields import ResponseHead

WINDOW: Final = 60.0  # seconds within which overruns are counted together
_TOLD: Final = Rate(1, 10.0, 10)  # what is told of failures: ten at once, then one in ten seconds

Work = Coroutine[Any, Any, object]


@dataclass(frozen=True, slots=True)
class Settings:
    """One use of one filter."""

    name: str
    """For log, metrics and reply."""

    instance: Filter[Any]
    """What the user has written, made."""

    budget: float
    """Seconds that a plain hook, or one step of an `async def`, may take."""

    timeout: float
    """Seconds for the whole of an `async def`."""

    max_overruns: int
    """How often in a minute either may be passed until the filter is switched off; 0: never off."""

    off_time: float
    """Seconds for which it is off then."""

    is_open: bool
    """Whether the request goes on when the filter fails, or is off."""


class _Numbers(NamedTuple):
    """What is counted of one hook."""

    calls: Tally
    seconds: Tally
    errors: Tally
    overruns: Tally
    timeouts: Tally


class PythonFilter(HttpFilter):
    """See the module; `make` has a class of it override the hooks that the user's class has."""

    __slots__ = (
        "_failures",
        "_full_at",
        "_hooks",
        "_is_off",
        "_keeps",
        "_numbers",
        "_rate",
        "_settings",
        "_told_at",
        "_visits",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        instance = settings.instance
        own = hooks_of(type(instance))
        self._settings: Final = settings
        self._hooks: Final[dict[str, Callable[..., object]]] = {
            hook: getattr(instance, hook) for hook in own
        }
        self._numbers: Final[dict[str, _Numbers]] = {}
        self._keeps: Final = is_kept(instance)
        self._rate: Final = Rate(settings.max_overruns or 1, WINDOW, settings.max_overruns or 1)
        self._full_at = 0.0  # of the bucket of overruns
        self._told_at = 0.0  # of the bucket of what is told
        self._is_off = False
        # Those between their first hook and their end.
        self._visits: Final[dict[Exchange, _Visit]] = {}
        self._failures: Final = {
            code: None if settings.is_open else Answer(code, detail=f"filter {settings.name}")
            for code in ("filter-failed", "filter-timeout", "filter-off")
        }

    # The plan asks, in the name of the hooks:

    def ask_request(self, exchange: Exchange) -> Verdict:
        """Ask a plain `on_request`."""
        if self._is_off:
            return self._failures["filter-off"]
        return self._call(exchange.engine, "on_request", self._visit(exchange).request)

    def start_request(self, exchange: Exchange) -> Verdict:
        """Begin an `on_request` that may wait."""
        if self._is_off:
            return self._failures["filter-off"]
        visit = self._visit(exchange)
        self._begin(exchange, "on_request", visit, exchange.go_on, visit.request)
        return Wait(self._settings.timeout, lambda exchange: self._late(exchange, "on_request"))

    def ask_response(self, exchange: Exchange, head: ResponseHead) -> Answer | None:
        """Ask a plain `on_response`."""
        if self._is_off:
            return self._failures["filter-off"]
        request = self._visit(exchange).request
        return self._call(exchange.engine, "on_response", request, Response(head))

    def start_response(self, exchange: Exchange, head: ResponseHead) -> Answer | None:
        """Begin an `on_response` that may wait; the response is shut in meanwhile."""
        if self._is_off:
            return self._failures["filter-off"]
        visit = self._visit(exchange)
        side = late(exchange)
        side.shut()

        def go_on(verdict: Answer | None) -> None:
            if verdict is None:
                side.open()
            else:
                side.refuse(verdict)

        self._begin(exchange, "on_response", visit, go_on, visit.request, Response(head))
        engine = exchange.engine
        visit.timer.callback = lambda now: go_on(self._late(exchange, "on_response"))
        engine.wheel.arm(visit.timer, engine.now() + self._settings.timeout)
        return None

    def end(self, exchange: Exchange) -> None:
        """Ask `on_finish` if there is one, and let go of the exchange."""
        visit = self._visits.pop(exchange, None)
        if visit is not None:
            visit.end()
        if "on_finish" not in self._hooks or self._is_off:
            return
        request = visit.request if visit is not None else self._request(exchange)
        self._call(exchange.engine, "on_finish", request, outcome_of(exchange))

    # Inside:

    def _request(self, exchange: Exchange) -> Request:
        return Request(exchange, self._settings.name)

    def _visit(self, exchange: Exchange) -> _Visit:
        visit = self._visits.get(exchange)
        if visit is None:
            visit = _Visit(self._request(exchange))
            if self._keeps:
                self._visits[exchange] = visit
        return visit

    def _call(self, engine: Engine, hook: str, *what: object) -> Answer | None:
        """Call a plain hook."""
        numbers = self._numbers.get(hook) or self._count(engine, hook)
        stopwatch = engine.stopwatch
        begun = stopwatch()
        try:
            said = self._hooks[hook](*what)
        except BaseException as error:  # noqa: BLE001 - not even SystemExit ends a worker
            said = error
        spent = stopwatch() - begun
        numbers.calls.value += 1
        numbers.seconds.value += spent
        if spent > self._settings.budget:
            self._overran(engine, hook, spent)
        return None if said is None else self._answer(engine, hook, said)

    def _answer(self, engine: Engine, hook: str, said: object) -> Answer | None:
        """Return what becomes of what a hook has said, or raised."""
        if isinstance(said, Reply) and hook != "on_finish":
            return said.answer(self._settings.name)
        if not isinstance(said, BaseException):
            expected = "None" if hook == "on_finish" else "a Reply or None"
            said = TypeError(f"{hook} must return {expected}, got {said!r:.80}")
        self._numbers[hook].errors.value += 1
        self._tell(engine, f'msg="filter failed" hook={hook}', said)
        return self._failures["filter-failed"]

    def _begin(
        self,
        exchange: Exchange,
        hook: str,
        visit: _Visit,
        go_on: Callable[[Answer | None], None],
        *what: object,
    ) -> None:
        """Begin a hook that may wait; unless its time is up before, `go_on` is told what it says."""
        engine = exchange.engine
        numbers = self._numbers.get(hook) or self._count(engine, hook)
        numbers.calls.value += 1

        def took(seconds: float) -> None:
            numbers.seconds.value += seconds
            if seconds > self._settings.budget:
                self._overran(engine, hook, seconds)

        def done(said: object, error: BaseException | None) -> None:
            if visit.cancel is not cancel:
                return  # it would not be cancelled, and is too late
            visit.cancel = None
            visit.timer.stop()
            said = said if error is None else error
            try:
                go_on(None if said is None else self._answer(engine, hook, said))
            except Exception as error:  # noqa: BLE001 - a bug of ours may end an exchange, not the loop
                engine.bug("filter", error)
                exchange.downstream_lost("internal-error")

        work = self._hooks[hook](*what)
        assert isinstance(work, Coroutine)
        cancel = visit.cancel = engine.background(Steps(work, engine.stopwatch, took), done)

    def _late(self, exchange: Exchange, hook: str) -> Answer | None:
        """Its time is up, unless it is done."""
        visit = self._visits[exchange]
        if visit.cancel is None:
            return None
        visit.end()
        self._numbers[hook].timeouts.value += 1
        self._overran(exchange.engine, hook, self._settings.timeout)
        return self._failures["filter-timeout"]

    def _overran(self, engine: Engine, hook: str, seconds: float) -> None:
        """Count a hook that took too long; switch the filter off where that is once too often."""
        self._numbers[hook].overruns.value += 1
        text = f'msg="filter took too long" hook={hook} seconds={seconds:.3f}'
        self._tell(engine, text, None)
        if not self._settings.max_overruns or self._is_off:
            return
        decision, self._full_at = self._rate.take(self._full_at, engine.now())
        if decision.allowed:
            return
        self._is_off = True
        self._gauge(engine).value = 1
        off = self._settings.off_time
        engine.tell(f'msg="filter switched off" filter={self._settings.name} seconds={off:g}', None)
        engine.wheel.arm(Timer(lambda now: self._on_again(engine)), engine.now() + off)

    def _on_again(self, engine: Engine) -> None:
        self._is_off = False
        self._full_at = 0.0
        self._gauge(engine).value = 0
        engine.tell(f'msg="filter switched on again" filter={self._settings.name}', None)

    def _gauge(self, engine: Engine) -> Tally:
        return engine.counts.tally("sidecar_filter_off", (("filter", self._settings.name),))

    def _count(self, engine: Engine, hook: str) -> _Numbers:
        labels = (("filter", self._settings.name), ("hook", hook))
        self._gauge(engine)  # it is there before it is off
        found = self._numbers[hook] = _Numbers(
            *(engine.counts.tally(f"sidecar_filter_{n}_total", labels) for n in _Numbers._fields)
        )
        return found

    def _tell(self, engine: Engine, text: str, error: BaseException | None) -> None:
        decision, self._told_at = _TOLD.take(self._told_at, engine.now())
        if decision.allowed:
            engine.tell(f"{text} filter={self._settings.name}", error)


@final
class _Visit:
    """What one exchange has to do with the filter."""

    __slots__ = ("cancel", "request", "timer")

    def __init__(self, request: Request) -> None:
        self.request: Final = request
        self.cancel: Callable[[], object] | None = None  # there while a hook is under way
        self.timer: Final = Timer(lambda now: None)

    def end(self) -> None:
        """Wait no more."""
        self.timer.retire()
        cancel, self.cancel = self.cancel, None
        if cancel is not None:
            cancel()


@final
class Steps(Coroutine[Any, Any, object]):
    """A coroutine whose steps are timed: `took` is told the seconds of each."""

    __slots__ = ("_stopwatch", "_took", "_work")

    def __init__(
        self, work: Work, stopwatch: Callable[[], float], took: Callable[[float], None]
    ) -> None:
        self._work: Final = work
        self._stopwatch: Final = stopwatch
        self._took: Final = took

    def __await__(self) -> Generator[Any, Any, object]:
        return self._work.__await__()

    def send(self, value: Any, /) -> Any:
        return self._step(lambda: self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._step(lambda: self._work.throw(*error))

    def _step(self, go: Callable[[], Any]) -> Any:
        begun = self._stopwatch()
        try:
            return go()
        except (SystemExit, KeyboardInterrupt) as error:  # a task would end the loop by it
            raise RuntimeError(f"{type(error).__name__} in a filter") from error
        finally:
            self._took(self._stopwatch() - begun)

    def close(self) -> None:
        self._work.close()


def is_kept(instance: Filter[Any]) -> bool:
    """Say whether something is to be remembered of an exchange from one hook to the next."""
    own = hooks_of(type(instance))
    return len(own) > 1 or any(iscoroutinefunction(getattr(instance, hook)) for hook in own)


def make(settings: Settings) -> HttpFilter:
    """Return a filter that overrides what there is in `settings`, so that the plan asks no other."""
    instance = settings.instance
    body: dict[str, object] = {"__slots__": ()}
    for hook, plain, waiting in (
        ("on_request", PythonFilter.ask_request, PythonFilter.start_request),
        ("on_response", PythonFilter.ask_response, PythonFilter.start_response),
        ("on_finish", PythonFilter.end, PythonFilter.end),
    ):
        if hook in hooks_of(type(instance)):
            body[hook] = waiting if iscoroutinefunction(getattr(instance, hook)) else plain
    if is_kept(instance):
        body["on_finish"] = PythonFilter.end
    kind: type[PythonFilter] = type("PythonFilter", (PythonFilter,), body)
    return kind(settings)


PLUGIN = Plugin("python", Settings, make)
