"""The side before a side: what is not the browser's concern goes through as it is."""

from collections.abc import Sequence

import pytest

from sidecar.core.grpc_web import GrpcWeb
from sidecar.core.replies import REPLIES, Reply
from sidecar.core.timers import Timer
from sidecar.wire.fields import Field, Fields, RequestHead, ResponseHead

REPLY = REPLIES["no-route"]


class Side:
    """Remembers what it is told to do."""

    def __init__(self) -> None:
        self.timer = Timer(lambda now: None)
        self.told: list[tuple[object, ...]] = []

    def respond(self, head: ResponseHead, body: bytes, *, end: bool) -> None:
        self.told.append(("respond", head.as_pairs(), body, end))

    def inform(self, head: ResponseHead) -> None:
        self.told.append(("inform", head))

    def write(self, data: bytes) -> None:
        self.told.append(("write", data))

    def finish(self, trailers: Fields | None) -> None:
        self.told.append(("finish", trailers))

    def reply(self, reply: Reply, text: bytes, fields: Sequence[Field]) -> None:
        self.told.append(("reply", reply, text, fields))

    def cut(self) -> None:
        self.told.append(("cut",))

    def closed(self) -> None:
        self.told.append(("closed",))

    def pause(self) -> None:
        self.told.append(("pause",))

    def resume(self) -> None:
        self.told.append(("resume",))


def request(kind: bytes = b"application/grpc-web", *pairs: Field) -> RequestHead:
    fields = [(b"content-type", kind), *pairs]
    return RequestHead(b"POST", b"/s/m", 20, b"", dict(fields), fields)


def response(*pairs: Field) -> ResponseHead:
    return ResponseHead(200, b"", 20, b"", {}, list(pairs))


def framing(head: RequestHead | ResponseHead) -> tuple[int | None, bool]:
    return head.length, head.chunked


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
def web(side: Side) -> GrpcWeb:
    return GrpcWeb(side, request())


def test_all_but_bodies_goes_through(side: Side, web: GrpcWeb) -> None:
    head = response()
    web.inform(head)
    web.reply(REPLY, b"text", ())
    web.cut()
    web.closed()
    web.pause()
    web.resume()
    assert web.timer is side.timer
    assert side.told == [
        ("inform", head), ("reply", REPLY, b"text", ()), ("cut",), ("closed",), ("pause",), ("resume",),
    ]  # fmt: skip


def test_an_answer_that_is_no_grpc_keeps_its_type(side: Side, web: GrpcWeb) -> None:
    web.respond(response((b"content-type", b"text/html")), b"x", end=True)
    web.respond(response(), b"x", end=True)
    assert side.told == [
        ("respond", [(b"content-type", b"text/html")], b"x", True),
        ("respond", [], b"x", True),
    ]


def test_a_length_does_not_count_the_trailers(side: Side, web: GrpcWeb) -> None:
    head = response((b"content-length", b"1"), (b"content-type", b"application/grpc"))
    head.length = 1
    web.respond(head, b"x", end=False)
    assert framing(head) == (None, False)
    assert side.told == [("respond", [(b"content-type", b"application/grpc-web")], b"x", False)]


def test_a_body_without_trailers_just_ends(side: Side, web: GrpcWeb) -> None:
    web.finish(None)
    assert side.told == [("finish", None)]


def test_a_text_of_unknown_length_stays_so(side: Side) -> None:
    head = request(b"application/grpc-web-text", (b"te", b"trailers"))
    head.length = None
    web = GrpcWeb(side, head)
    assert head.as_pairs() == [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
    assert not head.chunked
    web.write(b"")
    assert side.told == [("write", b"")]


def test_a_text_that_came_by_http2_loses_its_length_only(side: Side) -> None:
    head = request(b"application/grpc-web-text", (b"content-length", b"4"))
    head.length = 4
    GrpcWeb(side, head)
    assert framing(head) == (None, False)
    assert head.as_pairs() == [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
