"""What a proxy does for gRPC calls: deadlines, retries by status, replies, browsers, counts."""

import base64
from collections.abc import Callable

import pytest

from sidecar.core.grpc import format_timeout, parse_timeout
from sidecar.core.timers import NEVER
from tests.core.harness import OWN, Harness, Outcome
from tests.core.reading import Message, read_response
from tests.core.transport import FakeTransport

Make = Callable[..., Harness]

MESSAGE = b"\x00\x00\x00\x00\x02hi"
RETRY = {"on": ["unavailable"], "backoff": 0}


def call(*lines: bytes, kind: bytes = b"application/grpc", body: bytes = MESSAGE) -> bytes:
    """A call over HTTP/1.1, as our own HTTP/1 hop would carry it."""
    fields = (b"Host: a", b"Content-Type: " + kind, *lines, b"Content-Length: %d" % len(body))
    return b"\r\n".join((b"POST /s/m HTTP/1.1", *fields, b"", body))


def answer(*trailers: bytes, body: bytes = MESSAGE) -> bytes:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return head + chunk + b"0\r\n" + b"".join(t + b"\r\n" for t in trailers) + b"\r\n"


def trailers_only(status: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: %b\r\n"
        b"Content-Length: 0\r\n\r\n" % status
    )


def timeout_in(request: bytes) -> bytes:
    return request.partition(b"grpc-timeout: ")[2].partition(b"\r\n")[0]


def read(octets: bytes) -> Message:
    message = read_response(octets)
    assert isinstance(message, Message)
    return message


def status_in(octets: bytes) -> bytes:
    message = read(octets)
    assert message.start == (200,)
    return dict(message.fields)[b"grpc-status"]


def begun(harness: Harness, request: bytes) -> tuple[FakeTransport, FakeTransport]:
    return harness.open(request), harness.connect()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9),
        (b"99999999S", 99999999), (b"", None), (b"S", None), (b"1", None), (b"1x", None),
        (b"123456789S", None), (b"-1S", None), (b"+1S", None), (b"1.5S", None),
    ],
)  # fmt: skip
def test_a_timeout_is_read_as_the_protocol_says(text: bytes, seconds: float | None) -> None:
    assert parse_timeout(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, b"0n"), (0, b"0n"), (0.5, b"500000u"), (99.9, b"99900000u"), (100, b"100000m"),
        (1e5, b"100000S"), (1e8, b"27777H"), (1e15, b"99999999H"),
    ],
)  # fmt: skip
def test_a_timeout_is_written_in_the_finest_unit_that_fits(seconds: float, text: bytes) -> None:
    assert format_timeout(seconds) == text


def test_the_endpoint_is_told_how_much_time_is_left(make: Make) -> None:
    harness = make()
    caller = harness.open(call(b"grpc-timeout: 2S"))
    harness.advance(0.5)
    upstream = harness.connect()
    assert timeout_in(upstream.take()) == b"1500000u"
    upstream.send(answer(b"grpc-status: 0"))
    assert caller.take() == answer(b"grpc-status: 0")


def test_a_deadline_that_passes_is_a_status(make: Make) -> None:
    harness = make()
    caller, upstream = begun(harness, call(b"grpc-timeout: 2S"))
    upstream.take()
    harness.advance(2.1)
    assert status_in(caller.take()) == b"4"
    assert harness.outcomes == [Outcome(504, "grpc-deadline", "UT", 1, 7, 0, "10.0.0.1:80")]
    assert upstream.is_closing()


def test_a_deadline_holds_while_messages_come(make: Make) -> None:
    harness = make()
    caller, upstream = begun(harness, call(b"grpc-timeout: 2S"))
    whole = answer(b"grpc-status: 0")
    upstream.send(whole[:-5])
    harness.advance(2.1)
    assert caller.take().endswith(MESSAGE + b"\r\n")  # the missing last chunk tells
    assert [o.code for o in harness.outcomes] == ["grpc-deadline"]


def test_the_routes_default_timeout_is_not_for_calls(make: Make) -> None:
    harness = make()
    caller, upstream = begun(harness, call())
    harness.advance(100)
    upstream.send(answer(b"grpc-status: 0"))
    assert caller.take() == answer(b"grpc-status: 0")


def test_a_timeout_that_was_asked_for_is(make: Make) -> None:
    harness = make(route={"timeout": 3})
    caller, _ = begun(harness, call())
    harness.advance(3.1)
    assert status_in(caller.take()) == b"4"
    assert [o.code for o in harness.outcomes] == ["upstream-timeout"]


def test_a_reply_of_ours_is_a_status_and_a_message(make: Make) -> None:
    harness = make()
    caller = harness.open(call())
    for _ in range(3):
        harness.fail()
        harness.advance(1)
    fields = dict(read(caller.take()).fields)
    assert fields[b"grpc-status"] == b"14"
    assert fields[b"grpc-message"].startswith(b"sidecar: no connection to the endpoint")
    assert b"\n" not in fields[b"grpc-message"]


@pytest.mark.parametrize(
    "failed",
    [trailers_only(b"14"), answer(b"grpc-status: 14", body=b"")],
    ids=["trailers only", "in trailers"],
)
def test_a_status_that_the_policy_names_is_tried_again(make: Make, failed: bytes) -> None:
    harness = make(retry=RETRY)
    caller, upstream = begun(harness, call())
    upstream.send(failed)
    harness.advance(0.1)
    upstream.send(answer(b"grpc-status: 0"))
    assert caller.take() == answer(b"grpc-status: 0")
    assert harness.outcomes == [Outcome(200, "", "", 2, 7, 7, "10.0.0.1:80")]


