"""Heads: what is taken, what is refused, and that it is read as others read it."""

import pytest
from hypothesis import given, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.fields import RequestHead, ResponseHead, parse_length
from sidecar.wire.http1_head import HeadReader
from tests.wire.cutting import READER, octets, pieces, read_request

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
    assert b"\r\nX-Tenant:  one \r\n" in head.block


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
HOST = LINE + b"Host: a\r\n"
BAD = [
    (b"GET / HTTP/1.1\r\n\r\n", "bad-host"),
    (b"GET http://b/ HTTP/1.1\r\nHost:\r\n\r\n", "bad-host"),
    (b"GET http://a/ HTTP/1.1\r\nHost: a:80\r\n\r\n", "bad-host"),
    (b"GET http://a/ HTTP/1.0\r\nHost: b\r\n\r\n", "bad-host"),
    (LINE + b"Host: a\r\nHost:\r\n\r\n", "bad-host"),
    (LINE + b"Host: a\r\nhOST: b\r\n\r\n", "bad-host"),
    (LINE + b"Host: a:b\r\n\r\n", "bad-host"),
    (LINE + b"Host: [::1\r\n\r\n", "bad-host"),
    (LINE + b"Host: a\\b\r\n\r\n", "bad-host"),
    # Content-Length that int() takes, or that a lenient peer reads otherwise than a strict one.
    (HOST + b"Content-Length: +5\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5_0\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5 0\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5,\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5;q=1\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5.0\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: \xb2\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5\r\nCONTENT-LENGTH: 6\r\n\r\n", "bad-content-length"),
    (HOST + b"Content-Length: 5\r\nContent-Length:\r\n\r\n", "bad-content-length"),
    # Both kinds of framing, in both orders, whatever Connection says.
    (HOST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", "bad-framing"),
    (HOST + b"Transfer-Encoding: x\r\nContent-Length: 5\r\n\r\n", "bad-framing"),
    (
        HOST
        + b"Connection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "bad-framing",
    ),
    (
        HOST
        + b"Connection: transfer-encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "bad-framing",
    ),
    (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n",
        "bad-framing",
    ),
    # Codings of which chunked is not the last, the only or the whole word.
    (HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "bad-transfer-coding"),
    (HOST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", "bad-transfer-coding"),
    (HOST + b"Transfer-Encoding: identity\r\n\r\n", "bad-transfer-coding"),
    (HOST + b"Transfer-Encoding: chunked;q=1\r\n\r\n", "bad-transfer-coding"),
    (HOST + b'Transfer-Encoding: "chunked"\r\n\r\n', "bad-transfer-coding"),
    (HOST + b"Transfer-Encoding:\r\n\r\n", "bad-transfer-coding"),
    (HOST + b"Transfer-Encoding: chunked,\r\n\r\n", "bad-transfer-coding"),
    (HOST + b"Transfer-Encoding: chunked\xa0\r\n\r\n", "bad-transfer-coding"),
    (
        HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "bad-transfer-coding",
    ),
    (
        HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        "bad-transfer-coding",
    ),
    # Lines and line ends.
    (HOST + b"Transfer-Encoding : chunked\r\n\r\n", "bad-field"),
    (HOST + b"Transfer-Encoding\t: chunked\r\n\r\n", "bad-field"),
    (HOST + b" Transfer-Encoding: chunked\r\n\r\n", "bad-field"),
    (HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n", "bad-field"),
    (HOST + b"X: a\r\n\tfolded\r\n\r\n", "bad-field"),
    (HOST + b"Transfer-Encoding\x00: chunked\r\n\r\n", "bad-field"),
    (HOST + b"Transfer\xadEncoding: chunked\r\n\r\n", "bad-field"),
    (HOST + b"X: a\rContent-Length: 5\r\n\r\n", "bad-field"),
    (HOST + b"X: a\nContent-Length: 5\r\n\r\n", "bad-field"),
    (HOST + b"X: a\r\r\n\r\n", "bad-field"),
    (HOST + b"X: a\r\n\n\r\n\r\n", "bad-field"),
    (HOST + b"X: a\x0bb\r\n\r\n", "bad-field"),
    (LINE[:-2] + b"\nHost: a\r\n\r\n", "bad-start-line"),
    (LINE[:-2] + b"\rHost: a\r\n\r\n", "bad-start-line"),
    (LINE[:-2] + b" \r\nHost: a\r\n\r\n", "bad-start-line"),
    (LINE + b" Host: a\r\n\r\n", "bad-field"),
    (b" " + HOST + b"\r\n", "bad-start-line"),
    (b"\n" + HOST + b"\r\n", "bad-start-line"),
    (b"\r" + HOST + b"\r\n", "bad-start-line"),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET /\r\nHost: a\r\n\r\n", "bad-start-line"),
    (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "bad-version"),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "bad-version"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad-version"),
    (b"GET http://a#x HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"GET http://a/b#x HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"GET /?q=\xff HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (HOST + b"Connection: " + b"x, " * 20 + b"x-secret\r\nX-Secret: 1\r\n\r\n", "bad-field"),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target"),
    (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "connect-refused"),
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


def test_a_host_that_only_the_target_names_goes_on_as_a_field() -> None:
    head = request(b"GET http://A.example?y HTTP/1.0\r\nX: 1\r\n\r\n")
    assert (head.target, head.authority) == (b"/?y", b"a.example")
    assert head.block == b"X: 1\r\nHost: A.example\r\n"
    assert head.get(b"host") == b"A.example"


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"OPTIONS *", b"*"),
        (b"OPTIONS http://a", b"*"),  # RFC 9112 §3.2.4
        (b"OPTIONS http://a/", b"/"),
        (b"OPTIONS http://a?x", b"/?x"),
        (b"OPTIONS /", b"/"),
        (b"GET http://a", b"/"),
    ],
)
def test_options_may_be_about_the_server_itself(line: bytes, target: bytes) -> None:
    assert request(line + b" HTTP/1.1\r\nHost: a\r\n\r\n").target == target


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


def test_a_line_is_added_to_those_that_nobody_has_asked_for() -> None:
    head = request(HOST + b"X-Seldom: 1\r\n\r\n")
    head.add(b"x-seldom", b"2")
    assert head.get(b"x-seldom") == b"1, 2"


CONNECTION = [
    # Connection, other lines -> what is left of them
    (b"keep-alive", b"Keep-Alive: 5\r\nA: 1\r\n", b"A: 1\r\n"),
    (b"close", b"A: 1\r\nClose: 1\r\n", b"A: 1\r\nClose: 1\r\n"),
    (b"close, te", b"A: 1\r\nClose: 1\r\nTE: gzip\r\n", b"A: 1\r\nClose: 1\r\n"),
    (b"A,b ,, X-C", b"a: 1\r\nB: 2\r\nx-c: 3\r\na-b: 4\r\n", b"a-b: 4\r\n"),
    (b"a", b"A: 1\r\nx: a: b\r\nA: 2\r\n", b"x: a: b\r\n"),
    (b"TE", b"te: trailers, gzip\r\n", b"TE: trailers\r\n"),
    # What belongs to both ends cannot be taken away in the middle.
    (b"host, cookie, authorization", b"Cookie: a\r\nAuthorization: b\r\n", None),
    (b"content-length", b"Content-Length: 5\r\n", None),
    (b"transfer-encoding", b"Transfer-Encoding: chunked\r\n", None),
    # What is no token names no field, so it may not match more of a line than the name.
    (b"cookie:a", b"Cookie:a:b\r\n", None),
    (b"a b, .*", b"a b: 1\r\n".replace(b" ", b"-"), None),
]


@pytest.mark.parametrize(("options", "lines", "left"), CONNECTION)
def test_hop_by_hop_lines_are_taken_out(options: bytes, lines: bytes, left: bytes | None) -> None:
    head = request(HOST + b"Connection: " + options + b"\r\n" + lines + b"\r\n")
    assert head.block == b"Host: a\r\n" + (lines if left is None else left)


def test_as_many_options_as_are_allowed_are_all_obeyed() -> None:
    names = [b"x-%d" % number for number in range(20)]
    lines = b"".join(name + b": 1\r\n" for name in names)
    head = request(HOST + b"Connection: ,, " + b", ".join(names) + b"\r\n" + lines + b"\r\n")
    assert head.block == b"Host: a\r\n"


def test_an_endpoint_has_no_more_options_than_a_caller() -> None:
    with pytest.raises(DownstreamError, match="more than 20 connection options"):
        response(b"HTTP/1.1 200 OK\r\nConnection: " + b"x, " * 20 + b"x\r\n\r\n")


def test_an_expectation_that_ends_here_is_none() -> None:
    expect = b"Connection: expect\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    head = request(HOST + expect)
    assert not head.expect
    assert head.block == b"Host: a\r\nContent-Length: 1\r\n"


def test_callers_cannot_fill_the_memory_with_names() -> None:
    for number in range(1100):
        head = request(HOST + b"Connection: x%d\r\nX%d: 1\r\nA: 1\r\n\r\n" % (number, number))
        assert head.block == b"Host: a\r\nA: 1\r\n"


def test_a_length_may_have_leading_zeros() -> None:
    assert request(HOST + b"Content-Length: 000000000000000005 \r\n\r\n").length == 5


def test_chunked_is_written_in_any_case() -> None:
    head = request(HOST + b"Transfer-Encoding:\tChunked \r\n\r\n")
    assert (head.chunked, head.length) == (True, None)


def test_an_expectation_is_for_a_body_and_for_version_1_1() -> None:
    expect = b"Host: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert request(LINE + expect % 1).expect
    assert not request(LINE + expect % 0).expect
    assert not request(b"GET / HTTP/1.0\r\n" + expect % 1).expect


def test_no_empty_line_comes_before_a_response() -> None:
    with pytest.raises(DownstreamError, match="bad-start-line: malformed response line"):
        READER.response(b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"GET")
    with pytest.raises(DownstreamError, match="bad-start-line"):
        READER.request(b"\r\nGET /\r\n\r\n")


def test_the_limits_can_be_set() -> None:
    reader = HeadReader(max_size=40, max_fields=2)
    two = LINE + b"Host:a\r\nb:c\r\n"
    assert reader.request(two + b"\r\n") is not None
    with pytest.raises(DownstreamError, match="too-many-fields"):
        reader.request(two + b"b:\r\n\r\n")
    with pytest.raises(DownstreamError, match="head-too-large: more than 40"):
        reader.request(two + b"b: 123456789\r\n\r\n")


# --- however it is cut


@pytest.mark.parametrize("data", [data for data, _ in BAD])
def test_a_refused_head_is_refused_however_it_is_cut(data: bytes) -> None:
    assert read_request([data])[0] == "refused"
    if len(data) < 2000:
        assert read_request(octets(data))[0] == "refused"
        assert {read_request([data[:i], data[i:]])[0] for i in range(1, len(data))} == {"refused"}
    else:
        assert read_request([data[i : i + 997] for i in range(0, len(data), 997)])[0] == "refused"


@given(pieces(b"\r\n" + GOOD + b"hello"))
def test_cuts_do_not_change_a_head(parts: list[bytes]) -> None:
    assert read_request(parts) == read_request([b"\r\n" + GOOD + b"hello"])
    assert read_request(parts)[-1] == b"hello"


SMALL = HeadReader(max_size=60)
TOO_LARGE = [
    # max_size is 60: what is too long, wherever it ends
    (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 60), "target-too-long"),
    (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 45), "target-too-long"),  # CR is the 60th
    (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 44), "head-too-large"),
    (b"\r\nGET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 60), "target-too-long"),
    (b"\r\nGET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 42), "head-too-large"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"a" * 60), "head-too-large"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX Y: %b\r\n\r\n" % (b"a" * 60), "head-too-large"),
    (b"GET /%b" % (b"a" * 90), "target-too-long"),
    (b"GET / HTTP/1.1\r\nX: %b" % (b"a" * 60), "head-too-large"),
]


