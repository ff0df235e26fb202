"""Heads: what is taken, what is refused, and that it is read as others read it."""

import re
from collections.abc import Callable, Sequence

import h11
import httptools
import pytest
from hypothesis import example, given, settings, strategies as st

from sidecar.errors import DownstreamError
from sidecar.wire.fields import RequestHead, ResponseHead, parse_length
from sidecar.wire.http1_head import HeadReader
from tests.wire.cutting import octets, pieces

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
    with pytest.raises(DownstreamError, match="bad-field: malformed head"):
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


def read(parts: Sequence[bytes]) -> tuple[object, ...]:
    """Return what a head that comes in `parts` says, or why it is refused."""
    data = b""
    for number, part in enumerate(parts):
        known = len(data)
        data += part
        try:
            found = READER.request(data, known)
        except DownstreamError as error:
            return ("refused", error.code)
        if found is not None:
            head, end = found
            rest = data[end:] + b"".join(parts[number + 1 :])
            framing = (head.length, head.chunked, head.close, head.upgrade, head.expect)
            return (head.method, head.target, head.version, head.block, head.found, *framing, rest)
    return ("awaited",)


def say_the_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Tell whether two outcomes agree; of several faults, the one that was met first is named."""
    return one == other or (one[0] == other[0] == "refused")


@pytest.mark.parametrize("data", [data for data, _ in BAD])
def test_a_refused_head_is_refused_however_it_is_cut(data: bytes) -> None:
    assert read([data])[0] == "refused"
    if len(data) < 2000:
        assert read(octets(data))[0] == "refused"
        assert {read([data[:i], data[i:]])[0] for i in range(1, len(data))} == {"refused"}
    else:
        assert read([data[i : i + 997] for i in range(0, len(data), 997)])[0] == "refused"


@given(pieces(b"\r\n" + GOOD + b"hello"))
def test_cuts_do_not_change_a_head(parts: list[bytes]) -> None:
    assert read(parts) == read([b"\r\n" + GOOD + b"hello"])
    assert read(parts)[-1] == b"hello"


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
            assert (found[0].found[b"x-tenant"], found[0].length, found[1]) == (
                b"a",
                5,
                len(RESPONSE),
            )
            return


# --- against others

Said = tuple[bytes, bytes, list[tuple[bytes, bytes]]]

WORDS = [
    *(
        b"GET",
        b"POST",
        b"OPTIONS",
        b"get",
        b"PURGE",
        b" ",
        b"  ",
        b"/",
        b"/a?b#c",
        b"*",
        b"http://a",
    ),
    *(
        b"http://a/b",
        b"/\xe4",
        b"/%00",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/1.2",
        b"\r\n",
        b"\n",
        b"\r",
    ),
    *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"TE", b"X-A"),
    *(b":", b": ", b"\t", b" :", b",", b"a", b"a:80", b"5", b"05", b"+5", b"5, 5", b"chunked"),
    *(b"close", b"keep-alive", b"upgrade", b"x-a", b"trailers", b"\x00", b"\x7f", b"\xff", b"_"),
]
METHODS = st.sampled_from([b"GET", b"POST", b"OPTIONS", b"PUT", b"get", b"BREW"])
TARGETS = st.sampled_from(
    [
        b"/",
        b"/a?b=c",
        b"/a%2f..;x#y",
        b"*",
        b"http://a",
        b"HTTP://a:80/b?c",
        b'/"<>|',
        b"/\xe4",
        b"a",
    ]
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"])
LINES = st.one_of(
    st.sampled_from(
        [b"Host: a", b"Host: a", b"host:a:80", b"Content-Length: 5", b"X-A: b", b"X-A:"]
    )
    | st.sampled_from([b"content-length: 05\t", b"Transfer-Encoding: chunked", b"TE: trailers"])
    | st.sampled_from([b"Connection: close", b"Connection: x-a, Upgrade", b"Upgrade: h2c"])
    | st.sampled_from(
        [b"Expect: 100-continue", b"Keep-Alive: 5", b"Cookie: a=b; c", b"x_a: \xff\t."]
    ),
    st.builds(
        lambda name, value: name + b":" + value,
        st.text("aX-_!#~.0", min_size=1, max_size=5).map(str.encode),
        st.binary(max_size=6),
    ),
)


def join(method: bytes, target: bytes, version: bytes, lines: list[bytes]) -> bytes:
    return b"\r\n".join([b" ".join([method, target, version]), *lines, b"", b""])


GRAMMATICAL = st.builds(
    lambda method, target, version, lines: join(method, target, version, [b"Host: a", *lines]),
    METHODS,
    TARGETS,
    VERSIONS,
    st.lists(LINES, max_size=5),
)
BROKEN = st.builds(
    lambda data, at, length, word: data[: at % len(data)] + word + data[at % len(data) + length :],
    GRAMMATICAL,
    st.integers(0, 400),
    st.integers(0, 3),
    st.sampled_from(WORDS),
)
HEADS = st.one_of(
    GRAMMATICAL,
    BROKEN,
    st.lists(st.sampled_from(WORDS), max_size=20).map(lambda w: b"".join([*w, b"\r\n\r\n"])),
)


def ask_h11(data: bytes) -> Said | None:
    """Return what h11 reads; None if it refuses."""
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    peer.receive_data(data)
    try:
        event = peer.next_event()
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.Request)
    return event.method, event.target, event.headers.raw_items()


class Listener:
    """Notes what httptools tells."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True


