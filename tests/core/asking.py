"""One question to the engine by either protocol, and the answer in the same form."""

from collections.abc import Iterable
from typing import Final, NamedTuple, final

from sidecar.wire.fields import Field
from tests.core.harness import Harness
from tests.core.http2_peer import Peer
from tests.core.reading import Message, read_response
from tests.core.transport import FakeTransport

HTTP1, HTTP2 = "HTTP/1.1", "HTTP/2"
PROTOCOLS: Final = (HTTP1, HTTP2)


class Seen(NamedTuple):
    """An answer; names are in lower case."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes


@final
class Asked:
    """A caller that has asked one thing."""

    def __init__(self, transport: FakeTransport, method: bytes, peer: Peer | None) -> None:
        self.transport: Final = transport
        self._method: Final = method
        self.peer: Final = peer

    @property
    def is_answered(self) -> bool:
        """Something has come that is an answer, or the beginning of one."""
        return bool(self.transport.got if self.peer is None else self.peer[1].heads)

    @property
    def is_reset(self) -> bool:
        """The stream was (HTTP/2 only)."""
        assert self.peer is not None
        return self.peer[1].reset != ""

    def answer(self) -> Seen:
        """Return the answer, which must be there and whole."""
        if self.peer is None:
            message = read_response(self.transport.take(), self._method)
            assert isinstance(message, Message), message
            (status,) = message.start
            return Seen(status, _joined((n.lower(), v) for n, v in message.fields), message.body)
        got = self.peer[1]
        assert got.ended
        ((_, *fields),) = got.heads
        return Seen(got.status, _joined(fields), got.data)


def ask(
    harness: Harness,
    protocol: str = HTTP1,
    target: str = "/",
    *fields: tuple[str, str],
    method: str = "GET",
    host: str = "a",
    source: str = "10.9.9.9",
    identity: str | None = None,
) -> Asked:
    """Send a request without a body."""
    if protocol == HTTP1:
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode()
        opened = harness.open(head, host=source, identity=identity)
        return Asked(opened, method.encode(), None)
    assert identity is None, "the harness knows callers over HTTP/1 only"
    peer = Peer(harness.open(host=source), caller=True)
    octets = [(name.lower().encode(), value.encode()) for name, value in fields]
    peer.ask(method.encode(), target.encode(), octets, authority=host.encode())
    return Asked(peer.transport, method.encode(), peer)


def _joined(fields: Iterable[Field]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        found[name] = found[name] + b", " + value if name in found else value
    return found
