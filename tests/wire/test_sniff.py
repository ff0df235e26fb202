import pytest
from hypothesis import given, strategies as st

from sidecar.wire.sniff import (
    HTTP1,
    HTTP2,
    MAX_METHOD,
    MAX_REQUEST_LINE,
    NEED_MORE,
    OTHER,
    TLS,
    sniff,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UNKNOWN = b"FROB "  # a method nobody knows

TABLE = [
    (b"", NEED_MORE),
    # TLS
    (b"\x16", NEED_MORE),
    (b"\x16\x03", NEED_MORE),
    (b"\x16\x03\x01\x02\x00", NEED_MORE),
    (b"\x16\x03\x01\x02\x00\x01", TLS),
    (b"\x16\x03\x03\x00\x05\x01\x00", TLS),
    (b"\x16\x03\x01\x02\x00\x02", OTHER),  # a server's hello
    (b"\x16\x02", OTHER),
    (b"\x15\x03\x01\x00\x02\x01", OTHER),  # an alert
    (b"\x80\x2e\x01\x03\x01", OTHER),  # SSL 2
    # HTTP/2
    (b"P", NEED_MORE),
    (b"PRI", NEED_MORE),
    (PREFACE[:-1], NEED_MORE),
    (PREFACE, HTTP2),
    (PREFACE + b"\x00\x00\x12\x04", HTTP2),
    (PREFACE[:-4] + b"XX\r\n", OTHER),
    (b"\r\n" + PREFACE, OTHER),  # the preface has to come first
    (b"PRI * HTTP/1.1\r\n", HTTP1),
    (b"PRINT /x HTTP/1.1\r\n", HTTP1),
    # HTTP/1, methods everybody knows
    (b"G", NEED_MORE),
    (b"GET", NEED_MORE),
    (b"GET ", HTTP1),
    (b"POST ", HTTP1),
    (b"POST /x HTTP/1.1\r\n", HTTP1),
    (b"PUT ", HTTP1),
    (b"CONNECT a:1", HTTP1),
    (b"PROPFIND /", HTTP1),
    # one empty line before it
    (b"\r", NEED_MORE),
    (b"\r\n", NEED_MORE),
    (b"\r\nGET", NEED_MORE),
    (b"\r\nGET ", HTTP1),
    (b"\r\nFROB / HTTP/1.1\r\n", HTTP1),
    (b"\r\n\r\nGET ", OTHER),
    (b"\rGET ", OTHER),
    (b"\nGET ", OTHER),
    # methods nobody knows
    (b"FROB", NEED_MORE),
    (UNKNOWN, NEED_MORE),
    (b"FROB / HTTP/1", NEED_MORE),
    (b"FROB / HTTP/1.", HTTP1),
    (b"M-SEARCH * HTTP/1.1\r\n", HTTP1),
    (b"FROB / HTTP/2.0\r\n", OTHER),
    (b"FROB /\r\nx HTTP/1.1\r\n", OTHER),
    (b"X" * MAX_METHOD, NEED_MORE),
    (b"X" * MAX_METHOD + b" / HTTP/1.1", HTTP1),
    (b"X" * (MAX_METHOD + 1), OTHER),
    (UNKNOWN + b"x" * (MAX_REQUEST_LINE - len(UNKNOWN) - 1), NEED_MORE),
    (UNKNOWN + b"x" * (MAX_REQUEST_LINE - len(UNKNOWN)), OTHER),
    (UNKNOWN + b"x" * MAX_REQUEST_LINE + b" HTTP/1.1\r\n", OTHER),
    # something else
    (b" GET / HTTP/1.1", OTHER),
    (b"get / HTTP/1.1", OTHER),
    (b"EHLO example.org\r\n", OTHER),
    (b"SSH-2.0-OpenSSH_9.6\r\n", OTHER),
    (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", OTHER),  # PostgreSQL asks for TLS
    (b"*1\r\n$4\r\nPING\r\n", OTHER),  # Redis
]


@pytest.mark.parametrize(("data", "kind"), TABLE)
def test_the_first_octets_tell_the_protocol(data: bytes, kind: int) -> None:
    assert sniff(data) == kind


WORDS = [
    b"\r\n",
    b"\r",
    b"PRI",
    b" ",
    b"* HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET",
    b"FROB",
    b"/",
    b"\n",
]
STREAMS = st.one_of(
    st.sampled_from([data for data, _ in TABLE]),
    st.lists(st.sampled_from([*WORDS, b" HTTP/1.1", b"\x16", b"\x03", b"\x01"])).map(b"".join),
    st.binary(max_size=40),
)


@given(STREAMS, st.binary(max_size=30))
def test_more_octets_never_change_what_was_said(start: bytes, more: bytes) -> None:
    said = sniff(start)

    assert said == NEED_MORE or sniff(start + more) == said


@given(STREAMS)
def test_the_first_thing_said_is_the_same_in_one_piece_or_octet_by_octet(stream: bytes) -> None:
    said = [sniff(stream[:end]) for end in range(len(stream) + 1)]

    assert next((kind for kind in said if kind != NEED_MORE), NEED_MORE) == sniff(stream)
