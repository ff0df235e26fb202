"""What goes to an HTTP/1 caller that no HTTP/1 endpoint has said: our own responses, those of HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.replies import Reply, own_fields, reply_for
from sidecar.wire.fields import reason_phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.core.http1_server import Http1Server
    from sidecar.wire.fields import Field, RequestHead, ResponseHead


def own(
    reply: Reply,
    text: bytes,
    fields: Sequence[Field] = (),
    *,
    keep: bool,
    version: int,
    bodiless: bool,
) -> bytes:
    """Return the octets of a whole response of our own."""
    connection = (
        b""
        if keep and version == 11
        else b"Connection: keep-alive\r\n"
        if keep
        else (b"Connection: close\r\n")
    )
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (
        reply.status,
        reason_phrase(reply.status),
        b"".join([b"%b: %b\r\n" % field for field in own_fields(reply, text, fields)]),
        connection,
        b"" if bodiless else text,
    )


def own_reply(code: str, detail: str = "") -> bytes:
    """Return a whole response for `code`, for a connection that is closed after it."""
    reply = reply_for(code)
    parts = [f"code {code}", f"flag {reply.flag}", *([detail] if detail else [])]
    text = f"sidecar: {reply.sentence} ({', '.join(parts)})\n".encode()
    return own(reply, text, keep=False, version=11, bodiless=False)


def framed_lines(
    server: Http1Server, head: ResponseHead, request: RequestHead, whole: int, *, bodiless: bool
) -> bytes:
    """Return the field lines of a response that came over HTTP/2, and have `server` frame its body.

    `whole` is the size of a body that is there already; -1: more will come.
    """
    head.reason = reason_phrase(head.status)
    if head.length is None and not bodiless:
        was_chunked = b"transfer-encoding" in head.spelling.lower()
        if whole >= 0 and not (was_chunked and request.version == 11):
            head.add(b"content-length", b"%d" % whole)
        elif request.version == 11:
            server.chunked = True
        else:
            server.keep = False
    return head.as_lines(chunked=server.chunked)
