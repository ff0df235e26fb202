"""One question to the engine by either protocol, and the answer in the same form."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, final

from sidecar.wire.fields import Field
from sidecar.wire.http2 import Link
from sidecar.wire.http2_stream import Stream
from tests.core.harness import Harness
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

    def __init__(self, transport: FakeTransport, method: bytes, link: "_Caller | None") -> None:
        self.transport: Final = transport
        self._method: Final = method
        self._link: Final = link

    @property
    def is_answered(self) -> bool:
        """Something has come that is an answer, or the beginning of one."""
        if self._link is None:
            return bool(self.transport.got)
        self._link.receive(self.transport.take())
        return bool(self._link.fields)

    @property
    def is_reset(self) -> bool:
        """The stream was (HTTP/2 only)."""
        assert self._link is not None
        self._link.receive(self.transport.take())
        return self._link.reset is not None

    def answer(self) -> Seen:
        """Return the answer, which must be there and whole."""
        if self._link is None:
            message = read_response(self.transport.take(), self._method)
            assert isinstance(message, Message), message
            (status,) = message.start
            return Seen(status, _joined((n.lower(), v) for n, v in message.fields), message.body)
        self._link.receive(self.transport.take())
        assert self._link.is_over
        (_, status), *fields = self._link.fields
        return Seen(int(status), _joined(fields), self._link.body)


@final
class _Caller:
    """The caller's end of HTTP/2."""

    def __init__(self) -> None:
        self.link: Final = Link(self, lambda: 0.0, client=True)
        self.fields: list[Field] = []
        self.body = b""
        self.is_over = False
        self.reset: int | None = None

    def receive(self, data: bytes) -> None:
        self.link.receive(data)

    def headers(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        self.fields += fields
        self.is_over = end

    def data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        self.body += data
        self.is_over = end

    def ended_early(self, stream: Stream, code: int, detail: str) -> None:
        self.reset = code

    def __getattr__(self, name: str) -> Any:
        """What else a link tells of is of no interest."""
        return lambda *_, **__: None


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
    transport = harness.open(host=source)
    caller = _Caller()
    pairs = [(":method", method), (":scheme", "http"), (":authority", host), (":path", target)]
    octets = [(name.lower().encode(), value.encode()) for name, value in (*pairs, *fields)]
    caller.link.send_headers(caller.link.open(), octets, end=True)
    transport.send(caller.link.take())
    return Asked(transport, method.encode(), caller)


def _joined(fields: Iterable[Field]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in fields:
        found[name] = found[name] + b", " + value if name in found else value
    return found
