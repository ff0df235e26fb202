"""gRPC-Web for browsers, which see no trailers: a downstream side before the real one (PROTOCOL-WEB)."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final, final

from sidecar.errors import DownstreamError
from sidecar.wire.grpc import web_trailers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.core.replies import Reply
    from sidecar.core.sides import Downstream
    from sidecar.core.timers import Timer
    from sidecar.wire.fields import Field, Fields, RequestHead, ResponseHead

WEB: Final = b"application/grpc-web"
_TEXT: Final = b"application/grpc-web-text"


@final
class GrpcWeb:
    """Turns a gRPC-Web request into gRPC, and the response back."""

    __slots__ = ("_base", "_rest", "_side", "_text")

    def __init__(self, side: Downstream, head: RequestHead) -> None:
        kind = head.found[b"content-type"]
        self._side: Final = side
        self._text: Final = kind.startswith(_TEXT)
        self._base: Final = _TEXT if self._text else WEB
        self._rest = b""  # of base64, not yet four characters
        head.set(b"content-type", b"application/grpc" + kind[len(self._base) :])
        if head.get(b"te") is None:
            head.add(b"te", b"trailers")
        if self._text and head.length is not None:  # the decoded body is shorter
            head.remove(b"content-length")
            head.length = None
            if head.pairs is None:
                head.chunked = True
                head.add(b"Transfer-Encoding", b"chunked")

    def decode(self, data: bytes) -> bytes:
        """Return the octets of the gRPC body in a piece of the request's.

        Raises:
            DownstreamError: `bad-grpc-web`, it is no base64.
        """
        if not self._text:
            return data
        data = self._rest + data
        whole = len(data) // 4 * 4
        self._rest = data[whole:]
        try:
            if b"=" not in data:
                return base64.b64decode(data[:whole], validate=True)
            # Senders may pad every piece that they write, not only the last.
            quads = [data[at : at + 4] for at in range(0, whole, 4)]
            return b"".join([base64.b64decode(quad, validate=True) for quad in quads])
        except binascii.Error as error:
            raise DownstreamError("bad-grpc-web", f"no base64: {error}") from error

    # The side:

    @property
    def timer(self) -> Timer:
        """The real side's."""
        return self._side.timer

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        """Send the response's head as gRPC-Web; a status in it stays there."""
        kind = head.get(b"content-type")
        if kind is not None and kind.startswith(b"application/grpc"):
            head.set(b"content-type", self._base + kind[len(b"application/grpc") :])
        if not end and head.length is not None:
            head.remove(b"content-length")  # the trailers come on top
            head.length = None
        self._side.respond(head, self._encode(body), end=end)

    def inform(self, head: ResponseHead) -> None:
        """Send an interim response."""
        self._side.inform(head)

    def write(self, data: bytes) -> None:
        """Send more of the body."""
        self._side.write(self._encode(data))

    def finish(self, trailers: Fields | None) -> None:
        """Send the trailers as the last frame of the body."""
        if trailers is not None:
            self._side.write(self._encode(web_trailers(trailers.as_lines())))
        self._side.finish(None)

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        """Send a whole response of our own."""
        self._side.reply(reply, text, fields)

    def cut(self) -> None:
        """End a response that has begun and cannot be ended properly."""
        self._side.cut()

    def closed(self) -> None:
        """Both directions are over."""
        self._side.closed()

    def pause(self) -> None:
        """Stop reading the request's body."""
        self._side.pause()

    def resume(self) -> None:
        """Go on reading it."""
        self._side.resume()

    def _encode(self, data: bytes) -> bytes:
        return base64.b64encode(data) if self._text and data else data
