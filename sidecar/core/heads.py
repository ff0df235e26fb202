"""What we change on a request's head: identity, address, request id, trace context."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from sidecar.core.plan import INBOUND

if TYPE_CHECKING:
    from sidecar.core.exchange import Exchange
    from sidecar.core.types import Engine

_TRACEPARENT: Final = re.compile(
    rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_HTTP: Final = (b"x-forwarded-proto", b"http")
_HTTPS: Final = (b"x-forwarded-proto", b"https")
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")


def request_edits(exchange: Exchange) -> None:
    """Set what a peer may not set itself; keep what a trusted caller has set.

    Trust is an authenticated peer, or the workload's own app on an outbound listener; never an
    address (hazards: header confusion).
    """
    head = exchange.head
    found = head.found
    caller = exchange.caller
    engine = exchange.engine
    inbound = exchange.listener.role == INBOUND
    trusted = not inbound or caller.identity != ""
    extra = exchange.extra
    if b"x-forwarded-client-cert" in found:
        head.remove(b"x-forwarded-client-cert")
    if inbound:
        if caller.identity:
            extra.append(caller.forwarded(engine.identity))
        _forwarded(exchange, trusted=trusted)
    request_id = found.get(b"x-request-id")
    if request_id is not None and not (trusted and _REQUEST_ID.fullmatch(request_id)):
        head.remove(b"x-request-id")
        request_id = None
    if request_id is None:
        request_id = new_request_id(engine)
        extra.append((b"x-request-id", request_id))
    exchange.request_id = request_id
    trace = found.get(b"traceparent")
    if trace is not None and _TRACEPARENT.fullmatch(trace) is None:
        head.remove(b"traceparent")  # the standard asks for a new one (W3C Trace Context §3.2)
        trace = None
    if trace is None:
        trace = new_traceparent(engine)
        extra.append((b"traceparent", trace))
    exchange.traceparent = trace


def _forwarded(exchange: Exchange, *, trusted: bool) -> None:
    """Name the caller's address and scheme, after what a trusted caller said."""
    head, caller = exchange.head, exchange.caller
    found = head.found
    if b"x-forwarded-for" in found and not trusted:
        head.remove(b"x-forwarded-for")
    if caller.host:
        host = caller.host_octets
        old = found.get(b"x-forwarded-for")
        if old is not None:
            head.remove(b"x-forwarded-for")
            host = old + b", " + host
        exchange.extra.append((b"x-forwarded-for", host))
        found[b"x-forwarded-for"] = host
    if not trusted or b"x-forwarded-proto" not in found:
        if b"x-forwarded-proto" in found:
            head.remove(b"x-forwarded-proto")
        exchange.extra.append(_HTTPS if caller.secure else _HTTP)


def new_request_id(engine: Engine) -> bytes:
    """Return a random version 4 UUID (RFC 9562 §5.4) as text."""
    bits = engine.random_bits(128) & _UUID_MASK | _UUID_MARK
    return b"-".join(_uuid(bits.to_bytes(16, "big").hex().encode()))


def new_traceparent(engine: Engine) -> bytes:
    """Return a W3C traceparent for a trace that begins here; the sampled flag is drawn."""
    sampled = "01" if engine.draw() < engine.sampling else "00"
    bits = engine.random_bits(192) | 1 << 64 | 1  # neither id may be zero
    text = bits.to_bytes(24, "big").hex()
    return f"00-{text[:32]}-{text[32:]}-{sampled}".encode()


_uuid: Final = struct.Struct("8s4s4s4s12s").unpack
_UUID_MASK: Final = ~(0xF000_C000_0000_0000_0000)
_UUID_MARK: Final = 0x4000_8000_0000_0000_0000
