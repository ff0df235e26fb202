"""Quota that this worker shares with others: who waits for a lease, and what if none can be had.

Theory of operation.  A `Share` is one rule, with a `Held` for each of its keys.  A request takes one
of what is held; if there is none it waits for the answer to one question, which all that come
meanwhile share.  The `Desk` sends the questions of one turn of the loop together and is told the
answers.  Who is asked (`Store`) counts as away from the first answer that is late or that says so:
from then on no request waits, the rule's policy decides at once, and one request in `PROBE` seconds
also asks, until an answer is in time again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from sidecar.core.states import WAITING
from sidecar.core.timers import NEVER, Timer
from sidecar.traffic.lease import KEPT, Ask, Granted, Lease
from sidecar.traffic.rate import SWEEP, Rate

if TYPE_CHECKING:
    from sidecar.core.api import Verdict
    from sidecar.core.exchange import Exchange
    from sidecar.core.limit import Key
    from sidecar.core.types import Engine

PROBE: Final = 0.1  # seconds between two questions to one that is away
LOST: Final = 5.0  # seconds until a question is asked again: who was to answer has forgotten it

TAKEN, SPENT, AWAY, ASKED = range(4)
# What a request finds.  TAKEN: there was one for it.  SPENT: there is none.  AWAY: nobody can tell.
# ASKED: it is being found out.

Post = Callable[[tuple[Ask, ...]], bool]
"""Sends questions; false if nobody is there to be asked."""

Decide = Callable[["Exchange", int], "Verdict"]
"""Says what becomes of a request that found TAKEN, SPENT or AWAY."""


@final
class Share:
    """One rule and what is held of its keys; outlives a config push.

    `name` is the rule's in metrics, `rule` what all that share it call it.  When all `limit` keys are
    in use, new ones share one more.
    """

    __slots__ = (
        "_held",
        "_limit",
        "_rest",
        "_swept",
        "counts",
        "name",
        "patience",
        "rate",
        "rule",
        "store",
    )

    def __init__(
        self, name: str, store: str, rule: str, rate: Rate, *, limit: int, patience: float
    ) -> None:
        self.name: Final = name
        self.patience: Final = patience  # seconds that a request waits at most
        self.store: Final = store
        self.rule: Final = rule
        self.rate: Final = rate
        self.counts: Final[Counter[str]] = Counter()
        self._held: Final[dict[Key, Held]] = {}
        self._limit: Final = limit
        self._rest: Held | None = None
        self._swept = float("-inf")

    def __len__(self) -> int:
        return len(self._held)

    def held(self, key: Key, spell: Callable[[Key], str], now: float) -> Held:
        """Return what is held of `key`; `spell(key)` is what all call it."""
        found = self._held.get(key)
        if found is not None:
            return found
        if len(self._held) < self._limit or self._has_swept(now):
            found = self._held[key] = Held(self, spell(key), now)
            return found
        if self._rest is None:
            self._rest = Held(self, "rest", now)
        return self._rest

    def _has_swept(self, now: float) -> bool:
        """Forget what is not worth remembering; say whether there is room now."""
        if now < self._swept + SWEEP:
            return False
        self._swept = now
        for key in [k for k, held in self._held.items() if held.is_idle(now)]:
            del self._held[key]
        return len(self._held) < self._limit


@final
class Held:
    """The lease of one key, and the requests that wait for more."""

    __slots__ = ("asked_at", "is_asked", "key", "lease", "number", "share", "waiters", "wanted")

    def __init__(self, share: Share, key: str, now: float) -> None:
        self.share: Final = share
        self.key: Final = key
        self.lease: Final = Lease(share.rate, now)
        self.waiters: list[Waiter] = []
        self.is_asked = False  # a question is under way
        self.asked_at = 0.0
        self.number = 0  # its
        self.wanted = 0  # by it

    def ask(self, number: int, count: int) -> Ask:
        """Return the question for `count` more."""
        share = self.share
        rate = share.rate
        return Ask(number, share.store, share.rule, self.key, rate.interval, rate.burst, count)

    def is_idle(self, now: float) -> bool:
        """Say whether it can be forgotten."""
        return not self.is_asked and self.lease.is_idle(now)


@final
class Waiter:
    """One request that waits; called when its wait is over, whoever has ended it."""

    __slots__ = ("_decide", "_desk", "exchange", "found", "held")

    def __init__(self, desk: Desk, held: Held, exchange: Exchange, decide: Decide) -> None:
        self._desk: Final = desk
        self._decide: Final = decide
        self.held: Final = held
        self.exchange: Final = exchange
        self.found = ASKED

    def __call__(self, exchange: Exchange) -> Verdict:
        """Say what becomes of the request; if nobody has answered, that is an answer too."""
        if self.found == ASKED:
            self.found = AWAY
            self._desk.gave_up(self)
        return self._decide(exchange, self.found)


@final
class Store:
    """Whoever keeps the buckets, as this worker finds it."""

    __slots__ = ("is_away", "probe_at")

    def __init__(self) -> None:
        self.is_away = False
        self.probe_at = 0.0  # when one that is away may be asked again


@final
class Desk:
    """Where filters take what is held, one per worker; `post` sends questions."""

    __slots__ = (
        "_engine",
        "_number",
        "_open",
        "_post",
        "_returns",
        "_stores",
        "_timer",
        "_to_ask",
        "_used",
    )

    def __init__(self, engine: Engine, post: Post) -> None:
        self._engine: Final = engine
        self._post: Final = post
        self._to_ask: Final[list[Held]] = []  # in this turn of the loop
        self._returns: Final[list[Ask]] = []
        self._open: Final[dict[int, tuple[Held, float]]] = {}  # questions, and when they are late
        self._number = 0
        self._stores: Final[dict[str, Store]] = {}
        self._used: Final[set[Held]] = set()  # of which some may have to be given back
        self._timer: Final = Timer(self._sweep)

    def take(self, held: Held, exchange: Exchange, decide: Decide) -> int | Waiter:
        """Take one for a request: TAKEN, SPENT, AWAY, or whom to ask when its wait is over.

        It waits for `held.share.patience` at most; `decide(exchange, found)` says what becomes of it.
        """
        now = self._engine.now()
        lease = held.lease
        if lease.take(now):
            if lease.is_low(now):
                self._ask(held, now)
            return TAKEN
        if lease.is_spent(now):
            return SPENT
        store = self._store(held)
        if store.is_away:
            if now >= store.probe_at:
                store.probe_at = now + PROBE
                self._ask(held, now)
            return AWAY
        waiter = Waiter(self, held, exchange, decide)
        held.waiters.append(waiter)
        self._ask(held, now)
        return waiter

    def answered(self, answers: tuple[Granted, ...]) -> None:
        """Learn what was granted."""
        now = self._engine.now()
        for answer in answers:
            found = self._open.pop(answer.number, None)
            if found is None:
                continue  # of a question that is given up
            held, late = found
            held.is_asked = False
            store = self._store(held)
            if answer.grant is None:
                self._miss(store, now)
                self._settle(held, AWAY)
                continue
            if now <= late:
                store.is_away = False
            held.share.counts["granted"] += answer.grant.granted
            held.lease.put(answer.grant, held.wanted, now)
            self._keep(held, now)
            self._serve(held, now)

    def lost(self) -> None:
        """Learn that nobody will answer what was asked until now."""
        self.answered(tuple([Granted(number, None) for number in self._open]))

    def gave_up(self, waiter: Waiter) -> None:
        """Learn that a request has waited for too long."""
        waiter.held.waiters.remove(waiter)
        self._miss(self._store(waiter.held), self._engine.now())

    # Inside:

    def _store(self, held: Held) -> Store:
        name = held.share.store
        store = self._stores.get(name)
        if store is None:
            store = self._stores[name] = Store()
        return store

    def _miss(self, store: Store, now: float) -> None:
        """Note that there was no answer in time."""
        if not store.is_away:
            store.is_away = True
            store.probe_at = now + PROBE

    def _ask(self, held: Held, now: float) -> None:
        """Have more asked for at the end of this turn, unless a question is under way."""
        if held.is_asked:
            if now < held.asked_at + LOST:
                return
            self._open.pop(held.number, None)
        held.is_asked, held.asked_at = True, now
        self._to_ask.append(held)
        if len(self._to_ask) + len(self._returns) == 1:
            self._engine.later(self._flush)

    def _give_back(self, held: Held, now: float) -> int:
        count = held.lease.give_back(now)
        if count:
            held.share.counts["returned"] += count
            self._returns.append(held.ask(0, -count))
        return count

    def _flush(self) -> None:
        """Send what was asked and given back in this turn of the loop."""
        now = self._engine.now()
        asks: list[Ask] = []
        for held in self._to_ask:
            self._give_back(held, now)
            self._number += 1
            held.number, share = self._number, held.share
            # One at least: who asks while nobody is there wants to know whether that is still so.
            held.wanted = max(1, held.lease.wish(now, len(held.waiters)))
            share.counts["asks"] += 1
            self._open[self._number] = held, now + share.patience
            asks.append(held.ask(self._number, held.wanted))
        self._to_ask.clear()
        asks += self._returns
        self._returns.clear()
        if not self._post(tuple(asks)):
            self.answered(tuple([Granted(ask.number, None) for ask in asks]))

    def _serve(self, held: Held, now: float) -> None:
        """Let go those that waited, as far as it goes; ask for the others, unless there is none."""
        waiters, held.waiters = held.waiters, []
        left: list[Waiter] = []
        for waiter in waiters:
            if waiter.exchange.state != WAITING:
                continue  # its caller is gone
            if held.lease.held:
                held.lease.held -= 1
                self._let_go(waiter, TAKEN)
            else:
                left.append(waiter)
        held.waiters[:0] = left  # before those that have come meanwhile
        if held.lease.is_spent(now):
            self._settle(held, SPENT)
        elif held.waiters:
            self._ask(held, now)

    def _settle(self, held: Held, found: int) -> None:
        waiters, held.waiters = held.waiters, []
        for waiter in waiters:
            self._let_go(waiter, found)

    def _let_go(self, waiter: Waiter, found: int) -> None:
        waiter.found = found
        waiter.exchange.go_on()

    def _keep(self, held: Held, now: float) -> None:
        """See to it that what is not used is given back."""
        if held.lease.held:
            self._used.add(held)
            if self._timer.deadline == NEVER:
                self._engine.wheel.arm(self._timer, now + KEPT)

    def _sweep(self, now: float) -> None:
        """Give back what was not used in time."""
        for held in tuple(self._used):
            if self._give_back(held, now) and len(self._to_ask) + len(self._returns) == 1:
                self._engine.later(self._flush)
            if not held.lease.held:
                self._used.discard(held)
        if self._used:
            soonest = min(h.lease.until for h in self._used)
            self._engine.wheel.arm(self._timer, max(soonest, now + KEPT / 4))
