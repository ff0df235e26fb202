"""Which server a TLS hello asks for (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301)."""

import re
from typing import Final, NamedTuple

from sidecar.errors import DownstreamError

MAX_HELLO: Final = 16384  # octets; a hello is some hundred, with post-quantum keys under 2 KiB
MAX_RECORDS: Final = 16  # that a hello may be spread over; each is looked at again in every call
MAX_RECORD: Final = 16384  # octets (RFC 8446 §5.1)

_RECORD: Final = b"\x16\x03"  # how each begins: type handshake, major version
_CLIENT_HELLO: Final = 1  # handshake type
_SERVER_NAME: Final = 0  # extension types
_ALPN: Final = 16
_HOST_NAME: Final = b"\x00"  # name type

# Letters, digits, hyphens, and the underscore that names within a mesh have.
_NAME: Final = re.compile(rb"(?=.{1,253}\.?\Z)[0-9A-Za-z_-]{1,63}(?:\.[0-9A-Za-z_-]{1,63})*+\.?")


class Hello(NamedTuple):
    """What a TLS hello says."""

    server_name: str
    """Lower case, without a dot at its end; empty: none was sent."""

    alpn: tuple[bytes, ...]
    """Protocol names, the caller's favourite first."""


def parse_hello(data: bytes) -> Hello | None:
    """Return what the hello at the start of `data` says; None: it is not whole yet.

    Raises:
        DownstreamError: `bad-tls-hello`, `tls-hello-too-large`.
    """
    handshake = b""
    at = 0
    for _ in range(MAX_RECORDS):
        start = data[at : at + 5]
        size = start[3] << 8 | start[4] if len(start) == 5 else 1
        # A handshake record may not be empty (RFC 8446 §5.1).
        if not _RECORD.startswith(start[:2]) or not 0 < size <= MAX_RECORD:
            raise _bad(f"expected a handshake record of 1 to {MAX_RECORD} octets, got {start!r}")
        handshake += data[at + 5 : at + 5 + size]
        if handshake and handshake[0] != _CLIENT_HELLO:
            raise _bad(f"expected handshake type {_CLIENT_HELLO}, got {handshake[0]}")
        if len(handshake) >= 4:
            length = int.from_bytes(handshake[1:4])
            if length > MAX_HELLO:
                raise DownstreamError("tls-hello-too-large", f"{length} octets")
            if len(handshake) >= 4 + length:
                return _parse_body(handshake[4 : 4 + length])
        at += 5 + size
        if len(data) < at:
            return None
    raise DownstreamError("tls-hello-too-large", f"more than {MAX_RECORDS} records")


def _parse_body(body: bytes) -> Hello:
    """Read a whole ClientHello, without its handshake header."""
    if body[:1] != b"\x03":
        raise _bad(f"expected version 3, got {body[:2]!r}")
    session, at = _vector(body, 34, 1)  # behind legacy_version and random
    suites, at = _vector(body, at, 2)
    methods, at = _vector(body, at, 1)
    if len(session) > 32 or not suites or len(suites) % 2 or not methods:
        raise _bad("malformed session, cipher suites or compression methods")
    if at == len(body):
        return Hello("", ())  # no extensions at all: allowed before TLS 1.3
    extensions = _only(body, at, 2)
    seen = set()
    name = ""
    alpn: tuple[bytes, ...] = ()
    at = 0
    while at < len(extensions):
        kind = int.from_bytes(extensions[at : at + 2])
        value, at = _vector(extensions, at + 2, 2)
        # Twice is forbidden (RFC 8446 §4.2), and would route by one name and serve another.
        if kind in seen:
            raise _bad(f"extension {kind} came twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _parse_name(value)
        elif kind == _ALPN:
            alpn = _parse_protocols(value)
    return Hello(name, alpn)


def _parse_name(value: bytes) -> str:
    """Return the one host name of a server_name extension; another name type was never defined."""
    names = _only(value, 0, 2)
    if names[:1] != _HOST_NAME:
        raise _bad("a server name of an unknown type")
    name = _only(names, 1, 2)
    if _NAME.fullmatch(name) is None:
        raise _bad(f"malformed server name {name[:60]!r}")
    return name.decode("ascii").lower().rstrip(".")


def _parse_protocols(value: bytes) -> tuple[bytes, ...]:
    names = _only(value, 0, 2)
    found = []
    at = 0
    while at < len(names):
        name, at = _vector(names, at, 1)
        found.append(name)
    if not found or b"" in found:
        raise _bad("an empty protocol name, or none at all")
    return tuple(found)


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """Return the vector at `at`, whose length takes `width` octets, and its end (RFC 8446 §3.4)."""
    start = at + width
    end = start + int.from_bytes(data[at:start])
    if start > len(data) or end > len(data):
        raise _bad("a length beyond the end")
    return data[start:end], end


def _only(data: bytes, at: int, width: int) -> bytes:
    """Return the vector at `at`, behind which nothing may come."""
    value, end = _vector(data, at, width)
    if end != len(data):
        raise _bad(f"{len(data) - end} octets too many")
    return value


def _bad(detail: str) -> DownstreamError:
    return DownstreamError("bad-tls-hello", detail)