@pytest.mark.parametrize(
    "said",
    [
        trailers_only(b"5"),
        trailers_only(b"0"),
        answer(b"grpc-status: 5", body=b""),
        answer(b"grpc-status: 14"),
        answer(body=b""),
    ],
    ids=["another", "success", "another in trailers", "behind a message", "none"],
)
def test_another_ending_is_passed_on(make: Make, said: bytes) -> None:
    harness = make(retry=RETRY)
    caller, upstream = begun(harness, call())
    for index in range(len(said)):
        upstream.send(said[index : index + 1])
    assert read(caller.take()) == read(said)
    assert [o.attempts for o in harness.outcomes] == [1]


def test_a_retry_has_its_limit(make: Make) -> None:
    harness = make(retry=RETRY)
    caller, upstream = begun(harness, call())
    for _ in range(3):
        upstream.send(trailers_only(b"14"))
        harness.advance(0.1)
    assert caller.take() == trailers_only(b"14")
    assert [o.attempts for o in harness.outcomes] == [3]


def test_an_endpoint_lost_before_its_status_is_known_gets_our_reply(make: Make) -> None:
    harness = make(retry=RETRY)
    caller, upstream = begun(harness, call())
    upstream.send(answer(b"grpc-status: 0").partition(b"7\r\n")[0])
    upstream.lose()
    assert status_in(caller.take()) == b"14"


@pytest.mark.parametrize("text", [False, True])
def test_a_browser_gets_its_trailers_in_the_body(make: Make, text: bool) -> None:
    kind = b"application/grpc-web-text+proto" if text else b"application/grpc-web+proto"
    body = base64.b64encode(MESSAGE) if text else MESSAGE
    harness = make(listener={"grpc_web": True})
    caller, upstream = begun(harness, call(kind=kind, body=body))
    sent = upstream.take()
    assert b"Content-Type: application/grpc+proto\r\n" in sent or (
        b"content-type: application/grpc+proto\r\n" in sent
    )
    assert b"te: trailers\r\n" in sent
    assert sent.endswith(b"7\r\n" + MESSAGE + b"\r\n0\r\n\r\n" if text else b"\r\n\r\n" + MESSAGE)
    reply = answer(b"grpc-status: 0").replace(b"application/grpc", b"application/grpc+proto")
    upstream.send(reply)
    got = read(caller.take())
    assert (b"content-type", kind) in got.fields
    frame = b"\x80\x00\x00\x00\x10grpc-status: 0\r\n"
    pieces = (MESSAGE, frame)
    assert got.body == b"".join(base64.b64encode(p) if text else p for p in pieces)


def test_a_browsers_body_may_come_in_any_pieces(make: Make) -> None:
    body = base64.b64encode(MESSAGE[:2]) + base64.b64encode(MESSAGE[2:])
    for cut in range(1, len(body)):
        harness = make(listener={"grpc_web": True})
        request = call(b"te: trailers", kind=b"application/grpc-web-text", body=body)
        caller, upstream = begun(harness, request[: cut - len(body)])
        caller.send(request[cut - len(body) :])
        sent = upstream.take()
        chunks = sent.partition(b"\r\n\r\n")[2].split(b"\r\n")
        assert b"".join(chunks[1::2]) == MESSAGE
        upstream.send(trailers_only(b"0"))
        caller.take()


@pytest.mark.parametrize("first", [True, False])
def test_a_browsers_body_that_is_no_base64_is_refused(make: Make, first: bool) -> None:
    harness = make(listener={"grpc_web": True})
    request = call(kind=b"application/grpc-web-text", body=b"!!!!")
    caller = harness.open(request if first else request[:-4])
    if not first:
        harness.connect()
        caller.send(b"!!!!")
    assert b"code bad-grpc-web" in caller.take()


def test_an_app_that_speaks_grpc_web_itself_is_left_alone(make: Make) -> None:
    harness = make()
    request = call(kind=b"application/grpc-web", body=MESSAGE)
    _, upstream = begun(harness, request)
    assert upstream.take() == request.replace(b"\r\n\r\n", b"\r\n" + OWN + b"\r\n", 1)
    assert harness.outcomes == []


def test_messages_that_follow_the_head_are_counted(make: Make) -> None:
    harness = make()
    caller, upstream = begun(harness, call(body=MESSAGE * 3)[: -len(MESSAGE)])
    caller.send(MESSAGE)
    upstream.send(answer(b"grpc-status: 0"))
    (exchange,) = harness.sink.exchanges
    assert exchange.grpc is not None
    assert exchange.grpc.requests.count == 3


def test_an_end_without_any_status_is_passed_on(make: Make) -> None:
    harness = make(retry=RETRY)
    caller, upstream = begun(harness, call())
    said = trailers_only(b"0").replace(b"grpc-status: 0\r\n", b"")
    upstream.send(said)
    assert caller.take() == said


def test_messages_and_status_are_known_at_the_end(make: Make) -> None:
    harness = make()
    _, upstream = begun(harness, call(body=MESSAGE * 3))
    upstream.send(answer(b"grpc-status: 0", body=MESSAGE * 2))
    (exchange,) = harness.sink.exchanges
    assert exchange.grpc is not None
    counts = exchange.grpc.requests.count, exchange.grpc.responses.count
    assert (*counts, exchange.grpc.status, exchange.grpc.deadline) == (3, 2, b"0", NEVER)
