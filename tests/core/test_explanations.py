"""What our own answers say, and to whom they name names."""

from collections.abc import Callable

import pytest

from tests.core.harness import GET, REQUEST_ID, Harness
from tests.core.reading import Message, read_response

Make = Callable[..., Harness]

PEER = "spiffe://cluster.local/ns/default/sa/web"


def text(data: bytes) -> str:
    message = read_response(data)
    assert isinstance(message, Message)
    return message.body.decode()


def test_our_own_app_is_told_everything(make: Make) -> None:
    harness = make(retry={"attempts": 2})
    caller = harness.open(GET)
    harness.fail()
    harness.advance(1)
    harness.fail()
    assert text(caller.take()) == (
        "sidecar: no connection to the endpoint came about (code connect-failed, flag UF,"
        " route all, cluster app, endpoint 10.0.0.1:80, attempts 2, 10.0.0.1:80,"
        f" request {REQUEST_ID.decode()})\n"
    )


@pytest.mark.parametrize("identity", [None, PEER])
def test_a_caller_from_elsewhere_is_told_more_if_it_is_known(
    make: Make, identity: str | None
) -> None:
    harness = make(role="inbound", retry={"attempts": 1})
    caller = harness.open(GET, identity=identity)
    harness.fail()
    names = ", route all, cluster app, endpoint 10.0.0.1:80, 10.0.0.1:80" if identity else ""
    assert text(caller.take()) == (
        "sidecar: no connection to the endpoint came about (code connect-failed, flag UF"
        f"{names}, request {REQUEST_ID.decode()})\n"
    )


def test_what_is_not_known_yet_is_not_named(make: Make) -> None:
    harness = make(route={"match": {"path": "/other"}})
    caller = harness.open(GET)
    assert text(caller.take()) == (
        "sidecar: no route takes this request (code no-route, flag NR,"
        f" request {REQUEST_ID.decode()})\n"
    )


OWN_ENDS = {
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n": b"",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n": b"Connection: close\r\n",
    b"GET / HTTP/1.0\r\n\r\n": b"Connection: close\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n": b"Connection: keep-alive\r\n",
}


@pytest.mark.parametrize("asked", OWN_ENDS)
def test_what_becomes_of_the_connection_is_announced(make: Make, asked: bytes) -> None:
    harness = make(route={"match": {"path": "/other"}})
    caller = harness.open(asked)
    head, _, body = caller.take().partition(b"\r\n\r\n")
    expected = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    assert head + b"\r\n" == expected + length + OWN_ENDS[asked]


def test_an_answer_to_head_has_no_body(make: Make) -> None:
    harness = make(route={"match": {"path": "/other"}})
    caller = harness.open(GET.replace(b"GET", b"HEAD"))
    head, _, body = caller.take().partition(b"\r\n\r\n")
    assert b"Content-Length: 1" in head
    assert body == b""
