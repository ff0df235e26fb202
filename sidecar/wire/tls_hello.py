"""Which server a TLS hello asks for (RFC 8446 §4.1.2, RFC 6066 §3, RFC 7301)."""

import re
from typing import Final, NamedTuple

from sidecar.errors import DownstreamError

MAX_HELLO: Final = 16384  # octets; a hello is some hundred, with post-quantum keys under 2 KiB

_NAME: Final = re.compile(rb"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253})")


class Hello(NamedTuple):
    """What a TLS hello says; `server_name` is lower case, empty if there is none."""

    server_name: str
    alpn: tuple[bytes, ...]


def parse_hello(data: bytes) -> Hello | None:
    """Return what the hello at the start of `data` says; None: it is not whole yet.

    Raises:
        DownstreamError: `bad-tls-hello`, `tls-hello-too-large`.
    """
    handshake = b""
    at = 0
    while True:
        if len(data) < at + 5:
            return _more(handshake)
        if data[at] != 22 or data[at + 1] != 3:
            raise DownstreamError("bad-tls-hello", f"expected a handshake record, got {data[at]}")
        size = int.from_bytes(data[at + 3 : at + 5])
        if not 0 < size <= MAX_HELLO:
            raise DownstreamError("bad-tls-hello", f"a record of {size} octets")
        handshake += data[at + 5 : at + 5 + size]
        if len(handshake) >= 4:
            if handshake[0] != 1:
                raise DownstreamError("bad-tls-hello", f"handshake type {handshake[0]}, not 1")
            length = int.from_bytes(handshake[1:4])
            if length > MAX_HELLO:
                raise DownstreamError("tls-hello-too-large", f"{length} octets")
            if len(handshake) >= 4 + length:
                return _read(handshake[4 : 4 + length])
        if len(data) < at + 5 + size:
            return _more(handshake)
        at += 5 + size


def _more(handshake: bytes) -> None:
    if len(handshake) > MAX_HELLO:
        raise DownstreamError("tls-hello-too-large", f"more than {MAX_HELLO} octets")


def _read(body: bytes) -> Hello:
    """Read a whole ClientHello, without its handshake header."""
    at = 34  # legacy_version, random
    at = _skip(body, at, 1)  # legacy_session_id
    at = _skip(body, at, 2)  # cipher_suites
    at = _skip(body, at, 1)  # legacy_compression_methods
    name, alpn = "", ()
    if at == len(body):
        return Hello("", ())  # no extensions at all: allowed before TLS 1.3
    extensions = _vector(body, at, 2)
    at = 0
    while at < len(extensions):
        kind = int.from_bytes(extensions[at : at + 2])
        value = _vector(extensions, at + 2, 2)
        at += 4 + len(value)
        if kind == 0:
            name = _server_name(value)
        elif kind == 16:
            alpn = _protocols(value)
    return Hello(name, alpn)


def _server_name(value: bytes) -> str:
    names = _vector(value, 0, 2)
    if names[:1] != b"\x00":
        raise DownstreamError("bad-tls-hello", "a server name of an unknown type")
    name = _vector(names, 1, 2)
    if _NAME.fullmatch(name) is None:
        raise DownstreamError("bad-tls-hello", f"bad server name {name[:60]!r}")
    return name.decode("ascii").lower().rstrip(".")


def _protocols(value: bytes) -> tuple[bytes, ...]:
    names = _vector(value, 0, 2)
    found = []
    at = 0
    while at < len(names):
        name = _vector(names, at, 1)
        found.append(name)
        at += 1 + len(name)
    return tuple(found)


def _vector(data: bytes, at: int, width: int) -> bytes:
    """Return the vector at `at`, whose length takes `width` octets (RFC 8446 §3.4)."""
    start = at + width
    end = start + int.from_bytes(data[at:start])
    if start > len(data) or end > len(data):
        raise DownstreamError("bad-tls-hello", "a length beyond the end")
    return data[start:end]


def _skip(data: bytes, at: int, width: int) -> int:
    return at + width + len(_vector(data, at, width))
