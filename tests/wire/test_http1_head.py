"""Heads: what is taken, what is refused, and that it is read as others read it."""

import h11
import pytest
from hypothesis import given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.http1_head import HeadReader, RequestHead, ResponseHead, parse_length

READER = HeadReader([b"x-tenant"])
GOOD = (
    b"POST /a/b?c=d HTTP/1.1\r\nHost: Shop.example:8080\r\nX-Tenant:  one \r\nx-tenant: two\r\n"
    b"Content-Length: 5\r\nAccept: */*\r\n\r\n"
)


def request(data: bytes) -> RequestHead:
    found = READER.request(data)
    assert found is not None
    return found[0]


def response(data: bytes, method: bytes = b"GET") -> ResponseHead:
    found = READER.response(data, method)
    assert found is not None
    return found[0]


def test_a_head_says_what_matters() -> None:
    head = request(GOOD)
    assert (head.method, head.target, head.path) == (b"POST", b"/a/b?c=d", b"/a/b")
    assert head.authority == b"shop.example:8080"
    assert head.length == 5
    assert head.get(b"x-tenant") == b"one, two"
    assert head.get(b"accept") == b"*/*"
    assert head.get(b"absent") is None
    assert head.get(b"expect") is None
    assert not head.close
    assert head.pairs()[1] == (b"X-Tenant", b"one")


@given(st.integers(0, len(GOOD) - 1))
def test_a_head_that_is_not_whole_is_awaited(cut: int) -> None:
    assert READER.request(GOOD[:cut]) is None


def test_what_follows_is_not_of_the_head() -> None:
    found = READER.request(GOOD + b"hello")
    assert found is not None
    assert found[1] == len(GOOD)


def test_fields_are_changed_in_place() -> None:
    head = request(GOOD)
    head.set(b"x-tenant", b"three")
    head.remove(b"accept")
    head.add(b"X-New", b"1")
    head.add(b"x-new", b"2")
    assert head.block == (
        b"Host: Shop.example:8080\r\nContent-Length: 5\r\nx-tenant: three\r\nX-New: 1\r\nx-new: 2\r\n"
    )
    assert head.get(b"x-new") == b"1, 2"
    head.set(b"fresh", b"1")
    assert head.get(b"fresh") == b"1"


LINE = b"GET / HTTP/1.1\r\n"
BAD = [
    (b"GET / HTTP/1.1\r\n\r\n", "bad-host"),
    (LINE + b"Host: a, b\r\n\r\n", "bad-host"),
    (LINE + b"Host: a b\r\n\r\n", "bad-host"),
    (LINE + b"Host: a/b\r\n\r\n", "bad-host"),
    (LINE + b"Host: user@a\r\n\r\n", "bad-host"),
    (LINE + b"Host: a\r\nHost: a\r\n\r\n", "bad-host"),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad-host"),
    (b"GET http://u@b/ HTTP/1.1\r\nHost: u@b\r\n\r\n", "bad-host"),
    (b"GET http://u@b/ HTTP/1.1\r\nHost: b\r\n\r\n", "bad-target"),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "connect-refused"),
    (LINE + b"Host: a\r\nContent-Length: 1, 1\r\n\r\n", "bad-content-length"),
    (LINE + b"Host: a\r\nContent-Length: 0x1\r\n\r\n", "bad-content-length"),
    (LINE + b"Host: a\r\nContent-Length: -1\r\n\r\n", "bad-content-length"),
    (LINE + b"Host: a\r\nContent-Length:\r\n\r\n", "bad-content-length"),
    (LINE + b"Host: a\r\nContent-Length: 1234567890123456789\r\n\r\n", "bad-content-length"),
    (LINE + b"Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "bad-framing"),
    (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "bad-framing"),
    (LINE + b"Host: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", "bad-transfer-coding"),
    (LINE + b"Host: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", "bad-field"),
    (LINE + b"Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "bad-transfer-coding"),
    (LINE + b"Host: a\r\nExpect: more\r\n\r\n", "bad-expectation"),
    (LINE + b"Host: a\r\n X: folded\r\n\r\n", "bad-field"),
    (LINE + b"Host: a\r\nX : 1\r\n\r\n", "bad-field"),
    (LINE + b"Host: a\r\n: 1\r\n\r\n", "bad-field"),
    (LINE + b"Host: a\r\nX\r\n\r\n", "bad-field"),
    (LINE + b"Host: a\r\nX: a\nb\r\n\r\n", "bad-field"),
    (LINE + b"Host: a\r\nX: a\x00\r\n\r\n", "bad-field"),
    (LINE + b"Host: a\r\nX: a\x7f\r\n\r\n", "bad-field"),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "bad-version"),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "bad-version"),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET / HTTP/1.1\nHost: a\n\n", "bad-start-line"),
    (b"GET /" + b"a" * 70000, "target-too-long"),
    (LINE + b"X: " + b"a" * 70000, "head-too-large"),
    (LINE + b"Host: a\r\nX: " + b"a" * 70000 + b"\r\n\r\n", "head-too-large"),
    (LINE + b"Host: a\r\nX: " + b"\x00" * 70000 + b"\r\n\r\n", "head-too-large"),
    (LINE + b"Host: a\r\n" + b"X: 12345\r\n" * 101 + b"\r\n", "too-many-fields"),
]