def ask_httptools(data: bytes) -> Said | None:
    """Return what httptools (llhttp) reads; None if it refuses."""
    listener = Listener()
    parser = httptools.HttpRequestParser(listener)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    assert listener.whole
    return parser.get_method(), listener.target, listener.fields


def forwarded(said: Said) -> Said:
    """Return what a proxy that was told `said` has to pass on (RFC 9110 §7.6.1, RFC 9112 §3.2.2)."""
    method, target, fields = said
    absolute = re.fullmatch(rb"(?i:https?)://[^/?#]*(.*)", target)
    if absolute is not None:
        target = absolute[1] if absolute[1][:1] == b"/" else b"/" + absolute[1]

    def values(name: bytes) -> bytes:
        return b",".join(v for n, v in fields if n.lower() == name).lower()

    gone = {option.strip(b" \t") for option in values(b"connection").split(b",")}
    gone -= {
        b"host",
        b"content-length",
        b"authorization",
        b"cookie",
        b"close",
        b"transfer-encoding",
    }
    gone |= {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
    kept = [(n, v) for n, v in fields if n.lower() not in gone]
    return method, target, kept + ([(b"TE", b"trailers")] if b"trailers" in values(b"te") else [])


def plain(said: Said) -> Said:
    """Return `said` without what h11 changes, the case of codings, and framing as we re-make it."""
    method, target, fields = said
    framing = {b"content-length", b"transfer-encoding"}
    rest = [(n, v.lower()) for n, v in fields if n.lower() not in framing]
    rest += [
        (n.lower(), v.lstrip(b"0") or b"0" if v.isdigit() else v.lower())
        for n, v in fields
        if n.lower() in framing
    ]
    return method, target, rest


KNOWN_TO_HTTPTOOLS = {b"GET", b"POST", b"OPTIONS", b"PUT", b"PURGE"}

# What we take and a peer refuses, and why we take it.
WHERE_H11_IS_STRICTER = [
    # RFC 9112 §2.2 asks servers to let one empty line pass: old clients sent one behind a POST.
    lambda data, head: data.startswith(b"\r\n"),
    # curl and browsers' address bars send UTF-8 unescaped; nginx and HAProxy pass it on as we do.
    lambda data, head: not head.target.isascii(),
]
WHERE_HTTPTOOLS_IS_STRICTER = [
    # It knows a fixed list of methods; RFC 9110 §9.1 lets anybody define more, and a proxy has
    # nothing to do with their meaning.
    lambda data, head: head.method not in KNOWN_TO_HTTPTOOLS,
    lambda data, head: not head.target.isascii(),  # see above
]

Stricter = Sequence[Callable[[bytes, RequestHead], bool]]


def lines_of(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """Return the fields as (name as it came, value)."""
    lines = [line.partition(b":") for line in head.block.split(b"\r\n")[:-1]]
    return [(name, value.strip(b" \t")) for name, _, value in lines]


def compare(data: bytes, ask: Callable[[bytes], Said | None], stricter: Stricter) -> None:
    """Check that a peer reads `data` as we do, if we take it."""
    try:
        found = READER.request(data)
    except DownstreamError:
        return
    if found is None:
        return
    head, end = found
    said = ask(data[:end])
    if said is None:
        assert any(is_why(data, head) for is_why in stricter)
    else:
        assert plain((head.method, head.target, lines_of(head))) == plain(forwarded(said))


@settings(max_examples=400)
@given(HEADS)
@example(LINE + b"Host: a\r\nX-A: \x80\tb \r\n\r\n")
def test_what_we_take_h11_takes_and_reads_the_same(data: bytes) -> None:
    compare(data, ask_h11, WHERE_H11_IS_STRICTER)


@settings(max_examples=400)
@given(HEADS)
@example(b"\r\n" + LINE + b"Host: a\r\n\r\n")
def test_what_we_take_httptools_takes_and_reads_the_same(data: bytes) -> None:
    compare(data, ask_httptools, WHERE_HTTPTOOLS_IS_STRICTER)


@settings(max_examples=400)
@given(HEADS)
def test_h11_ends_the_message_where_we_do(data: bytes) -> None:
    try:
        found = READER.request(data)
    except DownstreamError:
        return
    if found is None or ask_h11(data[: found[1]]) is None:
        return
    head, end = found
    if head.length is not None and head.length > 1000:
        return
    body = b"1\r\nx\r\n0\r\n\r\n" if head.chunked else b"x" * (head.length or 0)
    behind = b"GET /behind HTTP/1.1\r\n"
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data[:end] + body + behind)
    while not isinstance(peer.next_event(), h11.EndOfMessage):
        pass
    assert peer.trailing_data[0] == behind


@settings(max_examples=400)
@given(HEADS, st.data())
def test_cuts_do_not_change_whether_and_how_a_head_is_read(data: bytes, how: st.DataObject) -> None:
    assert say_the_same(read(how.draw(pieces(data))), read([data]))