@pytest.mark.parametrize(("data", "code"), TOO_LARGE)
def test_what_is_too_large_is_the_same_however_it_is_cut(data: bytes, code: str) -> None:
    ways = [[data], octets(data), *([data[:i], data[i:]] for i in range(1, len(data)))]
    assert {read_request(way, SMALL) for way in ways} == {("refused", code)}


@pytest.mark.parametrize("size", [50, 70])
def test_a_response_has_no_target_that_could_be_too_long(size: int) -> None:
    for data in (b"HTTP/1.1 200 %b\r\n\r\n" % (b"a" * size), b"HTTP/1.1 200 " + b"a" * size):
        with pytest.raises(DownstreamError, match="head-too-large: more than 60"):
            SMALL.response(data, b"GET")


RESPONSE = b"HTTP/1.1 200 OK\r\nX-Tenant: a\r\nContent-Length: 5\r\n\r\n"


@given(pieces(RESPONSE + b"hello"))
def test_cuts_do_not_change_a_responses_head(parts: list[bytes]) -> None:
    data = b""
    for part in parts:
        known = len(data)
        data += part
        found = READER.response(data, b"GET", known)
        if len(data) < len(RESPONSE):
            assert found is None
        else:
            assert found is not None
            assert (found[0].get(b"x-tenant"), found[0].length, found[1]) == (
                b"a",
                5,
                len(RESPONSE),
            )
            return


