"""Which protocol a connection speaks, by its first octets."""

import re
from typing import Final

NEED_MORE, TLS, HTTP1, HTTP2, OTHER = range(5)

MAX_REQUEST_LINE: Final = 4096  # octets looked at for ` HTTP/1.` behind a method nobody knows

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
_METHODS: Final = frozenset(
    b"GET POST PUT DELETE HEAD OPTIONS PATCH CONNECT TRACE PROPFIND PROPPATCH MKCOL COPY MOVE LOCK"
    b" UNLOCK REPORT SEARCH MERGE PURGE LINK UNLINK".split()
)
_METHOD: Final = re.compile(rb"[A-Z_-]{1,20}")


def sniff(data: bytes) -> int:
    """Return TLS, HTTP1, HTTP2 or OTHER, or NEED_MORE while `data` may become several of them."""
    if not data:
        return NEED_MORE
    if data[0] == 22:  # a TLS handshake record (RFC 8446 §5.1): 22, 3, x, length, client_hello (1)
        if data[1:2] not in (b"", b"\x03"):
            return OTHER
        if len(data) < 6:
            return NEED_MORE
        return TLS if data[5] == 1 else OTHER
    if data.startswith(b"\r\n"):
        data = data[2:]  # one empty line before a request is let pass (RFC 9112 §2.2)
        if not data:
            return NEED_MORE
    if data[:3] == b"PRI":
        head = data[: len(_PREFACE)]
        if _PREFACE.startswith(head):
            return HTTP2 if len(head) == len(_PREFACE) else NEED_MORE
    method, space, _ = data.partition(b" ")
    if space and method in _METHODS:
        return HTTP1
    if not space and data == b"\r":
        return NEED_MORE
    if _METHOD.fullmatch(method) is None:
        return OTHER
    if not space:
        return NEED_MORE
    line, end, _ = data.partition(b"\n")
    if b" HTTP/1." in line:
        return HTTP1
    return OTHER if end or len(line) > MAX_REQUEST_LINE else NEED_MORE
