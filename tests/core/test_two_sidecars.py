"""HTTP/1 through two sidecars that speak HTTP/2 with each other: it arrives as it was written."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.harness import OWN, Harness
from tests.core.http2_peer import Peer
from tests.core.transport import HALF, FakeTransport

Make = Callable[..., Harness]

H2: dict[str, Any] = {"cluster": {"protocol": "http2"}}
SPELLING = b"x-sidecar-spelling"


class Pair:
    """An app, its sidecar, the sidecar of the other, and that one's app."""

    def __init__(self, make: Make, alpn: str) -> None:
        self.near, self.far = make(**H2), make()
        self.app = self.near.open()
        self.other: FakeTransport | None = None
        self.alpn = alpn
        self.up: FakeTransport | None = None

    def ask(self, data: bytes) -> bytes:
        """The app says `data`; return what arrives at the other app."""
        self.app.send(data)
        if self.up is None:
            self.up = self.near.begun[0].connect(alpn=self.alpn)
            self.down = self.far.open(alpn=self.alpn)
        self.relay()
        if self.far.begun:
            self.other = self.far.connect()
        assert self.other is not None
        self.relay()
        return self.other.take()

    def answer(self, data: bytes) -> bytes:
        """The other app says `data`; return what arrives at the first."""
        assert self.other is not None
        self.other.send(data)
        self.relay()
        return self.app.take()

    def relay(self) -> None:
        """Let the two sidecars read each other."""
        assert self.up is not None
        while True:
            there, back = self.up.take(), self.down.take()
            if not there and not back:
                return
            if there:
                self.down.send(there)
            if back:
                self.up.send(back)


REQUESTS: dict[str, bytes] = {
    "Host last": b"GET /p HTTP/1.1\r\nX-Upper: 1\r\nx-lower: 2\r\nHost: a\r\n\r\n",
    "Host in the middle": b"GET /p HTTP/1.1\r\nB: 1\r\nHOST: a\r\nA: 2\r\n\r\n",
    "repeated": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\nx: 3\r\nX: 4\r\n\r\n",
    "a length": b"PUT / HTTP/1.1\r\nhost: a\r\nCONTENT-length: 2\r\nZ: 1\r\n\r\nhi",
    "no length": b"POST / HTTP/1.1\r\nHost: a\r\nZ: 1\r\n\r\n",
    "chunks": b"PUT / HTTP/1.1\r\nA: 1\r\nTransfer-Encoding: chunked\r\nHost: a\r\nZ: 1\r\n\r\n"
    b"2\r\nhi\r\n0\r\n\r\n",
    "cookies": b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; b=2\r\nZ: 1\r\n\r\n",
}
RESPONSES: dict[str, bytes] = {
    "a length": b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\nok",
    "chunks": b"HTTP/1.1 200 OK\r\nA: x\r\nTRANSFER-Encoding: chunked\r\nB: y\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "no body": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nX-Y: z\r\n\r\n",
}


def with_ours(request: bytes) -> bytes:
    lines, _, body = request.partition(b"\r\n\r\n")
    return lines + b"\r\n" + OWN + b"\r\n" + body


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_arrives_as_it_was_written(make: Make, name: str) -> None:
    pair = Pair(make, "sidecar-h2")
    for _ in range(2):  # the second time from what is remembered
        assert pair.ask(REQUESTS[name]) == with_ours(REQUESTS[name])
        pair.answer(RESPONSES["a length"])
    assert len(pair.near.dials) == 1


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_arrives_as_it_was_written(make: Make, name: str) -> None:
    pair = Pair(make, "sidecar-h2")
    for _ in range(2):
        pair.ask(REQUESTS["Host last"])
        assert pair.answer(RESPONSES[name]) == RESPONSES[name]


def test_to_another_server_nothing_is_said_of_spelling(make: Make) -> None:
    pair = Pair(make, "h2")
    assert pair.ask(REQUESTS["Host last"]) == with_ours(
        b"GET /p HTTP/1.1\r\nHost: a\r\nx-upper: 1\r\nx-lower: 2\r\n\r\n"
    )
    assert pair.answer(RESPONSES["no body"]) == (
        b"HTTP/1.1 304 Not Modified\r\netag: x\r\nx-y: z\r\n\r\n"
    )


def test_only_a_sidecar_is_believed_about_spelling(make: Make) -> None:
    harness = make()
    caller = harness.call("h2")
    caller.ask(fields=[(b"x-one", b"1"), (SPELLING, b"X-ONE")])
    seen = harness.connect().take()
    assert b"x-one: 1\r\n" in seen
    assert SPELLING not in seen
    harness = make(**H2)
    raw = harness.open(REQUESTS["Host last"])
    upstream = harness.serve("h2")
    assert SPELLING not in upstream[1].head
    upstream.answer(1, 200, [(b"x-one", b"1"), (SPELLING, b"X-ONE")])
    assert b"\r\nx-one: 1\r\n" in raw.take()


def test_what_came_by_http2_has_no_spelling(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call("sidecar-h2")
    stream = caller.ask()
    upstream = harness.serve("sidecar-h2")
    assert SPELLING not in upstream[1].head
    upstream.answer(1)
    assert SPELLING not in caller[stream].head


def test_spelling_passes_a_third_sidecar(make: Make) -> None:
    harness = make(**H2)
    caller = harness.call("sidecar-h2")
    stream = caller.ask(fields=[(b"x-one", b"1"), (SPELLING, b"Host,X-ONE")])
    upstream: Peer = harness.serve("sidecar-h2")
    assert upstream[1].head[SPELLING] == b"Host,X-ONE"
    upstream.answer(1, 200, [(b"x", b"1"), (SPELLING, b"X")])
    assert caller[stream].head[SPELLING] == b"X"


def test_a_websocket_passes_as_it_was_written(make: Make) -> None:
    pair = Pair(make, "sidecar-h2")
    ask = (
        b"GET /ws HTTP/1.1\r\nX-A: 1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"%bConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert pair.ask(ask % b"") == ask % OWN
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nX-B: 2\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert pair.answer(switch) == switch
    assert pair.answer(b"hello") == b"hello"
    assert pair.ask(b"you") == b"you"
    pair.app.end()
    pair.relay()
    assert pair.other is not None
    assert pair.other.fate == HALF
