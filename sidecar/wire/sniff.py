"""Which protocol a connection speaks, by its first octets."""

import re
from typing import Final

NEED_MORE, TLS, HTTP1, HTTP2, OTHER = range(5)

MAX_REQUEST_LINE: Final = 4096  # octets looked at for ` HTTP/1.` behind a method nobody knows
MAX_METHOD: Final = 20  # octets; the longest registered one, UPDATEREDIRECTREF, has 17

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
_METHODS: Final = frozenset(
    b"GET POST PUT DELETE HEAD OPTIONS PATCH CONNECT TRACE PROPFIND PROPPATCH MKCOL COPY MOVE LOCK"
    b" UNLOCK REPORT SEARCH MERGE PURGE LINK UNLINK".split()
)
_METHOD: Final = re.compile(rb"[A-Z_-]{1,%d}" % MAX_METHOD)


def sniff(data: bytes) -> int:
    """Return TLS, HTTP1, HTTP2 or OTHER, or NEED_MORE while `data` may become several of them.

    What is said of some octets is said of all that begin with them.
    """
    if data[:4] == b"GET " or data[:5] == b"POST ":
        return HTTP1
    if not data:
        return NEED_MORE
    if data[0] == 22:  # a TLS record (RFC 8446 §5.1): 22 handshake, 3, x, length; 1 client_hello
        if data[1:2] not in (b"", b"\x03"):
            return OTHER
        if len(data) < 6:
            return NEED_MORE
        return TLS if data[5] == 1 else OTHER
    if data[:3] == b"PRI":
        start = data[: len(_PREFACE)]
        if _PREFACE.startswith(start):
            return HTTP2 if len(start) == len(_PREFACE) else NEED_MORE
    return _sniff_request(data)


def may_be_http2(data: bytes) -> bool:
    """Say whether `data` may become the preface of HTTP/2."""
    return _PREFACE.startswith(data[: len(_PREFACE)])


def _sniff_request(data: bytes) -> int:
    """Return HTTP1, OTHER or NEED_MORE for what is neither TLS nor HTTP/2."""
    at = 0
    if data[:1] == b"\r":  # one empty line before a request is let pass (RFC 9112 §2.2)
        if data[1:2] not in (b"", b"\n"):
            return OTHER
        at = 2
        if len(data) <= at:
            return NEED_MORE
    space = data.find(b" ", at, at + MAX_METHOD + 1)
    method = data[at : at + MAX_METHOD + 1] if space < 0 else data[at:space]
    if space >= 0 and method in _METHODS:
        return HTTP1
    if _METHOD.fullmatch(method) is None:
        return OTHER
    if space < 0:
        return NEED_MORE
    line_end = data.find(b"\n", space, MAX_REQUEST_LINE)
    if data.find(b" HTTP/1.", space, MAX_REQUEST_LINE if line_end < 0 else line_end) >= 0:
        return HTTP1
    return OTHER if line_end >= 0 or len(data) >= MAX_REQUEST_LINE else NEED_MORE
