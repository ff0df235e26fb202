"""When one attempt may be followed by another, and how long it waits before."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final, final

from sidecar.traffic.backoff import full_jitter
from sidecar.traffic.budget import may_retry
from sidecar.wire.retry_after import wait_asked

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Fields, ResponseHead

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})

ANY_STATUS: Final = frozenset(range(200, 600))

ResponseTest = Callable[["ResponseHead"], bool]

ATTEMPT_COUNT: Final = b"x-envoy-attempt-count"

_PUSHBACK: Final = b"grpc-retry-pushback-ms"  # gRPC proposal A6


@final
class RetryPlan:
    """When an attempt may be followed by another.

    `on_status` holds every status of which one can be tried again; with `tests` or `rate_limited`
    that is any, and `asks_for` says whether this response is.
    """

    __slots__ = (
        "any_method",
        "attempts",
        "backoff",
        "backoff_max",
        "counts",
        "key",
        "longest_wait",
        "on_connect",
        "on_grpc",
        "on_reset",
        "on_status",
        "rate_limited",
        "statuses",
        "tests",
    )

    def __init__(
        self,
        attempts: int = 3,
        *,
        on_connect: bool = True,
        on_reset: bool = False,
        on_status: frozenset[int] = frozenset(),
        on_grpc: frozenset[bytes] = frozenset(),
        tests: tuple[ResponseTest, ...] = (),
        rate_limited: bool = False,
        key: bytes = b"",
        backoff: float = 0.025,
        backoff_max: float = 0.25,
        longest_wait: float = 0.0,
        counts: bool = False,
        any_method: bool = False,
    ) -> None:
        self.attempts: Final = attempts
        self.on_connect: Final = on_connect
        self.on_reset: Final = on_reset
        self.statuses: Final = on_status
        self.on_status: Final = ANY_STATUS if tests or rate_limited else on_status
        self.on_grpc: Final = on_grpc  # values of grpc-status
        self.tests: Final = tests
        self.rate_limited: Final = rate_limited
        self.key: Final = key  # a field with which the caller says that repeating does no harm
        self.backoff: Final = backoff
        self.backoff_max: Final = backoff_max
        self.longest_wait: Final = longest_wait  # that a response may ask for; 0: nobody listens
        self.any_method: Final = any_method  # each is as good as idempotent
        self.counts: Final = counts  # the endpoint is told which attempt it is

    def asks_for(self, head: ResponseHead) -> bool:
        """Say whether a response whose status is in `on_status` is one to try again after."""
        if head.get(b"x-envoy-ratelimited") is not None:
            return self.rate_limited  # whoever limits rates would count the retry as well
        return head.status in self.statuses or any(test(head) for test in self.tests)


def has_another(exchange: Exchange, *, idempotent: bool, always: bool = False) -> bool:
    """Say whether another attempt is allowed; `always` leaves attempts and budget aside once.

    `idempotent`: only for a request that does no harm when it is done twice.
    """
    route, cluster = exchange.route, exchange.cluster
    assert route is not None
    assert cluster is not None
    if exchange.held is None or (idempotent and not is_repeatable(exchange)):
        return False
    if always and not exchange.fresh and exchange.attempts < 10:
        return True
    # One that a dead connection alone has cost is in `attempts`, but not here: it is nobody's try.
    if len(exchange.tried) + 1 >= route.retry.attempts:
        return False
    if exchange.retrying:
        return True
    state, share = cluster.state, cluster.retry_budget
    if may_retry(state.retries, state.requests, cluster.max_retries, share):
        return True
    return share > 0 and state.ledger.allows(exchange.engine.now(), state.attempts, share)


def count_retry(exchange: Exchange) -> None:
    """Count another attempt of `exchange` among the retries of its cluster."""
    assert exchange.cluster is not None
    state = exchange.cluster.state
    if not exchange.retrying:
        exchange.retrying = True
        state.retries += 1
    state.ledger.retried(exchange.engine.now(), state.attempts)


def is_repeatable(exchange: Exchange) -> bool:
    """Say whether the request may be processed twice: by its method, or by its caller's word."""
    head = exchange.head
    if head.upgrade is not None:
        return False
    if head.method in IDEMPOTENT:
        return True
    assert exchange.route is not None
    if exchange.route.retry.any_method:
        return True
    key = exchange.route.retry.key
    return key != b"" and head.get(key) is not None


def back_off(exchange: Exchange) -> float:
    """Return the seconds until the next attempt, by chance."""
    assert exchange.route is not None
    plan = exchange.route.retry
    return full_jitter(exchange.attempts, plan.backoff, plan.backoff_max, exchange.engine.draw())


def wait_after(exchange: Exchange, said: Fields) -> float | None:
    """Return the seconds until the next attempt after a response; None: there had better be none.

    What it asks for in `said` is granted in full, and a back-off on top, so that not all come back at
    once.  If that is longer than the policy or the route's timeout allows, the response goes to the
    caller, whose decision it is then.
    """
    wait = back_off(exchange)
    assert exchange.route is not None
    longest = exchange.route.retry.longest_wait
    if not longest:
        return wait
    asked = _asked(said, exchange.engine.wall())
    if not asked:
        return wait
    wait += asked
    return (
        None if asked > longest or exchange.engine.now() + wait > exchange.route_deadline else wait
    )


def tell_attempt(exchange: Exchange, number: int) -> None:
    """Have the endpoint told which attempt this is."""
    extra = exchange.extra
    extra[:] = [field for field in extra if field[0] != ATTEMPT_COUNT]
    extra.append((ATTEMPT_COUNT, b"%d" % number))


def _asked(said: Fields, wall: float) -> float:
    pushback = said.get(_PUSHBACK)
    if pushback is None:
        return wait_asked(said, wall) or 0.0
    # Anything but a number means never.
    return int(pushback) / 1000 if pushback.isdigit() and len(pushback) < 10 else inf