@pytest.mark.parametrize(("data", "code"), BAD)
def test_what_could_be_read_two_ways_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(DownstreamError) as caught:
        READER.request(data)
    assert caught.value.code == code


def test_absolute_form_becomes_origin_form() -> None:
    head = request(b"GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert (head.target, head.authority) == (b"/x?y", b"a.example")
    head = request(b"GET http://A.example?y HTTP/1.0\r\n\r\n")
    assert (head.target, head.authority) == (b"/?y", b"a.example")
    assert request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target == b"*"


def test_persistence_and_upgrade_are_told() -> None:
    assert request(b"GET / HTTP/1.0\r\n\r\n").close
    assert not request(b"GET / HTTP/1.0\r\nConnection: Keep-Alive, x\r\nX: 1\r\n\r\n").close
    assert request(LINE + b"Host: a\r\nConnection: close\r\n\r\n").close
    head = request(
        LINE + b"Host: a\r\nConnection: Upgrade, host\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n"
    )
    assert head.upgrade == b"websocket"
    assert head.block == b"Host: a\r\nTE: trailers\r\n"
    assert request(LINE + b"Host: a\r\nUpgrade: websocket\r\n\r\n").upgrade is None
    assert request(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"
    ).expect


def test_an_empty_line_before_a_request_is_let_pass() -> None:
    assert READER.request(b"\r\n") is None
    assert request(b"\r\n" + GOOD).method == b"POST"


def test_responses_are_framed_by_method_and_status() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert response(ok).length == 5
    assert response(ok, b"HEAD").length == 0
    assert response(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n").length == 0
    none = response(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")
    assert (none.length, none.block) == (0, b"")
    assert response(b"HTTP/1.1 200\r\n\r\n").length is None
    assert response(b"HTTP/1.0 200 OK\r\n\r\n").close
    assert response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").chunked
    assert READER.response(b"HTTP/1.1 200", b"GET") is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"HTTP/1.1 99 X\r\n\r\n", "bad-start-line"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "bad-framing",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "bad-transfer-coding"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", "bad-content-length"),
        (b"HTTP/1.1 200 OK\r\nBad Field: 1\r\n\r\n", "bad-field"),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 70000, "head-too-large"),
    ],
)
def test_malformed_responses_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(DownstreamError) as caught:
        READER.response(data, b"GET")
    assert caught.value.code == code


@pytest.mark.parametrize("text", [b"", b"+5", b"5_0", b" 5", b"5 ", b"0x5", b"\xb2", b"1" * 19])
def test_lengths_are_digits_only(text: bytes) -> None:
    with pytest.raises(DownstreamError):
        parse_length(text)


TOKEN = st.text("abcXYZ-_0!", min_size=1, max_size=8).map(str.encode)
VALUE = st.text('abc ,;=\t"é', max_size=12).map(lambda s: s.strip().encode("latin-1"))


@given(TOKEN, st.text("/a%2?=&.", max_size=10).map(lambda s: b"/" + s.encode()),
       st.lists(st.tuples(TOKEN, VALUE), max_size=6))  # fmt: skip
def test_h11_reads_the_same(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    names = {n.lower() for n, _ in fields}
    block = b"".join(n + b": " + v + b"\r\n" for n, v in fields if n.lower() != b"host")
    data = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n" + block + b"\r\n"
    ours = request(data)
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(data)
    event = oracle.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (ours.method, ours.target)
    assert [(n.lower(), v) for n, v in ours.pairs()] == list(event.headers)
    assert names is not None