def test_spellings_and_hosts_take_no_more_memory_than_their_room() -> None:
    reader = HeadReader()
    for number in range(1100):
        # Bit by bit, another letter of it in upper case.
        name = bytes(o ^ 0x20 * (number >> at & 1) for at, o in enumerate(b"traceparent"))
        found = reader.request(b"GET / HTTP/1.1\r\nHost: h%d\r\n%b: a\r\n\r\n" % (number, name))
        assert found is not None
        assert (found[0].authority, found[0].found[b"traceparent"]) == (b"h%d" % number, b"a")
    assert len(reader._requests) <= 500
    assert len(reader._requests._names) <= 500
    assert len(reader._authorities) <= 1000


def test_status_lines_take_no_more_memory_than_their_room() -> None:
    reader = HeadReader()
    for number in range(1100):
        found = reader.response(b"HTTP/1.1 200 ok %d\r\n\r\n" % number, b"GET")
        assert found is not None
        assert (found[0].status, found[0].reason) == (200, b"ok %d" % number)
    assert len(reader._statuses) <= 1000
    long = b"x" * 300
    found = reader.response(b"HTTP/1.0 404 %b\r\n%b: %b\r\n\r\n" % (long, long, long), b"GET")
    assert found is not None
    assert (found[0].status, found[0].reason, found[0].get(long)) == (404, long, long)
    assert long not in reader._responses._names
