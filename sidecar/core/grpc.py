"""What a proxy has to know of gRPC: who speaks it, deadlines, and a status in place of a body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from sidecar.core.replies import Reply
    from sidecar.wire.fields import Field, RequestHead

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = range(5)
PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 7, 8, 12, 13, 14
UNAUTHENTICATED: Final = 16

_BY_STATUS: Final = {
    # What gRPC itself makes of a status without grpc-status (doc/http-grpc-status-mapping.md).
    400: INTERNAL, 401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: UNIMPLEMENTED,
    429: UNAVAILABLE, 502: UNAVAILABLE, 503: UNAVAILABLE,
    # Where we know better: it was a deadline that passed.
    408: DEADLINE_EXCEEDED, 504: DEADLINE_EXCEEDED,
}  # fmt: skip
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_DIGITS: Final = 8  # of a timeout, at most (PROTOCOL-HTTP2, "TimeoutValue")
_SAFE: Final = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def is_grpc(head: RequestHead) -> bool:
    """Say whether the request is a gRPC call (not gRPC-Web, which is HTTP)."""
    kind = head.found.get(b"content-type")
    return (
        kind is not None
        and kind.startswith(b"application/grpc")
        and not kind.startswith(b"application/grpc-web")
    )


def status_of(reply: Reply) -> int:
    """Return the gRPC status for a reply of ours."""
    return _BY_STATUS.get(reply.status, UNKNOWN)


def reply_fields(reply: Reply, text: bytes) -> list[Field]:
    """Return a reply of ours as a response of trailers only (PROTOCOL-HTTP2, "Trailers-Only")."""
    return [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"%d" % status_of(reply)),
        (b"grpc-message", quote(text.strip(), safe=_SAFE).encode()),
    ]


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
    for unit, size in ((b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0), (b"H", 3600.0)):
        count = int(seconds / size)
        if count < 10**_DIGITS:
            return b"%d%b" % (count, unit)
    return b"99999999H"
