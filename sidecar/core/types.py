"""What a connection knows about its two ends, and what the engine needs of its surroundings."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from sidecar.core.api import Draw, Sink
from sidecar.core.counts import Counts
from sidecar.core.overload import Gate, Overload
from sidecar.core.timers import Wheel

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.lifetimes import Lifetimes
    from sidecar.core.plan import ListenerPlan
    from sidecar.core.quota import Desk
    from sidecar.wire.fields import Field

Background = Callable[
    [Coroutine[Any, Any, Any], Callable[[Any, BaseException | None], None]], Callable[[], object]
]
"""Runs what waits beside the engine: `done(result, error)` is called at its end, unless what this
returns has been called before, which cancels it."""


def _no_background(
    work: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]
) -> Callable[[], object]:
    raise AssertionError("nothing waits here")


@final
class Engine:
    """The engine's surroundings, one per worker: clock, chance, timers, sinks.

    `now` is monotonic seconds, `wall` seconds of the epoch; `later` calls back at the end of this turn
    of the loop; `bug` is told of an exception that no part expected, `tell` what an operator should
    know, with an exception that is not ours; `stopwatch` is monotonic too, but goes on while we run.

    Sinks are told of exchanges that have ended `batch` at a time: their code is then in the
    processor's caches, which halves what a line of the log costs.  Whoever wants to know how things
    stand calls `tell_ended` first.
    """

    __slots__ = (
        "background",
        "batch",
        "bug",
        "counts",
        "desk",
        "draining",
        "draw",
        "ended",
        "gate",
        "identity",
        "later",
        "now",
        "overload",
        "random_bits",
        "sampling",
        "sinks",
        "stopwatch",
        "tell",
        "wall",
        "wheel",
    )

    def __init__(
        self,
        now: Callable[[], float],
        wall: Callable[[], float],
        wheel: Wheel,
        *,
        draw: Draw = random.random,
        random_bits: Callable[[int], int] = random.getrandbits,
        bug: Callable[[str, BaseException], None] = lambda where, error: None,
        later: Callable[[Callable[[], None]], object] = lambda call: call(),
        tell: Callable[[str, BaseException | None], None] = lambda text, error: None,
        stopwatch: Callable[[], float] = lambda: 0.0,
        background: Background = _no_background,
    ) -> None:
        self.now: Final = now
        self.wall: Final = wall
        self.wheel: Final = wheel
        self.draw: Final = draw
        self.random_bits: Final = random_bits
        self.bug: Final = bug
        wheel.bug = bug
        self.later: Final = later
        self.tell: Final = tell
        self.stopwatch: Final = stopwatch
        self.background: Final = background
        self.counts: Final = Counts()
        self.sinks: tuple[Sink, ...] = ()
        self.batch = 1
        self.ended: list[Exchange] = []  # of which the sinks do not know yet
        self.identity = ""
        self.sampling = 0.01
        self.draining = False
        self.overload: Overload | None = None  # None: there is not too much of anything
        self.gate: Final = Gate()
        self.desk: Desk | None = None  # where quota that is shared is asked for

    def tell_ended(self) -> None:
        """Tell every sink of the exchanges that have ended since."""
        ended = self.ended
        if not ended:
            return
        self.ended = []
        for sink in self.sinks:
            tell = sink.exchange
            for exchange in ended:
                try:
                    tell(exchange)
                except Exception as error:  # noqa: BLE001 - a sink's bug must not keep the caller
                    self.bug("sink", error)


class Connection(Protocol):
    """An accepted connection, as its listener sees it."""

    def drain(self) -> None:
        """Take nothing new; close when what is under way is finished."""

    def abort(self) -> None:
        """Close at once."""


@final
class ListenerState:
    """One listener across pushes: its plan of the moment and its open connections."""

    __slots__ = ("connections", "engine", "lifetimes", "plan")

    def __init__(self, engine: Engine, plan: ListenerPlan) -> None:
        self.engine: Final = engine
        self.plan = plan
        self.connections: set[Connection] = set()
        self.lifetimes: Lifetimes[Connection] | None = None  # of those that have an end


@final
class Caller:
    """The downstream end of one connection; `identity` is empty when no certificate was shown."""

    __slots__ = (
        "_forwarded",
        "_named",
        "certificate_hash",
        "host",
        "identity",
        "local",
        "port",
        "secure",
        "server_name",
    )

    def __init__(self, host: str = "", port: int = 0, local: tuple[str, int] = ("", 0)) -> None:
        self.host = host  # empty for a unix socket
        self.port = port
        self.local = local
        self.identity = ""
        self.certificate_hash = ""
        self.secure = False
        self.server_name = ""  # of its TLS hello, in lower case, where somebody asks for it
        # Made once a connection, not once a request: the last of each, and what of.
        self._forwarded: tuple[str, Field] | None = None
        self._named: tuple[str, bytes] = ("", b"")

    @property
    def host_octets(self) -> bytes:
        """`host` as it stands in a field."""
        known, octets = self._named
        if known != self.host:
            octets = self.host.encode()
            self._named = self.host, octets
        return octets

    def forwarded(self, by: str) -> Field:
        """Return the `x-forwarded-client-cert` that the workload `by` passes on (XFCC)."""
        known = self._forwarded
        if known is None or known[0] != by:
            text = f"By={by};Hash={self.certificate_hash};URI={self.identity}"
            known = self._forwarded = by, (b"x-forwarded-client-cert", text.encode())
        return known[1]

    @property
    def address(self) -> str:
        """The caller's address for logs: `10.0.0.5:51234`."""
        return join(self.host, self.port) if self.host else "unix"


def join(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
