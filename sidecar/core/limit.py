"""What filters that keep a rate have in common: whose bucket a request takes from, and how it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from sidecar.core.api import Answer

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange

SHADOW: Final = "rate_limit_shadow"
"""The access log's field, and the metrics' mark, for what a shadow rule would have refused."""

Part = Callable[["Exchange"], bytes]
"""One part of a bucket's key."""

Key = tuple[bytes, ...]

_LONGEST: Final = 64  # octets of a key's part that are kept; a caller chooses most of them


def key_of(parts: tuple[Part, ...], exchange: Exchange) -> Key:
    """Return the key of `exchange`'s bucket."""
    return tuple([_short(part(exchange)) for part in parts])


def spell(key: Key) -> str:
    """Return `key` as one word: equal only for equal keys, and nothing of a caller can be read in it."""
    if not key:
        return ""
    digest = blake2b(digest_size=16)
    for part in key:
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()


def refusal(name: str, limit: int, window: float, reset: float, retry_after: float) -> Answer:
    """Return the answer of rule `name`: `limit` requests in `window` seconds are taken.

    `reset` and `retry_after` are seconds until all of them, and until one, is taken again.
    """
    # draft-ietf-httpapi-ratelimit-headers-03, the one that Envoy speaks too.
    fields = (
        (b"RateLimit-Limit", b"%d" % limit),
        (b"RateLimit-Remaining", b"0"),
        (b"RateLimit-Reset", b"%d" % math.ceil(reset)),
        (b"RateLimit-Policy", b"%d;w=%d" % (limit, math.ceil(window))),
        (b"Retry-After", b"%d" % math.ceil(retry_after)),
    )
    return Answer("rate-limited", fields=fields, detail=f"limit {name}")


def _short(value: bytes) -> bytes:
    return value if len(value) <= _LONGEST else blake2b(value, digest_size=16).digest()
