"""An attempt has come to nothing: is there another, and if not, what becomes of the exchange.

Everything that goes wrong between the pick of an endpoint and the end of its response comes here;
whether and when policy and budget allow another attempt is known by `core/retry.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.retry import back_off, count_retry, has_another, tell_attempt, wait_after
from sidecar.core.states import CONNECTING
from sidecar.core.timers import NEVER
from sidecar.errors import UpstreamError

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.wire.fields import Fields, ResponseHead


def attempt_failed(exchange: Exchange, error: UpstreamError) -> None:
    """Try again, or say that it has failed."""
    exchange.drop_client(error.code)
    if exchange.status:  # a head has gone out: nothing can be said any more
        exchange.fail(error.code, error.detail)
        return
    assert exchange.route is not None
    retry = exchange.route.retry
    if error.code == "reused-closed":
        # RFC 9112 §9.3.1: an idle connection may close as we write; only what is idempotent
        # may be sent again, since the endpoint may have read it (istio issue 50506).
        if has_another(exchange, idempotent=True, always=True):
            exchange.fresh = True
            _again(exchange, error)
            return
        error = UpstreamError("upstream-closed", error.detail, sent=True)
    elif error.code == "upstream-refused":
        # The endpoint says that it has not looked at it (RFC 9113 §8.7): safe for any method.
        if has_another(exchange, idempotent=False, always=True):
            _again(exchange, error)
            return
    elif not error.sent:
        if retry.on_connect and has_another(exchange, idempotent=False):
            _again(exchange, error, back_off(exchange))
            return
    elif retry.on_reset and has_another(exchange, idempotent=True):
        _again(exchange, error, back_off(exchange))
        return
    exchange.fail(error.code, error.detail)


def is_retried(exchange: Exchange, head: ResponseHead, *, end: bool) -> bool:
    """Try again if the policy asks for it after such a response; say whether."""
    assert exchange.route is not None
    if not exchange.route.retry.asks_for(head) or not has_another(exchange, idempotent=True):
        return False
    wait = wait_after(exchange, head)
    if wait is None:
        return False
    if end and exchange.client is not None:
        exchange.client.release()
        exchange.client = None
    error = UpstreamError("retries-exhausted", f"status {head.status}", sent=True)
    _again(exchange, error, wait)
    return True


def is_call_retried(exchange: Exchange, status: bytes, said: Fields) -> bool:
    """Try again if the policy names this `grpc-status`; say whether."""
    assert exchange.route is not None
    if status not in exchange.route.retry.on_grpc or not has_another(exchange, idempotent=False):
        return False
    wait = wait_after(exchange, said)
    if wait is None:
        return False
    client, exchange.client = exchange.client, None
    assert client is not None  # whose response it is
    client.release()
    detail = f"grpc-status {status.decode('latin-1')}"
    _again(exchange, UpstreamError("retries-exhausted", detail, sent=True), wait)
    return True


def _again(exchange: Exchange, error: UpstreamError, wait: float | None = None) -> None:
    """Try once more, after `wait` seconds; None: within this call."""
    endpoint, route = exchange.endpoint, exchange.route
    assert endpoint is not None
    assert route is not None
    client, exchange.client = exchange.client, None
    if client is not None:
        client.close()
    endpoint.active -= 1
    if not exchange.fresh:
        exchange.tried = (*exchange.tried, endpoint)
        exchange.endpoint = None
    count_retry(exchange)
    if exchange.grpc is not None:
        exchange.grpc.forget()
    exchange.step(CONNECTING)
    if route.retry.counts:
        tell_attempt(exchange, exchange.attempts + 1)
    if wait is None:
        exchange.attempt(exchange.engine.now())
        return
    exchange.retry_at = exchange.engine.now() + wait
    exchange.try_deadline = NEVER
    exchange.detail = error.detail
    exchange.arm()
