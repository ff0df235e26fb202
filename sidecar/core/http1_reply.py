"""A whole HTTP/1 response of our own, as octets."""

from collections.abc import Sequence

from sidecar.core.replies import Reply, own_fields, reply_for
from sidecar.wire.fields import Field, reason_phrase


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
