"""How does the sidecar make a unary gRPC call: what goes around its one message each way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from sidecar.core.call import CallResult, call_head
from sidecar.core.grpc import GRPC, format_timeout
from sidecar.wire.grpc import unpack

if TYPE_CHECKING:
    from sidecar.wire.fields import Field, RequestHead

_FIELDS: Final = ((b"content-type", GRPC), (b"te", b"trailers"))


def unary_head(
    path: bytes, authority: bytes, timeout: float, length: int, fields: Sequence[Field] = ()
) -> RequestHead:
    """Return the head of a call to `path` (`/package.Service/Method`); the body is `grpc.pack`'s."""
    head = call_head(b"POST", path, authority, (*_FIELDS, *fields), length, 20)
    # Not among what the engine looks at: it need not set the deadline, the plan has one.
    head.pairs = [*head.as_pairs(), (b"grpc-timeout", format_timeout(timeout))]
    return head


def unary_result(result: CallResult) -> CallResult:
    """Return `result` with the message for its body; whatever is not OK has a code."""
    if result.code:
        return result
    head = result.head
    assert head is not None
    status = head.get(b"grpc-status")
    text = head.get(b"grpc-message")
    if status is None and result.trailers is not None:
        status = result.trailers.get(b"grpc-status")
        text = result.trailers.get(b"grpc-message")
    if head.status != 200 or status != b"0":
        said = "no grpc-status" if status is None else f"grpc-status {status.decode('latin-1')}"
        more = unquote((text or b"").decode("latin-1"))
        detail = f"status {head.status}, {said} {more}".rstrip()
        return result._replace(code="call-refused", detail=detail, body=b"")
    message = unpack(result.body)
    if message is None:
        detail = "expected one message, not compressed"
        return result._replace(code="call-bad-answer", detail=detail, body=b"")
    return result._replace(body=message)
