"""What a proxy has to know of gRPC: who speaks it, deadlines, messages, and a status for a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote

from sidecar.core.failure import is_call_retried
from sidecar.core.grpc_web import WEB, GrpcWeb
from sidecar.core.timers import NEVER
from sidecar.wire.fields import ResponseHead
from sidecar.wire.grpc import MessageCounter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.core.exchange import Exchange
    from sidecar.core.replies import Reply
    from sidecar.wire.fields import Field, Fields, RequestHead

GRPC: Final = b"application/grpc"

STATUSES: Final = {
    # The conditions of Envoy's x-envoy-retry-grpc-on, and their codes.
    "cancelled": b"1",
    "deadline-exceeded": b"4",
    "internal": b"13",
    "resource-exhausted": b"8",
    "unavailable": b"14",
}
_UNKNOWN: Final = 2
_BY_STATUS: Final = {
    # What gRPC itself makes of an HTTP status (doc/http-grpc-status-mapping.md)...
    400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14,
    # ...but where it was a deadline that passed we know better: DEADLINE_EXCEEDED.
    408: 4, 504: 4,
}  # fmt: skip
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_DIGITS: Final = 8  # of a timeout, at most (PROTOCOL-HTTP2, "TimeoutValue")
_SAFE: Final = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


@final
class Call:
    """The gRPC part of an exchange."""

    __slots__ = ("deadline", "requests", "responses", "status", "withheld")

    def __init__(self, head: RequestHead, now: float) -> None:
        self.requests: Final = MessageCounter()
        self.responses: Final = MessageCounter()
        self.status = b""  # `grpc-status` as it came, or as we said it
        self.withheld: ResponseHead | None = None  # until it is known whether it is retried
        text = head.found.get(b"grpc-timeout")
        timeout = None if text is None else parse_timeout(text)
        self.deadline: Final = NEVER if timeout is None else now + timeout

    def pass_on(self, head: RequestHead, now: float) -> None:
        """Tell the endpoint how much of the caller's time is left."""
        if self.deadline != NEVER:
            head.set(b"grpc-timeout", format_timeout(self.deadline - now))

    def keeps_back(self, exchange: Exchange, head: ResponseHead, body: bytes, *, end: bool) -> bool:
        """Say whether the response's head goes no further: a retry, or until trailers can tell."""
        assert exchange.route is not None
        self.status = head.found.get(b"grpc-status", b"")
        if not exchange.route.retry.on_grpc or body or self.withheld is not None:
            return False
        if self.status:
            return is_call_retried(exchange, self.status, head)
        if end:
            return False
        self.withheld = head
        return True

    def let_go(self, exchange: Exchange) -> None:
        """Send a head that was kept back: there will be no retry."""
        head = self.withheld
        if head is not None:
            exchange.response(head, b"", end=False)
            self.withheld = None

    def is_retried(self, exchange: Exchange, trailers: Fields | None) -> bool:
        """The call is over: say whether it is tried again, by the status in `trailers`."""
        if trailers is not None:
            self.status = trailers.get(b"grpc-status") or self.status
        if self.withheld is not None:
            if is_call_retried(exchange, self.status, trailers or self.withheld):
                return True
            self.let_go(exchange)
        return False

    def forget(self) -> None:
        """The attempt is given up."""
        self.status = b""
        self.withheld = None

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field] = ()) -> ResponseHead:
        """Return a reply of ours as a response of trailers only (PROTOCOL-HTTP2)."""
        status = reply.grpc_status
        self.status = b"%d" % (status if status >= 0 else _BY_STATUS.get(reply.status, _UNKNOWN))
        message = quote(text.strip(), safe=_SAFE).encode()
        pairs = [(b"content-type", GRPC), (b"grpc-status", self.status), (b"grpc-message", message)]
        pairs += [(name, value) for name, value in fields if name != b"content-type"]
        return ResponseHead(200, b"", 20, b"", {}, pairs)


def begin_call(exchange: Exchange, body: bytes) -> bytes:
    """See whether a request with a content type is a call, and return its body as gRPC has it."""
    head = exchange.head
    if exchange.listener.grpc_web and head.found[b"content-type"].startswith(WEB):
        exchange.downstream = exchange.web = GrpcWeb(exchange.downstream, head)
        body = exchange.web.decode(body)
    if is_grpc(head):
        exchange.grpc = Call(head, exchange.started)
        exchange.route_deadline = exchange.grpc.deadline
        exchange.grpc.requests.feed(body)
    return body


def is_grpc(head: RequestHead) -> bool:
    """Say whether the request is a gRPC call; gRPC-Web is not, before it is made one."""
    kind = head.found.get(b"content-type")
    return kind == GRPC or (kind is not None and kind.startswith(GRPC) and kind[16:20] != b"-web")


def parse_timeout(value: bytes) -> float | None:
    """Return the seconds of a `grpc-timeout`; None for what is none."""
    digits, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not 0 < len(digits) <= _DIGITS or not digits.isdigit():
        return None
    return int(digits) * unit


def format_timeout(seconds: float) -> bytes:
    """Return `seconds` as a `grpc-timeout`, in the finest unit that fits; never over it."""
    if seconds <= 0:
        return b"0n"
    for unit, size in ((b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0)):
        count = int(seconds / size)
        if count < 10**_DIGITS:
            return b"%d%b" % (count, unit)
    return b"%dH" % min(int(seconds / 3600), 10**_DIGITS - 1)
