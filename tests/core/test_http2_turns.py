"""What comes in one piece goes on in one piece, from HTTP/2 to HTTP/1.1, and nothing waits for more."""

import pytest

from sidecar.wire.http2 import Link
from sidecar.wire.http2_frames import PROTOCOL_ERROR, goaway
from sidecar.wire.http2_stream import Stream
from tests.core.harness import GET, Harness
from tests.core.transport import FakeTransport
from tests.wire.http2_ends import End

POST = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"),
]  # fmt: skip
OK = [(b":status", b"200")]


class Caller:
    """A caller over HTTP/2 before an endpoint of HTTP/1.1."""

    def __init__(self, **config: object) -> None:
        self.harness = Harness(**config)
        self.harness.connects_at_once = True
        self.end = End(Link, client=True)
        self.near = self.harness.open(self.end.link.take())

    def head(self) -> Stream:
        stream = self.end.link.open()
        self.end.link.send_headers(stream, POST, end=False)
        return stream

    def send(self) -> None:
        self.near.send(self.end.link.take())
        self.harness.settle()

    @property
    def far(self) -> FakeTransport:
        (found,) = self.harness.upstreams
        return found


class Origin:
    """An endpoint over HTTP/2 behind a caller of HTTP/1.1, asked already."""

    def __init__(self, count: int = 1, **config: object) -> None:
        self.harness = Harness(cluster={"protocol": "http2"}, **config)
        self.harness.connects_at_once = True
        self.end = End(Link, client=False)
        self.near = [self.harness.open(GET) for _ in range(count)]
        self.harness.settle()
        (self.far,) = self.harness.upstreams
        self.end.link.receive(self.far.take())
        self.streams = list(self.end.events.streams.values())

    def send(self, *octets: bytes) -> None:
        self.far.send(self.end.link.take() + b"".join(octets))
        self.harness.settle()


def test_a_request_and_its_body_are_one_write() -> None:
    caller = Caller()

    stream = caller.head()
    caller.end.link.send_data(stream, b"hello", end=True)
    caller.send()

    assert caller.far.writes == 1
    assert b"\r\nhello\r\n0\r\n\r\n" in caller.far.got  # no length was said: one chunk


def test_a_request_whose_body_is_late_goes_on_at_once() -> None:
    caller = Caller()

    stream = caller.head()
    caller.send()
    assert caller.far.got.startswith(b"POST / HTTP/1.1\r\n")
    caller.end.link.send_data(stream, b"hello", end=True)
    caller.send()

    assert b"hello" in caller.far.got


def test_a_request_whose_trailers_come_with_it_has_them() -> None:
    caller = Caller()

    stream = caller.head()
    caller.end.link.send_headers(stream, [(b"x-sum", b"1")], end=True)
    caller.send()

    assert caller.far.got.endswith(b"0\r\nx-sum: 1\r\n\r\n")


def test_trailers_of_a_request_that_no_route_takes_are_let_be() -> None:
    caller = Caller(route={"match": {"path": "/other"}})

    stream = caller.head()
    caller.end.link.send_headers(stream, [(b"x-sum", b"1")], end=True)
    caller.send()

    assert [outcome.flag for outcome in caller.harness.outcomes] == ["NR"]


@pytest.mark.parametrize("breach", [False, True])
def test_a_request_that_ends_with_the_piece_it_came_in_is_told_of(breach: bool) -> None:
    caller = Caller()

    stream = caller.head()
    if breach:
        caller.end.link.out.append(b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x")  # a PING of one octet
    else:
        caller.end.link.reset(stream, 8)
    caller.send()

    (outcome,) = caller.harness.outcomes
    assert outcome.flag == "DR"
    assert caller.harness.bugs == []


@pytest.mark.parametrize("together", [True, False])
def test_a_body_that_is_no_grpc_web_resets_its_stream_whenever_it_comes(together: bool) -> None:
    caller = Caller(listener={"grpc_web": True})
    stream = caller.end.link.open()
    kind = (b"content-type", b"application/grpc-web-text")
    caller.end.link.send_headers(stream, [*POST, kind], end=False)
    if not together:
        caller.send()

    caller.end.link.send_data(stream, b"!!!!", end=True)
    caller.send()
    caller.end.link.receive(caller.near.take())

    assert "ended_early" in caller.end.events.names()
    assert [outcome.flag for outcome in caller.harness.outcomes] == ["DR"]
    assert caller.harness.bugs == []


def test_a_response_and_its_body_are_one_write() -> None:
    origin = Origin()

    origin.end.link.send_headers(origin.streams[0], OK, end=False)
    origin.end.link.send_data(origin.streams[0], b"hello", end=True)
    origin.send()

    assert origin.near[0].writes == 1
    assert origin.near[0].got == b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


def test_a_response_whose_body_is_late_goes_on_at_once() -> None:
    origin = Origin()

    origin.end.link.send_headers(origin.streams[0], OK, end=False)
    origin.send()
    assert origin.near[0].got.startswith(b"HTTP/1.1 200 OK\r\n")
    origin.end.link.send_data(origin.streams[0], b"hello", end=True)
    origin.send()

    assert b"hello" in origin.near[0].got
    assert [outcome.status for outcome in origin.harness.outcomes] == [200]


def test_a_response_whose_trailers_come_with_it_has_them() -> None:
    origin = Origin()

    origin.end.link.send_headers(origin.streams[0], OK, end=False)
    origin.end.link.send_headers(origin.streams[0], [(b"x-sum", b"1")], end=True)
    origin.send()

    assert origin.near[0].got.endswith(b"0\r\nx-sum: 1\r\n\r\n")


def test_a_response_that_is_tried_again_takes_its_trailers_along() -> None:
    origin = Origin(retry={"on": ["5xx"], "backoff": 0})

    origin.end.link.send_headers(origin.streams[0], [(b":status", b"503")], end=False)
    origin.end.link.send_headers(origin.streams[0], [(b"x-sum", b"1")], end=True)
    origin.send()

    assert origin.near[0].got == b""
    assert origin.harness.bugs == []


def test_a_response_that_is_reset_in_the_piece_it_came_in_has_begun() -> None:
    origin = Origin()

    origin.end.link.send_headers(origin.streams[0], OK, end=False)
    origin.end.link.reset(origin.streams[0], 2)
    origin.send()

    assert origin.near[0].got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert [outcome.flag for outcome in origin.harness.outcomes] == ["UR"]


def test_a_response_to_what_the_endpoint_then_says_it_never_saw_is_not_passed_on() -> None:
    origin = Origin(count=2)

    origin.end.link.send_headers(origin.streams[1], OK, end=False)
    origin.send(goaway(origin.streams[0].id, 0))

    assert origin.near[1].got == b""
    assert origin.harness.bugs == []


def test_what_is_no_base64_from_its_start_is_reset() -> None:
    caller = Caller(listener={"grpc_web": True})
    link = caller.end.link
    stream = link.open()
    kind = (b"content-type", b"application/grpc-web-text")
    link.send_headers(stream, [*POST, kind], end=False)
    link.send_data(stream, b"!!!!", end=True)
    caller.send()
    link.receive(caller.near.take())
    assert ("ended_early", stream.id, PROTOCOL_ERROR) in [t[:3] for t in caller.end.events.told]
    assert [o.code for o in caller.harness.outcomes] == ["downstream-reset"]
    caller.near.lose()
    caller.harness.check()
