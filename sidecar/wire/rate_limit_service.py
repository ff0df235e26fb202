"""The messages of `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit` (rls.proto)."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.wire.protobuf import (
    MalformedError,
    last_number,
    last_text,
    merged,
    message,
    read,
    text,
    texts,
)

PATH: Final = b"/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

OK, OVER_LIMIT = 1, 2
UNITS: Final = (0, 1, 60, 3600, 86400, 2592000, 31536000, 604800)
"""Seconds of each RateLimit.Unit: unknown, second, minute, hour, day, month, year, week."""


class Limit(NamedTuple):
    """One limit that holds for what was asked about."""

    requests: int
    """In `window` seconds."""

    window: int
    """0: the service does not say."""

    remaining: int
    reset: int
    """Seconds until all of it is there again; 0: the service does not say."""


class Verdict(NamedTuple):
    """What the service says."""

    code: int
    limits: tuple[Limit, ...]
    response_fields: tuple[tuple[bytes, bytes], ...]
    request_fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


def encode_request(domain: bytes, entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a RateLimitRequest about one descriptor, which `entries` make."""
    found = b"".join([message(1, text(1, key) + text(2, value)) for key, value in entries])
    return text(1, domain) + message(2, found)


def decode_response(data: bytes) -> Verdict:
    """Return what a RateLimitResponse says.

    Raises:
        MalformedError: it is none, or it decides nothing.
    """
    fields = read(data)
    code = last_number(fields, 1)
    if code not in (OK, OVER_LIMIT):
        raise MalformedError(f"overall code {code}")
    limits = []
    for status in texts(fields, 2):
        parts = read(status)
        current = merged(parts, 2)
        if current is None:
            continue  # no limit is set for it
        limit = read(current)
        unit = last_number(limit, 2)
        reset = read(merged(parts, 4) or b"")
        limits.append(
            Limit(
                last_number(limit, 1),
                UNITS[unit] if unit < len(UNITS) else 0,
                last_number(parts, 3),
                last_number(reset, 1),
            )
        )
    raw = texts(fields, 5)
    return Verdict(
        code, tuple(limits), _pairs(fields, 3), _pairs(fields, 4), raw[-1] if raw else b""
    )


def _pairs(fields: list[tuple[int, int | bytes]], field: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the HeaderValues of a field."""
    found = []
    for header in texts(fields, field):
        parts = read(header)
        raw = texts(parts, 3)
        value = last_text(parts, 2)
        found.append((last_text(parts, 1), raw[-1] if raw and raw[-1] else value))
    return tuple(found)
